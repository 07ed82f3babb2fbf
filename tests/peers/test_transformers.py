"""DETR predicts the same as transformers' on the same weights and image."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import DetrConfig, DetrForObjectDetection, DetrImageProcessor, ResNetConfig

import detrcli

from .. import fill

TIMM = {"backbone": "resnet50", "use_timm_backbone": True, "use_pretrained_backbone": False}
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "transformers": {"backbone_config": ResNetConfig(out_features=["stage4"]), "use_timm_backbone": False},
    "timm": TIMM,
    "timm-dc5": TIMM | {"dilation": True},
}


@pytest.fixture(
    scope="module",
    params=["transformers", "timm-dc5", pytest.param("timm", marks=pytest.mark.slow)],  # like timm-dc5
)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    torch.manual_seed(0)
    peer = DetrForObjectDetection(DetrConfig(**CONFIGURATIONS[request.param], num_labels=12)).eval()
    with torch.no_grad():
        peer.model.query_position_embeddings.weight.normal_(std=3)
        peer.class_labels_classifier.weight.normal_(std=0.2)
        for name, buffer in peer.named_buffers():
            if name.endswith(("running_mean", "bias")):
                buffer.normal_(std=0.1)
            elif name.endswith("running_var"):
                buffer.uniform_(0.8, 1.2)
    folder = tmp_path_factory.mktemp(request.param)
    peer.save_pretrained(folder)
    smaller = {"size": {"shortest_edge": 400, "longest_edge": 667}} if request.param == "timm-dc5" else {}
    DetrImageProcessor(**smaller).save_pretrained(folder)
    return peer, folder


def test_raw_predictions(saved: tuple[Any, Path]) -> None:
    peer, folder = saved
    network = detrcli.load_model(folder)
    pixels = torch.randn(2, 3, 256, 320)
    mask = torch.zeros(2, 256, 320, dtype=torch.bool)
    mask[1, 200:], mask[1, :, 260:] = True, True
    with torch.inference_mode():
        for ours, theirs in ((network(pixels), peer(pixels)), (network(pixels, mask), peer(pixels, (~mask).long()))):
            torch.testing.assert_close(ours.logits, theirs.logits, rtol=0, atol=1e-4)
            torch.testing.assert_close(ours.boxes, theirs.pred_boxes, rtol=0, atol=1e-4)


def test_detections_in_a_jpeg(saved: tuple[Any, Path], tmp_path: Path) -> None:
    peer, folder = saved
    photo = tmp_path / "photo.jpg"
    Image.fromarray(fill.image(7, 427, 640)).save(photo, quality=95)
    threshold = 0.2
    (ours,) = detrcli.load(folder, device="cpu", precision="fp32").predict(photo, threshold=threshold)

    processor = DetrImageProcessor.from_pretrained(folder)
    with Image.open(photo) as image, torch.inference_mode():
        predicted = peer(**processor(image, return_tensors="pt"))
        (theirs,) = processor.post_process_object_detection(predicted, threshold, target_sizes=[(427, 640)])

    order = theirs["scores"].argsort(descending=True, stable=True)
    assert len(ours) > 5
    np.testing.assert_array_equal(ours.labels, theirs["labels"][order])
    np.testing.assert_allclose(ours.scores, theirs["scores"][order], rtol=0, atol=1e-3)
    limits = np.array([640, 427, 640, 427])
    np.testing.assert_allclose(ours.boxes, theirs["boxes"][order].numpy().clip(0, limits), rtol=0, atol=0.5)
