"""Decoding: every image file, valid or damaged, becomes an upright RGB image or one clear error."""

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import ExifTags, Image

from detrcli.errors import ImageError
from detrcli.images.decode import DecodedImage, from_array, read_image

from ..outputs.folders import encoded
from ..places import SHARED

Pixels = NDArray[np.uint8]
CASES = SHARED / "cases" / "images"


def noise(width: int, height: int) -> Pixels:
    return np.random.default_rng(7).integers(0, 256, (height, width, 3), np.uint8)


def read_bytes(folder: Path, data: bytes, name: str = "image") -> DecodedImage:
    path = folder / name
    path.write_bytes(data)
    return read_image(path)


def pixels_of(decoded: DecodedImage) -> Pixels:
    assert decoded.image.mode == "RGB"
    return np.asarray(decoded.image.copy())


def error_of(path: Path) -> str:
    with pytest.raises(ImageError) as caught:
        read_image(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert len(text.splitlines()) == 1
    return text.removeprefix(f"{path}: ")


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.95])
def test_truncated(tmp_path: Path, kind: str, part: float) -> None:
    data = encoded(Image.fromarray(noise(60, 40)), kind)
    path = tmp_path / f"cut.{kind.lower()}"
    path.write_bytes(data)
    assert read_image(path).image.size == (60, 40)
    path.write_bytes(data[: int(len(data) * part)])
    assert "damaged" in error_of(path) or "not an image" in error_of(path)


def test_files_that_are_not_images(tmp_path: Path) -> None:
    empty = tmp_path / "empty.png"
    empty.touch()
    assert error_of(empty) == "the file is empty"
    text = tmp_path / "notes.jpg"
    text.write_text("no image at all\n" * 100)
    assert "not an image" in error_of(text)
    assert "no such file" in error_of(tmp_path / "missing.jpg")
    error_of(tmp_path / "nul\0.jpg")
    folder = tmp_path / "folder.jpg"
    folder.mkdir()
    assert "is a directory" in error_of(folder)


def test_unusual_exception_of_a_decoder(tmp_path: Path) -> None:
    data = bytearray(encoded(Image.fromarray(noise(6, 4)), "PNG"))
    data[11] = 0  # length of the header chunk; Pillow raises ValueError
    path = tmp_path / "a.png"
    path.write_bytes(data)
    assert "damaged image" in error_of(path)


def test_file_without_read_permission(tmp_path: Path) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(encoded(Image.new("RGB", (4, 4)), "PNG"))
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("needs a user without access to all files")
    assert "permission denied" in error_of(path)


def test_format_is_determined_by_the_contents(tmp_path: Path) -> None:
    pixels = noise(9, 5)
    decoded = read_bytes(tmp_path, encoded(Image.fromarray(pixels), "PNG"), "wrong.jpg")
    assert decoded.format == "PNG"
    assert np.array_equal(pixels_of(decoded), pixels)


