"""Named pipes instead of files of a dataset: an error instead of waiting."""

import os
from pathlib import Path

import pytest

from detrcli.datasets import read_dataset
from detrcli.datasets.coco_ids import read_coco_ids
from detrcli.errors import DatasetError

from .written import write_image, write_text

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")


@pytest.mark.parametrize("name", ["data.yaml", "annotations.json"])
def test_description_that_is_a_pipe(tmp_path: Path, name: str) -> None:
    write_image(tmp_path / "images" / "a.png")
    os.mkfifo(tmp_path / name)
    with pytest.raises(DatasetError, match="a pipe, not a file"):
        read_dataset(tmp_path, "train")


def test_list_of_images_that_is_a_pipe(tmp_path: Path) -> None:
    write_text(tmp_path / "data.yaml", "train: train.txt\nnames: [a]\n")
    os.mkfifo(tmp_path / "train.txt")
    with pytest.raises(DatasetError, match=r"train\.txt: a pipe, not a file"):
        read_dataset(tmp_path, "train")


def test_unrelated_yaml_file_that_is_a_pipe_is_ignored(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "a.png")
    write_text(tmp_path / "labels" / "a.txt", "0 0.5 0.5 0.2 0.2\n")
    write_text(tmp_path / "data.yaml", "train: images\nnames: [a]\n")
    os.mkfifo(tmp_path / "other.yaml")
    assert len(read_dataset(tmp_path, "train").examples) == 1


def test_image_ids_file_that_is_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "instances.json")
    with pytest.raises(DatasetError, match=r"instances\.json: a pipe, not a file"):
        read_coco_ids(tmp_path / "instances.json")
