"""LW-DETR predicts the same as transformers' on the same weights."""

import json
from pathlib import Path

import pytest
import torch
from transformers import LwDetrConfig, LwDetrForObjectDetection

import detrcli
from detrcli.models.lwdetr import SIZES, LwDetr

from ..places import DATA


@pytest.mark.parametrize("size", ["tiny", "large"])
def test_raw_predictions(size: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    settings = json.loads((DATA / f"lwdetr-{size}.hub.config.json").read_text())
    peer = LwDetrForObjectDetection(LwDetrConfig(**settings)).eval()
    with torch.no_grad():
        for name, parameter in peer.named_parameters():
            if parameter.std() == 0:  # zeros or ones would hide errors
                parameter.add_(0.1 * torch.randn_like(parameter))
            if "query_feat" in name:
                parameter.normal_()
    peer.save_pretrained(tmp_path)
    network = detrcli.load_model(tmp_path)
    assert isinstance(network, LwDetr)
    assert network.config == SIZES[size]
    for shape in ((1, 3, 256, 320), (2, 3, 320, 320)):
        pixels = torch.randn(shape)
        with torch.inference_mode():
            ours, theirs = network(pixels), peer(pixels)
        assert ours.logits.std() > 0.05
        torch.testing.assert_close(ours.logits, theirs.logits, rtol=0, atol=1e-4)
        torch.testing.assert_close(ours.boxes, theirs.pred_boxes, rtol=0, atol=1e-4)
