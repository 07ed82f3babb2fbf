"""Opening images, restricted to formats whose decoders run no program and open no other file."""

import io
from typing import IO

from PIL import Image, UnidentifiedImageError

from ..errors import ImageError

FORMATS = (
    *("JPEG", "PNG", "GIF", "BMP", "DIB", "PPM"),  # which Pillow knows before loading all plugins
    *("WEBP", "AVIF", "TIFF", "JPEG2000", "ICO", "PCX", "PSD", "QOI", "SGI"),
    "TGA",  # last, because it has no signature
)
"""Formats that Pillow may try. Others, such as EPS, would start a program or open further files."""
UNSUPPORTED = (
    (b"%!PS", "EPS and PostScript are"),
    (b"\xc5\xd0\xd3\xc6", "EPS is"),
    (b"%PDF", "PDF is"),
    (b"<svg", "SVG is"),
    (b"\xff\x0a", "JPEG XL is"),
    (b"\0\0\0\x0cJXL ", "JPEG XL is"),
)
"""First bytes of unsupported formats, for error messages."""
NEEDS_HEIF = "needs pillow-heif"
"""Kind of the error for HEIC images if pillow-heif is not installed."""
INSTALL_HEIF = "pip install 'detrcli[heif]'"
HEIF_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"))
AVIF_BRANDS = frozenset((b"avif", b"avis"))
BYTES_PER_PIXEL = {"JPEG": 10, "MPO": 10, "WEBP": 24, "AVIF": 36, "GIF": 36, "JPEG2000": 48}
"""Peak memory of decoding, annotating and encoding, measured with Pillow 13."""
DEFAULT_BYTES_PER_PIXEL = 16
"""The same for all other formats."""
BYTES_PER_SIDE = 32
"""Memory per row and column for the filter weights of resizing."""


def open_image(file: IO[bytes], name: str) -> Image.Image:
    """Open an image from a seekable file, which the caller closes.

    Args:
        file: the contents.
        name: name for error messages.

    Raises:
        ImageError: the format is not supported, or the header cannot be right.
        Exception: errors of Pillow for damaged files and for too many pixels.
    """
    start = file.read(64)
    file.seek(0)
    if _is_heif(start):
        return _open_heif(file, name)
    try:
        image = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        raise ImageError(f"{name}: {_describe(start)}", "not an image") from None
    if image.format in ("JPEG", "MPO"):
        _check_jpeg_length(image, file, name)
    return image


def needed_bytes(image: Image.Image) -> int:
    """Estimate the peak memory of decoding, resizing, annotating and encoding an image."""
    width, height = image.size
    each = BYTES_PER_PIXEL.get(image.format or "", DEFAULT_BYTES_PER_PIXEL)
    return width * height * each + (width + height) * BYTES_PER_SIDE


def _is_heif(start: bytes) -> bool:
    if start[4:8] != b"ftyp":
        return False
    end = min(int.from_bytes(start[:4]), len(start))
    brands = {start[at : at + 4] for at in (8, *range(16, end, 4))}
    return bool(brands & HEIF_BRANDS) and not brands & AVIF_BRANDS


def _open_heif(file: IO[bytes], name: str) -> Image.Image:
    try:
        from pillow_heif import HeifImageFile  # not registered with Pillow, which would affect other code
    except ImportError:
        raise ImageError(f"{name}: HEIC needs pillow-heif: {INSTALL_HEIF}", NEEDS_HEIF) from None
    image: Image.Image = HeifImageFile(file)
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > 2 * limit:  # the check of Image.open
        raise Image.DecompressionBombError(f"{image.width * image.height} pixels exceed the limit of {int(2 * limit)}")
    return image


def _describe(start: bytes) -> str:
    if start[4:8] == b"ftyp" and start[8:12] in AVIF_BRANDS:
        return "AVIF needs Pillow 11.3 or later"
    known = next((name for signature, name in UNSUPPORTED if start.startswith(signature)), None)
    return f"{known} not supported; convert it to PNG or JPEG" if known else "not an image, or in an unsupported format"


def _check_jpeg_length(image: Image.Image, file: IO[bytes], name: str) -> None:
    """Refuse a JPEG with less than a bit per block of 8 × 8 pixels; decoders would fill the rest with gray."""
    position = file.tell()
    length = file.seek(0, io.SEEK_END)
    file.seek(position)
    if length * 8 < image.width * image.height // 64:
        raise ImageError(
            f"{name}: damaged image ({length} bytes are too few for {image.width} × {image.height} pixels)"
        )
