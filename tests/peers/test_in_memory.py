"""All backbones, and weights by transformers' names in memory, predict the same as in transformers."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    DetrConfig,
    DetrForObjectDetection,
    LwDetrConfig,
    LwDetrForObjectDetection,
    ResNetConfig,
)

import detrcli
from detrcli.checkpoints.find import find
from detrcli.checkpoints.load import load_checkpoint
from detrcli.checkpoints.save import save_model
from detrcli.errors import BackboneError
from detrcli.inference.fuse import fuse

from ..places import DATA

SMALL: dict[str, Any] = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 8,
    "decoder_attention_heads": 8,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "num_queries": 9,
    "num_labels": 5,
}


def own(depths: list[int], kind: str) -> dict[str, Any]:
    """Settings of transformers' ResNet."""
    sizes = [64, 128, 256, 512] if kind == "basic" else [256, 512, 1024, 2048]
    backbone = ResNetConfig(depths=depths, hidden_sizes=sizes, layer_type=kind, out_features=["stage4"])
    return {"backbone_config": backbone, "use_timm_backbone": False}


def timm(name: str, **settings: Any) -> dict[str, Any]:
    """Settings of a ResNet from timm."""
    return {"backbone": name, "use_timm_backbone": True, "use_pretrained_backbone": False, **settings}


BACKBONES = {
    "basic": own([2, 2, 2, 2], "basic"),
    "bottleneck": own([1, 2, 1, 1], "bottleneck"),
    "resnet18": timm("resnet18"),
    "resnet34": timm("resnet34"),
    "resnet18-dc5": timm("resnet18", dilation=True),
    "resnet26": timm("resnet26"),
}


def stirred(model: nn.Module) -> Any:
    """Convert a model to float64 and randomize its norms."""
    for name, tensor in model.state_dict().items():
        if "normalization" in name or ".bn" in name or "downsample.1" in name:
            if name.endswith(("running_var", "weight")):
                tensor.uniform_(0.8, 1.2)
            elif tensor.is_floating_point():
                tensor.normal_(std=0.1)
    return model.double().eval()


def detr(backbone: dict[str, Any]) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return stirred(DetrForObjectDetection(DetrConfig(**SMALL, **backbone)))


@pytest.mark.parametrize("saved", ["in memory", "folder"])
@pytest.mark.parametrize(
    "backbone",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in ("resnet18", "resnet26", "resnet34") else name
        for name in BACKBONES  # the others have all kinds of blocks and of names
    ],
)
def test_detr(tmp_path: Path, backbone: str, saved: str) -> None:
    peer = detr(BACKBONES[backbone])
    path = tmp_path / f"{backbone}.pth" if saved == "in memory" else tmp_path
    if saved == "in memory":
        torch.save(peer.state_dict(), path)
    else:
        peer.save_pretrained(path)
    loaded = load_checkpoint(find(str(path)))
    network = loaded.network.double()
    network.load_state_dict({name: tensor.double() for name, tensor in network.state_dict().items()})
    peer.float().double()  # rounded like the loaded weights
    pixels = torch.randn(2, 3, 96, 128, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.inference_mode():
        ours, theirs = network(pixels), peer(pixels)
        torch.testing.assert_close(ours.logits, theirs.logits, rtol=0, atol=1e-9)
        torch.testing.assert_close(ours.boxes, theirs.pred_boxes, rtol=0, atol=1e-9)
    if saved == "folder":
        save_model(loaded, tmp_path / "again")
        again = DetrForObjectDetection.from_pretrained(tmp_path / "again", dtype=torch.float64).eval()
        with torch.inference_mode():
            torch.testing.assert_close(again(pixels).logits, theirs.logits, rtol=0, atol=1e-6)
            torch.testing.assert_close(fuse(network)(pixels).logits, theirs.logits, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["resnet50d", "resnext50_32x4d", "swin"])
def test_other_backbones_are_named(tmp_path: Path, name: str) -> None:
    peer = detr(timm("resnet50d"))
    peer.config.backbone_config.backbone = name
    peer.save_pretrained(tmp_path)
    with pytest.raises(
        BackboneError, match=rf"the backbone of .* is {name}; DETR is supported with a plain ResNet only$"
    ):
        detrcli.load_model(tmp_path)
    torch.save(peer.state_dict(), tmp_path / "lone.pth")
    (tmp_path / "config.json").unlink()
    with pytest.raises(BackboneError, match="timm's resnet50d; DETR is supported"):
        detrcli.load_model(tmp_path / "lone.pth")


def test_lwdetr(tmp_path: Path) -> None:
    settings = json.loads((DATA / "lwdetr-tiny.hub.config.json").read_text())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        peer = stirred(LwDetrForObjectDetection(LwDetrConfig(**settings)))
    torch.save(peer.state_dict(), tmp_path / "weights.pt")
    peer.config.save_pretrained(tmp_path)
    network = detrcli.load_model(tmp_path / "weights.pt").double()
    peer.float().double()
    pixels = torch.randn(1, 3, 256, 320, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.inference_mode():
        ours, theirs = network(pixels), peer(pixels)
        torch.testing.assert_close(ours.logits, theirs.logits, rtol=0, atol=1e-6)
        torch.testing.assert_close(ours.boxes, theirs.pred_boxes, rtol=0, atol=1e-6)
