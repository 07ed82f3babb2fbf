"""Published layouts map one to one onto the networks, both ways; errors name what does not."""

import json
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from detrcli.checkpoints.families import FAMILIES, family_of
from detrcli.checkpoints.find import find
from detrcli.checkpoints.layouts import (
    DETR_HUB,
    DETR_HUB_TIMM,
    DETR_ORIGINAL,
    LWDETR_HUB,
    LWDETR_ORIGINAL,
    RFDETR_NATIVE,
    RFDETR_ORIGINAL,
    TABLE_TRANSFORMER_HUB,
    TABLE_TRANSFORMER_ORIGINAL,
    Layout,
)
from detrcli.checkpoints.load import load_checkpoint, load_model
from detrcli.errors import ModelError
from detrcli.models import rfdetr
from detrcli.models.detr import DetrConfig
from detrcli.models.lwdetr import SIZES, LwDetrConfig
from detrcli.models.table_transformer import DETECTION

from ..places import DATA

CONFIGS: dict[str, DetrConfig | LwDetrConfig] = {
    "detr-resnet-50": DetrConfig(91),
    "detr-resnet-50.hf-backbone": DetrConfig(91),
    "detr-resnet-50.timm-backbone": DetrConfig(91),
    "detr-resnet-50-dc5": DetrConfig(91, dilation=True),
    "detr-resnet-101": DetrConfig(91, depths=(3, 4, 23, 3)),
    "table-transformer-detection": DETECTION,
    "table-transformer-detection.hf-backbone": DETECTION,
    "table-transformer-detection.timm-backbone": DETECTION,
    "lwdetr-tiny": SIZES["tiny"],
    "lwdetr-small": SIZES["small"],
    "lwdetr-medium": SIZES["medium"],
    "lwdetr-large": SIZES["large"],
    "lwdetr-tiny.hub": SIZES["tiny"],
    "lwdetr-large.hub": SIZES["large"],
    **{f"rfdetr-{size}": rfdetr.SIZES[size] for size in ("nano", "small", "medium", "large-2025")},
    "rfdetr-nano.native": rfdetr.SIZES["nano"],
    "rfdetr-nano.native-2026-04": rfdetr.SIZES["nano"],
}


@cache
def shapes(file: str) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor in a published file."""
    content = json.loads((DATA / f"{file}.keys.json").read_text())
    return {name: tuple(shape) for name, shape in content.items()}


def layout_of(file: str) -> Layout:
    return next(layout for family in FAMILIES for layout in family.layouts if layout.mark in shapes(file))


def ours(config: DetrConfig | LwDetrConfig) -> dict[str, Tensor]:
    with torch.device("meta"):
        tensors: dict[str, Tensor] = family_of(config).network(config).state_dict()
        return tensors


def constant(file: str) -> dict[str, Tensor]:
    """Make a published file's tensors, each filled with its own number, without using memory."""
    return {
        name: torch.tensor(float(number)).expand(shape) for number, (name, shape) in enumerate(shapes(file).items())
    }


@pytest.mark.parametrize("file", CONFIGS)
def test_every_name_maps_one_to_one(file: str) -> None:
    published = {name: torch.empty(shape, device="meta") for name, shape in shapes(file).items()}
    tensors, origin = layout_of(file).to_ours(published)
    wanted = ours(CONFIGS[file])
    assert sorted(tensors) == sorted(wanted)
    assert {name: tensor.shape for name, tensor in tensors.items()} == {
        name: tensor.shape for name, tensor in wanted.items()
    }
    assert origin.keys() == tensors.keys()
    assert set(origin.values()) == set(published)


def test_layouts_are_recognized() -> None:
    kinds = (
        (DETR_ORIGINAL, ("detr-resnet-50", "detr-resnet-50-dc5", "detr-resnet-101")),
        (DETR_HUB, ("detr-resnet-50.hf-backbone", "detr-resnet-50.timm-backbone")),
        (TABLE_TRANSFORMER_ORIGINAL, ("table-transformer-detection",)),
        (
            TABLE_TRANSFORMER_HUB,
            ("table-transformer-detection.hf-backbone", "table-transformer-detection.timm-backbone"),
        ),
        (LWDETR_ORIGINAL, ("lwdetr-tiny", "lwdetr-small", "lwdetr-medium", "lwdetr-large")),
        (LWDETR_HUB, ("lwdetr-tiny.hub", "lwdetr-large.hub")),
        (RFDETR_ORIGINAL, ("rfdetr-nano", "rfdetr-small", "rfdetr-medium", "rfdetr-large-2025")),
        (RFDETR_NATIVE, ("rfdetr-nano.native", "rfdetr-nano.native-2026-04")),
    )
    for layout, files in kinds:
        assert all(layout_of(file) is layout for file in files)


def test_joint_projections_are_query_key_value() -> None:
    name = "transformer.decoder.layers.0.multihead_attn.in_proj"
    weight, bias = torch.randn(12, 4), torch.randn(12)
    tensors, origin = DETR_ORIGINAL.to_ours({f"{name}_weight": weight, f"{name}_bias": bias})
    attention = torch.nn.MultiheadAttention(4, 1)
    torch.testing.assert_close(attention.in_proj_weight.shape, weight.shape)
    for place, part in enumerate(("query", "key", "value")):
        rows = slice(4 * place, 4 * place + 4)
        for kind, joint in (("weight", weight), ("bias", bias)):
            given = f"decoder.layers.0.cross_attention.{part}.{kind}"
            torch.testing.assert_close(tensors[given], joint[rows], rtol=0, atol=0)
            assert origin[given] == f"{name}_{kind}"


