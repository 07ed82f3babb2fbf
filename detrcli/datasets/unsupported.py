"""Formats of datasets that are not read: known, so that a user can be told what to export instead."""

from dataclasses import dataclass
from pathlib import Path

from .sniff import head_matches

INSTEAD = "export COCO or YOLO instead"


@dataclass(frozen=True)
class _Format:
    """A format.

    Attributes:
        name: what people call it.
        files: pattern of its files' names.
        content: what the beginning of such a file has, if the name does not tell.
    """

    name: str
    files: str
    content: bytes = b""


FORMATS = (
    _Format("a CVAT XML dataset", "*.xml", rb"<annotations>"),
    _Format("a CreateML dataset", "*.json", rb'^\s*\[\s*\{[^{}]*"(image|imagefilename)"\s*:\s*"'),
    _Format("a Label Studio export in its own JSON", "*.json", rb'^\s*\[\s*\{.*"(annotations|predictions|data)"\s*:'),
    _Format("a VGG Image Annotator project", "*.json", rb'"(regions|_via_settings)"\s*:'),
    _Format("a TFRecord dataset", "*.tfrecord*"),
    _Format("a dataset in a CSV table", "*.csv", rb"(?i)(xmin|x_min|x1|bbox)"),
    _Format("a Darknet configuration", "*.cfg", rb"\[net(work)?\]"),
)


def describe_unsupported(place: Path) -> str | None:
    """What to say of a folder or file in a format that is not read, or None if it is of no known one."""
    folders = [place, *sorted(one for one in place.glob("*/") if one.name[0] != ".")] if place.is_dir() else []
    for form in FORMATS:
        files = (file for folder in folders for file in sorted(folder.glob(form.files))[:8])
        for file in files if folders else [place] * place.match(form.files):
            if head_matches(file, form.content):
                where = "is" if file == place else f"holds {file.relative_to(place)}, which is"
                return f"{where} {form.name}; it is not read here, so {INSTEAD}"
    return None
