"""From bytes to an upright RGB image, or one clear error."""

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

from ..errors import ImageError
from ..timing import Clock
from .fetch import open_bytes
from .header import needed_bytes, open_image
from .urls import display_name

LOG = logging.getLogger(__name__)
FULL_SCALES = (1, 255, 65535)
"""What white may be in float images."""
OVERSHOOT = 2
"""How many times brighter than white the brightest pixel may be, as resampling and sharpening make them."""


@dataclass(frozen=True)
class DecodedImage:
    """One image as a viewer would show it.

    Attributes:
        image: upright, mode RGB.
        format: Pillow's name of the file's format, or None if it came from memory.
        icc_profile: the color profile that the pixels are in, or None.
    """

    image: Image.Image
    format: str | None = None
    icc_profile: bytes | None = None


@dataclass(frozen=True, eq=False)
class ImageFile:
    """An image whose header has been read, but not its pixels.

    Attributes:
        name: what messages call it.
        needed_bytes: about the most memory that it takes from decoding to saving an annotated copy.
        decode: gives the image, once; raises `ImageError`.
    """

    name: str
    needed_bytes: int
    decode: Callable[[], DecodedImage]


def open_image_file(path: str | os.PathLike[str], clock: Clock | None = None) -> ImageFile:
    """Open an image file and read its header.

    Args:
        path: a file's path, or an URL as `https://host/a.jpg` or `s3://bucket/a.jpg`.
        clock: is told what reading and decoding take.

    Raises:
        ImageError: the file is missing, unreadable, no image, or has too many pixels.
    """
    location, timed = os.fspath(path), clock or Clock()
    name = display_name(location)
    with timed.timing("read"):
        file = open_bytes(location)
    try:
        with _said_of(name), timed.timing("decode"):
            image = open_image(file, name)
    except BaseException:
        file.close()
        raise

    def decode() -> DecodedImage:
        with _said_of(name), timed.timing("decode"), file, image:
            return DecodedImage(_upright_rgb(image, name), image.format, _profile(image))

    return ImageFile(name, needed_bytes(image), decode)


def read_image(path: str | os.PathLike[str], clock: Clock | None = None) -> DecodedImage:
    """Read an image: its first frame, EXIF orientation applied, transparency over white, 16 bits scaled to 8.

    Args:
        path: a file's path, or an URL as `https://host/a.jpg` or `s3://bucket/a.jpg`.
        clock: is told what reading and decoding take.

    Raises:
        ImageError: the file is missing, unreadable, no image, damaged or far too large.
    """
    return open_image_file(path, clock).decode()


def from_pillow(image: Image.Image) -> ImageFile:
    """Take a Pillow image of any mode; its own file, if it was opened lazily, is read when it is decoded."""
    name = os.fspath(getattr(image, "filename", "")) or "a Pillow image"

    def decode() -> DecodedImage:
        with _said_of(name):
            return DecodedImage(_upright_rgb(image, name))

    return ImageFile(name, needed_bytes(image), decode)


@contextmanager
def pixel_limit(most: int | None) -> Iterator[None]:
    """Refuse images of more pixels than this as long as the block lasts, in all threads; None leaves Pillow's limit."""
    before = Image.MAX_IMAGE_PIXELS
    if most is not None:
        Image.MAX_IMAGE_PIXELS = most / 2  # type: ignore[assignment]  # Pillow warns from there on, and refuses twice it
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


@contextmanager
def _said_of(name: str) -> Iterator[None]:
    """Turn whatever goes wrong with an image into an `ImageError`."""
    name = display_name(name)
    try:
        yield
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        pixels, most, *_ = re.findall(r"\d+", str(error))
        raise ImageError(
            f"{name}: too many pixels ({pixels}; the limit is {most}); cut it into smaller images or raise the limit",
            "too large",
        ) from None
    except MemoryError:
        raise ImageError(f"{name}: too large for this machine's memory", "too large") from None
    except OSError as error:
        reason = error.strerror.lower() if error.strerror else f"damaged image ({error})"
        raise ImageError(f"{name}: {reason}", "unreadable" if error.strerror else "damaged") from error
    except Exception as error:  # decoders fail on damaged files in many ways of their own: ValueError, SyntaxError, …
        raise ImageError(f"{name}: damaged image ({_one_line(error)})") from error


def _upright_rgb(image: Image.Image, name: str) -> Image.Image:
    """The first frame of any Pillow image as a viewer shows it, mode RGB; no copy where it is so already."""
    image.load()
    if (turn := _TURNS.get(_orientation(image))) is not None:
        image = image.transpose(turn)
    if image.mode == "RGB" and "transparency" not in image.info:
        # decoders of animations keep their canvases for as long as the image lives
        return image.copy() if image.format in ("WEBP", "AVIF") else image
    if image.mode.startswith("I;16"):
        return _from_grey(np.asarray(image) >> 8)
    if image.mode == "I":
        return _from_grey(np.asarray(image).clip(0, 65535) >> 8)
    if image.mode == "F":
        return _from_float(np.array(image), name)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def from_array(pixels: NDArray[np.uint8]) -> ImageFile:
    """Take an RGB array (H, W, 3) uint8.

    Raises:
        ImageError: another shape or dtype.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ImageError(f"an array must be RGB, (height, width, 3) of uint8; this is {pixels.shape} of {pixels.dtype}")
    image = Image.fromarray(pixels)
    return ImageFile("an array", needed_bytes(image), lambda: DecodedImage(image))


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What stands an image upright, by its orientation in EXIF; all others stand so."""


def _orientation(image: Image.Image) -> Any:
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged EXIF data spoils the orientation, not the image
        return None


def _from_grey(values: NDArray[np.generic]) -> Image.Image:
    return Image.fromarray(values.astype(np.uint8)).convert("RGB")


def _from_float(values: NDArray[np.float32], name: str) -> Image.Image:
    """Grey from values that are changed: 0 is black, and white the least of `FULL_SCALES` that fits, else the greatest.

    NaN and what lies below 0 become black, infinity white.
    """
    greatest = float(values.max(initial=0, where=np.isfinite(values)))
    white = next((one for one in FULL_SCALES if greatest <= OVERSHOOT * one), greatest)
    LOG.info("%s: float values up to %g, read as black 0 to white %g", name, greatest, white)
    with np.errstate(over="ignore"):
        values *= np.float32(255 / white)
    np.nan_to_num(values, copy=False, nan=0, posinf=255, neginf=0)
    return _from_grey(values.clip(0, 255, out=values))


def _profile(image: Image.Image) -> bytes | None:
    profile = image.info.get("icc_profile")
    return profile if isinstance(profile, bytes) and image.mode in ("RGB", "RGBA", "P") else None


def _one_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
