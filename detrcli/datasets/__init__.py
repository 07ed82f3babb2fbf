"""Labeled datasets: images and their objects, in the layouts of COCO, YOLO, Pascal VOC and LabelMe."""

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


def read_dataset(path: Path, split: Split, *, strict: bool = False) -> Dataset:
    """Read one split of a dataset in COCO's, YOLO's, Pascal VOC's or LabelMe's layout.

    Args:
        path: folder, or the file that describes the dataset. A dataset without splits is used for each of them.
        split: split to read.
        strict: whether to refuse images that have an EXIF rotation but were annotated unrotated, instead of skipping
            them.

    Raises:
        DatasetError: there is no dataset, or no such split, or the dataset has an error that would silently spoil a
            training run.
    """
    if not os.path.exists(path):
        raise DatasetError(f"{path}: no such file or folder")
    description, coco = find_yolo(path), is_coco(path)
    if description is None and not coco:
        for read in (read_voc, read_labelme):
            if (dataset := read(path, split, strict=strict)) is not None:
                return dataset
        description = find_name_list(path)
    if description is not None:
        return read_yolo(description, split, strict=strict)
    if not coco and (problem := describe_unsupported(path)):
        raise DatasetError(f"{path} {problem}")
    files = find_coco(path, split)
    if files is None:
        raise DatasetError(
            f"{path} contains no dataset: no COCO JSON file (annotations.json, …), YOLO data.yaml or classes.txt, "
            "Pascal VOC XML or LabelMe JSON was found"
        )
    return read_coco(files, strict=strict)
