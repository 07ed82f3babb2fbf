"""Class names from checkpoints, and from files of all kinds."""

import json
import pickle
import warnings
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch

import detrcli
from detrcli.checkpoints.bundled import sample_image
from detrcli.checkpoints.class_names import read_class_names
from detrcli.checkpoints.dataset_classes import COCO
from detrcli.errors import ClassNamesWarning, UsageError
from detrcli.training.initial_model import pretrained
from detrcli.training.initialize import class_heads

from .. import scenes
from ..detr_process import detr
from ..tiny import in_hub_layout, save_tiny, tiny_network

NAMES = ("cat", "no", "Große Ente", "d", "e", "f", "g")
QUOTED = json.dumps(NAMES)
FILES = {
    "data.yaml": f"path: .\ntrain: images\nnames: {QUOTED}\n",
    "numbered.yml": "names:\n" + "".join(f"  {label}: {name}\n" for label, name in enumerate(NAMES)),
    "classes.txt": "\n".join(NAMES) + "\n\n",
    "windows.txt": "\ufeff" + "\r\n".join(NAMES),
    "obj.names": "\n".join(NAMES),
    "list.json": QUOTED,
    "config.json": json.dumps({"model_type": "detr", "id2label": dict(enumerate(NAMES))}),
    "labels.json": json.dumps(dict(enumerate(NAMES))),
}


@pytest.fixture
def lone(tmp_path: Path) -> Path:
    """A weights file that does not name its seven classes."""
    path = tmp_path / "model" / "lone.pth"
    path.parent.mkdir()
    torch.save(in_hub_layout(tiny_network().state_dict()), path)
    return path


@pytest.mark.parametrize("name", FILES)
def test_file_formats(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(FILES[name].encode())
    assert read_class_names(tmp_path / name) == NAMES


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", b""),
        ("a.txt", b"cat\n\ndog\n"),
        ("a.txt", b"\xff\xfe\x00"),
        ("a.yaml", b"train: images\n"),
        ("a.yaml", b"names: [cat"),
        ("a.yaml", b"- cat\n"),
        ("a.json", b"[1, 2]"),
        ("a.json", b'{"1": "cat", "2": "dog"}'),
        ("a.json", b"["),
        ("a.json", b"[" * 100_000),
    ],
)
def test_files_without_names(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match="has no class names") as caught:
        read_class_names(tmp_path / name)
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="cannot read"):
        read_class_names(tmp_path / "none.txt")


def test_a_warning_if_the_names_are_unknown(lone: Path) -> None:
    with pytest.warns(ClassNamesWarning, match="does not name its 7 classes$"):
        assert detrcli.load(lone, device="cpu").class_names[0] == "class 0"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        detector = detrcli.load(lone, device="cpu", class_names=NAMES)
    assert not [warning for warning in caught if isinstance(warning.message, ClassNamesWarning)]
    assert detector.class_names == NAMES
    assert pickle.loads(pickle.dumps(detector)).class_names == NAMES
    with pytest.raises(UsageError, match="has 7 labels, but 2 class names were given"):
        detrcli.load(lone, device="cpu", class_names=("cat", "dog"))


def test_91_classes_are_cocos(tmp_path: Path) -> None:
    torch.save(in_hub_layout(tiny_network(num_classes=91).state_dict()), tmp_path / "lone.pth")
    assert detrcli.load(tmp_path / "lone.pth", device="cpu").class_names == COCO


def test_labels_that_count_from_one(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"id2label": {label + 1: name for label, name in enumerate(NAMES)}}))
    with pytest.warns(ClassNamesWarning, match="counts from 1, but labels count from 0.*'g' is never predicted"):
        assert detrcli.load(tmp_path, device="cpu").class_names == ("class 0", *NAMES[:-1])
    path.write_text(json.dumps(config | {"id2label": {label + 1: name for label, name in enumerate(NAMES[:-1])}}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert detrcli.load(tmp_path, device="cpu").class_names == ("class 0", *NAMES[:-1])


def test_the_option(lone: Path, tmp_path: Path) -> None:
    names = tmp_path / "classes.txt"
    names.write_text("\n".join(NAMES))
    photo = str(sample_image())
    run = ["predict", photo, "--model", str(lone), "--image-size", "64", "--no-draw", "-t", "0", "--device", "cpu"]
    result = detr(*run, "--class-names", names, "-v", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    found = {detection["label"] for detection in json.loads(result.stdout.splitlines()[0])["detections"]}
    assert found <= set(NAMES)
    assert found
    assert "DC5" in result.stderr
    assert "--class-names" not in result.stderr
    assert "--class-names FILE" in detr(*run, cwd=tmp_path).stderr


@pytest.mark.parametrize("key", ["args", "hyper_parameters"])
@pytest.mark.parametrize("kind", [list, tuple])
def test_names_in_the_training_arguments(tmp_path: Path, key: str, kind: type) -> None:
    arguments = {"class_names": kind(NAMES)}
    content = {
        "model": in_hub_layout(tiny_network().state_dict()),
        key: Namespace(**arguments) if key == "args" else arguments,
    }
    torch.save(content, tmp_path / "lone.pth")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert detrcli.load(tmp_path / "lone.pth", device="cpu").class_names == NAMES
    assert not [warning for warning in caught if isinstance(warning.message, ClassNamesWarning)]


@pytest.mark.parametrize("names", [NAMES[:-1], [*NAMES, "h"], [*range(7)], "abcdefg", {"a": 1}, None])
def test_invalid_names_in_the_training_arguments_are_ignored(tmp_path: Path, names: object) -> None:
    content = {"model": in_hub_layout(tiny_network().state_dict()), "args": {"class_names": names}}
    torch.save(content, tmp_path / "lone.pth")
    with pytest.warns(ClassNamesWarning, match="does not name its 7 classes"):
        assert detrcli.load(tmp_path / "lone.pth", device="cpu").class_names[0] == "class 0"


def test_training_keeps_the_weights_of_named_classes(lone: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"size": 64, "revision": None, "offline": False, "seed": 0}
    names = tuple(reversed(NAMES))[:3]
    with pytest.warns(ClassNamesWarning):
        assert pretrained(str(lone), names, class_names=None, **settings)[1] == 0
    model, known = pretrained(str(lone), names, class_names=NAMES, **settings)
    assert known == 3
    head, before = class_heads(model.network)[0], class_heads(tiny_network())[0]
    assert torch.equal(head.weight[:3], before.weight[[6, 5, 4]])
    scenes.write(tmp_path / "shapes", 2, seed=5)
    (tmp_path / "names.txt").write_text("\n".join((scenes.CLASSES[0], *NAMES[1:])))
    run = ["train", "shapes", "-o", "out", "--epochs", 1, "--image-size", 64, "--batch-size", 2, "--workers", 0]
    result = detr(*run, "--model", lone, "--class-names", "names.txt", "--device", "cpu", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert f"matches 1 of {len(scenes.CLASSES)} classes by name" in result.stderr
