"""Datasets in Pascal VOC's format: an XML file per image, with 1-based pixel coordinates."""

from collections import Counter
from pathlib import Path
from xml.etree.ElementTree import XML, Element, ParseError, TreeBuilder, XMLParser

from ..errors import DatasetError
from .annotations import Dataset, Split
from .reading import head_matches, read_bytes
from .sidecars import AnnotatedImage, NamedObject, find_files, read_files

SUFFIX, ANNOTATIONS = ".xml", "Annotations"


class _Builder(TreeBuilder):
    """Tree builder that refuses document types, whose entities could expand a file or read other files."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError("a DOCTYPE is not allowed")


def read_voc(path: Path, split: Split, *, strict: bool) -> Dataset | None:
    """Read one split of a Pascal VOC dataset, or return None if there is none.

    Objects marked as difficult are treated as crowds, which are ignored in training and evaluation.

    Raises:
        DatasetError: a file cannot be read, there is no such split, or see `build_dataset`.
    """
    files = find_files(path, split, SUFFIX, ANNOTATIONS, lambda file: head_matches(file, rb"<annotation[\s>]"))
    return None if files is None else read_files(files, _parse, strict=strict)


def _root(file: Path) -> Element:
    try:
        return XML(read_bytes(file), XMLParser(target=_Builder()))  # noqa: S314 (attacks need a DOCTYPE)
    except (ParseError, ValueError, LookupError, RecursionError) as error:
        raise DatasetError(f"{file} is not valid XML: {error}; correct or remove it") from error


def _parse(file: Path) -> AnnotatedImage | None:
    root = _root(file)
    if root.tag != "annotation":
        return None
    try:
        objects = [_object(one) for one in root.iter("object")]
        size = (round(float(root.findtext("size/width") or 0)), round(float(root.findtext("size/height") or 0)))
    except (ValueError, OverflowError) as error:
        raise DatasetError(f"{file} is not a valid Pascal VOC annotation: {error}; correct or remove it") from error
    return AnnotatedImage((root.findtext("filename") or "").strip(), size if all(size) else None, objects, Counter())


def _object(entry: Element) -> NamedObject:
    name = (entry.findtext("name") or "").strip()
    corners = [entry.findtext(f"bndbox/{key}") for key in ("xmin", "ymin", "xmax", "ymax")]
    if not name or None in corners:
        raise ValueError("an object has no name or no complete bndbox")
    x1, y1, x2, y2 = (float(corner or "nan") for corner in corners)
    return NamedObject(name, (x1 - 1, y1 - 1, x2, y2), (entry.findtext("difficult") or "0").strip() == "1")
