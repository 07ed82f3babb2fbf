"""Matches, losses and gradients equal those of the original implementations."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from detrcli.models.boxes import Predictions
from detrcli.models.detr import DetrConfig
from detrcli.models.table_transformer import DETECTION
from detrcli.training.criterion import DETR_CRITERION, LWDETR_CRITERION, SetCriterion, criterion_for
from detrcli.training.matcher import Target

from ..golden import outputs

CRITERIA = {"detr": DETR_CRITERION, "lwdetr": LWDETR_CRITERION}
CASES = [(family, name.removesuffix(".logits")) for family in CRITERIA for name in outputs(f"{family}-criterion")
         if name.count(".") == 1 and name.endswith(".logits")]  # fmt: skip
TERMS = ("loss_ce", "loss_bbox", "loss_giou")


def targets_of(golden: Mapping[str, NDArray[Any]], prefix: str = "") -> list[Target]:
    count = sum(name.startswith(f"{prefix}target") and name.endswith(".labels") for name in golden)
    return [
        Target(
            torch.from_numpy(golden[f"{prefix}target{index}.labels"]),
            torch.from_numpy(golden[f"{prefix}target{index}.boxes"]).reshape(-1, 4),
        )
        for index in range(count)
    ]


@pytest.mark.parametrize(("family", "case"), CASES)
def test_criterion(family: str, case: str) -> None:
    golden = {name.removeprefix(f"{case}."): value for name, value in outputs(f"{family}-criterion").items()}
    criterion: SetCriterion = CRITERIA[family]
    groups = int(golden.get("groups", 1))
    logits = [torch.from_numpy(layer).requires_grad_() for layer in golden["logits"]]
    boxes = [torch.from_numpy(layer).requires_grad_() for layer in golden["boxes"]]
    layers = [Predictions(*pair) for pair in zip(logits, boxes, strict=True)]
    suffixes = [*(f"_{index}" for index in range(len(layers) - 1)), ""]
    if "enc.logits" in golden:
        layers.append(Predictions(torch.from_numpy(golden["enc.logits"]), torch.from_numpy(golden["enc.boxes"])))
        suffixes.append("_enc")
    targets = targets_of(golden)
    objects = torch.tensor(max(1, sum(len(target.labels) for target in targets)))

    last = len(logits) - 1
    match = criterion.matcher(layers[last], targets, groups)
    for image in range(len(targets)):
        in_image = match.image == image
        pairs = set(zip(match.query[in_image].tolist(), match.target[in_image].tolist(), strict=True))
        expected = zip(golden[f"match{image}.query"].tolist(), golden[f"match{image}.target"].tolist(), strict=True)
        assert pairs == set(expected)

    total, losses = criterion(layers, targets, num_objects=objects, groups=groups)
    for suffix, terms in zip(suffixes, losses, strict=True):
        for name, term in zip(TERMS, terms, strict=True):
            assert term.item() == pytest.approx(float(golden[f"loss.{name}{suffix}"]), rel=1e-6), name + suffix
    assert total.item() == pytest.approx(float(golden["total"]), rel=1e-6)
    total.backward()
    for name, tensor in (("logits", logits[last]), ("boxes", boxes[last])):
        assert tensor.grad is not None
        np.testing.assert_allclose(tensor.grad.numpy(), golden[f"grad.{name}_last"], rtol=1e-6, atol=1e-12)


def test_no_object_weighs_more_in_table_transformer() -> None:
    logits, boxes = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(0)), torch.full((1, 4, 4), 0.5)
    targets = [Target(torch.tensor([1]), torch.tensor([[0.5, 0.5, 0.4, 0.4]]))]
    surprise = -logits[0].log_softmax(-1)
    for config, weight in ((DETECTION, 0.4), (DetrConfig(2), 0.1)):
        criterion = criterion_for(config)
        (query,) = criterion.matcher(Predictions(logits, boxes), targets, 1).query.tolist()
        _, (losses,) = criterion([Predictions(logits, boxes)], targets, num_objects=torch.tensor(1))
        others = sum(surprise[other, 2].item() for other in range(4) if other != query)
        expected = (surprise[query, 1].item() + weight * others) / (1 + 3 * weight)
        assert losses.loss_class.item() == pytest.approx(expected)


@pytest.mark.parametrize("family", CRITERIA)
def test_half_precision_is_matched_in_float32(family: str) -> None:
    torch.manual_seed(0)
    logits, boxes = torch.randn(1, 20, 5).bfloat16(), torch.rand(1, 20, 4).bfloat16()
    targets = [Target(torch.tensor([0, 3]), torch.rand(2, 4))]
    matcher = CRITERIA[family].matcher
    rough = matcher.costs(Predictions(logits, boxes), targets)
    at_least_float32 = matcher.costs(Predictions(logits.float(), boxes.float()), targets)
    torch.testing.assert_close(rough, at_least_float32, rtol=0, atol=0)
