"""Upright size of an image, read from its header without decoding pixels."""

import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from PIL import ExifTags, Image

from ..errors import ImageError
from ..files import open_file
from .header import NEEDS_HEIF, open_image

SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""
METADATA = (b"eXIf", b"iTXt", b"tEXt", b"zTXt")
"""PNG chunks that can hold an orientation."""


class UprightSize(NamedTuple):
    """Size of an image as a viewer shows it.

    Attributes:
        width: in pixels.
        height: in pixels.
        turned: whether the EXIF orientation swaps width and height.
    """

    width: int
    height: int
    turned: bool = False


def upright_size(path: Path) -> UprightSize | None:
    """Return the size of an image with its EXIF orientation applied, or None if it cannot be opened.

    Raises:
        ImageError: of kind `NEEDS_HEIF` if pillow-heif is not installed.
    """
    try:
        with open_file(path) as file, open_image(file, str(path)) as image:
            width, height = image.size
            # Pillow reports TIFF sizes upright
            sideways = image.format != "TIFF" and _orientation(image, path) in SIDEWAYS
    except Exception as error:  # decoders fail on damaged files in many ways
        if isinstance(error, ImageError) and error.kind == NEEDS_HEIF:
            raise
        return None
    return UprightSize(height, width, turned=True) if sideways else UprightSize(width, height)


def _orientation(image: Image.Image, path: Path) -> object:
    with suppress(Exception):  # damaged EXIF data spoils the orientation, not the image
        if image.format != "PNG":
            return image.getexif().get(ExifTags.Base.Orientation)
        if _metadata_follows_pixels(path):
            image.load()
        exif = Image.Image.getexif(image)  # PngImageFile.getexif would always decode the pixels
        return exif.get(ExifTags.Base.Orientation)
    return None


def _metadata_follows_pixels(path: Path) -> bool:
    pixels = False
    with path.open("rb") as file:
        file.seek(8)
        while len(header := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", header)
            if pixels and kind in METADATA:
                return True
            if kind == b"IEND":
                return False
            pixels |= kind == b"IDAT"
            file.seek(length + 4, os.SEEK_CUR)
    return False
