"""DETR reproduces intermediate and final outputs of the original implementation."""

import copy
import io
from collections.abc import Iterable, Mapping

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from detrcli.checkpoints.preprocessing import Preprocessing
from detrcli.images.decode import from_pillow
from detrcli.images.resize import (
    BilinearSampling,
    ExactLongestEdge,
    Exactly,
    PillowFilter,
    ShortestEdge,
    longest_edge,
    resize_image,
)
from detrcli.inference.cpu import pack_linears
from detrcli.inference.fuse import fuse_detr
from detrcli.inference.postprocess import DetrPostprocess, EndToEnd
from detrcli.models.boxes import Predictions, cxcywh_to_xyxy
from detrcli.models.detr import Detr, DetrConfig
from detrcli.models.transformer import Attention, DecoderLayer, EncoderLayer, FeedForward

from .. import fill, golden
from ..places import DATA

DETRS = ("detr-resnet-50", "detr-resnet-101", "detr-resnet-50-dc5")
MODELS = (*DETRS, "table-transformer-detection")
TOLERANCE = {torch.float64: 2e-5, torch.float32: 2e-4}


@pytest.fixture(scope="module", params=[*golden.smallest_first(DETRS), MODELS[-1]])
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def network(model: str, tmp_path_factory: pytest.TempPathFactory) -> Detr:
    network = golden.original_network(model, tmp_path_factory.mktemp("original"))
    assert isinstance(network, Detr)
    return network


def check_steps(steps: Mapping[str, Tensor], names: Iterable[str], model: str, case: str, tolerance: float) -> None:
    """Compare final outputs, and those intermediate ones that have golden values."""
    expected = golden.outputs(model)
    for name in ("pred_logits", "pred_boxes", *(name for name in names if f"{case}.{name}" in expected)):
        np.testing.assert_allclose(
            steps[name].numpy(), expected[f"{case}.{name}"], rtol=0, atol=tolerance, err_msg=name
        )


@golden.IN_ALL_FORMS
def test_outputs(model: str, network: Detr, dtype: torch.dtype, form: str) -> None:
    network = copy.deepcopy(network).to(dtype)
    if form != "trained":
        network = fuse_detr(network)
    if form == "packed":
        pack_linears(network)
    expected = golden.outputs(model)
    steps: dict[str, Tensor] = {}
    network.input_projection.register_forward_hook(lambda _, args, out: steps.update(input_proj=out))
    network.encoder.register_forward_hook(lambda _, args, out: steps.update(position=args[1], memory=out))
    network.decoder.register_forward_hook(lambda _, args, out: steps.update(decoder_last=out[-1]))
    for case in golden.CASES:
        with torch.inference_mode():
            predictions = network(*golden.batch(golden.images(model, case), dtype))
        assert predictions.logits.dtype == predictions.boxes.dtype == dtype
        steps |= {"pred_logits": predictions.logits, "pred_boxes": predictions.boxes}
        if f"{case}.position" in expected:
            position = expected[f"{case}.position"]
            steps["position"] = steps["position"].mT.reshape(-1, *position.shape[1:]).expand(position.shape)
        check_steps(steps, {"input_proj", "position", "memory", "decoder_last"}, model, case, TOLERANCE[dtype])


def test_postprocessing() -> None:
    for model in MODELS:
        expected = golden.outputs(model)
        for case in golden.CASES:
            logits, boxes = (torch.from_numpy(expected[f"{case}.pred_{name}"]).double() for name in ("logits", "boxes"))
            scores, labels, boxes = DetrPostprocess()(Predictions(logits, boxes))
            np.testing.assert_allclose(scores, expected[f"{case}.post.scores"], rtol=0, atol=2e-5)
            np.testing.assert_array_equal(labels, expected[f"{case}.post.labels"])
            in_pixels = cxcywh_to_xyxy(boxes) * torch.tensor([640, 480, 640, 480])
            np.testing.assert_allclose(in_pixels, expected[f"{case}.post.boxes"], rtol=0, atol=2e-5 * 640)


def test_end_to_end(model: str, network: Detr) -> None:
    rules = Preprocessing()
    module = EndToEnd(network, DetrPostprocess(), scale=rules.scale, mean=rules.mean, std=rules.std)
    images = torch.from_numpy(np.stack(golden.images(model, "single")))
    with torch.inference_mode():
        boxes, scores, labels = module(images, torch.tensor([[480, 640]]))
    expected = golden.outputs(model)
    np.testing.assert_allclose(scores, expected["single.post.scores"], rtol=0, atol=2e-4)
    np.testing.assert_array_equal(labels, expected["single.post.labels"])
    np.testing.assert_allclose(boxes, expected["single.post.boxes"], rtol=0, atol=2e-4 * 640)


def check_preprocessing(family: str, rules: Preprocessing, file: str = "preprocess.npz") -> None:
    module = EndToEnd(torch.nn.Identity(), DetrPostprocess(), scale=rules.scale, mean=rules.mean, std=rules.std)
    with np.load(DATA / file) as expected:
        for case in (f"case{number}" for number in range(5)):
            png = io.BytesIO()
            Image.fromarray(fill.image(*expected[f"{case}.image"])).save(png, "PNG")
            with Image.open(png) as image:
                pixels = resize_image(from_pillow(image).decode().image, rules.resize, rules.resample)
            normalized = module.normalize(torch.from_numpy(pixels.copy())[None])[0].numpy()
            every23, mean = expected[f"{case}.{family}.every23"], expected[f"{case}.{family}.mean"]
            np.testing.assert_allclose(normalized[:, ::23, ::23], every23, rtol=0, atol=1e-5, err_msg=case)
            np.testing.assert_allclose(normalized.mean((1, 2), dtype=np.float64), mean, rtol=0, atol=1e-5)
            if f"{case}.{family}.shape" in expected:
                assert normalized.shape == tuple(expected[f"{case}.{family}.shape"])


