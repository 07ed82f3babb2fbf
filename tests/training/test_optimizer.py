"""Learning rates by part and over time."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from detrcli.checkpoints.layouts import LWDETR_ORIGINAL, RFDETR_ORIGINAL
from detrcli.checkpoints.load import LoadedModel
from detrcli.models.detr import Detr
from detrcli.models.lwdetr import SIZES, LwDetr
from detrcli.models.rfdetr import SIZES as RFDETR_SIZES
from detrcli.models.rfdetr import RfDetr
from detrcli.training.optimizer import FROM_SCRATCH, build_optimizer, fine_tuning_config, freeze_stem, lr_factor

from ..places import DATA
from .small import small_detr, small_lwdetr, small_table_transformer


def rates(network: Detr | LwDetr, lr: float, scratch: bool = False) -> dict[str, tuple[float, float]]:
    """Return the learning rate and weight decay of every trained parameter."""
    optimizer = build_optimizer(network, lr, FROM_SCRATCH if scratch else fine_tuning_config(network))
    groups = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    return {name: groups[id(parameter)] for name, parameter in network.named_parameters() if id(parameter) in groups}


@pytest.mark.parametrize(("make", "backbone_lr"), [(small_detr, 1e-5), (small_table_transformer, 2e-5)])
def test_detr_trains_its_backbone_slowly_and_freezes_its_stem(
    make: Callable[[], LoadedModel], backbone_lr: float
) -> None:
    network = make().network
    freeze_stem(network)
    given = rates(network, 1e-4)
    for name, found in given.items():
        assert found == pytest.approx((backbone_lr if name.startswith("backbone.") else 1e-4, 1e-4)), name
    left_out = {name for name, _ in network.named_parameters()} - set(given)
    assert left_out
    assert all(name.startswith(("backbone.conv1", "backbone.layer1")) for name in left_out)


@pytest.mark.parametrize("size", ["tiny", "large"])
def test_lwdetr_uses_the_published_learning_rates(size: str) -> None:
    """The files hold learning rate and weight decay of each parameter by its original name.

    They were made by the original's own `get_param_dict`, `get_named_param_lr_pairs`, `get_vit_lr_decay_rate` and
    `get_vit_weight_decay_rate` with the arguments of `lwdetr_tiny_coco_train.sh` and `lwdetr_large_coco_train.sh`.
    """
    published = json.loads((DATA / f"lwdetr-{size}.rates.json").read_text())
    shapes = json.loads((DATA / f"lwdetr-{size}.keys.json").read_text())
    assert all(name in published or name.endswith(("mean", "var", "num_batches_tracked")) for name in shapes)
    tensors = {name: torch.empty(shapes[name], device="meta") for name in published}
    origin = LWDETR_ORIGINAL.to_ours(tensors)[1]
    given = rates(LwDetr(SIZES[size]), 1e-4)
    assert set(given) == set(origin)
    wrong = {name: found for name, found in given.items() if found != pytest.approx(published[origin[name]], rel=1e-5)}
    assert wrong == {}


@pytest.mark.parametrize(
    ("size", "last_block", "first_block", "weight_decay"),
    [
        ("nano", 5.88e-5, 1.92676e-5, 1e-4),  # not published, as tiny
        ("small", 5.88e-5, 7.892e-6, 1e-4),
        ("medium", 5.145e-5, 2.0762e-6, 1e-4),
        ("xlarge", 2.8125e-5, 2.11176e-6, 1e-3),
    ],
)
def test_other_sizes_use_the_published_learning_rates(
    size: str, last_block: float, first_block: float, weight_decay: float
) -> None:
    """Learning rates of the last and first ViT block with the arguments of `lwdetr_SIZE_coco_train.sh`."""
    config = replace(SIZES[size], num_classes=7)
    with torch.device("meta"):
        network = LwDetr(config)
    given = rates(network, 1e-4)
    blocks = [given[f"backbone.blocks.{block}.attention.query.weight"] for block in (config.vit_depth - 1, 0)]
    assert blocks[0] == pytest.approx((last_block, weight_decay), rel=1e-4)
    assert blocks[1] == pytest.approx((first_block, weight_decay), rel=1e-4)


@pytest.mark.parametrize("size", ["nano", "base"])
def test_rfdetr_uses_the_learning_rates_of_its_package(size: str) -> None:
    """The files hold learning rate and weight decay of each parameter that has a gradient, by its original name.

    They were made by the `get_param_dict` of rfdetr 1.11.2. The last block of base, after the last feature map, has no
    gradient, but counts in the decay.
    """
    published = json.loads((DATA / f"rfdetr-{size}.rates.json").read_text())
    with torch.device("meta"):
        network = RfDetr(RFDETR_SIZES[size])
    tensors = RFDETR_ORIGINAL.to_published(network.state_dict())
    origin = RFDETR_ORIGINAL.to_ours({name: tensors[name] for name in published})[1]
    given = rates(network, 1e-4)
    assert set(given) == set(origin)
    wrong = {name: found for name, found in given.items() if found != pytest.approx(published[origin[name]], rel=1e-4)}
    assert wrong == {}


def test_from_scratch_all_parts_have_the_same_learning_rate() -> None:
    assert set(rates(small_lwdetr().network, 1e-4, scratch=True).values()) == {(1e-4, 1e-4), (1e-4, 0.0)}
    assert set(rates(small_detr().network, 1e-4, scratch=True).values()) == {(1e-4, 1e-4)}


def test_learning_rate_schedules() -> None:
    cosine = [lr_factor(step, 1100, warmup_steps=100, schedule="cosine") for step in range(1100)]
    assert [cosine[step] for step in (0, 49, 99)] == pytest.approx([1 / 101, 50 / 101, 100 / 101])
    assert [cosine[step] for step in (100, 350, 600, 850)] == pytest.approx([1, 0.855018, 0.505, 0.154982], abs=1e-6)
    assert cosine[-1] == pytest.approx(0.01, abs=1e-4)
    steps = [lr_factor(step, 300, warmup_steps=0, schedule="step") for step in range(300)]
    assert steps == [1] * 200 + [0.1] * 100
