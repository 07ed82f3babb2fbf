"""Annotated images: detections drawn on an image."""

import colorsys
import io
import struct
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from ..detections import Detections
from ..errors import ImageError
from ..files import atomic_file, shorten_name
from .decode import DecodedImage
from .fonts import Font, Fonts

Box = tuple[float, float, float, float]
GOLDEN_RATIO = 0.618034
LONGEST = 100
"""Maximum number of characters of a class name that are drawn."""


def draw(decoded: DecodedImage, detections: Detections, fonts: Fonts | None = None) -> Image.Image:
    """Draw the boxes and labels of detections on a copy of an image, the best on top.

    Line width and text scale with the image. A label goes to the first corner of its box where it is inside the image
    and overlaps no other label, or else where it overlaps least. A class name that no font can draw is replaced by the
    class id.
    """
    image = decoded.image.copy()
    image.info = {}  # which Pillow uses when saving: a gray profile, the compression of a fax
    canvas = ImageDraw.Draw(image)
    short, long = sorted(image.size)
    scale = min(long / 55, short / 12)
    line = max(1, round(scale / 7))
    size = max(8, round(scale))
    fonts = fonts or Fonts()
    labels: list[Box] = []
    annotations = []
    for index in range(len(detections)):
        box = _on_pixels(detections.boxes[index].tolist(), image.size)
        label_id, score = int(detections.labels[index]), f" {detections.scores[index]:.2f}"
        text = _layout(_one_line(detections.names[index]), label_id, score, fonts, size)
        label_size = text.width + 4 * line, text.ascent + text.descent + 2 * line
        labels.append(_place_label(box, label_size, image.size, labels))
        annotations.append((box, text, labels[-1], class_color(label_id)))
    for box, _, _, color in reversed(annotations):
        canvas.rectangle(box, outline=color, width=line)
    for _, text, label, color in reversed(annotations):
        canvas.rectangle(label, fill=color)
        x, y = label[0] + 2 * line, label[1] + line + text.ascent
        for part, font in text.runs:
            canvas.text((x, y), part, fill=_text_color(color), font=font, anchor="ls")
            x += font.getlength(part)
    return image


def class_color(label: int) -> tuple[int, int, int]:
    """Return the fixed color of a class, whose hue differs clearly from those of neighboring classes."""
    hue = (label * GOLDEN_RATIO + 0.58) % 1
    saturation, value = ((0.85, 0.95), (0.55, 1.0), (0.95, 0.70))[label % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def save_annotated(
    image: Image.Image,
    decoded: DecodedImage,
    path: Path,
    *,
    staging: Path | None = None,
    before_rename: Callable[[Path, Path], None] | None = None,
) -> Path:
    """Save an annotated image in the format of the original, or as PNG if that format cannot be written.

    Args:
        image: the annotated image.
        decoded: the original image.
        path: path with the name of the original.
        staging: see `atomic_file`.
        before_rename: see `atomic_file`.

    Returns:
        The path of the file: `path`, or `path` with `.png` appended.

    Raises:
        ImageError: the image cannot be encoded.
        OutputError: the file cannot be written.
    """
    kind = {"MPO": "JPEG", None: "PNG"}.get(decoded.format, decoded.format)
    if kind not in _writable():
        kind, path = "PNG", shorten_name(path.with_name(path.name + ".png"))
    options: dict[str, object] = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    if kind in ("WEBP", "AVIF"):
        options["quality"] = 90
    if decoded.icc_profile and kind in ("JPEG", "PNG", "TIFF", "WEBP"):
        options["icc_profile"] = decoded.icc_profile
    encoded = io.BytesIO()  # in memory, because Pillow's encoders miss short writes on a full disk
    try:
        image.save(encoded, format=kind, **options)
    except (KeyError, ValueError, OSError, OverflowError, SystemError, struct.error) as error:
        raise ImageError(f"cannot write {path} as {kind}: {error}", "not written") from error
    with atomic_file(path, staging=staging, before_rename=before_rename) as file:
        file.write(encoded.getbuffer())
    return path


def _writable() -> frozenset[str]:
    return frozenset(("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "TGA", "JPEG2000", "AVIF")) & set(Image.SAVE)


@dataclass(frozen=True)
class _TextLine:
    """Line of text in one or more fonts; sizes in pixels, ascent and descent the same for all texts of one font."""

    runs: list[tuple[str, Font]]
    width: float
    ascent: float
    descent: float


def _one_line(name: str) -> str:
    """Normalize and shorten a name to one line; replace characters that no font can have."""
    line = " ".join(name[: 4 * LONGEST].split())
    replaced = "".join("\ufffd" if unicodedata.category(one) in ("Cc", "Cs") else one for one in line)
    text = unicodedata.normalize("NFC", replaced)
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"


def _layout(name: str, label_id: int, score: str, fonts: Fonts, size: int) -> _TextLine:
    base = fonts.base(size)
    runs = fonts.runs(name, score, size) or [(f"#{label_id}{score}", base)]
    ends = [font.getbbox(part, anchor="ls") for part, font in (*runs, ("Âgjp|", base))]
    lengths = [font.getlength(part) for part, font in runs]
    width = max(sum(lengths), sum(lengths[:-1]) + ends[len(runs) - 1][2])
    return _TextLine(runs, width, -min(end[1] for end in ends), max(end[3] for end in ends))


def _on_pixels(box: Sequence[float], size: tuple[int, int]) -> Box:
    x1, y1, x2, y2 = box
    last_column, last_row = size[0] - 1, size[1] - 1
    left, top = min(round(x1), last_column), min(round(y1), last_row)
    return left, top, max(left, min(round(x2), last_column)), max(top, min(round(y2), last_row))


def _place_label(box: Box, label_size: tuple[float, float], image_size: tuple[int, int], others: Sequence[Box]) -> Box:
    x1, y1, x2, y2 = box
    width, height = label_size
    corners = ((x1, y1 - height), (x1, y1), (x2 - width, y1 - height), (x2 - width, y1),
               (x1, y2), (x1, y2 - height), (x2 - width, y2), (x2 - width, y2 - height))  # fmt: skip
    candidates = []
    for left, top in corners:
        inside_left = max(0.0, min(left, image_size[0] - width))
        inside_top = max(0.0, min(top, image_size[1] - height))
        candidate = (inside_left, inside_top, inside_left + width, inside_top + height)
        moved = abs(inside_left - left) + abs(inside_top - top)
        candidates.append((sum(_overlap(candidate, other) for other in others), moved > 0, candidate))
    return min(candidates, key=lambda item: item[:2])[2]


def _overlap(a: Box, b: Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return width * height if width > 0 and height > 0 else 0.0


def _text_color(background: tuple[int, int, int]) -> tuple[int, int, int]:
    red, green, blue = background
    return (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else (255, 255, 255)