def test_preprocessing() -> None:
    check_preprocessing("detr", Preprocessing(ShortestEdge()))


@pytest.mark.parametrize(
    ("name", "rules"),
    [
        ("rfdetr", Preprocessing(Exactly(384, 384), BilinearSampling())),
        ("tatr_detection", Preprocessing(ExactLongestEdge(800, 800))),
        ("tatr_structure", Preprocessing(ExactLongestEdge(800, 1000))),
        ("tatr_detection_original", Preprocessing(longest_edge(800), PillowFilter(Image.Resampling.BICUBIC))),
        ("tatr_structure_original", Preprocessing(longest_edge(1000), PillowFilter(Image.Resampling.BICUBIC))),
    ],
)
def test_preprocessing_of_successors(name: str, rules: Preprocessing) -> None:
    check_preprocessing(name, rules, "preprocess2.npz")


SMALL = DetrConfig(
    5, num_queries=7, depths=(1, 1, 1, 1), hidden_dim=32, heads=4, feedforward=16, encoder_layers=1, decoder_layers=3
)


def test_every_layer_ends_with_the_predictions() -> None:
    torch.manual_seed(0)
    network = Detr(SMALL).eval()
    pixels = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        predictions, layers = network(pixels), network.every_layer(pixels)
    assert len(layers) == 3
    assert [layer.logits.shape for layer in layers] == [(2, 7, 6)] * 3
    torch.testing.assert_close(layers[-1], predictions)
    assert not torch.allclose(layers[0].boxes, layers[1].boxes)


def test_every_parameter_has_a_gradient() -> None:
    torch.manual_seed(0)
    network = Detr(SMALL).train()
    layers = network.every_layer(torch.randn(1, 3, 64, 64))
    torch.autograd.backward([layer.logits.square().sum() + layer.boxes.square().sum() for layer in layers])
    # all states are zero in the first layer, so that its self-attention does not depend on queries and keys
    exempt = ("decoder.layers.0.self_attention.query", "decoder.layers.0.self_attention.key")
    without = [
        name
        for name, parameter in network.named_parameters()
        if (parameter.grad is None or not parameter.grad.any()) and not name.startswith(exempt)
    ]
    # softmax is invariant to the bias of keys, and zero states give the weight of values no gradient
    assert [name for name in without if not name.endswith("key.bias")] == [
        "decoder.layers.0.self_attention.value.weight"
    ]


def test_padding_is_masked() -> None:
    torch.manual_seed(0)
    network = Detr(SMALL).eval().double()
    mask = torch.zeros(1, 64, 128, dtype=torch.bool)
    mask[:, :, 64:] = True
    pixels = torch.zeros(1, 3, 64, 128, dtype=torch.float64)
    pixels[..., :64] = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        predictions = network(pixels, mask)
        features = network.backbone(pixels)
        features[..., 2:] += 1
        network.backbone.register_forward_hook(lambda *_: features)
        torch.testing.assert_close(network(pixels, mask), predictions)
        assert not torch.allclose(network(pixels).boxes, predictions.boxes)


def test_dropout_in_training_only() -> None:
    x, queries = torch.randn(2, 5, 32), torch.randn(5, 32)
    attention, feedforward = Attention(32, 4, dropout=1), FeedForward(32, 16, dropout=1)
    encoder, decoder = EncoderLayer(32, 4, 16, dropout=1), DecoderLayer(32, 4, 16, dropout=1)
    torch.testing.assert_close(attention(x, x, x), attention.output.bias.expand(2, 5, 32))
    last = feedforward[-1]
    assert isinstance(last, nn.Linear)
    torch.testing.assert_close(feedforward(x), last.bias.expand(2, 5, 32))
    torch.testing.assert_close(encoder(x, queries, None), encoder.norm2(encoder.norm1(x)))
    normed = decoder.norm3(decoder.norm2(decoder.norm1(x)))
    torch.testing.assert_close(decoder(x, queries, x, x, None), normed)
    assert torch.equal(encoder.eval()(x, queries, None), encoder(x, queries, None))
    assert not torch.allclose(encoder(x, queries, None), encoder.train()(x, queries, None))
    assert DetrConfig(5).dropout == 0.1  # appendix A.4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("padded", [False, True])
def test_boxes_and_positions_are_float32_in_half_precision(dtype: torch.dtype, padded: bool) -> None:
    torch.manual_seed(0)
    network, pixels = Detr(SMALL).eval(), torch.randn(1, 3, 192, 256)
    mask = torch.zeros(1, 192, 256, dtype=torch.bool) if padded else None
    if mask is not None:
        mask[..., 200:] = True
    positions: list[Tensor] = []
    network.encoder.register_forward_hook(lambda _, args, out: positions.append(args[1]))
    with torch.inference_mode():
        network(pixels, mask)
        predictions = network.to(dtype)(pixels.to(dtype), mask)
    assert predictions.boxes.dtype == torch.float32
    assert torch.equal(positions[1], positions[0].to(dtype))
