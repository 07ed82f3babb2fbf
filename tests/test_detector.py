"""Python interface, and the stream that the command line uses."""

import json
import multiprocessing
import pickle
import shutil
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

import detrcli
from detrcli import Detector
from detrcli.detections import DetectionFilter, Detections
from detrcli.detector import keep_detections, open_image
from detrcli.errors import ClassError, ImageError, ModelError, UsageError
from detrcli.images.decode import ImageFile, from_array
from detrcli.images.resize import Pixels, ResizeRule, Size
from detrcli.inference.backend import RawDetections
from detrcli.inference.batch_size import BatchSize

from . import fill
from .exported import Exports, detr
from .tiny import QUERIES, save_tiny


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    folder = tmp_path_factory.mktemp("model") / "my-model"
    folder.mkdir()
    save_tiny(folder)
    return detrcli.load(folder, device="cpu", precision="fp32")


def same(a: Detections, b: Detections) -> None:
    np.testing.assert_array_equal(a.boxes, b.boxes)
    np.testing.assert_array_equal(a.scores, b.scores)
    np.testing.assert_array_equal(a.labels, b.labels)


def test_paths_images_and_arrays_are_alike(detector: Detector, tmp_path: Path) -> None:
    pixels = fill.image(1, 90, 120)
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    detections = detector.predict([str(path), path, Image.fromarray(pixels), pixels], threshold=0)
    assert (detections[0].width, detections[0].height) == (120, 90)
    assert len(detections[0]) > 0
    for other in detections[1:]:
        same(other, detections[0])
    for single in (str(path), path, Image.fromarray(pixels), pixels):
        (single_result,) = detector.predict(single, threshold=0)
        assert single_result.names == detections[0].names
        np.testing.assert_allclose(
            single_result.boxes, detections[0].boxes, atol=0.01
        )  # other threads, other last digits
        np.testing.assert_allclose(single_result.scores, detections[0].scores, atol=1e-4)
    assert detector.predict([]) == []


def test_filters(detector: Detector) -> None:
    pixels = fill.image(2, 64, 64)
    (everything,) = detector.predict(pixels, threshold=0)
    assert len(everything) == QUERIES
    assert (np.diff(everything.scores) <= 0).all()
    best = everything.names[0]
    (only,) = detector.predict(pixels, threshold=0, classes=[best])
    assert set(only.names) == {best}
    (two,) = detector.predict(pixels, threshold=0, max_detections=2)
    np.testing.assert_array_equal(two.scores, everything.scores[:2])
    middle = float(everything.scores[2])
    (above,) = detector.predict(pixels, threshold=middle)
    np.testing.assert_array_equal(above.scores, everything.scores[everything.scores > middle])
    assert len(above) > 0
    with pytest.raises(ClassError, match="no class 'nonesuch'"):
        detector.predict(pixels, classes=["nonesuch"])


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        "missing.jpg",
    ],
    ids=["grey", "rgba", "float", "empty", "missing"],
)
def test_invalid_images(detector: Detector, bad: NDArray[np.uint8] | str) -> None:
    with pytest.raises(ImageError):
        detector.predict([bad])


