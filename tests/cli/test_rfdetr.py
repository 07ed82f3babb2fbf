"""RF-DETR on the command line."""

import json
from pathlib import Path

import pytest
from PIL import Image

from detrcli.checkpoints.save import save_model

from .. import fill
from ..detr_process import detr
from ..exported import rfdetr


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a small model, whose sides are multiples of 32, and an image."""
    place = tmp_path_factory.mktemp("rfdetr")
    save_model(rfdetr(), place / "model")
    Image.fromarray(fill.image(0, 90, 120)).save(place / "a.png")
    return place


def test_predictions(place: Path) -> None:
    options = ("--model", "model", "--device", "cpu", "--precision", "fp32", "--threshold", "0")
    usual = detr("predict", "a.png", *options, cwd=place)
    assert usual.returncode == 0, usual.stderr
    (record,) = map(json.loads, usual.stdout.splitlines())
    assert len(record["detections"]) > 1
    for detection in record["detections"]:
        left, top, right, bottom = detection["box"]
        assert 0 <= left <= right <= 120
        assert 0 <= top <= bottom <= 90
    assert Image.open(place / "detections/a.png").size == (120, 90)
    larger = detr("predict", "a.png", *options, "--image-size", "160", "--no-draw", cwd=place)
    assert larger.returncode == 0, larger.stderr
    assert larger.stdout != usual.stdout


@pytest.mark.parametrize(
    ("size", "message"), [("100", "not 100 × 100; 96 × 96 would do"), ("128x80", "not 128 × 80; 128 × 64 would do")]
)
def test_impossible_image_sizes(size: str, message: str, place: Path) -> None:
    run = detr("predict", "a.png", "--model", "model", "--device", "cpu", "--image-size", size, cwd=place)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == f"detr: the sides of this model's images must be multiples of 32, {message}\n"
