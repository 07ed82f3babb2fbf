"""Supported formats, and protection from files that would start programs, exhaust memory or block."""

import ast
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import EpsImagePlugin, ExifTags, Image

import detrcli
from detrcli.errors import ImageError
from detrcli.images.decode import open_image_file, pixel_limit, read_image
from detrcli.images.header import NEEDS_HEIF
from detrcli.images.sources import SUFFIXES
from detrcli.images.upright import UprightSize, upright_size

from ..outputs.folders import encoded

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"


def coarse(width: int = 64, height: int = 48) -> Image.Image:
    pixels = np.random.default_rng(3).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST)


def error_of(path: Path | str) -> ImageError:
    with pytest.raises(ImageError) as caught:
        read_image(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert len(text.splitlines()) == 1
    return caught.value


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Record programs that are about to start, and refuse to start them."""
    programs: list[object] = []

    def refuse(*arguments: Any, **_: Any) -> None:
        programs.append(arguments)
        raise OSError("must not start a program")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.setattr(os, "system", refuse)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", "gs")  # as if Pillow had found Ghostscript
    return programs


@pytest.mark.parametrize("name", ["a.eps", "a.png", "a.jpg", "image"])
@pytest.mark.parametrize("contents", [EPS, b"\xc5\xd0\xd3\xc6" + bytes([30, 0, 0, 0, len(EPS)]) + bytes(21) + EPS])
def test_eps_contents_start_no_program(tmp_path: Path, name: str, contents: bytes, started: list[object]) -> None:
    path = tmp_path / name
    path.write_bytes(contents)
    error = error_of(path)
    assert "EPS" in str(error)
    assert "not supported" in str(error)
    assert error.kind == "not an image"
    assert upright_size(path) is None
    assert started == []


def test_eps_contents_at_a_url_start_no_program(started: list[object]) -> None:
    import fsspec

    store = fsspec.filesystem("memory")
    store.pipe("/bucket/a.png", EPS)
    try:
        assert "EPS" in str(error_of("memory://bucket/a.png"))
    finally:
        store.rm("/bucket", recursive=True)
    assert started == []


def test_only_the_header_module_calls_image_open() -> None:
    files = []
    for path in Path(detrcli.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Image.open":
                assert "formats" in [word.arg for word in node.keywords]
                files.append(path.name)
    assert files == ["header.py"]


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (b"%PDF-1.7\n", "PDF is not supported"),
        (b"<svg xmlns=''/>", "SVG is not supported"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL is not supported"),
        (b"\xd7\xcd\xc6\x9a" + bytes(40), "not an image"),  # WMF
        (b"SIMPLE  =                    T" + b" " * 50, "not an image"),  # FITS
    ],
)
def test_unsupported_formats(tmp_path: Path, start: bytes, message: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(start + bytes(1000))
    assert message in str(error_of(path))


KINDS = {
    "JPEG": ".jpg .jpeg .jpe .jfif",
    "MPO": ".mpo",
    "PNG": ".png .apng",
    "WEBP": ".webp",
    "BMP": ".bmp",
    "DIB": ".dib",
    "GIF": ".gif",
    "TIFF": ".tif .tiff",
    "AVIF": ".avif",
    "HEIF": ".heic .heif .hif",
    "JPEG2000": ".jp2 .jpx .j2k",
    "PPM": ".ppm .pgm .pbm .pnm",
    "TGA": ".tga",
    "ICO": ".ico",
    "PCX": ".pcx",
    "QOI": ".qoi",
    "SGI": ".sgi",
    "PSD": ".psd",
}


def test_suffixes_belong_to_supported_formats() -> None:
    assert {suffix for suffixes in KINDS.values() for suffix in suffixes.split()} == SUFFIXES


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"PSD", "HEIF"}))  # not written by Pillow
def test_supported_formats(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "image"
    path.write_bytes(encoded(coarse(64, 64), kind))
    decoded = read_image(path)
    assert decoded.image.size == (64, 64)
    assert upright_size(path) == UprightSize(64, 64)
    assert decoded.format == {"MPO": "JPEG"}.get(kind, kind)


def heic(image: Image.Image, **options: object) -> bytes:
    from pillow_heif import from_pillow

    buffer = io.BytesIO()
    from_pillow(image).save(buffer, quality=95, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_heic_is_upright_and_not_registered_with_pillow(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = tmp_path / "photo.jpg"
    upright = coarse()
    turn = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}.get(orientation)
    path.write_bytes(heic(upright if turn is None else upright.transpose(turn), exif=exif.tobytes()))
    decoded = read_image(path)
    assert decoded.format == "HEIF"
    assert decoded.image.size == (64, 48)
    assert np.abs(np.asarray(decoded.image).astype(int) - np.asarray(upright)).mean() < 12
    assert upright_size(path) == UprightSize(64, 48)
    assert "HEIF" not in Image.OPEN


def test_heic_without_pillow_heif(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "photo.heic"
    path.write_bytes(heic(coarse()))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    error = error_of(path)
    assert str(error) == f"{path}: HEIC needs pillow-heif: pip install 'detrcli[heif]'"
    assert error.kind == NEEDS_HEIF


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "HEIF"])
def test_pixel_limit(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "image"
    path.write_bytes(heic(coarse()) if kind == "HEIF" else encoded(coarse(), kind))
    default = Image.MAX_IMAGE_PIXELS
    with pixel_limit(64 * 48 - 1):
        error = error_of(path)
        assert "too many pixels (3072; the limit is 3071)" in str(error)
        assert error.kind == "too large"
    with pixel_limit(64 * 48):
        assert read_image(path).image.size == (64, 48)
    assert default == Image.MAX_IMAGE_PIXELS
    with pixel_limit(None):
        assert default == Image.MAX_IMAGE_PIXELS


def with_size(jpeg: bytes, width: int, height: int) -> bytes:
    """Change the size in the header of a JPEG."""
    at = next(at for marker in (b"\xff\xc0", b"\xff\xc2") if (at := jpeg.find(marker)) >= 0)
    return jpeg[: at + 5] + height.to_bytes(2) + width.to_bytes(2) + jpeg[at + 9 :]


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_with_too_little_data_for_its_size(tmp_path: Path, progressive: bool) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(with_size(encoded(coarse(64, 64), "JPEG", progressive=progressive), 13_000, 13_000))
    error = error_of(path)
    assert error.kind == "damaged"
    assert "13000 × 13000" in str(error)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpeg_of_one_color_is_not_too_small(tmp_path: Path, mode: str, progressive: bool) -> None:
    data = encoded(Image.new(mode, (4000, 3000)), "JPEG", quality=1, optimize=True, progressive=progressive)
    path = tmp_path / "image.jpg"
    path.write_bytes(data)
    assert read_image(path).image.size == (4000, 3000)


MEASURE = r"""
import re
from pathlib import Path
import numpy as np
from detrcli.detections import Detections
from detrcli.images.draw import draw, save_annotated
from detrcli.images.decode import open_image_file

def peak():
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

def annotate(name):
    file = open_image_file(name)
    image = file.decode()
    found = Detections(*(np.zeros(shape, kind) for shape, kind in (((0, 4), "f4"), (0, "f4"), (0, "i8"))), (), 8, 8)
    save_annotated(draw(image, found), image, Path("drawn"))
    return file.needed_bytes

annotate("small")
before = peak()
print(annotate("large"), peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs VmHWM in /proc")
@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF", "alpha", "float"])
def test_needed_bytes_is_an_upper_bound(tmp_path: Path, kind: str) -> None:
    for name, scale in (("small", 8), ("large", 96)):
        image = coarse(16 * scale, 12 * scale)
        if kind == "alpha":
            image = image.convert("RGBA")
        elif kind == "float":
            image = Image.fromarray(np.asarray(image.convert("L"), np.float32))
        (tmp_path / name).write_bytes(encoded(image, {"alpha": "PNG", "float": "TIFF"}.get(kind, kind)))
    run = subprocess.run([sys.executable, "-c", MEASURE], cwd=tmp_path, capture_output=True, text=True, check=True)
    estimated, used = map(int, run.stdout.split())
    assert 0 < used < estimated + 8 * 2**20  # overhead of Python and Pillow


def fifo(folder: Path) -> str:
    os.mkfifo(folder / "a.png")
    return str(folder / "a.png")


def terminal(folder: Path) -> str:
    _, end = os.openpty()
    return os.ttyname(end)


def link_to_a_terminal(folder: Path) -> str:
    (folder / "a.png").symlink_to(terminal(folder))
    return str(folder / "a.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
@pytest.mark.parametrize(
    "create", [fifo, terminal, link_to_a_terminal, lambda _: "/dev/ptmx", lambda _: "/dev/zero", lambda _: "/dev/null"]
)
def test_devices_and_named_pipes_are_refused(tmp_path: Path, create: Callable[[Path], str]) -> None:
    name = create(tmp_path)
    error = error_of(name)
    assert "not a file" in str(error)
    assert error.kind == "not a file"
    assert upright_size(Path(name)) is None


@pytest.mark.skipif(not os.path.isdir("/dev/fd"), reason="no /dev/fd")
def test_open_pipe_is_read() -> None:
    end, other = os.pipe()
    with os.fdopen(other, "wb") as file:
        file.write(encoded(coarse(), "PNG"))
    try:
        assert read_image(f"/dev/fd/{end}").image.size == (64, 48)
    finally:
        os.close(end)


def test_small_file_is_read_when_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(coarse(), "PNG"))
    image = open_image_file(path)
    path.unlink()
    assert image.decode().image.size == (64, 48)