def test_a_pillow_image_whose_file_is_cut_off(detector: Detector, tmp_path: Path) -> None:
    Image.fromarray(fill.image(1, 90, 120)).save(tmp_path / "whole.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:-5000])
    with Image.open(tmp_path / "half.png") as image, pytest.raises(ImageError, match=r"half\.png: damaged image"):
        detector.predict(image)


@pytest.mark.parametrize(
    "settings", [{"batch_size": 0}, {"batch_size": -1}, {"max_detections": -1}, {"workers": 0}], ids=str
)
def test_numbers_below_one(detector: Detector, settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=rf"{next(iter(settings))} must be at least 1"):
        detector.predict([np.zeros((4, 4, 3), np.uint8)] * 2, **settings)


def test_as_many_threads_read_images_as_there_are_cores(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(6)]
    for number, path in enumerate(paths):
        Image.fromarray(fill.image(number, 60, 40 + number)).save(path)
    alone = detector.predict(paths, threshold=0, workers=1)
    together = threading.Barrier(3, timeout=20)

    def open_together(path: Path) -> ImageFile:
        together.wait()  # until three are being read at once
        return open_image(path)

    monkeypatch.setattr("detrcli.detector.open_image", open_together)
    monkeypatch.setattr("detrcli.detector.cores", lambda: 3)
    for one, other in zip(alone, detector.predict(paths, threshold=0), strict=True):
        same(one, other)


@pytest.mark.parametrize("size", [0, -64, (64, 0)])
def test_sizes_below_one(size: int | tuple[int, int]) -> None:
    with pytest.raises(UsageError, match="size must be at least 1"):
        detrcli.load("demo", device="cpu", size=size)


def test_a_pickled_detector_detects_the_same(
    detector: Detector, exported: Exports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = fill.image(1, 90, 120)
    monkeypatch.chdir(tmp_path)
    save_tiny(tmp_path / "m")
    path = Path(shutil.copy(exported(detr), tmp_path / "m.onnx"))
    for one in (detector, detrcli.load("m", device="cpu", precision="fp32"), detrcli.load(path.name, size=(96, 64))):
        monkeypatch.chdir(tmp_path.parent)
        again = pickle.loads(pickle.dumps(one))
        monkeypatch.chdir(tmp_path)
        assert (again.name, again.class_names) == (one.name, one.class_names)
        assert again.backend.description == one.backend.description
        same(again.predict(pixels, threshold=0)[0], one.predict(pixels, threshold=0)[0])


def test_a_detector_for_another_process() -> None:
    detector = detrcli.load("demo", device="cpu", precision="fp32")
    pixels = fill.image(1, 90, 120)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        (there,) = pool.apply(detector.predict, (pixels,), {"threshold": 0.01})
    (here,) = detector.predict(pixels, threshold=0.01)
    np.testing.assert_allclose(there.boxes, here.boxes, atol=0.01)
    np.testing.assert_allclose(there.scores, here.scores, atol=1e-4)


def test_the_stages_around_the_network_can_be_pickled(detector: Detector, tmp_path: Path) -> None:
    Image.fromarray(fill.image(1, 90, 120)).save(tmp_path / "a.png")
    paths: list[Path] = []
    run = detector.stream(paths, DetectionFilter(0), open_image=open_image, write=keep_detections)
    here, there = run._stages, pickle.loads(pickle.dumps(run._stages))
    one, other = (stages.prepare(stages.open(tmp_path / "a.png")) for stages in (here, there))
    np.testing.assert_array_equal(one.pixels, other.pixels)
    (raw,) = detector.backend.run([one.pixels], [one.size])
    same(here.detect(one, raw), there.detect(other, raw))


def test_a_detector_that_was_not_loaded_cannot_be_pickled() -> None:
    with pytest.raises(TypeError, match=r"only a Detector that detrcli.load made can be pickled"):
        pickle.dumps(Detector("m", [Scribe()], ("thing",), AsIs()))


class Scribe:
    """Backend that records its batches and detects one object as large as the image, scored by the first pixel."""

    description = "none"
    device_type, engine, precision = "cpu", "none", "fp32"
    batch_size = 1
    grows = False
    concurrency = 1

    def __init__(self) -> None:
        self.batches: list[list[tuple[int, ...]]] = []

    def shared(self) -> AbstractContextManager[None]:
        return nullcontext()

    def run(self, pixels: Sequence[Pixels], sizes: Sequence[tuple[int, int]], **_: Any) -> list[RawDetections]:
        self.batches.append([one.shape for one in pixels])
        return [
            RawDetections(
                np.array([[0, 0, width, height]], np.float32),
                np.array([1 - one[0, 0, 0] / 1000], np.float32),
                np.array([0]),
            )
            for one, (height, width) in zip(pixels, sizes, strict=True)
        ]


class AsIs:
    """Resize rule that keeps every image's size."""

    def size(self, width: int, height: int) -> tuple[int, int]:
        return width, height

    def for_size(self, size: Size) -> ResizeRule:
        raise NotImplementedError


Source = tuple[int, int] | None  # brightness and width, or one that cannot be read


def opened(source: Source) -> ImageFile:
    if source is None:
        raise ImageError("no image")
    brightness, width = source
    return from_array(np.full((2, width, 3), brightness, np.uint8))


def run(sources: Sequence[Source], batch_size: int, rule: ResizeRule) -> tuple[list[float | None], Scribe]:
    scribe = Scribe()
    detector = Detector("m", [scribe], ("thing",), rule)
    results = detector.stream(
        sources,
        DetectionFilter(0),
        open_image=opened,
        write=keep_detections,
        batch_size=BatchSize(batch_size),
        workers=2,
    )
    scores: list[float | None] = []
    for source, detections in zip(sources, results, strict=True):
        if isinstance(detections, ImageError):
            assert source is None
            scores.append(None)
        else:
            assert source is not None
            assert detections.width == source[1]
            scores.append(float(detections.scores[0]))
    return scores, scribe


@settings(deadline=None)
@given(
    st.lists(st.none() | st.tuples(st.integers(0, 255), st.integers(1, 3)), max_size=40),
    st.integers(1, 5),
)
def test_order_and_batches(sources: list[Source], batch_size: int) -> None:
    scores, scribe = run(sources, batch_size, AsIs())
    expected, _ = run(sources, 1, AsIs())
    assert scores == expected
    assert all(len(set(batch)) == 1 and len(batch) <= batch_size for batch in scribe.batches)
    assert sum(map(len, scribe.batches)) == len([source for source in sources if source is not None])


class Liar(Scribe):
    """Backend that gives invalid scores or boxes, for dark images or for all."""

    def __init__(self, *, always: bool = True, **raw: float) -> None:
        super().__init__()
        self.always, self.raw = always, raw

    def run(self, pixels: Sequence[Pixels], sizes: Sequence[tuple[int, int]], **_: Any) -> list[RawDetections]:
        results = super().run(pixels, sizes)
        for one, raw in zip(pixels, results, strict=True):
            if self.always or one[0, 0, 0] < 100:
                for name, value in self.raw.items():
                    getattr(raw, name).flat[-1] = value
        return results


NONSENSE: list[dict[str, Any]] = [{name: value} for name in ("scores", "boxes") for value in (np.nan, np.inf, -np.inf)]


@pytest.mark.parametrize("raw", [*NONSENSE, {"scores": 57.5}, {"scores": -1.0}], ids=str)
def test_a_model_that_computes_nonsense(raw: dict[str, Any]) -> None:
    detector = Detector("m", [Liar(**raw)], ("thing",), AsIs(), weights=Path("weights.onnx"))
    for images in (1, 3):
        with pytest.raises(ModelError, match=r"^weights.onnx gives invalid scores or boxes [^\n]*$"):
            detector.predict([np.zeros((4, 4, 3), np.uint8)] * images, threshold=0.9)


@pytest.mark.parametrize("label", [-1, 1, 2**40])
def test_a_model_with_more_classes_than_names(label: int) -> None:
    detector = Detector("m", [Liar(labels=label)], ("thing",), AsIs(), weights=Path("weights.onnx"))
    with pytest.raises(ModelError, match=r"^weights.onnx finds classes that it has no names for; export it anew$"):
        detector.predict(np.zeros((4, 4, 3), np.uint8), threshold=0)


@pytest.mark.parametrize("raw", NONSENSE, ids=str)
def test_one_image_that_a_model_computes_nonsense_for(raw: dict[str, Any], tmp_path: Path) -> None:
    detector = Detector("m", [Liar(always=False, **raw)], ("thing",), AsIs())
    for name, level in (("dark", 10), ("bright", 200)):
        Image.new("RGB", (4, 4), (level,) * 3).save(tmp_path / f"{name}.png")
    assert len(detector.predict(tmp_path / "bright.png")[0]) == 1
    with pytest.raises(ImageError, match=r"dark.png: m gives invalid scores or boxes for it"):
        detector.predict([tmp_path / "bright.png", tmp_path / "dark.png"])
    numbered = enumerate([tmp_path / "bright.png", tmp_path / "dark.png"])  # as the command line has them
    results = detector.stream(
        numbered,
        DetectionFilter(0.5),
        open_image=lambda source: open_image(source[1]),
        write=keep_detections,
    )
    assert f"{tmp_path / 'dark.png'}: m gives invalid scores or boxes for it" in str(list(results)[1])


@pytest.mark.parametrize("kind", ["folder", "onnx"])
def test_images_are_resized_with_the_models_filter(kind: str, exported: Exports, tmp_path: Path) -> None:
    nearest = {"resample": int(Image.Resampling.NEAREST)}
    if kind == "onnx":
        model = tmp_path / "m.onnx"
        proto = onnx.load(exported(detr))
        (entry,) = (one for one in proto.metadata_props if one.key == "preprocessing")
        entry.value = json.dumps(json.loads(entry.value) | nearest)
        onnx.save(proto, model)
    else:
        model = tmp_path / "m"
        save_tiny(model)
        rules = model / "preprocessor_config.json"
        rules.write_text(json.dumps(json.loads(rules.read_text()) | nearest))
    image = Image.fromarray(fill.image(1, 90, 120))
    expected = np.asarray(image.resize((85, 64), Image.Resampling.NEAREST))
    np.testing.assert_array_equal(detrcli.load(model, device="cpu").resized(image), expected)
