"""Our LW-DETR gives the answers of the original implementation, on the way and at the end, in both its forms."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor

from detrcli.images.resize import Exactly
from detrcli.models.end_to_end import BestScores, EndToEnd, corners
from detrcli.models.folding import fold_lwdetr
from detrcli.models.lwdetr import SIZES, LwDetr
from detrcli.models.predictions import Predictions

from .. import golden
from .test_golden import TOLERANCE, check_preprocessing

MODELS = ("lwdetr-tiny", "lwdetr-small", "lwdetr-medium", "lwdetr-large")


def cases(model: str) -> list[str]:
    return [name.removesuffix(".image") for name in golden.answers(model) if name.endswith(".image")]


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def network(model: str, tmp_path_factory: pytest.TempPathFactory) -> LwDetr:
    network = golden.original_network(model, tmp_path_factory.mktemp("original"))
    assert isinstance(network, LwDetr)
    assert network.config == SIZES[model.removeprefix("lwdetr-")]
    return network


@pytest.mark.parametrize("folded", [False, True], ids=["trained", "folded"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_answers(model: str, network: LwDetr, dtype: torch.dtype, folded: bool) -> None:
    network = copy.deepcopy(network).to(dtype)
    if folded:
        network = fold_lwdetr(network)
    expected = golden.answers(model)
    steps: dict[str, Tensor] = {}
    network.backbone.register_forward_hook(lambda *args: steps.update(vit2=args[2][-1]))
    network.projector.register_forward_hook(
        lambda *args: steps.update(
            {"projector": args[2][0]} | {f"projector{i}": one.mean((2, 3)) for i, one in enumerate(args[2])}
        )
    )
    for case in cases(model):
        pixels, mask = golden.batch(golden.pictures(model, case), dtype)
        assert mask is None
        with torch.inference_mode():
            predictions = network(pixels)
        steps |= {"pred_logits": predictions.logits, "pred_boxes": predictions.boxes}
        for name in {"vit2", "projector", "projector0", "projector1", "pred_logits", "pred_boxes"}:
            if f"{case}.{name}" in expected:
                np.testing.assert_allclose(
                    steps[name].numpy(), expected[f"{case}.{name}"], rtol=0, atol=TOLERANCE[dtype], err_msg=name
                )


def test_selection(model: str) -> None:
    expected = golden.answers(model)
    for case in cases(model):
        logits, boxes = (torch.from_numpy(expected[f"{case}.pred_{name}"]).double() for name in ("logits", "boxes"))
        scores, labels, boxes = BestScores(logits.shape[1])(Predictions(logits, boxes))
        np.testing.assert_allclose(scores, expected[f"{case}.post.scores"], rtol=0, atol=2e-5)
        clear = np.abs(np.diff(scores.numpy(), prepend=2, append=-1)) > 1e-6
        clear = clear[:, 1:] & clear[:, :-1]
        assert clear.mean() > 0.9
        np.testing.assert_array_equal(labels.numpy()[clear], expected[f"{case}.post.labels"][clear])
        in_pixels = (corners(boxes) * torch.tensor([640, 480, 640, 480])).numpy()
        np.testing.assert_allclose(in_pixels[clear], expected[f"{case}.post.boxes"][clear], rtol=0, atol=2e-5 * 640)


def test_preprocessing() -> None:
    check_preprocessing("lwdetr", Exactly(640, 640))


def test_end_to_end_gives_the_selection_for_each_picture(network: LwDetr) -> None:
    module = EndToEnd(network, BestScores(20), scale=1 / 255, mean=(0.4, 0.4, 0.4), std=(0.2, 0.2, 0.2))
    images = torch.randint(0, 256, (2, 128, 192, 3), dtype=torch.uint8)
    with torch.inference_mode():
        boxes, scores, labels = module(images, torch.tensor([[480, 640], [100, 50]]))
        logits, relative = network(module.normalise(images))
    assert (scores.diff() <= 0).all()
    for picture, size in enumerate(((640, 480, 640, 480), (50, 100, 50, 100))):
        for score, label, box in zip(scores[picture], labels[picture], boxes[picture], strict=True):
            queries = (logits[picture, :, label].sigmoid() - score).abs() < 1e-4
            candidates = corners(relative[picture]) * torch.tensor(size)
            assert ((candidates - box).abs().amax(-1)[queries] < 1e-2).any()
