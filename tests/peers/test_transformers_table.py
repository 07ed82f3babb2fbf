"""Table Transformer predicts the same as transformers', padded images included, before and after it is saved here."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import ResNetConfig, TableTransformerConfig, TableTransformerForObjectDetection

from detrcli.checkpoints.find import find
from detrcli.checkpoints.load import load_checkpoint
from detrcli.checkpoints.save import save_model
from detrcli.inference.fuse import fuse
from detrcli.models import table_transformer

from .test_in_memory import SMALL, own, stirred, timm

BACKBONES = {
    "own": own([2, 2, 2, 2], "basic"),
    "resnet34": timm("resnet34"),
    "dilated": timm("resnet18", dilation=True),
}


@pytest.mark.parametrize(
    "backbone",
    ["own", "resnet34", pytest.param("dilated", marks=pytest.mark.slow)],  # DETR's test has it, too
)
def test_table_transformer(backbone: str, tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        peer = stirred(TableTransformerForObjectDetection(TableTransformerConfig(**SMALL, **BACKBONES[backbone])))
        pixels = torch.randn(2, 3, 96, 128, dtype=torch.float64)
    if isinstance(peer.config.backbone_config, ResNetConfig):
        peer.config.backbone_config.id2label = {label: f"ImageNet class {label}" for label in range(1000)}
    padding = torch.zeros(2, 96, 128, dtype=torch.bool)
    padding[1, 70:], padding[1, :, 100:] = True, True
    pixels = pixels.masked_fill(padding[:, None], 0)
    peer.save_pretrained(tmp_path / "theirs")
    loaded = load_checkpoint(find(str(tmp_path / "theirs")))
    save_model(loaded, tmp_path / "ours")
    again = TableTransformerForObjectDetection.from_pretrained(tmp_path / "ours", dtype=torch.float64).eval()
    config = loaded.network.config
    assert isinstance(config, table_transformer.TableTransformerConfig)
    assert (config.block, config.dilation) == ("basic", backbone == "dilated")
    assert loaded.class_names == tuple(f"LABEL_{label}" for label in range(SMALL["num_labels"]))

    network: Any = loaded.network.double()
    peer.float().double()  # rounded like the loaded weights
    with torch.inference_mode():
        theirs = peer(pixels, (~padding).long())
        ours = network(pixels, padding)
        torch.testing.assert_close(ours.logits, theirs.logits, rtol=0, atol=1e-6)
        torch.testing.assert_close(ours.boxes, theirs.pred_boxes, rtol=0, atol=1e-6)
        torch.testing.assert_close(again(pixels, (~padding).long()).pred_boxes, theirs.pred_boxes, rtol=0, atol=1e-6)
        torch.testing.assert_close(fuse(network)(pixels, padding).logits, ours.logits, rtol=0, atol=1e-9)
