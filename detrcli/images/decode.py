"""From bytes to an upright RGB picture, or one clear error."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from ..clock import Clock
from ..errors import ImageError
from .fetch import opened, shown


@dataclass(frozen=True)
class Picture:
    """One picture as a viewer would show it.

    Attributes:
        image: upright, mode RGB.
        format: Pillow's name of the file's format, or None if it came from memory.
        icc_profile: the colour profile that the pixels are in, or None.
    """

    image: Image.Image
    format: str | None = None
    icc_profile: bytes | None = None


def read_picture(path: str | os.PathLike[str], clock: Clock | None = None) -> Picture:
    """Read a picture: its first frame, EXIF orientation applied, transparency over white, 16 bits scaled to 8.

    Args:
        path: a file's path, or an address as `https://host/a.jpg` or `s3://bucket/a.jpg`.
        clock: is told what reading and decoding take.

    Raises:
        ImageError: the file is missing, unreadable, no picture, damaged or far too large.
    """
    name, clock = os.fspath(path), clock or Clock()
    with clock.timing("read"):
        opened_file = opened(name)
    with _said_of(name), clock.timing("decode"), opened_file as file, Image.open(file) as image:
        return Picture(upright_rgb(image), image.format, _profile(image))


def from_pillow(image: Image.Image) -> Picture:
    """Take a Pillow image of any mode as a picture.

    Raises:
        ImageError: its file, which may not have been read yet, is damaged or far too large.
    """
    with _said_of(os.fspath(getattr(image, "filename", "")) or "a Pillow image"):
        return Picture(upright_rgb(image))


@contextmanager
def _said_of(name: str) -> Iterator[None]:
    """Turn whatever goes wrong with a picture into an `ImageError`."""
    name = shown(name)
    try:
        yield
    except UnidentifiedImageError:
        raise ImageError(f"{name}: not a picture, or of a format that cannot be read here", "not a picture") from None
    except Image.DecompressionBombError:
        raise ImageError(
            f"{name}: far too many pixels (a decompression bomb?); cut it into smaller pictures", "too large"
        ) from None
    except MemoryError:
        raise ImageError(f"{name}: too large for this machine's memory", "too large") from None
    except OSError as error:
        reason = error.strerror.lower() if error.strerror else f"damaged picture ({error})"
        raise ImageError(f"{name}: {reason}", "unreadable" if error.strerror else "damaged") from error
    except Exception as error:  # decoders fail on damaged files in many ways of their own: ValueError, SyntaxError, …
        raise ImageError(f"{name}: damaged picture ({_one_line(error)})") from error


def upright_rgb(image: Image.Image) -> Image.Image:
    """The first frame of any Pillow image as a viewer shows it, mode RGB; the very image if it is so already."""
    image.load()
    if (turn := _TURNS.get(_orientation(image))) is not None:
        image = image.transpose(turn)
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16"):
        return _from_grey(np.asarray(image) >> 8)
    if image.mode == "I":
        return _from_grey(np.asarray(image).clip(0, 65535) >> 8)
    if image.mode == "F":
        grey = np.nan_to_num(np.asarray(image))
        return _from_grey((grey * 255 if grey.max(initial=0) <= 1 else grey).clip(0, 255))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def from_array(pixels: NDArray[np.uint8]) -> Picture:
    """Take an RGB array (H, W, 3) uint8 as a picture.

    Raises:
        ImageError: another shape or dtype.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ImageError(f"an array must be RGB, (height, width, 3) of uint8; this is {pixels.shape} of {pixels.dtype}")
    return Picture(Image.fromarray(pixels))


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What stands a picture upright, by its orientation in EXIF; all others stand so."""


def _orientation(image: Image.Image) -> Any:
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged EXIF data spoils the orientation, not the picture
        return None


def _from_grey(values: NDArray[np.generic]) -> Image.Image:
    return Image.fromarray(values.astype(np.uint8)).convert("RGB")


def _profile(image: Image.Image) -> bytes | None:
    profile = image.info.get("icc_profile")
    return profile if isinstance(profile, bytes) and image.mode in ("RGB", "RGBA", "P") else None


def _one_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
