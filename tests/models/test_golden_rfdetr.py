"""RF-DETR reproduces intermediate and final outputs of the original implementation, trained and fused."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor

from detrcli.detections import DetectionFilter
from detrcli.inference.postprocess import LwDetrPostprocess
from detrcli.models.boxes import Predictions, cxcywh_to_xyxy
from detrcli.models.rfdetr import SIZES, RfDetr

from .. import golden
from .test_golden_lwdetr import FORMS

MODELS = ("rfdetr-nano", "rfdetr-small", "rfdetr-medium", "rfdetr-large-2025")
TOLERANCE = {torch.float64: 2e-5, torch.float32: 2e-4}
CASES = {"rfdetr-nano": {"square", "wide", "batch", "few", "border"}}
"""Cases of a model, if more than the square one: sides that differ, several images, fewer cells than object queries,
and cells near the border, which are not valid proposals."""


@pytest.fixture(scope="module", params=golden.smallest_first(MODELS))
def model(request: pytest.FixtureRequest) -> str:
    if not golden.is_present(request.param):
        pytest.skip(f"needs the golden outputs of {request.param}")
    return str(request.param)


@pytest.fixture(scope="module")
def network(model: str, tmp_path_factory: pytest.TempPathFactory) -> RfDetr:
    network = golden.original_network(model, tmp_path_factory.mktemp("original"))
    assert isinstance(network, RfDetr)
    assert network.config == SIZES[model.removeprefix("rfdetr-")]
    return network


@golden.IN_ALL_FORMS
def test_outputs(model: str, network: RfDetr, form: str, dtype: torch.dtype) -> None:
    network = copy.deepcopy(network).to(dtype)
    FORMS[form](network)
    steps: dict[str, Tensor] = {}
    network.get_submodule("proposals.0.class_head").register_forward_hook(
        lambda *args: steps.update(enc_scores_mean=args[2].amax(-1).mean())
    )
    network.backbone.register_forward_hook(lambda *args: steps.update(numbered("vit", args[2])))
    network.projector.register_forward_hook(
        lambda *args: steps.update(numbered("projector", [one.permute(0, 3, 1, 2) for one in args[2]]))
    )
    expected = golden.outputs(model)
    cases = {name.removesuffix(".image") for name in expected if name.endswith(".image")}
    assert cases == CASES.get(model, {"square"})
    for case in cases:
        pixels, _ = golden.batch(golden.images(model, case), dtype)
        steps.clear()
        with torch.inference_mode():
            predictions = network(pixels)
        assert predictions.logits.dtype == predictions.boxes.dtype == dtype
        steps |= {"pred_logits": predictions.logits, "pred_boxes": predictions.boxes}
        given = {name.removeprefix(f"{case}.") for name in expected if name.startswith(f"{case}.")}
        for name in {name for name in given if not name.startswith("post.")} - {"image"}:
            actual, wanted = steps[name].numpy(), expected[f"{case}.{name}"]
            if wanted.ndim == 2:
                actual = actual.mean((2, 3))
            np.testing.assert_allclose(actual, wanted, rtol=0, atol=TOLERANCE[dtype], err_msg=f"{case}.{name}")


def numbered(name: str, maps: list[Tensor]) -> dict[str, Tensor]:
    """Name feature maps as in the golden files, in which a single projector map has no number."""
    return {f"{name}{number}": one for number, one in enumerate(maps)} | ({name: maps[0]} if len(maps) == 1 else {})


def test_postprocessing(model: str) -> None:
    expected = golden.outputs(model)
    classes = tuple(f"class {label}" for label in range(expected["square.pred_logits"].shape[-1]))
    cases = {name.removesuffix(".post.boxes") for name in expected if name.endswith(".post.boxes")}
    assert cases >= {"square"} | ({"few", "border"} if model == "rfdetr-nano" else set())
    for case in cases:
        logits, boxes = (torch.from_numpy(expected[f"{case}.pred_{name}"]) for name in ("logits", "boxes"))
        scores, labels, boxes = LwDetrPostprocess(300)(Predictions(logits, boxes))
        in_pixels = cxcywh_to_xyxy(boxes) * torch.tensor([640, 480, 640, 480])
        for image, one in enumerate(zip(in_pixels.numpy(), scores.numpy(), labels.numpy(), strict=True)):
            found = DetectionFilter(threshold=0).select(*one, classes, (640, 480))
            wanted = {name: expected[f"{case}.post.{name}"][image] for name in ("scores", "labels", "boxes")}
            np.testing.assert_allclose(found.scores, wanted["scores"], rtol=0, atol=2e-5)
            apart = np.abs(np.diff(wanted["scores"], prepend=2, append=-1)) > 1e-6  # equal ones may come in any order
            clear = apart[1:] & apart[:-1]
            assert clear.mean() > 0.9
            np.testing.assert_array_equal(found.labels[clear], wanted["labels"][clear])
            np.testing.assert_allclose(found.boxes[clear], wanted["boxes"][clear], rtol=0, atol=2e-5 * 640)


@pytest.mark.parametrize("name", ["nano", "large-2025"])
def test_blocks_after_the_last_feature_map_are_not_trained(name: str) -> None:
    with torch.device("meta"):
        network = RfDetr(SIZES[name])
    frozen = {one.split(".")[2] for one, parameter in network.named_parameters() if not parameter.requires_grad}
    assert frozen == (set() if name == "nano" else {"11"})
