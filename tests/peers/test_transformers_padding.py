"""Models with padded images, as in transformers' fine-tuning example, predict the same boxes, inside the image."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import (
    AutoImageProcessor,
    DeformableDetrImageProcessor,
    DetrConfig,
    DetrForObjectDetection,
    DetrImageProcessor,
    LwDetrConfig,
    LwDetrForObjectDetection,
    ResNetConfig,
)

import detrcli
from detrcli.checkpoints.find import find
from detrcli.checkpoints.load import load_checkpoint
from detrcli.checkpoints.save import save_model
from detrcli.detections import Detections
from detrcli.export.onnx import export_onnx
from detrcli.images.resize import Padded, Within

from .. import fill

WIDTH, HEIGHT = 192, 128
RULE: dict[str, Any] = {
    "size": {"max_height": HEIGHT, "max_width": WIDTH},
    "do_pad": True,
    "pad_size": {"height": HEIGHT, "width": WIDTH},
}
SIZES = [(90, 50), (60, 110), (192, 128), (333, 200)]
"""Widths and heights, padded at the bottom, at the right, or not at all."""


def lwdetr(folder: Path) -> Any:
    config = LwDetrConfig(
        backbone_config={
            "model_type": "lw_detr_vit", "hidden_size": 48, "num_attention_heads": 4, "num_hidden_layers": 3,
            "window_block_indices": [1], "out_indices": [1, 3], "pretrain_image_size": 160, "num_windows": 16,
        },
        projector_scale_factors=[1.0], c2f_num_blocks=1, d_model=64, num_queries=11, group_detr=2, decoder_layers=2,
        decoder_self_attention_heads=4, decoder_cross_attention_heads=8, decoder_ffn_dim=32, num_labels=5,
    )  # fmt: skip
    peer = LwDetrForObjectDetection(config).eval()
    with torch.no_grad():
        for parameter in peer.parameters():  # so that predictions differ between cells and queries
            parameter.add_(0.15 * torch.randn_like(parameter))
    DeformableDetrImageProcessor(**RULE).save_pretrained(folder)
    return peer


def detr(folder: Path) -> Any:
    backbone = ResNetConfig(out_features=["stage4"], depths=[1, 1, 1, 1])
    config = DetrConfig(
        backbone_config=backbone, use_timm_backbone=False, d_model=32, num_queries=7, encoder_layers=1,
        decoder_layers=1, encoder_ffn_dim=32, decoder_ffn_dim=32, num_labels=5,
    )  # fmt: skip
    peer = DetrForObjectDetection(config).eval()
    with torch.no_grad():
        peer.model.query_position_embeddings.weight.normal_(std=3)
        for name, parameter in peer.named_parameters():
            if not name.startswith("model.backbone"):
                parameter.add_(0.2 * torch.randn_like(parameter))
    DetrImageProcessor(**RULE).save_pretrained(folder)
    return peer


@pytest.fixture(scope="module", params=[lwdetr, detr], ids=lambda make: make.__name__)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    folder = tmp_path_factory.mktemp("padded")
    torch.manual_seed(0)
    peer = request.param(folder)
    peer.save_pretrained(folder)
    return peer, folder


def images() -> list[NDArray[np.uint8]]:
    return [fill.image(seed, height, width) for seed, (width, height) in enumerate(SIZES)]


def pixels_of(folder: Path, image: NDArray[np.uint8]) -> torch.Tensor:
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    return torch.as_tensor(processor(Image.fromarray(image), return_tensors="pt").pixel_values)


def expected(peer: Any, folder: Path, image: NDArray[np.uint8]) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute all scores (Q, K) and boxes (Q, 4) in the image, without a mask, as the example trains."""
    with torch.inference_mode():
        predicted = peer(pixel_values=pixels_of(folder, image))
    classes = peer.config.num_labels
    scores = predicted.logits.softmax(-1) if predicted.logits.shape[-1] > classes else predicted.logits.sigmoid()
    center, size = predicted.pred_boxes[0, :, :2], predicted.pred_boxes[0, :, 2:]
    boxes = torch.cat((center - size / 2, center + size / 2), dim=-1)
    height, width = image.shape[:2]
    scale = min(WIDTH / width, HEIGHT / height)
    across, down = width / int(width * scale), height / int(height * scale)  # pixels of the image per resized pixel
    return scores[0, :, :classes], boxes * torch.tensor([WIDTH * across, HEIGHT * down] * 2)


