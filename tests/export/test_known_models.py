"""Every known model, with reproducible weights, gives the same predictions in other engines as in PyTorch."""

import copy
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

import detrcli
from detrcli.checkpoints.dataset_classes import COCO
from detrcli.checkpoints.find import find
from detrcli.checkpoints.load import load_checkpoint
from detrcli.checkpoints.save import save_model
from detrcli.export import compare
from detrcli.export import onnx as exporting
from detrcli.export.onnx import export_onnx
from detrcli.images.decode import read_image
from detrcli.inference.postprocess import EndToEnd, postprocess_for
from detrcli.inference.torch import TorchBackend
from detrcli.training.initial_model import from_scratch

from .. import fill, golden
from ..places import PHOTOGRAPHS

pytestmark = pytest.mark.slow  # half a minute to three minutes each
NAMES = (
    "lwdetr-tiny",
    "lwdetr-small",
    "lwdetr-medium",
    "lwdetr-large",
    "detr-resnet-50",
    "detr-resnet-50-dc5",
    "table-transformer-detection",
    "rfdetr-nano",
    "rfdetr-large-2025",
    "lwdetr-xlarge",
    "detr-resnet-101",
    "detr-resnet-101-dc5",
)
WITHOUT_GOLDEN_OUTPUTS = {"lwdetr-xlarge", "detr-resnet-101-dc5"}
"""Have randomly initialized weights instead."""


def checkpoint(name: str, folder: Path) -> Path:
    """File or folder with reproducible weights."""
    if name not in WITHOUT_GOLDEN_OUTPUTS:
        return golden.original_checkpoint(name, folder)
    save_model(from_scratch(name, COCO, size=None, seed=0), folder / name)
    return folder / name


@pytest.mark.parametrize("name", NAMES)
def test_a_known_model_gives_the_same_logits_and_boxes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the golden image, since proposals of a random network may tie on the exporter's own images."""
    monkeypatch.setattr(exporting, "differences", lambda *_, **__: torch.zeros(1))
    path = checkpoint(name, tmp_path)
    square = name.startswith(("lwdetr", "rfdetr"))
    height, width = (640, 640) if square else (480, 640)
    known, noise = fill.image(1, height, width), fill.image(0, height, width)
    if name not in WITHOUT_GOLDEN_OUTPUTS:
        (known,) = golden.images(name, "square" if square else "single")
        height, width, _ = known.shape
        noise = fill.image(0, height, width)
    model = load_checkpoint(find(str(path)), size=(width, height))
    raw = export_onnx(model, tmp_path / "raw.onnx", source="tests", postprocess=False).path
    session = onnxruntime.InferenceSession(raw, providers=["CPUExecutionProvider"])
    for images, compared in (([known], [0]), ([known, noise, known], [0, 2])):
        pixels, _ = golden.batch(images, torch.float32)
        with torch.inference_mode():
            theirs = model.network(pixels)
        ours = session.run(None, {"pixels": pixels.numpy()})
        for actual, expected in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(actual[compared], expected.numpy()[compared], atol=1e-3)


@pytest.mark.skipif(not PHOTOGRAPHS.is_dir(), reason="needs the photographs")
@pytest.mark.parametrize("name", NAMES)
def test_a_known_model_finds_the_same_in_photographs(name: str, tmp_path: Path) -> None:
    """In the ten of 32 photographs with the largest gaps between the scores of a random network's proposals."""
    model = load_checkpoint(find(str(checkpoint(name, tmp_path))))
    file = export_onnx(model, tmp_path / "whole.onnx", source="tests").path
    rules = model.preprocessing
    backend = TorchBackend(copy.deepcopy(model), device="cpu", precision="fp32")
    reference = detrcli.Detector(name, [backend], model.class_names, rules.resize, rules.resample)
    exported = [
        detrcli.load(file, device="cpu", engine=engine, precision="fp32") for engine in ("onnxruntime", "openvino")
    ]
    module = EndToEnd(model.network, postprocess_for(model.network), scale=rules.scale, mean=rules.mean, std=rules.std)

    def gap(photograph: Path) -> float:
        return compare.proposal_gap(module, reference.resized(read_image(photograph).image))

    compared = 0
    for photograph in sorted(sorted(PHOTOGRAPHS.glob("*.jpg"))[:32], key=gap, reverse=True)[:10]:
        # the scores of a random network are low, so the threshold is half of the best
        (expected,) = reference.predict(photograph, threshold=0)
        threshold = float(expected.scores[0]) / 2
        (expected,) = reference.predict(photograph, threshold=threshold)
        for one in exported:
            (found,) = one.predict(photograph, threshold=threshold - 1e-3)
            for box, score, label in zip(expected.boxes, expected.scores, expected.labels, strict=True):
                near = (np.abs(found.scores - score) <= 1e-3) & (np.abs(found.boxes - box).max(1) <= 0.5)
                assert (near & (found.labels == label)).any()
            assert (found.scores > threshold + 1e-3).sum() <= len(expected) <= len(found)
        compared += len(expected)
    assert compared > 0
    print(f"{name}: {compared} detections are the same")
