"""CVAT for images 1.1, one XML file."""

from collections.abc import Iterable
from typing import IO
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from ...classes import used_labels
from ..record import ImageResult, OutputSettings
from ..xml_text import xml_text


def write(file: IO[bytes], results: Iterable[ImageResult], settings: OutputSettings) -> None:
    """Write the images one by one."""
    file.write(b'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n')
    meta = Element("meta")
    labels = SubElement(SubElement(meta, "task"), "labels")
    for _, name in used_labels(settings.class_names):
        label = SubElement(labels, "label")
        SubElement(label, "name").text = xml_text(name)
        SubElement(label, "type").text = "rectangle"
        SubElement(label, "attributes")
    _write(file, meta)
    for number, result in enumerate(results):
        _write(file, _image(number, result))
    file.write(b"</annotations>\n")


def _image(number: int, result: ImageResult) -> Element:
    size = {"width": str(result.width), "height": str(result.height)}
    image = Element("image", {"id": str(number), "name": xml_text(result.relative), **size})
    for one in result.detections:
        corners = zip(("xtl", "ytl", "xbr", "ybr"), one.box, strict=True)
        attributes = {"label": xml_text(one.label), "source": "auto", "occluded": "0"}
        SubElement(image, "box", attributes | {name: f"{value:.4f}" for name, value in corners} | {"z_order": "0"})
    return image


def _write(file: IO[bytes], element: Element) -> None:
    indent(element, level=1)
    file.write(b"  " + tostring(element, encoding="unicode").rstrip().encode() + b"\n")


FILES = {"cvat.xml": write}
