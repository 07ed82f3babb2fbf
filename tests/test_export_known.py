"""Each known model's architecture, with weights that anyone can rebuild, gives through ONNX what PyTorch gives."""

import copy
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

import detrcli
from detrcli.backends.torch import TorchBackend
from detrcli.checkpoints.find import find
from detrcli.checkpoints.load import load_checkpoint
from detrcli.export import export_onnx

from . import fill, golden
from .places import SHARED

NAMES = (
    "lwdetr-tiny",
    # half a minute to three for each of the others
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in (
            "lwdetr-small",
            "lwdetr-medium",
            "lwdetr-large",
            "detr-resnet-50",
            "detr-resnet-50-dc5",
            "detr-resnet-101",
        )
    ),
)


@pytest.mark.parametrize("name", NAMES)
def test_a_known_model_gives_the_same(name: str, tmp_path: Path) -> None:
    path = golden.original_checkpoint(name, tmp_path)
    (known,) = golden.pictures(name, "square" if name.startswith("lwdetr") else "single")
    height, width, _ = known.shape
    as_golden = load_checkpoint(find(str(path)), size=(width, height))
    model = load_checkpoint(find(str(path)))
    path.unlink()
    raw = export_onnx(as_golden, tmp_path / "raw.onnx", source="tests", raw=True).path
    session = onnxruntime.InferenceSession(raw, providers=["CPUExecutionProvider"])
    noise = fill.image(0, height, width)
    for images, compared in (([known], [0]), ([known, noise, known], [0, 2])):
        pixels, _ = golden.batch(images, torch.float32)
        with torch.inference_mode():
            theirs = as_golden.network(pixels)
        ours = session.run(None, {"pixels": pixels.numpy()})
        for mine, expected in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(mine[compared], expected.numpy()[compared], atol=1e-3)

    photographs = sorted((SHARED / "data/coco-val128/images").glob("*.jpg"))[:10]
    if not photographs:
        return
    file = export_onnx(model, tmp_path / "whole.onnx", source="tests").path
    rules = model.preprocessing
    backend = TorchBackend(copy.deepcopy(model), device="cpu", precision="fp32")
    reference = detrcli.Detector(name, [backend], model.class_names, rules.resize, rules.resample)
    # a random network is sure of nothing: half of the best score is what it would show, and some cells score alike
    same, shown = 0, 0
    for photograph in photographs:
        (expected,) = reference.predict(photograph, threshold=0)
        threshold = float(expected.scores[0]) / 2
        (expected,) = reference.predict(photograph, threshold=threshold)
        (found,) = detrcli.load(file, device="cpu").predict(photograph, threshold=threshold - 1e-3)
        shown += len(expected)
        for box, score, label in zip(expected.boxes, expected.scores, expected.labels, strict=True):
            near = (np.abs(found.scores - score) <= 1e-3) & (np.abs(found.boxes - box).max(1) <= 0.5)
            same += bool((near & (found.labels == label)).any())
    assert shown > 0
    assert same >= 0.95 * shown
    print(f"{name}: {same} of {shown}")
