"""Pascal VOC's XML, a file a picture: `a.jpg` → `a.xml`.

Corners are whole pixels counted from 0, the last one outside, but never 0 themselves, as labelImg writes them: the
original data set counts from 1, and its readers take 1 away.
"""

from pathlib import PurePosixPath
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from ..labelled import Labelled
from ..xml_text import xml_text


def place(relative: PurePosixPath) -> PurePosixPath:
    """Where a picture's file belongs."""
    return relative.with_suffix(".xml")


def content(picture: Labelled, class_names: tuple[str, ...]) -> bytes:
    """The annotation of a picture."""
    relative = PurePosixPath(picture.relative)
    root = Element("annotation")
    _add(root, "folder", relative.parent.name)
    _add(root, "filename", relative.name)
    _add(root, "path", picture.path)
    size = SubElement(root, "size")
    for name, count in (("width", picture.width), ("height", picture.height), ("depth", 3)):
        _add(size, name, count)
    _add(root, "segmented", 0)
    for one in picture.found:
        found = SubElement(root, "object")
        _add(found, "name", one.label)
        _add(found, "pose", "Unspecified")
        _add(found, "truncated", 0)
        _add(found, "difficult", 0)
        box = SubElement(found, "bndbox")
        for name, value in zip(("xmin", "ymin", "xmax", "ymax"), one.box, strict=True):
            _add(box, name, max(1, round(value)))
    indent(root)
    return tostring(root, encoding="unicode").encode() + b"\n"


def _add(parent: Element, name: str, value: str | int) -> None:
    SubElement(parent, name).text = xml_text(str(value))