@pytest.mark.parametrize("file", [file for file in CONFIGS if "2026-04" not in file])
def test_every_name_and_tensor_maps_back(file: str) -> None:
    published = {name: rows_of(shape) for name, shape in shapes(file).items()}
    layout = DETR_HUB_TIMM if "timm" in file else layout_of(file)
    written = layout.to_published(layout.to_ours(published)[0])
    assert written.keys() == published.keys()
    assert all(torch.equal(written[name], published[name]) for name in published)


def rows_of(shape: tuple[int, ...]) -> torch.Tensor:
    """Make a tensor whose rows are all different."""
    rows = torch.arange(shape[0] if shape else 1, dtype=torch.int16)
    return rows.reshape(-1, *(1 for _ in shape[1:])).expand(shape) if shape else rows[0]


def test_all_layouts_of_one_network_are_equal(tmp_path: Path) -> None:
    values = {name: torch.tensor(float(i)).expand(tensor.shape) for i, (name, tensor) in enumerate(ours_50().items())}
    for layout in (DETR_ORIGINAL, DETR_HUB, DETR_HUB_TIMM):
        torch.save(layout.to_published(values), tmp_path / "weights.pth")
        network = load_model(tmp_path / "weights.pth")
        assert network.config == DetrConfig(91)
        for name, tensor in network.state_dict().items():
            assert torch.equal(tensor, values[name]), name


def ours_50() -> dict[str, Tensor]:
    return ours(DetrConfig(91))


def test_batch_counters_are_ignored(tmp_path: Path) -> None:
    file = "detr-resnet-50"
    counters = {
        name.replace("running_mean", "num_batches_tracked"): torch.tensor(7)
        for name in shapes(file)
        if name.endswith("running_mean")
    }
    assert counters
    torch.save(constant(file) | counters, tmp_path / "weights.pth")
    names = load_model(tmp_path / "weights.pth").state_dict().keys()
    assert names == ours_50().keys()


def error_of(tensors: dict[str, Tensor], folder: Path) -> str:
    path = folder / "weights.pth"
    torch.save(tensors, path)
    with pytest.raises(ModelError) as caught:
        load_checkpoint(find(str(path)))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_tensors_are_named(tmp_path: Path) -> None:
    tensors = constant("detr-resnet-50.hf-backbone")
    missing = [name for name in tensors if name.startswith("model.encoder.layers.2.")]
    for name in missing:
        del tensors[name]
    message = error_of(tensors, tmp_path)
    assert "missing encoder.layers.2." in message
    assert message.count("encoder.layers.2.") == 4
    assert f"and {len(missing) - 4} more" in message
    assert "unexpected" not in message


def test_one_missing_tensor_is_named(tmp_path: Path) -> None:
    tensors = constant("detr-resnet-50")
    del tensors["bbox_embed.layers.1.bias"]
    assert error_of(tensors, tmp_path).endswith("do not match the network: missing box_head.layers.1.bias")


@pytest.mark.parametrize(
    "name",
    ["class_embed.weight", "query_embed.weight", "transformer.encoder.layers.0.linear1.weight"],
)
def test_missing_tensors_that_sizes_are_derived_from_are_named(tmp_path: Path, name: str) -> None:
    tensors = constant("detr-resnet-50")
    del tensors[name]
    (lost,) = DETR_ORIGINAL.to_ours({name: torch.zeros(2)})[0]
    if name == DETR_ORIGINAL.mark:
        lost = name
    assert lost in error_of(tensors, tmp_path)


def test_unexpected_tensors_are_named_as_in_the_file(tmp_path: Path) -> None:
    more = {f"extra_head.lay{number}.weight": torch.zeros(1) for number in range(6)}
    message = error_of(constant("detr-resnet-50") | more, tmp_path)
    assert "unexpected extra_head.lay0.weight, extra_head.lay1.weight" in message
    assert "extra_head.lay3.weight and 2 more" in message
    assert "missing" not in message


def test_wrong_shapes_are_named_as_in_the_file(tmp_path: Path) -> None:
    tensors = constant("detr-resnet-50")
    tensors["input_proj.weight"] = torch.zeros(1).expand(256, 512, 1, 1)
    assert "input_proj.weight is (256, 512, 1, 1), not (256, 2048, 1, 1)" in error_of(tensors, tmp_path)


def test_many_wrong_shapes_are_counted(tmp_path: Path) -> None:
    tensors = constant("detr-resnet-50")
    wrong = [name for name in tensors if name.endswith("norm2.weight")]
    for name in wrong:
        tensors[name] = torch.zeros(7)
    message = error_of(tensors, tmp_path)
    assert message.count("is (7,), not (256,)") == 4
    assert f"and {len(wrong) - 4} more" in message


def test_joint_projection_that_cannot_be_split(tmp_path: Path) -> None:
    tensors = constant("detr-resnet-50")
    name = "transformer.encoder.layers.1.self_attn.in_proj_weight"
    tensors[name] = torch.zeros(1).expand(767, 256)
    assert name in error_of(tensors, tmp_path)


def test_an_unknown_layout_is_shown_by_its_names(tmp_path: Path) -> None:
    message = error_of({f"yolo.{number}.weight": torch.zeros(1) for number in range(9)}, tmp_path)
    assert "yolo.0.weight" in message
    assert "and 5 more" in message
