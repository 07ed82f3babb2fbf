"""Pascal VOC, one XML file per image: `a.jpg` → `a.xml`.

Corners are 1-based and inclusive, as in the original dataset: pixels of the first column have x = 1, those of the last
column x = width, and a box contains both of its corners.
"""

from pathlib import PurePosixPath
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from ..record import ImageResult, OutputSettings
from ..xml_text import xml_text


def path_for(relative: PurePosixPath) -> PurePosixPath:
    """Path of an image's file below the output folder."""
    return relative.with_suffix(".xml")


def render(result: ImageResult, settings: OutputSettings) -> bytes:
    """Render the annotation of an image."""
    relative = PurePosixPath(result.relative)
    root = Element("annotation")
    _add(root, "folder", relative.parent.name)
    _add(root, "filename", relative.name)
    _add(root, "path", result.path)
    size = SubElement(root, "size")
    for name, count in (("width", result.width), ("height", result.height), ("depth", 3)):
        _add(size, name, count)
    _add(root, "segmented", 0)
    for one in result.detections:
        found = SubElement(root, "object")
        _add(found, "name", one.label)
        _add(found, "pose", "Unspecified")
        _add(found, "truncated", 0)
        _add(found, "difficult", 0)
        box = SubElement(found, "bndbox")
        x1, y1, x2, y2 = one.box
        xmin, xmax = _pixels(x1, x2, result.width)
        ymin, ymax = _pixels(y1, y2, result.height)
        for name, value in (("xmin", xmin), ("ymin", ymin), ("xmax", xmax), ("ymax", ymax)):
            _add(box, name, value)
    indent(root)
    return tostring(root, encoding="unicode").encode() + b"\n"


def _pixels(start: float, end: float, count: int) -> tuple[int, int]:
    """First and last pixel, counted from 1, between two positions on a side; at least the one in the middle."""
    first, last = round(start) + 1, round(end)
    if last < first:
        first = last = min(int((start + end) / 2) + 1, count)
    return first, last


def _add(parent: Element, name: str, value: str | int) -> None:
    SubElement(parent, name).text = xml_text(str(value))
