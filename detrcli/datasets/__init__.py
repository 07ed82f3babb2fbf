"""Labelled data sets: from the folder or file that a user names to pictures and their objects."""

import os
from pathlib import Path
from typing import Literal

from ..errors import DatasetError
from .annotations import Dataset, Example
from .coco import find_coco, read_coco
from .yolo import find_yolo, read_yolo

Split = Literal["train", "val"]

__all__ = ["Dataset", "Example", "Split", "read_dataset"]


def read_dataset(place: Path, split: Split) -> Dataset:
    """Read one split of a data set in COCO's or YOLO's layout.

    Args:
        place: a folder, a COCO JSON file or a YOLO YAML file. A folder without splits, and a JSON file, serve for both.
        split: which part.

    Raises:
        DatasetError: there is no data set, it has no such split, or it holds what would silently spoil a training.
    """
    if not os.path.exists(place):
        raise DatasetError(f"{place}: no such file or folder")
    yaml = find_yolo(place)
    if yaml is not None:
        return read_yolo(yaml, split)
    found = find_coco(place, split)
    if found is None:
        raise DatasetError(
            f"{place} holds no data set: neither a COCO JSON file (annotations.json, …) nor a YOLO data.yaml was found"
        )
    return read_coco(found)
