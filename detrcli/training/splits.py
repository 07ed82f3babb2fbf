"""Training and validation splits of a run."""

import os
from pathlib import Path
from typing import NamedTuple

from ..datasets import Dataset, Split, read_dataset
from ..datasets.annotations import align_classes
from ..datasets.holdout import hold_out
from ..errors import ClassMismatchError, SplitError, ValidationSplitError


class Splits(NamedTuple):
    """Datasets of a training run.

    Attributes:
        train: dataset to train on.
        val: dataset to validate on, with the same classes, or None.
        notes: lines on both that the user should know.
    """

    train: Dataset
    val: Dataset | None
    notes: tuple[str, ...]


def read_splits(
    path: Path, *, val_data: Path | None, val_fraction: float | None, seed: int, strict: bool = False
) -> Splits:
    """Read the datasets of a training run.

    Args:
        path: dataset to train on; unless stated otherwise, its own val or test split is used for validation.
        val_data: dataset to validate on.
        val_fraction: fraction of the training images to hold out for validation.
        seed: random seed of the images that are held out.
        strict: refuse images that EXIF data rotate but that were annotated unrotated.

    Raises:
        DatasetError: a dataset cannot be used.
        ClassMismatchError: the validation images have no object of the training classes.
        ValidationSplitError: images are to be held out of a dataset that has a val split.
    """
    train = read_dataset(path, "train", strict=strict)
    if val_fraction is not None:
        return _hold_out(train, path, val_fraction, seed)
    if val_data is not None:
        val: Dataset | None = read_dataset(val_data, "val", strict=strict)
    else:
        val = _own_split(train, path, "val", strict=strict)
    if val is None:
        return Splits(train, None, train.problems)
    val = align_classes(val, train.classes)
    if not any(len(example.labels) for example in val.examples):
        raise ClassMismatchError(f"{val.name} has no object of the classes of {train.name}")
    val_files = _files(val)
    shared = len(_files(train) & val_files)
    overlap = f"{shared} of {len(val_files)} validation images are also in the training set; AP will be overestimated"
    return Splits(train, val, (*(overlap,) * bool(shared), *train.problems, *val.problems))


def _hold_out(data: Dataset, path: Path, fraction: float, seed: int) -> Splits:
    val, test = (_own_split(data, path, split) for split in ("val", "test"))
    if val is not None and (test is None or _files(val) != _files(test)):  # a test split may stand in for val
        raise ValidationSplitError(f"{path} has a validation split of {len(val.examples)} images")
    train, val = hold_out(data, fraction, seed=seed)
    note = f"{len(val.examples)} of {len(data.examples)} images held out for validation"
    return Splits(train, val, (note, *train.problems, *val.problems))


def _own_split(data: Dataset, path: Path, split: Split, *, strict: bool = False) -> Dataset | None:
    """Return a split of the dataset, or None if it has none or all its splits are the same."""
    try:
        own = read_dataset(path, split, strict=strict)
    except SplitError:
        return None
    return None if _files(own) == _files(data) else own


def _files(data: Dataset) -> set[tuple[str, str]]:
    """Return folder and name of each image, with links to folders resolved."""
    folders = {folder: os.path.realpath(folder) for folder in {one.path.parent for one in data.examples}}
    return {(folders[one.path.parent], one.path.name) for one in data.examples}