@pytest.mark.parametrize("size", [(1, 1), (20_000, 10), (10, 20_000)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_extreme_sizes(tmp_path: Path, size: tuple[int, int], kind: str) -> None:
    decoded = read_bytes(tmp_path, encoded(Image.new("RGB", size, "white"), kind))
    assert decoded.image.size == size
    assert (pixels_of(decoded) == 255).all()


def test_16_bit_gray_keeps_its_brightness(tmp_path: Path) -> None:
    values = np.full((4, 4), 40_000, np.uint16)
    assert np.abs(pixels_of(read_bytes(tmp_path, encoded(Image.fromarray(values), "PNG"))).astype(int) - 156).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_ramp(tmp_path: Path, kind: str) -> None:
    ramp = np.linspace(0, 65_535, 256).astype(np.uint16)[None]
    row = pixels_of(read_bytes(tmp_path, encoded(Image.fromarray(ramp), kind)))[0].astype(int)
    assert (row[:, 0] == row[:, 1]).all()
    assert (row[:, 0] == row[:, 2]).all()
    assert np.abs(row[:, 0] - np.arange(256)).max() <= 1
    assert (np.diff(row[:, 0]) >= 0).all()


def test_big_endian_16_bit_tiff(tmp_path: Path) -> None:
    data = encoded(Image.frombytes("I;16B", (2, 1), struct.pack(">HH", 40_000, 513)), "TIFF")
    assert np.abs(pixels_of(read_bytes(tmp_path, data))[0, :, 0].astype(int) - [156, 2]).max() <= 1


def test_integer_tiff(tmp_path: Path) -> None:
    values = np.array([[-5, 0, 40_000, 65_535, 1_000_000]], np.int32)
    row = pixels_of(read_bytes(tmp_path, encoded(Image.fromarray(values), "TIFF")))[0, :, 0].astype(int)
    assert np.abs(row - [0, 0, 156, 255, 255]).max() <= 1


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.25, 1.0], [0, 64, 255]),
        ([0.0, 0.5, 1.0001], [0, 128, 255]),  # sharpening and resampling overshoot
        ([-0.2, 0.5, 1.3], [0, 128, 255]),
        ([0.0, 0.5, INF], [0, 128, 255]),
        ([-INF, 0.5, NAN], [0, 128, 0]),
        ([0.0, 200.0, 255.0], [0, 200, 255]),
        ([-3.0, NAN, 300.0], [0, 0, 255]),
        ([0.0, 32768.0, 65535.0], [0, 128, 255]),
        ([0.0, 5e5, 1e6], [0, 128, 255]),
        ([0.0, 1e38, 3e38], [0, 85, 255]),
        ([NAN, NAN, INF], [0, 0, 255]),
        ([-2.0, -1.0, 0.0], [0, 0, 0]),
    ],
)
@pytest.mark.filterwarnings("error")
def test_float_tiff(tmp_path: Path, values: list[float], expected: list[int]) -> None:
    data = encoded(Image.fromarray(np.array([values], np.float32)), "TIFF")
    assert np.abs(pixels_of(read_bytes(tmp_path, data))[0, :, 0].astype(int) - expected).max() <= 1


def test_scale_of_float_values_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "detrcli")
    read_bytes(tmp_path, encoded(Image.fromarray(np.array([[0, 1.5]], np.float32)), "TIFF"), "a.tif")
    assert caplog.messages == [f"{tmp_path / 'a.tif'}: float values up to 1.5, read as black 0 to white 1"]


@pytest.mark.skipif(not CASES.is_dir(), reason="shared cases are not available")
@pytest.mark.parametrize(
    ("name", "gray", "tolerance"),
    [
        ("rgb16.png", False, 0),
        ("cmyk.jpg", False, 1),
        ("lab.tif", False, 2),
        ("real.heic", False, 3),
        ("anim.webp", False, 4),
        ("exif6.jpg", False, 4),
        ("mpo.jpg", False, 6),
        ("float-0-1.tif", True, 1),
        ("float-0-1.0001.tif", True, 1),
    ],
)
def test_same_image_in_many_formats(name: str, gray: bool, tolerance: float) -> None:
    control = read_image(CASES / "00-control.png").image
    expected = np.asarray(control.convert("L").convert("RGB") if gray else control).astype(int)
    assert np.abs(pixels_of(read_image(CASES / name)) - expected).mean() <= tolerance


@pytest.mark.skipif(not CASES.is_dir(), reason="shared cases are not available")
def test_truncated_shared_jpeg() -> None:
    assert "damaged image" in error_of(CASES / "truncated.jpg")


def test_cmyk_jpeg(tmp_path: Path) -> None:
    data = encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95)
    assert np.abs(pixels_of(read_bytes(tmp_path, data)).astype(int) - [255, 0, 0]).max() < 12


def test_transparent_palette_color_becomes_white(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1), 0)
    image.putpalette([0, 0, 255, 255, 0, 0])
    image.putpixel((1, 0), 1)
    for kind in ("PNG", "GIF"):
        decoded = read_bytes(tmp_path, encoded(image, kind, transparency=0))
        assert pixels_of(decoded)[0].tolist() == [[255, 255, 255], [255, 0, 0]], kind


