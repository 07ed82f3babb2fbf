"""Formats of datasets that are recognized but not supported."""

from dataclasses import dataclass
from pathlib import Path

from .reading import head_matches


@dataclass(frozen=True)
class _Format:
    """Unsupported format, with a glob of its files, and a pattern in their first bytes if the name is not enough."""

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


def describe_unsupported(path: Path) -> str | None:
    """Describe the unsupported format of a folder or file for an error message, or return None."""
    folders = [path, *sorted(one for one in path.glob("*/") if one.name[0] != ".")] if path.is_dir() else []
    for one in FORMATS:
        files = (file for folder in folders for file in sorted(folder.glob(one.files))[:8])
        for file in files if folders else [path] * path.match(one.files):
            if head_matches(file, one.content):
                where = "is" if file == path else f"contains {file.relative_to(path)}, which is"
                return f"{where} {one.name}, which is not supported; export COCO or YOLO instead"
    return None
