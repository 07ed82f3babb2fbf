"""LW-DETR reproduces intermediate and final outputs of the original implementation, trained and fused."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from detrcli.checkpoints.preprocessing import Preprocessing
from detrcli.images.resize import Exactly
from detrcli.inference.cpu import pack_linears, use_exp2_attention
from detrcli.inference.fuse import fuse_lwdetr
from detrcli.inference.postprocess import EndToEnd, LwDetrPostprocess, postprocess_for
from detrcli.models.boxes import Predictions, apply_deltas, cxcywh_to_xyxy, make_anchors
from detrcli.models.lwdetr import SIZES, LwDetr
from detrcli.models.vit import PositionEmbedding

from .. import golden
from .test_golden import TOLERANCE, check_preprocessing, check_steps

MODELS = ("lwdetr-tiny", "lwdetr-small", "lwdetr-medium", "lwdetr-large")


def cases(model: str) -> list[str]:
    found = [name.removesuffix(".image") for name in golden.outputs(model) if name.endswith(".image")]
    assert {"batch", "square", "wide"} <= {*found}
    return found


@pytest.fixture(scope="module", params=golden.smallest_first(MODELS))
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def network(model: str, tmp_path_factory: pytest.TempPathFactory) -> LwDetr:
    network = golden.original_network(model, tmp_path_factory.mktemp("original"))
    assert isinstance(network, LwDetr)
    assert network.config == SIZES[model.removeprefix("lwdetr-")]
    return network


def with_exp2_attention(network: LwDetr) -> LwDetr:
    use_exp2_attention(fuse_lwdetr(network))
    return network


def packed(network: LwDetr) -> LwDetr:
    pack_linears(with_exp2_attention(network))
    return network


FORMS: dict[str, Callable[[LwDetr], LwDetr]] = {
    "trained": lambda network: network,
    "fused": fuse_lwdetr,
    "exp2": with_exp2_attention,
    "packed": packed,
}


@pytest.mark.parametrize(
    ("form", "dtype"),
    [
        ("trained", torch.float64),
        ("trained", torch.float32),
        pytest.param("fused", torch.float64, marks=pytest.mark.slow),  # twice as long as in float32
        ("fused", torch.float32),
        ("exp2", torch.float64),
        ("packed", torch.float32),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_outputs(model: str, network: LwDetr, dtype: torch.dtype, form: str) -> None:
    network = FORMS[form](copy.deepcopy(network).to(dtype))
    steps: dict[str, Tensor] = {}
    network.backbone.register_forward_hook(lambda *args: steps.update(vit2=args[2][-1]))
    network.projector.register_forward_hook(
        lambda *args: steps.update(
            {f"projector{level}": one.mean((1, 2)) for level, one in enumerate(args[2])},
            projector=args[2][0].permute(0, 3, 1, 2),
        )
    )
    for case in cases(model):
        pixels, mask = golden.batch(golden.images(model, case), dtype)
        assert mask is None
        with torch.inference_mode():
            predictions = network(pixels)
        steps |= {"pred_logits": predictions.logits, "pred_boxes": predictions.boxes}
        check_steps(steps, {"vit2", "projector", "projector0", "projector1"}, model, case, TOLERANCE[dtype])


@pytest.mark.parametrize("name", MODELS)
def test_postprocessing(name: str) -> None:
    expected = golden.outputs(name)
    for case in cases(name):
        logits, boxes = (torch.from_numpy(expected[f"{case}.pred_{name}"]).double() for name in ("logits", "boxes"))
        scores, labels, boxes = LwDetrPostprocess(logits.shape[1])(Predictions(logits, boxes))
        np.testing.assert_allclose(scores, expected[f"{case}.post.scores"], rtol=0, atol=2e-5)
        clear = np.abs(np.diff(scores.numpy(), prepend=2, append=-1)) > 1e-6
        clear = clear[:, 1:] & clear[:, :-1]
        assert clear.mean() > 0.9
        np.testing.assert_array_equal(labels.numpy()[clear], expected[f"{case}.post.labels"][clear])
        in_pixels = (cxcywh_to_xyxy(boxes) * torch.tensor([640, 480, 640, 480])).numpy()
        np.testing.assert_allclose(in_pixels[clear], expected[f"{case}.post.boxes"][clear], rtol=0, atol=2e-5 * 640)


def test_preprocessing() -> None:
    check_preprocessing("lwdetr", Preprocessing(Exactly(640, 640)))


def test_end_to_end(network: LwDetr) -> None:
    module = EndToEnd(network, LwDetrPostprocess(20), scale=1 / 255, mean=(0.4, 0.4, 0.4), std=(0.2, 0.2, 0.2))
    images = torch.randint(0, 256, (2, 128, 192, 3), dtype=torch.uint8)
    with torch.inference_mode():
        boxes, scores, labels = module(images, torch.tensor([[480, 640], [100, 50]]))
        logits, relative = network(module.normalize(images))
    assert (scores.diff() <= 0).all()
    for image, size in enumerate(((640, 480, 640, 480), (50, 100, 50, 100))):
        for score, label, box in zip(scores[image], labels[image], boxes[image], strict=True):
            queries = (logits[image, :, label].sigmoid() - score).abs() < 1e-4
            candidates = cxcywh_to_xyxy(relative[image]) * torch.tensor(size)
            assert ((candidates - box).abs().amax(-1)[queries] < 1e-2).any()


@pytest.mark.parametrize(("height", "width"), [(64, 64), (128, 64), (64, 448)])
def test_images_of_fewer_cells_than_queries(height: int, width: int) -> None:
    torch.manual_seed(0)
    network, pixels = LwDetr(SIZES["tiny"]).eval(), torch.randn(2, 3, height, width)
    with torch.inference_mode():
        predictions = network(pixels)
        fused, packed = (FORMS[form](copy.deepcopy(network))(pixels) for form in ("fused", "packed"))
    assert predictions.boxes.shape == (2, min(100, height * width // 256), 4)
    assert predictions.boxes.isfinite().all()
    assert fused.boxes.isfinite().all()
    torch.testing.assert_close(packed.boxes, fused.boxes)


def test_sides_that_are_no_multiples_of_64() -> None:
    with pytest.raises(ValueError, match="multiples of 64"):
        LwDetr(SIZES["tiny"]).eval()(torch.zeros(1, 3, 640, 600))


def test_images_of_a_batch_are_independent() -> None:
    torch.manual_seed(0)
    network = fuse_lwdetr(LwDetr(SIZES["tiny"]).eval().double())
    pixels = torch.randn(3, 3, 192, 256, dtype=torch.float64)
    with torch.inference_mode():
        together = network(pixels)
        for index in (2, 0):
            alone = network(pixels[index : index + 1])
            torch.testing.assert_close(alone.logits[0], together.logits[index])
            torch.testing.assert_close(alone.boxes[0], together.boxes[index])


@pytest.mark.parametrize(
    ("form", "dtype", "tolerance", "device"),
    [
        ("fused", torch.float16, 0.01, "cpu"),
        ("fused", torch.bfloat16, 0.08, "cpu"),
        ("exp2", torch.bfloat16, 0.08, "cpu"),
        pytest.param("fused", torch.float16, 0.01, "cuda", marks=pytest.mark.gpu),
        pytest.param("fused", torch.bfloat16, 0.08, "cuda", marks=pytest.mark.gpu),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_half_precision(network: LwDetr, form: str, dtype: torch.dtype, tolerance: float, device: str) -> None:
    """From the same proposals, since their choice depends on differences below half precision."""
    model = fuse_lwdetr(copy.deepcopy(network))
    pixels, _ = golden.batch(golden.images("lwdetr-tiny", "batch"), torch.float32)
    with torch.inference_mode():
        maps = model.feature_maps(pixels)
        boxes = model.propose(maps, (model.proposals[0],), model.config.num_queries).boxes
        expected = model.decode(maps, boxes)
        half = (with_exp2_attention(copy.deepcopy(network)) if form == "exp2" else model).to(device, dtype)
        rough_maps = half.feature_maps(pixels.to(device, dtype))
        rough = half.decode(rough_maps, boxes.to(device))
    for one, other in zip(rough_maps, maps, strict=True):
        assert (one.float().cpu() - other).abs().mean() < tolerance * other.abs().mean()
    assert rough.boxes.dtype == torch.float32
    assert (rough.logits.float().cpu() - expected.logits).abs().mean() < tolerance * expected.logits.abs().mean()
    assert (rough.boxes.cpu() - expected.boxes).abs().mean() < tolerance * expected.boxes.abs().mean()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_boxes_are_float32_in_half_precision(dtype: torch.dtype) -> None:
    sizes, like = [(40, 40), (20, 20)], torch.zeros(1)
    anchors = make_anchors(sizes, like.to(dtype))
    torch.testing.assert_close(anchors, make_anchors(sizes, like), rtol=0, atol=0)
    deltas = torch.randn(len(anchors), 4).to(dtype)
    torch.testing.assert_close(apply_deltas(anchors, deltas), apply_deltas(anchors, deltas.float()), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["tiny", "small"])
def test_as_many_detections_as_object_queries(name: str) -> None:
    with torch.device("meta"):
        postprocess = postprocess_for(LwDetr(SIZES[name]))
    many = Predictions(torch.zeros(1, 300, 91), torch.zeros(1, 300, 4))
    assert postprocess(many)[0].shape == (1, SIZES[name].num_queries)
    few = Predictions(torch.zeros(1, 16, 2), torch.zeros(1, 16, 4))  # a small image, and a model of few classes
    assert postprocess(few)[0].shape == (1, 32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_sampling_locations_are_float32_in_half_precision(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    decoder = LwDetr(SIZES["nano"]).eval().decoder
    grids: list[Tensor] = []
    sample = F.grid_sample

    def record(features: Tensor, grid: Tensor, **options: Any) -> Tensor:
        grids.append(grid)
        return sample(features, grid, **options)

    monkeypatch.setattr(F, "grid_sample", record)
    encoded: list[Tensor] = []
    decoder.position_head.register_forward_pre_hook(lambda _, args: encoded.append(args[0]))
    queries, boxes, features = torch.randn(60, 128), torch.rand(1, 60, 4), torch.randn(1, 4, 4, 128)
    with torch.inference_mode():
        decoder(queries, boxes, [features])
        decoder.to(dtype)(queries.to(dtype), boxes, [features.to(dtype)])
    assert {grid.dtype for grid in grids} == {torch.float32}
    assert torch.equal(encoded[1], encoded[0].to(dtype))

    positions = PositionEmbedding(8, 14).to(dtype)
    torch.nn.init.normal_(positions.weight)
    assert torch.equal(positions(5, 7), copy.deepcopy(positions).float()(5, 7).to(dtype))


def test_groups_have_their_own_queries_where_there_are_fewer_cells() -> None:
    torch.manual_seed(0)
    network = LwDetr(replace(SIZES["nano"], num_groups=3)).train()
    layers, proposals = network.every_layer(torch.randn(2, 3, 64, 64))
    assert layers[-1].boxes.shape == proposals.boxes.shape == (2, 3 * 16, 4)
    layers[-1].logits[:, 16:32].square().sum().backward()
    assert network.object_queries.weight.grad is not None
    assert network.object_queries.weight.grad.any(1).nonzero().flatten().tolist() == list(range(60, 76))
