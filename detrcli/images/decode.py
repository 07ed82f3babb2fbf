"""Decoding: from bytes to an upright RGB image, or one clear error."""

import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from ..errors import ImageError, one_line
from ..timing import Clock
from .fetch import open_bytes
from .header import needed_bytes, open_image
from .urls import display_name

LOG = logging.getLogger(__name__)
FULL_SCALES = (1, 255, 65535)
"""Possible values of white in float images."""
OVERSHOOT = 2
"""Largest value in a float image relative to white; resampling and sharpening overshoot."""
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Operation that makes an image upright, by its EXIF orientation."""


@dataclass(frozen=True)
class DecodedImage:
    """Decoded image, as a viewer would show it.

    Attributes:
        image: upright image of mode RGB.
        format: Pillow's name of the file format, or None if the image is from memory.
        icc_profile: color profile of the pixels, or None.
    """

    image: Image.Image
    format: str | None = None
    icc_profile: bytes | None = None


@dataclass(frozen=True, eq=False)
class ImageFile:
    """Image whose header has been read, but not its pixels.

    Attributes:
        name: name for messages.
        needed_bytes: estimated peak memory, from decoding to saving an annotated copy.
        decode: decodes the image; may be called once, and raises `ImageError`.
    """

    name: str
    needed_bytes: int
    decode: Callable[[], DecodedImage]


def open_image_file(path: str | os.PathLike[str], clock: Clock | None = None) -> ImageFile:
    """Open an image file and read its header.

    Args:
        path: path, or URL such as `https://host/a.jpg` or `s3://bucket/a.jpg`.
        clock: records the time of reading and decoding.

    Raises:
        ImageError: the file is missing or unreadable, is not an image, or has too many pixels.
    """
    location, clock = os.fspath(path), clock or Clock()
    name = display_name(location)
    with clock.timing("read"):
        file = open_bytes(location)
    try:
        with _as_image_error(name), clock.timing("decode"):
            image = open_image(file, name)
    except BaseException:
        file.close()
        raise

    def decode() -> DecodedImage:
        with _as_image_error(name), clock.timing("decode"), file, image:
            return DecodedImage(_upright_rgb(image, name), image.format, _profile(image))

    return ImageFile(name, needed_bytes(image), decode)


def read_image(path: str | os.PathLike[str], clock: Clock | None = None) -> DecodedImage:
    """Read an image: its first frame, EXIF orientation applied, transparency over white, 16 bits scaled to 8.

    Args:
        path: path, or URL such as `https://host/a.jpg` or `s3://bucket/a.jpg`.
        clock: records the time of reading and decoding.

    Raises:
        ImageError: the file is missing or unreadable, is not an image, is damaged, or has too many pixels.
    """
    return open_image_file(path, clock).decode()


def from_pillow(image: Image.Image) -> ImageFile:
    """Wrap a Pillow image of any mode; a lazily opened file is read when the image is decoded."""
    name = os.fspath(getattr(image, "filename", "")) or "a Pillow image"

    def decode() -> DecodedImage:
        with _as_image_error(name):
            return DecodedImage(_upright_rgb(image, name))

    return ImageFile(name, needed_bytes(image), decode)


def from_array(pixels: NDArray[np.uint8]) -> ImageFile:
    """Wrap an RGB array (H, W, 3) of uint8.

    Raises:
        ImageError: the shape or dtype is another one.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ImageError(f"an array must be RGB, (height, width, 3) of uint8; this is {pixels.shape} of {pixels.dtype}")
    image = Image.fromarray(pixels)
    return ImageFile("an array", needed_bytes(image), lambda: DecodedImage(image))


@contextmanager
def pixel_limit(limit: int | None) -> Iterator[None]:
    """Limit the number of pixels of an image while the block runs, in all threads; None keeps Pillow's limit."""
    before = Image.MAX_IMAGE_PIXELS
    if limit is not None:
        Image.MAX_IMAGE_PIXELS = limit / 2  # type: ignore[assignment]  # Pillow refuses twice this value
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


@contextmanager
def _as_image_error(name: str) -> Iterator[None]:
    """Turn any exception while reading an image into an `ImageError`."""
    name = display_name(name)
    try:
        yield
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        pixels, limit, *_ = re.findall(r"\d+", str(error))
        raise ImageError(
            f"{name}: too many pixels ({pixels}; the limit is {limit}); cut it into smaller images or raise the limit",
            "too large",
        ) from None
    except MemoryError:
        raise ImageError(f"{name}: too large for this machine's memory", "too large") from None
    except OSError as error:
        reason = error.strerror.lower() if error.strerror else f"damaged image ({error})"
        raise ImageError(f"{name}: {reason}", "unreadable" if error.strerror else "damaged") from error
    except Exception as error:  # on damaged files, decoders raise ValueError, SyntaxError, …
        raise ImageError(f"{name}: damaged image ({one_line(error)})") from error


def _upright_rgb(image: Image.Image, name: str) -> Image.Image:
    """Convert the first frame of a Pillow image to what a viewer shows, in mode RGB; without a copy if possible."""
    image.load()
    if (operation := _TRANSPOSE.get(_orientation(image))) is not None:
        image = image.transpose(operation)
    if image.mode == "RGB" and "transparency" not in image.info:
        # copied because these decoders keep their canvas in memory as long as the image lives
        return image.copy() if image.format in ("WEBP", "AVIF") else image
    if image.mode.startswith("I;16"):
        return _from_gray(np.asarray(image) >> 8)
    if image.mode == "I":
        return _from_gray(np.asarray(image).clip(0, 65535) >> 8)
    if image.mode == "F":
        return _from_float(np.array(image), name)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def _orientation(image: Image.Image) -> Any:
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged EXIF data must not make the image unreadable
        return None


def _from_gray(values: NDArray[np.generic]) -> Image.Image:
    return Image.fromarray(values.astype(np.uint8)).convert("RGB")


def _from_float(values: NDArray[np.float32], name: str) -> Image.Image:
    """Convert values to gray, in place: 0 is black, white the first of `FULL_SCALES` that fits, or else the maximum.

    NaN and negative values become black, infinity white.
    """
    maximum = float(values.max(initial=0, where=np.isfinite(values)))
    white = next((scale for scale in FULL_SCALES if maximum <= OVERSHOOT * scale), maximum)
    LOG.info("%s: float values up to %g, read as black 0 to white %g", name, maximum, white)
    with np.errstate(over="ignore"):
        values *= np.float32(255 / white)
    np.nan_to_num(values, copy=False, nan=0, posinf=255, neginf=0)
    return _from_gray(values.clip(0, 255, out=values))


def _profile(image: Image.Image) -> bytes | None:
    profile = image.info.get("icc_profile")
    return profile if isinstance(profile, bytes) and image.mode in ("RGB", "RGBA", "P") else None
