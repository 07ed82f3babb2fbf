"""Annotated images: what is drawn where, and that the file keeps the format of the original."""

import colorsys
import os
import resource
import shutil
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib import TTFont
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageDraw

from detrcli.detections import Detections
from detrcli.errors import ImageError, MissingGlyphWarning, OutputError, UsageError
from detrcli.images import fonts
from detrcli.images.decode import DecodedImage, read_image
from detrcli.images.draw import class_color, draw, save_annotated
from detrcli.images.fonts import Fonts

from ..outputs.folders import encoded

Pixels = NDArray[np.uint8]
Boxes = list[tuple[float, float, float, float]]
GRAY = (128, 128, 128)
SIZE = (1600, 1200)
BOX = (400, 320, 1200, 880)


def detections(boxes: Boxes, labels: list[int] | None = None, name: str = "cat") -> Detections:
    count = len(boxes)
    return Detections(
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.linspace(0.9, 0.8, count, dtype=np.float32),
        labels=np.array(labels or [1] * count, np.int64),
        names=(name,) * count,
        width=SIZE[0],
        height=SIZE[1],
    )


def drawn(boxes: Boxes, labels: list[int] | None = None, size: tuple[int, int] = SIZE, name: str = "cat") -> Pixels:
    return np.asarray(draw(DecodedImage(Image.new("RGB", size, GRAY)), detections(boxes, labels, name)))


def ink(pixels: Pixels) -> int:
    """Number of black or white pixels, which on a gray image are those of text."""
    return int(((pixels == 0).all(axis=2) | (pixels == 255).all(axis=2)).sum())


def changed(pixels: Pixels) -> tuple[int, int, int, int]:
    """Bounding box of the pixels that are not gray."""
    rows, columns = np.nonzero((pixels != GRAY).any(axis=2))
    return int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())


def test_class_colors_are_fixed() -> None:
    assert [class_color(label) for label in (0, 1, 2, 3, 17, 90)] == [
        (36, 143, 242),
        (229, 255, 115),
        (161, 9, 178),
        (36, 242, 161),
        (178, 97, 9),
        (197, 242, 36),
    ]


def test_neighboring_classes_differ_in_hue() -> None:
    hues = [colorsys.rgb_to_hsv(*(channel / 255 for channel in class_color(label)))[0] for label in range(366)]
    for step in (1, 2, 3, 4):
        for one, other in zip(hues, hues[step:], strict=False):
            assert min(abs(one - other), 1 - abs(one - other)) > 0.1


def test_original_is_not_changed() -> None:
    decoded = DecodedImage(Image.new("RGB", SIZE, GRAY))
    image = draw(decoded, detections([(10, 20, 200, 200)]))
    assert image is not decoded.image
    assert (np.asarray(decoded.image) == 128).all()
    assert (np.asarray(image) != 128).any()


def test_no_detections() -> None:
    assert (drawn([]) == 128).all()


def test_outline_is_on_the_box_in_the_color_of_the_class() -> None:
    for label in (1, 17):
        pixels = drawn([BOX], [label])
        for x, y in ((400, 600), (1200, 600), (1000, 320), (800, 880), (400, 320), (1200, 880)):
            assert tuple(pixels[y, x].tolist()) == class_color(label)
        assert (pixels[340:860, 420:1180] == 128).all()
        assert (pixels[881:] == 128).all()
        assert (pixels[:, 1201:] == 128).all()
        assert (pixels[:, :400] == 128).all()


def test_box_of_the_whole_image_shows_all_four_sides() -> None:
    pixels = drawn([(0, 0, *SIZE)])
    for x, y in ((0, 600), (1599, 600), (1200, 0), (800, 1199)):
        assert tuple(pixels[y, x].tolist()) == class_color(1)


def test_thin_outline_is_inside_the_image() -> None:
    pixels = drawn([(0, 20, 60, 48)], size=(60, 48))
    for x, y in ((0, 40), (59, 40), (30, 47)):
        assert tuple(pixels[y, x].tolist()) == class_color(1)