def test_transparent_rgb_color_becomes_white(tmp_path: Path) -> None:
    image = Image.new("RGB", (2, 1), (0, 0, 255))
    image.putpixel((1, 0), (255, 0, 0))
    decoded = read_bytes(tmp_path, encoded(image, "PNG", transparency=(0, 0, 255)))
    assert pixels_of(decoded)[0].tolist() == [[255, 255, 255], [255, 0, 0]]


@pytest.mark.parametrize(
    ("mode", "colors", "expected"),
    [
        ("LA", [(0, 0), (0, 255), (0, 128)], [(255,) * 3, (0,) * 3, (127,) * 3]),
        ("RGBA", [(0, 0, 255, 0), (0, 0, 255, 255), (255, 0, 0, 128)], [(255,) * 3, (0, 0, 255), (255, 127, 127)]),
    ],
)
def test_alpha_is_composited_over_white(
    tmp_path: Path, mode: str, colors: list[tuple[int, ...]], expected: list[tuple[int, ...]]
) -> None:
    image = Image.new(mode, (3, 1))
    image.putdata(colors)
    row = pixels_of(read_bytes(tmp_path, encoded(image, "PNG")))[0].astype(int)
    assert np.abs(row - np.array(expected)).max() <= 1


@pytest.mark.parametrize("mode", ["L", "1"])
def test_gray(tmp_path: Path, mode: str) -> None:
    values = np.array([[0, 255, 255], [255, 0, 0]], np.uint8)
    if mode == "L":
        values[0, 0] = 90
    pixels = pixels_of(read_bytes(tmp_path, encoded(Image.fromarray(values).convert(mode), "PNG")))
    assert np.array_equal(pixels, np.repeat(values[..., None], 3, axis=2))


@pytest.mark.parametrize(
    ("kind", "options"), [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {})], ids=lambda v: str(v)
)
def test_first_frame_of_an_animation(tmp_path: Path, kind: str, options: dict[str, object]) -> None:
    frames = [Image.new("RGB", (6, 4), color) for color in ("red", "blue", "lime")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    decoded = read_bytes(tmp_path, data)
    assert decoded.format == kind
    assert (pixels_of(decoded) == [255, 0, 0]).all()


def stored(upright: Pixels, orientation: int) -> Pixels:
    """Pixels as stored by a camera; the comments name the side of the scene of row 0 and of column 0, as in EXIF."""
    transposed = upright.transpose(1, 0, 2)
    return {
        1: upright,  # top, left
        2: upright[:, ::-1],  # top, right
        3: upright[::-1, ::-1],  # bottom, right
        4: upright[::-1],  # bottom, left
        5: transposed,  # left, top
        6: transposed[::-1],  # right, top
        7: transposed[::-1, ::-1],  # right, bottom
        8: transposed[:, ::-1],  # left, bottom
    }[orientation]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_orientations_give_the_same_upright_image(tmp_path: Path, orientation: int, kind: str) -> None:
    upright = np.kron(noise(3, 2), np.ones((16, 16, 1), np.uint8)).astype(np.uint8)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    choices: dict[str, dict[str, object]] = {"WEBP": {"lossless": True}, "JPEG": {"quality": 98, "subsampling": 0}}
    image = Image.fromarray(np.ascontiguousarray(stored(upright, orientation)))
    pixels = pixels_of(read_bytes(tmp_path, encoded(image, kind, exif=exif, **choices.get(kind, {}))))
    assert pixels.shape == upright.shape
    assert np.abs(pixels.astype(int) - upright).max() <= (4 if kind == "JPEG" else 0)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_damaged_exif_is_ignored(tmp_path: Path, kind: str) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.Make] = "a camera maker"
    exif[ExifTags.Base.XResolution] = 72.5
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExposureTime] = 0.01
    valid = exif.tobytes()
    image = Image.fromarray(noise(12, 8))
    damaged = [valid[:length] for length in range(7, len(valid))]
    damaged += [valid[:at] + b"\xff" + valid[at + 1 :] for at in range(6, len(valid))]
    for data in damaged:
        decoded = read_bytes(tmp_path, encoded(image, kind, exif=data))
        assert decoded.image.size in ((12, 8), (8, 12)), data


