"""Losses and gradients of one training step equal those of the original implementations."""

from collections import defaultdict
from pathlib import Path

import pytest
import torch

from detrcli.checkpoints.layouts import DETR_ORIGINAL, LWDETR_ORIGINAL, Layout
from detrcli.models.detr import Detr
from detrcli.models.transformer import Attention
from detrcli.training.criterion import DETR_CRITERION, LWDETR_CRITERION

from .. import fill, golden
from ..places import DATA
from .test_golden_criterion import TERMS, targets_of


@pytest.mark.parametrize(
    ("model", "layout"),
    [
        pytest.param("detr-resnet-50", DETR_ORIGINAL, marks=pytest.mark.slow),  # as long as all other tests of training
        ("lwdetr-tiny", LWDETR_ORIGINAL),
    ],
)
def test_step(model: str, layout: Layout, tmp_path: Path) -> None:
    network = golden.original_network(model, tmp_path).double().train()
    expected = golden.outputs(f"{model}.train")
    images = [fill.image(*(int(value) for value in row)) for row in expected["image"]]
    pixels, mask = golden.batch(images, torch.float64)
    targets = targets_of(expected)
    objects = torch.tensor(sum(len(target.labels) for target in targets))
    if isinstance(network, Detr):
        for module in network.modules():
            if isinstance(module, Attention):
                module.dropout = 0.0
            elif isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        predictions, suffixes = network.every_layer(pixels, mask), ["_0", "_1", "_2", "_3", "_4", ""]
        total, losses = DETR_CRITERION(predictions, targets, num_objects=objects)
    else:
        layers, proposals = network.every_layer(pixels)
        predictions, suffixes = [*layers, proposals], ["_0", "_1", "", "_enc"]
        total, losses = LWDETR_CRITERION(predictions, targets, num_objects=objects, groups=network.config.num_groups)
    for suffix, terms in zip(suffixes, losses, strict=True):
        for name, term in zip(TERMS, terms, strict=True):
            assert term.item() == pytest.approx(float(expected[f"loss.{name}{suffix}"]), rel=1e-4), name + suffix
    assert total.item() == pytest.approx(float(expected["total"]), rel=1e-4)

    total.backward()
    _, origin = layout.to_ours(
        {name: torch.from_numpy(value) for name, value in fill.state_dict(str(DATA / f"{model}.keys.json")).items()}
    )
    squares: defaultdict[str, float] = defaultdict(float)
    for name, parameter in network.named_parameters():
        if parameter.grad is not None:
            squares[origin[name]] += parameter.grad.square().sum().item()
    norms = dict(zip(expected["grad.names"].tolist(), expected["grad.norms"].tolist(), strict=True))
    frozen = {name for name in squares if name.startswith(("backbone.0.body.conv1", "backbone.0.body.layer1"))}
    assert squares.keys() - frozen == norms.keys()
    for name, norm in norms.items():
        assert squares[name] ** 0.5 == pytest.approx(norm, rel=1e-4, abs=1e-6), name
