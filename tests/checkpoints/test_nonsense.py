"""Any contents of a model's files give a model or a one-line error."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import detrcli
from detrcli.checkpoints.find import find
from detrcli.checkpoints.load import load_checkpoint
from detrcli.errors import LONGEST, DetrError, ModelError

from .. import fill
from ..exported import Exports, detr
from ..tiny import save_tiny

pytestmark = pytest.mark.filterwarnings("ignore::detrcli.errors.ModelWarning")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, exported: Exports) -> Path:
    """A folder with the tiny model as folder `m` and as `m.onnx`."""
    place = tmp_path_factory.mktemp("nonsense")
    save_tiny(place / "m")
    shutil.copy(exported(detr), place / "m.onnx")
    return place


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda weight: weight * torch.nan, "has NaN or infinity"),
        (lambda weight: weight / 0, "has NaN or infinity"),
        (lambda weight: weight.double().clamp(max=1) * 1e308 * 10, "has NaN or infinity"),
        (lambda weight: weight.to(torch.complex64), "is of type complex64"),
        (lambda weight: weight.to(torch.int8), "is of type int8"),
        (lambda weight: weight > 0, "is of type bool"),
    ],
)
def test_invalid_weights(
    place: Path, tmp_path: Path, spoil: Callable[[torch.Tensor], torch.Tensor], expected: str
) -> None:
    tensors = load_file(place / "m" / "model.safetensors")
    tensors["class_labels_classifier.weight"] = spoil(tensors["class_labels_classifier.weight"])
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ModelError) as caught:
        load_checkpoint(find(str(tmp_path)))
    message = str(caught.value)
    assert str(tmp_path / "model.safetensors") in message
    assert f"class_labels_classifier.weight {expected}" in message


def test_a_model_without_classes_is_refused(tmp_path: Path) -> None:
    save_tiny(tmp_path, num_classes=0)
    with pytest.raises(ModelError, match=r"model\.safetensors has no classes"):
        load_checkpoint(find(str(tmp_path)))


def test_weights_that_overflow_fail_at_the_first_image(place: Path, tmp_path: Path) -> None:
    for path in (place / "m").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["class_labels_classifier.weight"] *= 1e38
    save_file(tensors, tmp_path / "model.safetensors")
    detector = detrcli.load(tmp_path, device="cpu", precision="fp32")
    with pytest.raises(ModelError, match=r"model.safetensors gives invalid scores or boxes"):
        detector.predict(fill.image(0, 60, 80), threshold=0)


NUMBERS = [0, -1, 1, 3, 2**31, 2**63, 10**30, 10**400, 0.5, 1e308, -0.0, float("nan"), float("inf")]
OTHERS: list[Any] = [None, True, False, "", "a", "\n\x1b", "\ud83d", "x" * 100_000, [], {}, [[]], [1, 2], {"a": 1}]


def places(value: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """List the paths to all values in JSON content."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [(*prefix, key) for key, _ in inner] + [one for key, part in inner for one in places(part, (*prefix, key))]


@st.composite
def spoiled(draw: st.DrawFn, content: Any) -> Any:
    """JSON content with a few values removed or replaced."""
    content = json.loads(json.dumps(content))
    for _ in range(draw(st.integers(1, 3))):
        *way, last = draw(st.sampled_from(places(content)))
        inner = content
        for key in way:
            inner = inner[key]
        if draw(st.booleans()):
            inner[last] = copy.deepcopy(draw(st.sampled_from([*NUMBERS, *OTHERS])))
        elif len(places(content)) > 1:
            del inner[last]
    return content


def assert_one_line(error: DetrError) -> None:
    message = str(error)
    assert "\n" not in message
    assert len(message) <= LONGEST


MORE = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
PADDED = {
    "do_resize": True, "size": {"max_height": 64, "max_width": 96}, "do_pad": True,
    "pad_size": {"height": 64, "width": 96},
    "do_rescale": True, "rescale_factor": 0.004, "do_normalize": True, "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.2, 0.2, 0.2], "resample": 2,
}  # fmt: skip
SIZES: list[Any] = [800, [480, 640], {"shortest_edge": 64, "longest_edge": 96}, {"longest_edge": 64}]
IMAGE = np.zeros((2, 3, 3), np.uint8)


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json"])
@MORE
@given(data=st.data())
def test_spoiled_settings(place: Path, file: str, data: st.DataObject) -> None:
    folder = place / "spoiled"
    folder.mkdir(exist_ok=True)
    for path in (place / "m").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    content = json.loads((folder / file).read_text())
    if file == "preprocessor_config.json":
        content = PADDED | {"size": data.draw(st.sampled_from([PADDED["size"], *SIZES]))}
    try:
        (folder / file).write_text(json.dumps(data.draw(spoiled(content))))
        loaded = load_checkpoint(find(str(folder)))
    except DetrError as error:
        assert_one_line(error)
    else:
        assert all(len(name) <= 200 and "\n" not in name for name in loaded.class_names)
        assert all(side > 0 for side in loaded.preprocessing.resize.size(3, 2))


@MORE
@given(data=st.data())
def test_spoiled_metadata(place: Path, data: st.DataObject) -> None:
    model = onnx.load(place / "m.onnx")
    for entry in model.metadata_props:
        if entry.key in ("classes", "preprocessing"):
            entry.value = json.dumps(data.draw(spoiled(json.loads(entry.value)), label=entry.key))
        elif entry.key != "detrcli" and data.draw(st.integers(0, 9), label=entry.key) == 0:
            entry.value = data.draw(st.text(st.characters(exclude_categories=["Cs"])))
    onnx.save(model, place / "spoiled.onnx")
    try:
        detector = detrcli.load(place / "spoiled.onnx", device="cpu", size=data.draw(st.sampled_from([None, (96, 64)])))
        (found,) = detector.predict(IMAGE, threshold=0)
    except DetrError as error:
        assert_one_line(error)
    else:
        assert np.isfinite(found.boxes).all()
        assert np.isfinite(found.scores).all()