def compare(ours: Detections, scores: torch.Tensor, boxes: torch.Tensor) -> None:
    height, width = ours.height, ours.width
    boxes = boxes.clamp(min=0).minimum(torch.tensor([width, height, width, height]))
    assert len(ours) >= 5
    tolerance = 1e-3 * max(width, height)
    for box, score, label in zip(ours.boxes, ours.scores, ours.labels, strict=True):
        near = (scores[:, label] - float(score)).abs() < 1e-3
        assert near.any()
        assert (boxes[near] - torch.from_numpy(box)).abs().amax(-1).min() < tolerance


def test_the_pixels_are_the_same(saved: tuple[Any, Path]) -> None:
    _, folder = saved
    loaded = load_checkpoint(find(str(folder)))
    rules = loaded.preprocessing
    assert rules.resize == Padded(Within(WIDTH, HEIGHT), WIDTH, HEIGHT)
    detector = detrcli.load(folder, device="cpu", precision="fp32")
    module: Any = detector.backend
    for image in images():
        seen = torch.from_numpy(detector.resized(Image.fromarray(image)))[None]
        filled = torch.tensor(rules.resize.filled([image.shape[:2]]))
        torch.testing.assert_close(module._module.normalize(seen, filled), pixels_of(folder, image), rtol=0, atol=1e-5)


def test_boxes_are_in_the_image(saved: tuple[Any, Path]) -> None:
    peer, folder = saved
    detector = detrcli.load(folder, device="cpu", precision="fp32")
    for image, ours in zip(images(), detector.predict(images(), threshold=0), strict=True):
        compare(ours, *expected(peer, folder, image))


@pytest.mark.slow  # four exports
@pytest.mark.parametrize("count", [3, None])
def test_an_exported_file_pads_the_same_way(count: int | None, saved: tuple[Any, Path], tmp_path: Path) -> None:
    peer, folder = saved
    model = load_checkpoint(find(str(folder)))
    path = export_onnx(model, tmp_path / "x.onnx", source="tests", batch_size=count).path
    detector = detrcli.load(path, device="cpu", precision="fp32")
    for image, ours in zip(images(), detector.predict(images(), threshold=0), strict=True):
        compare(ours, *expected(peer, folder, image))
    with pytest.raises(detrcli.DetrError, match=f"takes {WIDTH} × {HEIGHT} pixels"):
        detrcli.load(path, device="cpu", size=WIDTH)


def test_transformers_pads_a_saved_model_the_same_way(saved: tuple[Any, Path], tmp_path: Path) -> None:
    _, folder = saved
    loaded = load_checkpoint(find(str(folder)))
    save_model(loaded, tmp_path)
    assert load_checkpoint(find(str(tmp_path))).preprocessing == loaded.preprocessing
    for image in images():
        torch.testing.assert_close(pixels_of(tmp_path, image), pixels_of(folder, image), rtol=0, atol=1e-6)


def test_another_size_is_also_padded(saved: tuple[Any, Path]) -> None:
    _, folder = saved
    for size, sides in ((128, (128, 128)), ((64, 128), (64, 128))):
        assert load_checkpoint(find(str(folder)), size=size).preprocessing.resize == Padded(Within(*sides), *sides)


def test_settings_of_transformers_5(saved: tuple[Any, Path], tmp_path: Path) -> None:
    _, folder = saved
    for path in folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "preprocessor_config.json").unlink()
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": settings}))
    rules = load_checkpoint(find(str(folder))).preprocessing
    assert load_checkpoint(find(str(tmp_path))).preprocessing == rules
    assert load_checkpoint(find(str(tmp_path / "model.safetensors"))).preprocessing == rules