@pytest.mark.parametrize(
    ("tag", "kind", "value"),
    [
        (ExifTags.Base.XResolution, 2, b"72\0\0"),  # text instead of a fraction
        (ExifTags.Base.ResolutionUnit, 4, struct.pack("<I", 70_000)),  # too large for its type
    ],
)
def test_orientation_is_applied_despite_odd_exif(tmp_path: Path, tag: int, kind: int, value: bytes) -> None:
    entries = [(ExifTags.Base.Orientation, 3, 1, struct.pack("<HH", 6, 0)), (tag, kind, 4 if kind == 2 else 1, value)]
    packed = b"".join(struct.pack("<HHI", *entry) + content for *entry, content in entries)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + packed + bytes(4)
    decoded = read_bytes(tmp_path, encoded(Image.fromarray(noise(12, 8)), "JPEG", exif=exif))
    assert decoded.image.size == (8, 12)


@pytest.mark.filterwarnings("error")
def test_decompression_bomb(tmp_path: Path) -> None:
    header = b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    body = b"IDAT" + zlib.compress(bytes(1000))
    chunks = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, body, b"IEND"))
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    assert "too many pixels" in error_of(path)


def test_only_color_profiles_of_rgb_pixels_are_kept(tmp_path: Path) -> None:
    data = encoded(Image.new("RGB", (4, 4)), "PNG", icc_profile=b"a profile")
    assert read_bytes(tmp_path, data).icc_profile == b"a profile"
    for mode in ("RGBA", "P"):
        data = encoded(Image.new(mode, (4, 4)), "PNG", icc_profile=b"a profile")
        assert read_bytes(tmp_path, data).icc_profile == b"a profile"
    for mode in ("CMYK", "L"):
        data = encoded(Image.new(mode, (4, 4)), "TIFF", icc_profile=b"a profile of another space")
        assert read_bytes(tmp_path, data).icc_profile is None


def test_array_must_be_rgb_uint8() -> None:
    pixels = noise(5, 3)
    assert np.array_equal(pixels_of(from_array(pixels).decode()), pixels)
    for wrong in (pixels[..., 0], pixels[..., :2], pixels[:0], pixels.astype(np.float32)):
        with pytest.raises(ImageError, match=r"\(height, width, 3\)"):
            from_array(wrong)  # type: ignore[arg-type]


def small_files() -> dict[str, bytes]:
    image = Image.fromarray(noise(16, 12))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    files = {kind: encoded(image, kind) for kind in ("BMP", "GIF")}
    files |= {kind: encoded(image, kind, exif=exif) for kind in ("JPEG", "PNG", "WEBP", "TIFF")}
    files["palette"] = encoded(image.quantize(8), "PNG", transparency=0)
    files["frames"] = encoded(image, "GIF", save_all=True, append_images=[Image.new("RGB", image.size)])
    files["lzw"] = encoded(image, "TIFF", compression="tiff_lzw")
    return files


FILES = small_files()
MUTATIONS = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8)


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=300, deadline=None)
@given(kind=st.sampled_from(sorted(FILES)), mutations=MUTATIONS, near_start=st.booleans(), kept=st.floats(0.2, 5))
def test_damaged_file_gives_an_image_or_an_image_error(
    tmp_path_factory: pytest.TempPathFactory,
    kind: str,
    mutations: list[tuple[float, int]],
    near_start: bool,
    kept: float,
) -> None:
    data = bytearray(FILES[kind])
    for where, value in mutations:
        data[int(where * (min(80, len(data)) if near_start else len(data)))] = value
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)  # to save memory
        try:
            decoded = read_image(path)
        except ImageError as error:
            text = str(error)
            assert text.startswith(f"{path}: ")
            assert len(text.splitlines()) == 1
        else:
            height, width, channels = pixels_of(decoded).shape
            assert min(height, width) >= 1
            assert channels == 3
