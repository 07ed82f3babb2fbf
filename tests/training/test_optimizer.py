"""Learning rates of the parts, over time; the average of the weights; first weights."""

import copy
import math

import pytest
import torch

from detrcli.models.detr import Detr
from detrcli.models.lwdetr import LwDetr
from detrcli.training.average import Average
from detrcli.training.initial import class_heads, with_classes
from detrcli.training.optimizer import FINE_TUNING, FROM_SCRATCH, freeze_stem, optimizer_for, share

from .few import small_detr, small_lwdetr


def rates(network: Detr | LwDetr, rate: float, scratch: bool = False) -> dict[str, tuple[float, float]]:
    optimizer = optimizer_for(network, rate, FROM_SCRATCH if scratch else FINE_TUNING[type(network)])
    groups = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    return {name: groups[id(parameter)] for name, parameter in network.named_parameters() if id(parameter) in groups}


def test_detr_learns_its_backbone_slowly_and_its_stem_not_at_all() -> None:
    network = small_detr().network
    freeze_stem(network)
    given = rates(network, 1e-4)
    assert given["backbone.layer2.0.conv1.weight"] == pytest.approx((1e-5, 1e-4))
    assert given["encoder.layers.0.feedforward.0.weight"] == pytest.approx((1e-4, 1e-4))
    assert not [name for name in given if name.startswith(("backbone.conv1", "backbone.layer1"))]


def test_lwdetr_learns_its_first_blocks_slowly() -> None:
    given = rates(small_lwdetr().network, 1e-4)
    assert given["backbone.blocks.1.attention.query.weight"][0] == pytest.approx(1.5e-4)
    assert given["backbone.blocks.0.attention.query.weight"][0] == pytest.approx(1.5e-4 * 0.8)
    assert given["backbone.embedding.patches.weight"][0] == pytest.approx(1.5e-4 * 0.64)
    assert given["projector.stages.0.c2f.split.0.weight"] == pytest.approx((1e-4, 1e-4))
    undecayed = [name for name, (_, decay) in given.items() if decay == 0]
    assert {"backbone.embedding.positions.weight", "backbone.blocks.0.scale1.weight", "class_head.bias"} <= {*undecayed}
    assert set(rates(small_lwdetr().network, 1e-4, scratch=True).values()) == {(1e-4, 1e-4), (1e-4, 0.0)}


def test_the_rate_rises_and_falls() -> None:
    cosine = [share(step, 1000, warm_up=100, decline="cosine") for step in range(1000)]
    assert cosine[:100] == pytest.approx([(step + 1) / 101 for step in range(100)])
    assert cosine[100] == 1
    assert cosine[100:] == sorted(cosine[100:], reverse=True)
    assert cosine[-1] == pytest.approx(0.01, abs=1e-4)
    steps = [share(step, 300, warm_up=0, decline="step") for step in range(300)]
    assert steps == [1] * 200 + [0.1] * 100


def test_the_average_follows() -> None:
    network = small_lwdetr().network
    average = Average(network, decay=0.9, warm_up=1)
    start = copy.deepcopy(network.state_dict())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    average.follow(network, 2)
    kept = 0.9 * (1 - math.exp(-2))
    for name, value in average.network.named_parameters():
        torch.testing.assert_close(value, start[name] * kept + (start[name] + 1) * (1 - kept))
    for _ in range(400):
        average.follow(network, 1000)
    for name, value in average.network.named_parameters():
        torch.testing.assert_close(value, start[name] + 1, rtol=0, atol=1e-4)


@pytest.mark.parametrize("make", [small_detr, small_lwdetr])
def test_classes_of_the_same_name_keep_their_weights(make: type) -> None:
    old, new = ("a", "b", "c"), ("x", "C", " a ", "y")
    network = make(old).network
    fresh = with_classes(network, old, new)
    assert fresh.config.num_classes == 4
    for before, after in zip(class_heads(network), class_heads(fresh), strict=True):
        assert torch.equal(after.weight[1], before.weight[2])
        assert torch.equal(after.weight[2], before.weight[0])
        if isinstance(network, Detr):
            assert torch.equal(after.weight[4], before.weight[3])  # no-object
        else:
            assert len(after.weight) == 4
            assert after.bias[[0, 3]].sigmoid().tolist() == pytest.approx([0.01, 0.01])
    same = {name for name in network.state_dict() if "class_head" not in name}
    assert all(torch.equal(network.state_dict()[name], fresh.state_dict()[name]) for name in same)


def test_at_first_everything_scores_little() -> None:
    network = small_lwdetr().network.eval()
    with torch.inference_mode():
        answer = network(torch.randn(1, 3, 128, 128))
    assert answer.logits.sigmoid().mean().item() < 0.1
    assert torch.isfinite(answer.boxes).all()
