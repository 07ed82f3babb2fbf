"""Published weights give the published predictions. Needs the Hub and the server of the COCO images."""

import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import detrcli
from detrcli.checkpoints.find import find
from detrcli.checkpoints.load import load_checkpoint
from detrcli.checkpoints.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from detrcli.images.decode import read_image
from detrcli.images.resize import (
    PILLOW_BILINEAR,
    BilinearSampling,
    ExactLongestEdge,
    Exactly,
    PillowFilter,
    Resample,
    ShortestEdge,
    longest_edge,
    resize_image,
)
from detrcli.inference.torch import TorchBackend

CATS = "http://images.cocodataset.org/val2017/000000039769.jpg"


@pytest.fixture(scope="module")
def cats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "cats.jpg"
    urllib.request.urlretrieve(CATS, path)
    return path


@pytest.mark.hub
@pytest.mark.parametrize("revision", [None, "no_timm"])
def test_detr_resnet_50(cats: Path, revision: str | None) -> None:

    network = detrcli.load_model("detr-resnet-50", revision=revision)
    image = resize_image(read_image(cats).image, ShortestEdge(), PILLOW_BILINEAR)
    pixels = torch.from_numpy((image / 255 - IMAGENET_MEAN) / IMAGENET_STD).permute(2, 0, 1)[None].float()
    with torch.inference_mode():
        predicted = network(pixels)
    logits = [[-19.1194, -0.0893, -11.0154], [-17.3640, -1.8035, -14.0219], [-20.0461, -0.5837, -11.1060]]
    boxes = [[0.4433, 0.5302, 0.8853], [0.5494, 0.2517, 0.0529], [0.4998, 0.5360, 0.9956]]
    np.testing.assert_allclose(predicted.logits[0, :3, :3], logits, rtol=0, atol=1e-2)
    np.testing.assert_allclose(predicted.boxes[0, :3, :3], boxes, rtol=0, atol=1e-3)

    (found,) = detrcli.load("detr-resnet-50", device="cpu", revision=revision).predict(cats, threshold=0.3)
    np.testing.assert_allclose(found.scores, [0.9988, 0.9987, 0.9982, 0.9960, 0.9955], rtol=0, atol=1e-3)
    assert found.names == ("cat", "cat", "remote", "remote", "couch")


@pytest.mark.hub
@pytest.mark.parametrize("model", ["detr-resnet-50-dc5", "detr-resnet-101", "detr-resnet-101-dc5"])
def test_the_other_detrs_detect_the_cats(cats: Path, model: str) -> None:
    (found,) = detrcli.load(model, device="cpu").predict(cats, threshold=0.9)
    assert found.names.count("cat") == 2
    assert found.names.count("remote") == 2


@pytest.mark.hub
@pytest.mark.parametrize(
    ("size", "scores", "labels"),
    [
        ("tiny", [0.8676, 0.7526, 0.7177, 0.4391], [140, 133, 140, 133]),
        ("xlarge", [0.9745, 0.9715, 0.9339, 0.8163], [140, 140, 133, 133]),
    ],
)
def test_lwdetr_objects365(cats: Path, size: str, scores: list[float], labels: list[int]) -> None:
    detector = detrcli.load(f"lwdetr-{size}-objects365", device="cpu", precision="fp32")
    (found,) = detector.predict(cats, threshold=0.01, max_detections=4)
    np.testing.assert_allclose(found.scores, scores, rtol=0, atol=2e-3)
    assert found.labels.tolist() == labels
    assert set(found.names) == {"Cat", "Remote"}
    if size == "tiny":
        boxes = [
            [4.9, 56.6, 319.8, 474.8],
            [40.6, 73.1, 176.3, 116.9],
            [340.3, 25.1, 640.3, 368.7],
            [334.3, 77.0, 371.3, 189.8],
        ]
        np.testing.assert_allclose(found.boxes, np.clip(boxes, 0, [640, 480, 640, 480]), rtol=0, atol=1)


