"""Checks before a run begins that it overwrites nothing but what runs wrote."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ..errors import ForeignFilesError, OtherImagesError, OutsideOutputError
from ..files import STATE_FOLDER
from ..images.sources import original_path
from ..images.urls import is_url
from .journal import RecordedRun
from .name_counts import NameCounts
from .record import ImageResult
from .written import Written


def is_occupied(folder: Path) -> bool:
    """Whether a folder holds anything but what runs keep to themselves."""
    try:
        with os.scandir(folder) as listing:
            return any(entry.name != STATE_FOLDER for entry in listing)
    except OSError:
        return False


def is_within(path: str, folder: str) -> bool:
    """Whether an absolute path is a folder or lies below it."""
    return Path(path).is_relative_to(folder)


def ensure_inside(folder: Path, output: str) -> None:
    """Refuse a run's own folder that links lead out of the output folder.

    Raises:
        OutsideOutputError: they do.
    """
    if not is_within(os.path.realpath(folder), output):
        raise OutsideOutputError(f"{folder} leads out of the output folder")


def ensure_not_foreign(written: Written, paths: Iterable[Path]) -> None:
    """Refuse to overwrite files that no run wrote, or that were changed since.

    Raises:
        ForeignFilesError: there are some.
    """
    foreign = (path for path in paths if written.is_foreign(path))
    first = next(foreign, None)
    if first is not None:
        more = sum(1 for _ in foreign)
        files = f"{first} and {more} more were" if more else f"{first} was"
        raise ForeignFilesError(f"{files} not written by detr, or changed since")


def ensure_no_image_is_lost(file: Path, runs: Sequence[RecordedRun], coming: Iterable[str]) -> None:
    """Refuse to overwrite a file for all images with one that lacks images that still exist.

    Args:
        file: the file.
        runs: runs whose images are in it.
        coming: key of each image (see `image_key`) that the new file will have.

    Raises:
        OtherImagesError: there are such images.
    """
    keys = NameCounts(coming)
    lost = (path for key, path in keyed_images(runs) if key not in keys and (is_url(path) or os.path.lexists(key)))
    first = next(lost, None)
    if first is not None:
        count = 1 + sum(1 for _ in lost)
        others = f"{count} other images, such as {first}" if count > 1 else f"another image, {first}"
        raise OtherImagesError(f"{file} covers {others}")


def image_key(path: str) -> str:
    """Absolute path of an image file, or its URL."""
    return path if is_url(path) else os.path.abspath(path)


def keyed_images(runs: Iterable[RecordedRun]) -> Iterator[tuple[str, str]]:
    """Key of each image that runs have results for, and its path as the user named it."""
    for run in runs:
        root = str(run.setting.get("root"))
        for outcome in run.outcomes():
            if isinstance(outcome.result, ImageResult):
                path = outcome.result.path
                yield path if is_url(path) else original_path(root, outcome.result.relative), path
