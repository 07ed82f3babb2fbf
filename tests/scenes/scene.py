"""One rendered scene: an image and what is in it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .layout import Floats, arrange
from .paint import paint

FIRST_OF_VAL = 2**31
"""Where the indices of the scenes for validation start; those for training lie below."""


@dataclass(frozen=True)
class Scene:
    """An image and what is in it.

    Attributes:
        image: RGB.
        boxes: (N, 4) x1, y1, x2, y2 in pixels, around the part of each object that can be seen.
        labels: (N,) indices into `CLASSES`.
    """

    image: Image.Image
    boxes: Floats
    labels: NDArray[np.int64]


def scene(seed: int, index: int) -> Scene:
    """The scene of a number: always the same for the same numbers.

    Args:
        seed: which series of scenes, 0 or more.
        index: which scene of the series, from 0 to below 2**32.
    """
    layout = arrange(seed, index)
    (rng,) = np.random.default_rng((seed, index)).spawn(1)
    labels = np.array([item.label for item in layout.items], np.int64)
    return Scene(paint(rng, layout), layout.boxes(), labels)
