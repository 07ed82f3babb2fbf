"""CUDA graphs: when they are captured, used and given up, with a stand-in for CUDA's."""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from detrcli.errors import DeviceMemoryError
from detrcli.images.resize import resize_image
from detrcli.inference.cuda_graphs import MAX_GRAPHS, CapturedModule, Inputs, Outputs
from detrcli.inference.torch import Precision, TorchBackend

from .. import fill
from ..exported import Make, detr, lwdetr, rfdetr, table_transformer, two_scales


class Doubling(nn.Module):
    """Doubles its input and counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor, extra: Tensor | None = None) -> Outputs:
        self.calls += 1
        return 2 * x, x if extra is None else x + extra


class Replay:
    """Stand-in for a graph: writes to the outputs' memory what it computes from the inputs' memory."""

    def __init__(self, inputs: Inputs, outputs: Outputs, factor: float) -> None:
        self.inputs, self.outputs, self.factor = inputs, outputs, factor

    def replay(self) -> None:
        x, extra = self.inputs
        assert x is not None
        self.outputs[0].copy_(self.factor * x)
        self.outputs[1].copy_(x if extra is None else x + extra)


class Capture:
    """Stand-in for capturing.

    Args:
        factor: what the graphs multiply by; the right one is 2.
        error: raised by each attempt.
    """

    def __init__(self, factor: float = 2, error: Exception | None = None) -> None:
        self.factor, self.error = factor, error
        self.captured: list[torch.Size] = []

    def __call__(self, module: nn.Module, inputs: Inputs) -> tuple[Replay, Outputs]:
        assert inputs[0] is not None
        self.captured.append(inputs[0].shape)
        if self.error:
            raise self.error
        outputs: Outputs = module(*inputs)
        return Replay(inputs, outputs, self.factor), outputs


@pytest.fixture(autouse=True)
def inference_mode() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "detrcli")
    return caplog


def test_the_third_batch_of_a_shape_is_replayed() -> None:
    module, capture = Doubling(), Capture()
    captured = CapturedModule(module, capture)
    for number in range(5):
        doubled, _ = captured(torch.full((2, 3), float(number)), None)
        assert torch.equal(doubled, torch.full((2, 3), 2.0 * number))
        assert capture.captured == ([] if number == 0 else [(2, 3)])
        assert module.calls == (1 if number == 0 else 3)  # twice for the batches, once to capture


def test_outputs_stay_when_the_next_batch_is_replayed() -> None:
    captured = CapturedModule(Doubling(), Capture())
    outputs = [captured(torch.full((2,), float(number)), None)[0] for number in range(6)]
    assert [one[0].item() for one in outputs] == [0, 2, 4, 6, 8, 10]


def test_shapes_types_and_missing_inputs_are_told_apart() -> None:
    capture = Capture()
    captured = CapturedModule(Doubling(), capture)
    for _ in range(4):
        for x, extra in (
            (torch.ones(2), None),
            (torch.ones(3), None),
            (torch.ones(3, dtype=torch.float64), None),
            (torch.ones(3), torch.full((3,), 5.0)),
        ):
            doubled, added = captured(x, extra)
            assert torch.equal(doubled, 2 * x)
            assert torch.equal(added, x if extra is None else x + extra)
    assert len(capture.captured) == 4


def test_a_graph_that_answers_otherwise_is_not_used(log: pytest.LogCaptureFixture) -> None:
    captured = CapturedModule(Doubling(), Capture(factor=2.01))
    for size in (2, 2, 2, 2, 3, 3, 3):
        assert torch.equal(captured(torch.ones(size), None)[0], torch.full((size,), 2.0))
    assert log.messages == ["without CUDA graphs, whose detections differ here"]


def test_what_cannot_be_captured_runs_as_before(log: pytest.LogCaptureFixture) -> None:
    capture = Capture(error=RuntimeError("operation not permitted\nwhen stream is capturing"))
    captured = CapturedModule(Doubling(), capture)
    for size in (2, 2, 2, 2, 3, 3, 3):
        assert torch.equal(captured(torch.ones(size), None)[0], torch.full((size,), 2.0))
    assert log.messages == ["without CUDA graphs: operation not permitted when stream is capturing"]
    assert len(capture.captured) == 1


def test_only_a_few_shapes_have_graphs() -> None:
    module, capture = Doubling(), Capture()
    captured = CapturedModule(module, capture)
    for _ in range(4):
        for size in range(1, MAX_GRAPHS + 3):
            assert torch.equal(captured(torch.ones(size), None)[0], torch.full((size,), 2.0))
    assert capture.captured == [(size,) for size in range(1, MAX_GRAPHS + 1)]


def test_nothing_is_captured_while_the_batch_size_is_searched() -> None:
    capture = Capture()
    captured = CapturedModule(Doubling(), capture)
    for _ in range(5):
        captured(torch.ones(2), None, settled=False)
    captured(torch.ones(2), None)
    assert capture.captured == []
    captured(torch.ones(2), None)
    assert capture.captured == [(2,)]


def test_each_thread_gets_its_own_answer() -> None:
    captured = CapturedModule(Doubling(), Capture())

    def run(number: int) -> list[float]:
        with torch.inference_mode():
            outputs: list[float] = captured(torch.full((4,), float(number)), None)[0].tolist()
            return outputs

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(run, range(200))) == [[2.0 * number] * 4 for number in range(200)]


def test_graphs_are_given_up_for_good() -> None:
    module, capture = Doubling(), Capture()
    captured = CapturedModule(module, capture)
    assert not captured.release()
    captured = CapturedModule(module, capture)
    for _ in range(3):
        captured(torch.ones(2), None)
    assert captured.release()
    assert not captured.release()
    for _ in range(3):
        captured(torch.ones(2), None)
    assert len(capture.captured) == 1


def test_graphs_are_given_up_where_memory_is_short() -> None:
    backend = TorchBackend(lwdetr(), device="cpu", precision="fp32")
    image, size = fill.image(0, 128, 128), (128, 128)
    (expected,) = backend.run([image], [size])

    class Short(nn.Module):
        """Has no memory for its second batch as long as there are graphs; then, for none that is as dark."""

        def forward(self, images: Tensor, *others: Tensor | None) -> Outputs:
            if not images.any() or (images.shape[0] == 1 and captured._graphs):
                raise RuntimeError("CUDA out of memory")
            outputs: Outputs = backend._module(images, *others)
            return outputs

    captured = backend._captured = CapturedModule(Short(), Capture())
    captured._graphs["another shape"] = None  # type: ignore[assignment]
    (found,) = backend.run([image], [size])
    assert not captured._graphs
    np.testing.assert_array_equal(found.boxes, expected.boxes)
    with pytest.raises(DeviceMemoryError):
        backend.run([np.zeros_like(image)], [size])


@pytest.mark.gpu
@pytest.mark.parametrize("make", [detr, table_transformer, lwdetr, rfdetr, two_scales])
@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp32"])
def test_graphs_of_a_gpu_give_the_same_detections(
    make: Make, precision: Precision, log: pytest.LogCaptureFixture
) -> None:
    model = make()
    backend = TorchBackend(model, device="cuda", precision=precision)
    rules = model.preprocessing
    for count in (1, 3):
        for seed in range(5):
            photographs = [Image.fromarray(fill.image(seed + index, 90, 120)) for index in range(count)]
            images = [resize_image(one, rules.resize, rules.resample) for one in photographs]
            found = backend.run(images, [(90, 120)] * count)
            captured, backend._captured = backend._captured, None
            expected = backend.run(images, [(90, 120)] * count)
            backend._captured = captured
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_allclose(one.scores, other.scores, atol=1e-3)
    assert backend._captured is not None
    assert len(backend._captured._graphs) == 2
    assert log.messages == []