@pytest.mark.hub
@pytest.mark.parametrize("size", ["tiny", "small", "medium", "large", "xlarge"])
def test_lwdetr_detects_the_cats(cats: Path, size: str) -> None:
    (found,) = detrcli.load(f"lwdetr-{size}", device="cpu", precision="fp32").predict(cats, threshold=0.5)
    assert found.names.count("cat") == 2


RFDETR: dict[str, tuple[int, list[float], list[float]]] = {
    "nano": (384, [-6.68004, -5.66107, -11.70373, -8.32324, -5.76176], [0.25828, 0.54991, 0.47220, 0.87432, 0.55099]),
    "small": (512, [-6.83893, -4.55097, -10.53040, -8.20657, -5.55314], [0.25782, 0.55037, 0.47922, 0.87102, 0.77074]),
    "medium": (
        576, [-6.58581, -8.07883, -12.52392, -7.78248, -10.47323], [0.16824, 0.19932, 0.21110, 0.09385, 0.77087],
    ),
    "large": (
        704, [-6.38973, -8.19355, -12.09174, -7.80438, -10.15835], [0.16901, 0.19936, 0.21087, 0.09311, 0.77199],
    ),
    "base": (560, [-7.60410, -4.65943, -10.03144, -5.63881, -9.88291], [0.25465, 0.54864, 0.48583, 0.86991, 0.16926]),
    "base-2": (560, [-6.81648, -6.80946, -7.72004, -6.06710, -10.37419], [0.16911, 0.19784, 0.21076, 0.09273, 0.25263]),
    "large-2025": (
        560, [-7.60888, -4.36906, -4.98865, -8.06598, -5.52970], [0.25576, 0.55051, 0.47765, 0.87141, 0.76966],
    ),
}  # fmt: skip
"""Side of the images, the first logits and the first numbers of the boxes, both for antialiased images."""
SAMPLED_BASE = [-7.58881, -4.64088, -10.02118, -5.65906, -9.8343], [0.25457, 0.54871, 0.48585, 0.86988, 0.16926]
"""The same of base for images without antialiasing, as in its training."""


@pytest.mark.hub
@pytest.mark.parametrize(
    ("size", "resample", "logits", "boxes"),
    [
        *((size, PILLOW_BILINEAR, *published[1:]) for size, published in RFDETR.items()),
        ("base", BilinearSampling(), *SAMPLED_BASE),
    ],
)
def test_rfdetr(cats: Path, size: str, resample: Resample, logits: list[float], boxes: list[float]) -> None:
    side = RFDETR[size][0]
    image = resize_image(read_image(cats).image, Exactly(side, side), resample)
    pixels = torch.from_numpy((image / 255 - IMAGENET_MEAN) / IMAGENET_STD).permute(2, 0, 1)[None].float()
    with torch.inference_mode():
        predicted = detrcli.load_model(f"rfdetr-{size}")(pixels)
    # published with a tolerance of 5e-3, but for torchvision's resizing, which rounds some pixels the other way
    np.testing.assert_allclose(predicted.logits.flatten()[:5], logits, rtol=0, atol=2e-2)
    np.testing.assert_allclose(predicted.boxes.flatten()[:5], boxes, rtol=0, atol=5e-3)


@pytest.mark.hub
@pytest.mark.parametrize("size", RFDETR)
def test_rfdetr_detects_the_cats(cats: Path, size: str) -> None:
    detector = detrcli.load(f"rfdetr-{size}", device="cpu", precision="fp32")
    (found,) = detector.predict(cats, threshold=0.6)
    assert found.names.count("cat") == 2
    assert found.names.count("remote") == 2


