"""Labelled datasets: from the folder or file that a user names to images and their objects."""

import os
from pathlib import Path

from ..errors import DatasetError
from .annotations import Dataset, Example, Split
from .coco import find_coco, is_coco, read_coco
from .labelme import read_labelme
from .unsupported import describe_unsupported
from .voc import read_voc
from .yolo import find_name_list, find_yolo, read_yolo

__all__ = ["Dataset", "Example", "Split", "read_dataset"]


def read_dataset(place: Path, split: Split, *, strict: bool = False) -> Dataset:
    """Read one split of a dataset in COCO's, YOLO's, Pascal VOC's or LabelMe's layout.

    Args:
        place: a folder, or the file that describes the dataset. Without splits it serves for all of them.
        split: which part.
        strict: whether to refuse images that EXIF rotates but that were annotated unrotated, instead of leaving them
            out.

    Raises:
        DatasetError: there is no dataset, it has no such split, or it holds what would silently spoil a training.
    """
    if not os.path.exists(place):
        raise DatasetError(f"{place}: no such file or folder")
    description, coco = find_yolo(place), is_coco(place)
    if description is None and not coco:
        for read in (read_voc, read_labelme):
            if (dataset := read(place, split, strict=strict)) is not None:
                return dataset
        description = find_name_list(place)
    if description is not None:
        return read_yolo(description, split, strict=strict)
    other = None if coco else describe_unsupported(place)
    found = None if other else find_coco(place, split)
    if found is None:
        raise DatasetError(
            f"{place} {other}"
            if other
            else f"{place} holds no dataset: no COCO JSON file (annotations.json, …), YOLO data.yaml or classes.txt, "
            "Pascal VOC XML or LabelMe JSON was found"
        )
    return read_coco(found, strict=strict)
