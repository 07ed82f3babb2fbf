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
    model = load_checkpoint(find(str(path)))
    path.unlink()
    raw = export_onnx(model, tmp_path / "raw.onnx", source="tests", raw=True).path
    session = onnxruntime.InferenceSession(raw, providers=["CPUExecutionProvider"])
    height, width = (640, 640) if name.startswith("lwdetr") else (480, 384)
    for count in (1, 3):
        images = np.stack([fill.image(seed, height, width) for seed in range(count)])
        pixels = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - 0.45) / 0.23
        with torch.inference_mode():
            theirs = model.network(pixels)
        ours = session.run(None, {"pixels": pixels.numpy()})
        for mine, expected in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(mine, expected.numpy(), atol=1e-3)

    photographs = sorted((SHARED / "data/coco-val128/images").glob("*.jpg"))[:10]
    if not photographs:
        return
    file = export_onnx(model, tmp_path / "whole.onnx", source="tests").path
    rules = model.preprocessing
    backend = TorchBackend(copy.deepcopy(model), device="cpu", precision="fp32")
    reference = detrcli.Detector(name, backend, model.class_names, rules.resize, rules.resample)
    # a random network is sure of nothing: half of the best score is what it would show
    for photograph in photographs:
        (expected,) = reference.predict(photograph, threshold=0)
        threshold = float(expected.scores[0]) / 2
        (expected,) = reference.predict(photograph, threshold=threshold)
        (found,) = detrcli.load(file, device="cpu").predict(photograph, threshold=threshold - 1e-3)
        assert len(expected) > 0
        for box, score, label in zip(expected.boxes, expected.scores, expected.labels, strict=True):
            near = (np.abs(found.scores - score) <= 1e-3) & (np.abs(found.boxes - box).max(1) <= 0.5)
            assert (near & (found.labels == label)).any()