@pytest.mark.hub
@pytest.mark.parametrize(
    ("size", "scores", "labels", "boxes"),
    [
        (
            "base",
            [0.9596, 0.9335, 0.8987, 0.7271],
            [17, 17, 75, 75],
            [
                [7.5, 54.6, 318.4, 472.1],
                [343, 23.9, 639.3, 372.2],
                [40.7, 72.6, 175.9, 117.6],
                [333.5, 77, 370.4, 187.3],
            ],
        ),
        (
            "large-2025",
            [0.9558, 0.9538, 0.9465, 0.9084],
            [75, 17, 17, 75],
            [
                [40.4, 73.1, 175.9, 117.6],
                [345.1, 24.5, 640, 373.2],
                [10.8, 55.1, 316.5, 473.4],
                [333.9, 76.9, 370.2, 186.7],
            ],
        ),
    ],
)
def test_the_best_detections_of_rfdetr(
    cats: Path, size: str, scores: list[float], labels: list[int], boxes: list[list[float]]
) -> None:
    """Published for antialiased images."""
    model = load_checkpoint(find(f"rfdetr-{size}"))
    rules = model.preprocessing
    backend = TorchBackend(model, device="cpu", precision="fp32")
    detector = detrcli.Detector(size, [backend], model.class_names, rules.resize, PILLOW_BILINEAR)
    (found,) = detector.predict(cats, threshold=0.3, max_detections=4)
    np.testing.assert_allclose(found.scores, scores, rtol=0, atol=5e-3)
    assert found.labels.tolist() == labels
    np.testing.assert_allclose(found.boxes, boxes, rtol=0, atol=1)


@pytest.fixture(scope="module")
def documents() -> Path:
    from huggingface_hub import snapshot_download

    return Path(snapshot_download("nielsr/example-pdf", repo_type="dataset"))


@pytest.mark.hub
@pytest.mark.parametrize("revision", [None, "no_timm"])
@pytest.mark.parametrize(
    ("model", "image", "rules", "logits", "boxes"),
    [
        (
            "table-transformer-detection",
            "example_pdf.png",
            Preprocessing(ExactLongestEdge(800, 800)),
            [[-6.7329, -16.9590, 6.7447], [-8.0038, -22.3071, 6.9288], [-7.2445, -20.9855, 7.3465]],
            [[0.4868, 0.1764, 0.6729], [0.6674, 0.4621, 0.3864], [0.4720, 0.1757, 0.6362]],
        ),
        (
            "table-transformer-detection",
            "example_pdf.png",
            Preprocessing(longest_edge(800), PillowFilter(Image.Resampling.BICUBIC)),
            [[-6.7897, -16.9985, 6.7937], [-8.0186, -22.2192, 6.9677], [-7.3117, -21.0708, 7.4055]],
            None,
        ),
        (
            "table-transformer-structure",
            "example_table.png",
            Preprocessing(longest_edge(1000), PillowFilter(Image.Resampling.BICUBIC)),
            [[-18.1430, -8.3214, 4.8274], [-18.4685, -7.1361, -4.2667], [-26.3693, -9.3429, -4.9962]],
            [[0.4983, 0.5595, 0.9440], [0.4916, 0.6315, 0.5954], [0.6108, 0.8637, 0.1135]],
        ),
    ],
)
def test_table_transformer(
    documents: Path,
    model: str,
    image: str,
    rules: Preprocessing,
    logits: list[list[float]],
    boxes: list[list[float]] | None,
    revision: str | None,
) -> None:
    network = detrcli.load_model(model, revision=revision)
    pixels = torch.from_numpy(resize_image(read_image(documents / image).image, rules.resize, rules.resample).copy())
    pixels = ((pixels / 255 - torch.tensor(rules.mean)) / torch.tensor(rules.std)).permute(2, 0, 1)[None]
    with torch.inference_mode():
        predicted = network(pixels)
    np.testing.assert_allclose(predicted.logits[0, :3, :3], logits, rtol=0, atol=1e-2)
    if boxes is not None:
        np.testing.assert_allclose(predicted.boxes[0, :3, :3], boxes, rtol=0, atol=1e-3)


@pytest.mark.hub
@pytest.mark.parametrize("version", ["", "-v1.1"])
def test_table_transformer_detects_rows_and_columns(documents: Path, version: str) -> None:
    detector = detrcli.load(f"table-transformer-structure{version}", device="cpu")
    (found,) = detector.predict(documents / "example_table.png", threshold=0.5)
    assert found.names.count("table") == 1
    assert {"table column", "table row"} <= set(found.names)


@pytest.mark.hub
def test_table_transformer_detects_a_table(documents: Path) -> None:
    (found,) = detrcli.load("table-transformer-detection", device="cpu").predict(
        documents / "example_pdf.png", threshold=0.9
    )
    assert "table" in found.names
