"""What an image file's header says, of formats alone whose decoders run no program and open no other file."""

import io
import os
from typing import IO

from PIL import Image, UnidentifiedImageError

from ..errors import ImageError

FORMATS = (
    *("JPEG", "PNG", "GIF", "BMP", "DIB", "PPM"),  # which Pillow knows before it loads all of its plugins
    *("WEBP", "AVIF", "TIFF", "JPEG2000", "ICO", "PCX", "PSD", "QOI", "SGI"),
    "TGA",  # has no signature, so it comes last
)
"""What Pillow may take a file for. Any other, such as EPS, would start a program or open further files."""
NOT_READ = (
    (b"%!PS", "EPS and PostScript are"),
    (b"\xc5\xd0\xd3\xc6", "EPS is"),
    (b"%PDF", "PDF is"),
    (b"<svg", "SVG is"),
    (b"\xff\x0a", "JPEG XL is"),
    (b"\0\0\0\x0cJXL ", "JPEG XL is"),
)
"""How files of formats begin that people take for images."""
NEEDS_HEIF = "needs pillow-heif"
"""The kind of error for HEIC images where pillow-heif is not installed."""
INSTALL_HEIF = "pip install 'detrcli[heif]'"
HEIF_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"))
AVIF_BRANDS = frozenset((b"avif", b"avis"))
BYTES_PER_PIXEL = {"JPEG": 10, "MPO": 10, "WEBP": 24, "AVIF": 36, "GIF": 36, "JPEG2000": 48}
"""Memory that decoding, annotating and encoding take at once, as measured with Pillow 13."""
USUAL_BYTES_PER_PIXEL = 16
"""The same of all other formats."""
BYTES_PER_SIDE = 32
"""Memory for each row and column: the weights that resizing needs."""


def open_image(file: IO[bytes], name: str) -> Image.Image:
    """Open an image file that can seek; closing it is left to the caller.

    Args:
        file: its bytes.
        name: of the file, for messages.

    Raises:
        ImageError: its format is not read, or its header cannot be true.
        Exception: as Pillow does for damaged files and for those with too many pixels.
    """
    start = file.read(64)
    file.seek(0)
    if _is_heif(start):
        return _open_heif(file, name)
    try:
        image = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        raise ImageError(f"{name}: {_what_it_is(start)}", "not an image") from None
    if image.format in ("JPEG", "MPO"):
        _check_that_it_can_be_whole(image, file, name)
    return image


def needed_bytes(image: Image.Image) -> int:
    """About the most memory that decoding, resizing, annotating and encoding an image take at once."""
    width, height = image.size
    each = BYTES_PER_PIXEL.get(image.format or "", USUAL_BYTES_PER_PIXEL)
    return width * height * each + (width + height) * BYTES_PER_SIDE


def _is_heif(start: bytes) -> bool:
    if start[4:8] != b"ftyp":
        return False
    end = min(int.from_bytes(start[:4]), len(start))
    brands = {start[at : at + 4] for at in (8, *range(16, end, 4))}
    return bool(brands & HEIF_BRANDS) and not brands & AVIF_BRANDS


def _open_heif(file: IO[bytes], name: str) -> Image.Image:
    try:
        from pillow_heif import HeifImageFile  # used as it is: registered with Pillow, it would read for others, too
    except ImportError:
        raise ImageError(f"{name}: HEIC needs pillow-heif: {INSTALL_HEIF}", NEEDS_HEIF) from None
    image: Image.Image = HeifImageFile(file)
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > 2 * limit:  # as Pillow checks what it opens itself
        raise Image.DecompressionBombError(f"{image.width * image.height} pixels exceed the limit of {int(2 * limit)}")
    return image


def _what_it_is(start: bytes) -> str:
    if start[4:8] == b"ftyp" and start[8:12] in AVIF_BRANDS:
        return "AVIF needs Pillow 11.3 or later"
    known = next((what for signature, what in NOT_READ if start.startswith(signature)), None)
    return f"{known} not read; convert it to PNG or JPEG" if known else "not an image, or of a format that is not read"


def _check_that_it_can_be_whole(image: Image.Image, file: IO[bytes], name: str) -> None:
    """A JPEG has at least a bit for each block of 8 × 8 pixels; where data end early, decoders fill up with grey."""
    place = file.tell()
    length = file.seek(0, io.SEEK_END)
    file.seek(place, os.SEEK_SET)
    if length * 8 < image.width * image.height // 64:
        raise ImageError(
            f"{name}: damaged image ({length} bytes are too few for {image.width} × {image.height} pixels)"
        )