def test_labels_show_class_and_score(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    text = ImageDraw.ImageDraw.text

    def record(canvas: ImageDraw.ImageDraw, position: Any, content: str, *args: Any, **options: Any) -> None:
        written.append(content)
        text(canvas, position, content, *args, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", record)
    found = replace(detections([BOX, BOX], [1, 2]), names=("cat", "remote"))
    draw(DecodedImage(Image.new("RGB", SIZE, GRAY)), found)
    assert sorted(written) == ["cat 0.90", "remote 0.80"]


def test_best_detection_is_on_top() -> None:
    pixels = drawn([(400, 400, 1200, 800), (800, 200, 1400, 600)], [1, 2])
    assert tuple(pixels[400, 800].tolist()) == class_color(1)
    assert tuple(pixels[600, 1200].tolist()) == class_color(1)
    assert tuple(pixels[500, 800].tolist()) == class_color(2)


def test_label_is_on_the_first_corner() -> None:
    pixels = drawn([BOX])
    left, top, _, _ = changed(pixels)
    assert left == 400
    assert top < 320
    assert ink(pixels[top:320, 400:800]) == ink(pixels) > 10


@pytest.mark.parametrize(
    "box",
    [
        (0, 0, 1600, 1200),
        (0, 0, 3, 3),
        (1597, 0, 1600, 3),
        (0, 1197, 3, 1200),
        (1597, 1197, 1600, 1200),
        (1590, 400, 1600, 800),
        (400, 0, 800, 1200),
        (0, 0, 1600, 2),
        (-50, -80, 3000, 4000),
        (800, 600, 800, 600),
    ],
)
def test_labels_are_inside_the_image(box: tuple[float, float, float, float]) -> None:
    expected = ink(drawn([BOX]))
    assert expected > 10
    assert ink(drawn([box])) == expected


@pytest.mark.parametrize("count", [2, 3, 4])
def test_labels_of_equal_boxes_do_not_overlap(count: int) -> None:
    together = detections([BOX] * count)
    decoded = DecodedImage(Image.new("RGB", SIZE, GRAY))
    single = [ink(np.asarray(draw(decoded, only(together, index)))) for index in range(count)]
    assert min(single) > 10
    assert ink(np.asarray(draw(decoded, together))) == sum(single)


def only(found: Detections, index: int) -> Detections:
    rows = slice(index, index + 1)
    return Detections(
        found.boxes[rows], found.scores[rows], found.labels[rows], found.names[rows], found.width, found.height
    )


def test_text_contrasts_with_the_class_color() -> None:
    for label in range(0, 91, 3):
        label_on_gray = Image.fromarray(drawn([BOX], [label])).crop((400, 280, 700, 320))
        text = [ink for ink in (0, 255) if (np.asarray(label_on_gray) == ink).all(axis=2).any()]
        assert len(text) == 1
        red, green, blue = class_color(label)
        assert abs(text[0] - (0.299 * red + 0.587 * green + 0.114 * blue)) > 110


def test_labels_scale_with_the_image() -> None:
    heights = []
    for scale in (1, 4):
        x1, y1, x2, y2 = (side * scale // 4 for side in BOX)
        heights.append(y1 - changed(drawn([(x1, y1, x2, y2)], size=(400 * scale, 300 * scale)))[1])
    assert heights[1] > 2 * heights[0] > 10


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 50), (20_000, 10), (10, 20_000)])
def test_extreme_images(size: tuple[int, int]) -> None:
    pixels = drawn([(0, 0, *size), (0, 0, 1, 1), (size[0] - 1, size[1] - 1, *size)], [1, 2, 3], size)
    assert pixels.shape == (size[1], size[0], 3)
    assert (pixels != 128).any()


def test_names_of_any_script() -> None:
    for name in ("", "日本 🦊", "two\nlines", "a" * 500):
        pixels = drawn([BOX], name=name)
        assert tuple(pixels[880, 800].tolist()) == class_color(1)


