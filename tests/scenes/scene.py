"""Rendered scene: an image and its objects."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .layout import Floats, arrange
from .paint import paint

FIRST_OF_VAL = 2**31
"""First index of validation scenes; those of training scenes are smaller."""


@dataclass(frozen=True)
class Scene:
    """Image and its objects.

    Attributes:
        image: RGB image.
        boxes: (N, 4) x1, y1, x2, y2 in pixels, around the visible part of each object.
        labels: (N,) indices into `CLASSES`.
    """

    image: Image.Image
    boxes: Floats
    labels: NDArray[np.int64]


def scene(seed: int, index: int) -> Scene:
    """Render a scene, which depends only on its two numbers.

    Args:
        seed: number of a series of scenes, 0 or more.
        index: number of the scene in the series, from 0 to 2**32 - 1.
    """
    layout = arrange(seed, index)
    (rng,) = np.random.default_rng((seed, index)).spawn(1)
    labels = np.array([item.label for item in layout.items], np.int64)
    return Scene(paint(rng, layout), layout.boxes(), labels)
