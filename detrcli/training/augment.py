"""Box-aware augmentation of annotated images."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from ..checkpoints.preprocessing import Preprocessing
from ..images.resize import Pixels
from ..models.boxes import xyxy_to_cxcywh
from .matcher import Target

Transform: TypeAlias = v2.Transform | v2.Compose

MIN_BOX_SIZE = 2
"""Side in pixels below which a box is dropped after augmentation."""
MIN_CROP = 0.4
"""Smallest side of a crop, relative to that of the image."""


@dataclass(frozen=True)
class Augmentation:
    """Random variation of images.

    Attributes:
        random_crop: crop the image, or pad it with gray.
        color_jitter: change brightness, contrast, saturation and hue.
        rotate_flip: rotate by 90° and flip in all directions instead of flipping horizontally only.
    """

    random_crop: bool = True
    color_jitter: bool = True
    rotate_flip: bool = False

    def color(self) -> Transform:
        """Return the transform of the colors of an image."""
        return v2.RandomApply([v2.ColorJitter(0.3, 0.3, 0.3, 0.05)], p=0.8) if self.color_jitter else v2.Identity()

    def geometry(self) -> Transform:
        """Return the joint transform of an image and its boxes."""
        steps: list[v2.Transform] = []
        if self.random_crop:
            zoom_out = v2.RandomZoomOut(fill=128, side_range=(1, 1.6), p=1)
            steps.append(v2.RandomChoice([v2.Identity(), zoom_out, _crop], p=[0.4, 0.2, 0.4]))
        steps.append(v2.RandomHorizontalFlip())
        if self.rotate_flip:
            steps.append(v2.RandomVerticalFlip())
            steps.append(v2.RandomChoice([v2.Identity(), v2.RandomRotation((90, 90), expand=True)]))
        return v2.Compose([*steps, v2.SanitizeBoundingBoxes(min_size=MIN_BOX_SIZE)])


def _crop(image: Image.Image, objects: dict[str, Tensor]) -> Any:
    """Crop around some object; an image without objects, or too thin to crop, is left as it is."""
    uncropped = not len(objects["boxes"]) or min(image.size) * MIN_CROP < 1
    return (image, objects) if uncropped else v2.RandomIoUCrop(min_scale=MIN_CROP)(image, objects)


def transform_input(image: Image.Image, boxes: Tensor, labels: Tensor) -> tuple[Image.Image, dict[str, Tensor]]:
    """Return an image and its boxes (N, 4), x1, y1, x2, y2 in pixels, in the form that the transforms take."""
    size = (image.height, image.width)
    return image, {
        "boxes": tv_tensors.BoundingBoxes(boxes, format=tv_tensors.BoundingBoxFormat.XYXY, canvas_size=size),
        "labels": labels,
    }


def to_tensor(pixels: Pixels) -> Tensor:
    """Convert a resized image to values (3, H, W) in 0…1, which can be jittered without rounding."""
    return torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.float32, order="C")) / 255


def normalize(image: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Return the normalized pixels of an image (3, H, W) in 0…1."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (preprocessing.mean, preprocessing.std))
    return (image * (255 * preprocessing.scale) - mean) / std


def make_target(image: Image.Image, objects: dict[str, Tensor]) -> Target:
    """Return the objects of a transformed image with boxes as relative cx, cy, w, h."""
    boxes = objects["boxes"].as_subclass(Tensor) / torch.tensor([image.width, image.height] * 2)
    return Target(objects["labels"], xyxy_to_cxcywh(boxes))