def saved(folder: Path, data: bytes, name: str, box: tuple[float, float, float, float] = (10, 10, 50, 40)) -> Path:
    """Read an image file, draw a box, and save the annotated image under the same name."""
    source = folder / "in" / name
    source.parent.mkdir(exist_ok=True)
    source.write_bytes(data)
    decoded = read_image(source)
    return save_annotated(draw(decoded, detections([box])), decoded, folder / "out" / name)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_annotated_image_keeps_format_and_name(tmp_path: Path, kind: str) -> None:
    path = saved(tmp_path, encoded(Image.new("RGB", SIZE, GRAY), kind), "an image.ext", BOX)
    assert path == tmp_path / "out" / "an image.ext"
    with Image.open(path) as image:
        assert image.format == kind
        assert image.size == SIZE
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(pixels[317, 402] - class_color(1)).max() < 40  # within the label
    assert np.abs(pixels[100, 100] - GRAY).max() < 8


def test_mpo_becomes_jpeg(tmp_path: Path) -> None:
    first, second = (Image.new("RGB", (64, 48), color) for color in ("red", "blue"))
    data = encoded(first, "MPO", save_all=True, append_images=[second])
    path = saved(tmp_path, data, "a.jpg")
    assert path == tmp_path / "out" / "a.jpg"
    with Image.open(path) as image:
        assert image.format == "JPEG"


@pytest.mark.parametrize("kind", ["PSD", "HEIF"])
def test_formats_that_cannot_be_written_become_png(tmp_path: Path, kind: str) -> None:
    image = Image.new("RGB", (8, 8), (1, 2, 3))
    path = save_annotated(image, DecodedImage(image, format=kind), tmp_path / "a.psd")
    assert path == tmp_path / "a.psd.png"
    assert not (tmp_path / "a.psd").exists()
    with Image.open(path) as again:
        assert again.format == "PNG"
        assert again.getpixel((3, 3)) == (1, 2, 3)


def test_name_that_png_makes_too_long_is_shortened(tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 8))
    path = save_annotated(image, DecodedImage(image, format="PSD"), tmp_path / ("x" * 251 + ".psd"))
    assert os.listdir(tmp_path) == [path.name]
    assert (len(path.name), path.suffix) == (255, ".png")


def test_jpeg_quality_is_kept(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    with Image.open(
        saved(tmp_path, encoded(Image.fromarray(pixels), "JPEG", quality=95, subsampling=0), "a.jpg")
    ) as image:
        again = np.asarray(image).astype(int)
    below_the_box = np.abs(again - pixels)[42:]
    assert below_the_box.mean() < 5


def test_image_from_memory_becomes_png(tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 8), (1, 2, 3))
    assert save_annotated(image, DecodedImage(image), tmp_path / "a.png") == tmp_path / "a.png"
    with Image.open(tmp_path / "a.png") as again:
        assert again.format == "PNG"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_annotated_image_is_upright_without_exif(tmp_path: Path, kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = saved(tmp_path, encoded(Image.new("RGB", (64, 48), GRAY), kind, exif=exif), "a.ext")
    with Image.open(path) as image:
        assert image.size == ((64, 48) if orientation == 1 else (48, 64))
        assert image.getexif().get(ExifTags.Base.Orientation, 1) == 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_annotated_image_keeps_the_color_profile(tmp_path: Path, kind: str) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = saved(tmp_path, encoded(Image.new("RGB", (64, 48), GRAY), kind, icc_profile=profile), "a.ext")
    with Image.open(path) as image:
        assert image.info["icc_profile"] == profile


@pytest.mark.parametrize(("mode", "kind"), [("L", "PNG"), ("L", "TIFF"), ("CMYK", "TIFF"), ("CMYK", "JPEG")])
def test_gray_and_cmyk_profiles_are_not_kept(tmp_path: Path, mode: str, kind: str) -> None:
    data = encoded(Image.new(mode, (64, 48)), kind, icc_profile=b"of another color space")
    with Image.open(saved(tmp_path, data, "a.ext")) as image:
        assert "icc_profile" not in image.info


@pytest.mark.parametrize(
    ("mode", "compression"), [("1", "group4"), ("1", "group3"), ("L", "jpeg"), ("RGB", "tiff_lzw"), ("RGB", "jpeg")]
)
def test_annotated_tiff_of_any_compression(tmp_path: Path, mode: str, compression: str) -> None:
    path = saved(tmp_path, encoded(Image.new(mode, (64, 48)), "TIFF", compression=compression), "scan.tif")
    with Image.open(path) as image:
        assert image.format == "TIFF"
        outline = np.asarray(image.convert("RGB"))[40, 40].astype(int)
    assert np.abs(outline - class_color(1)).max() < 10


def test_annotated_animation_is_a_still_image(tmp_path: Path) -> None:
    frames = [Image.new("P", (64, 48), 0), Image.new("P", (64, 48), 1)]
    for frame in frames:
        frame.putpalette([0, 0, 255, 255, 0, 0])
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], transparency=0, loop=0, duration=40)
    with Image.open(saved(tmp_path, data, "a.gif")) as image:
        assert getattr(image, "n_frames", 1) == 1
        assert image.convert("RGB").getpixel((60, 45)) == (255, 255, 255)


