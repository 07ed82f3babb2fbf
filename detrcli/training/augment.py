"""From an annotated image to what the network learns from."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from ..checkpoints.preprocessing import Preprocessing
from .matcher import Target

Transform: TypeAlias = v2.Transform | v2.Compose

SMALLEST = 2
"""Pixels that either side of a box must have to count."""
SMALLEST_CUT = 0.4
"""Share of either side of an image that is left when a part is cut out."""


@dataclass(frozen=True)
class Augmentation:
    """How images are varied, box-aware.

    Attributes:
        crops: cut a part out, or put the image into a larger grey one.
        colors: shift brightness, contrast, saturation and hue.
        any_orientation: turn and mirror at will, for images that have no up; otherwise mirror sideways only.
    """

    crops: bool = True
    colors: bool = True
    any_orientation: bool = False

    def recolor(self) -> Transform:
        """The variation of colors, of an image alone."""
        return v2.RandomApply([v2.ColorJitter(0.3, 0.3, 0.3, 0.05)], p=0.8) if self.colors else v2.Identity()

    def move(self) -> Transform:
        """The variation of shape and place, as one transform of an image and its boxes."""
        steps: list[v2.Transform] = []
        if self.crops:
            enlarge = v2.RandomZoomOut(fill=128, side_range=(1, 1.6), p=1)
            steps.append(v2.RandomChoice([v2.Identity(), enlarge, _cut], p=[0.4, 0.2, 0.4]))
        steps.append(v2.RandomHorizontalFlip())
        if self.any_orientation:
            steps.append(v2.RandomVerticalFlip())
            steps.append(v2.RandomChoice([v2.Identity(), v2.RandomRotation((90, 90), expand=True)]))
        return v2.Compose([*steps, v2.SanitizeBoundingBoxes(min_size=SMALLEST)])


def _cut(image: Image.Image, objects: dict[str, Tensor]) -> Any:
    """Cut a part out around some object; an image without one, or too thin to cut, stays whole."""
    whole = not len(objects["boxes"]) or min(image.size) * SMALLEST_CUT < 1
    return (image, objects) if whole else v2.RandomIoUCrop(min_scale=SMALLEST_CUT)(image, objects)


def annotated(image: Image.Image, boxes: Tensor, labels: Tensor) -> tuple[Image.Image, dict[str, Tensor]]:
    """An image and its boxes (N, 4) as x1, y1, x2, y2 in pixels, as the transforms take them."""
    size = (image.height, image.width)
    return image, {
        "boxes": tv_tensors.BoundingBoxes(boxes, format=tv_tensors.BoundingBoxFormat.XYXY, canvas_size=size),
        "labels": labels,
    }


def normalised(image: Image.Image, rules: Preprocessing) -> Tensor:
    """Pixels (3, H, W) of a resized RGB image as the network takes them."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (rules.mean, rules.std))
    return torch.as_tensor((functional.pil_to_tensor(image).float() * rules.scale - mean) / std)


def as_target(image: Image.Image, objects: dict[str, Tensor]) -> Target:
    """The objects of an image with their boxes as relative cx, cy, w, h."""
    boxes = objects["boxes"].as_subclass(Tensor) / torch.tensor([image.width, image.height] * 2)
    return Target(objects["labels"], torch.cat(((boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]), dim=1))