@pytest.mark.parametrize("error", [OverflowError("x"), ValueError("x"), SystemError("x"), struct.error("x")], ids=repr)
def test_unusual_exception_of_an_encoder(tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(Image.Image, "save", fail)
    image = Image.new("RGB", (8, 8))
    with pytest.raises(ImageError, match=r"cannot write .* as PNG: x"):
        save_annotated(image, DecodedImage(image), tmp_path / "a.png")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("missing", [10, 4000])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_full_disk_leaves_no_file(tmp_path: Path, kind: str, missing: int) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (60, 90, 3), np.uint8)
    path = saved(tmp_path, encoded(Image.fromarray(pixels), kind), "a.ext")
    decoded = read_image(path)
    before, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size - missing, most))
    try:
        with pytest.raises(OutputError, match="cannot write"):
            save_annotated(Image.fromarray(pixels), decoded, tmp_path / "out" / "b.ext")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, most))
    assert os.listdir(tmp_path / "out") == ["a.ext"]


@pytest.fixture
def letters(tmp_path: Path) -> str:
    """Font file with only two glyphs, distinct boxes for 猫 and ক, besides the box for missing glyphs."""
    return font_with(tmp_path / "few.ttf", "猫ক")


def font_with(path: Path, letters: str) -> str:
    def box(width: int) -> Any:
        pen = TTGlyphPen(None)
        pen.moveTo((100, 0))
        for point in ((100, 700), (100 + width, 700), (100 + width, 0)):
            pen.lineTo(point)
        pen.closePath()
        return pen.glyph()

    names = {ord(letter): f"letter{number}" for number, letter in enumerate(letters)}
    glyphs = {".notdef": box(500), **{name: box(200 + 100 * number) for number, name in enumerate(names.values())}}
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(list(glyphs))
    builder.setupCharacterMap(names)
    builder.setupGlyf(glyphs)
    builder.setupHorizontalMetrics(dict.fromkeys(glyphs, (900, 100)))
    builder.setupHorizontalHeader(ascent=900, descent=-200)
    builder.setupNameTable({"familyName": "Few", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return str(path)


@pytest.fixture
def no_system_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    """System without fonts."""
    monkeypatch.setattr(fonts, "_installed", lambda: ())


def pieces(name: str, **options: Any) -> list[tuple[str, str]] | None:
    """Pieces of a label and the font of each."""
    runs = Fonts(**options).runs(name, " 0.90", 20)
    return None if runs is None else [(part, str(font.getname()[0])) for part, font in runs]


@pytest.mark.usefixtures("no_system_fonts")
@pytest.mark.parametrize("name", ["cat", "naïve Ærø ÿ", "Ελληνικά", "кошка щётка ґ", "Ünïcödé — “x”", "Việt đ ơ"])
def test_latin_greek_and_cyrillic_need_no_system_fonts(name: str, recwarn: pytest.WarningsRecorder) -> None:
    assert pieces(name) == [(f"{name} 0.90", "DejaVu Sans")]
    assert not recwarn


@pytest.mark.usefixtures("no_system_fonts")
def test_characters_of_a_font_are_recognized() -> None:
    path = Fonts().base(20).path
    assert isinstance(path, str)
    table = TTFont(path).getBestCmap()
    for code in (*range(0x21, 0x7F), *range(0xA1, 0x530), 0x4E2D, 0x0905, 0x1F98A, 0xE01, 0x25A1, 0xFFFD):
        letter = chr(code)
        if letter.isprintable():
            assert fonts.Face(path).has(letter) == (code in table), hex(code)


@pytest.mark.usefixtures("no_system_fonts")
def test_given_font_is_preferred(letters: str) -> None:
    assert pieces("猫 cat", file=letters) == [("猫", "Few"), (" cat 0.90", "DejaVu Sans")]
    assert pieces("ক猫", file=letters) == [("ক猫", "Few"), (" 0.90", "DejaVu Sans")]


def test_file_that_is_not_a_font(tmp_path: Path) -> None:
    (tmp_path / "a.ttf").write_text("not a font")
    for name in ("a.ttf", "absent.ttf"):
        with pytest.raises(UsageError, match=f"cannot read the font .*{name}"):
            Fonts(str(tmp_path / name))


@pytest.mark.usefixtures("no_system_fonts")
def test_name_without_font_becomes_the_class_id_with_one_warning(recwarn: pytest.WarningsRecorder) -> None:
    chosen, decoded = Fonts(), DecodedImage(Image.new("RGB", SIZE, GRAY))

    def draw_name(name: str) -> Pixels:
        return np.asarray(draw(decoded, replace(detections([BOX], [17]), names=(name,)), chosen))

    assert (draw_name("猫") == draw_name("#17")).all()
    assert (draw_name("cat 🦊") == draw_name("#17")).all()
    assert (draw_name("cat") != draw_name("#17")).any()
    (warning,) = recwarn
    assert warning.category is MissingGlyphWarning
    assert "'猫'" in str(warning.message)


@pytest.mark.usefixtures("no_system_fonts")
def test_long_and_multiline_names(recwarn: pytest.WarningsRecorder) -> None:
    def draw_name(name: str) -> Pixels:
        return drawn([BOX], name=name)

    assert (draw_name("two\n lines\t") == draw_name("two lines")).all()
    assert (draw_name("e\u0301le\u0301phant") == draw_name("éléphant")).all()
    assert (draw_name("a\0b\ud800") == draw_name("a\ufffdb\ufffd")).all()
    assert (draw_name("a" * 1_000_000) == draw_name("a" * 100 + "…")).all()
    assert not recwarn


def test_warning_about_scripts_that_need_raqm(
    monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr("PIL.features.check_feature", lambda name: name != "raqm")
    pieces("Кот")
    assert not recwarn
    pieces("قطة")
    (warning,) = recwarn
    assert "Raqm" in str(warning.message)


@pytest.fixture
def one_system_font(letters: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """System with one font; return a file with a line per call of fontconfig."""
    program, calls = tmp_path / "bin" / "fc-match", tmp_path / "calls"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\n"
        f"echo >> '{calls}'\n"
        f"printf '%s\\t0\\tTrue\\tFalse\\t%s\\n' '{tmp_path}/absent.ttf' '732b 72ac' '{letters}' '995 732b'\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    fonts._installed.cache_clear()
    yield calls
    fonts._installed.cache_clear()


def test_system_font_is_found_by_its_characters(one_system_font: Path, recwarn: pytest.WarningsRecorder) -> None:
    assert pieces("Кот") == [("Кот 0.90", "DejaVu Sans")]
    assert not one_system_font.exists()  # fontconfig was not called
    assert pieces("猫 ক") == [("猫", "Few"), (" ", "DejaVu Sans"), ("ক", "Few"), (" 0.90", "DejaVu Sans")]
    assert not recwarn
    assert pieces("犬") is None  # its font file is missing
    assert [one.category for one in recwarn] == [MissingGlyphWarning]
    assert one_system_font.read_text() == "\n"


@pytest.mark.skipif(shutil.which("fc-match") is None, reason="fontconfig is not installed")
def test_fontconfig_character_ranges_of_this_system() -> None:
    fonts._installed.cache_clear()
    for face in fonts._installed()[:5]:
        assert face.ranges is not None
        table = TTFont(face.path, fontNumber=face.index).getBestCmap()
        visible = [code for first, last in face.ranges for code in range(first, last + 1)]
        assert visible
        assert set(visible) <= table.keys()
