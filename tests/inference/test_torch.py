"""PyTorch backend: devices, precision, and detections that do not depend on the batch."""

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import detrcli
from detrcli.checkpoints.dataset_classes import COCO
from detrcli.checkpoints.find import find
from detrcli.checkpoints.load import LoadedModel, load_checkpoint
from detrcli.checkpoints.preprocessing import Preprocessing
from detrcli.errors import DeviceError, UsageError
from detrcli.inference.cpu import Exp2Attention, PackedLinear, pack_linears
from detrcli.inference.memory import enough_memory
from detrcli.inference.postprocess import DetrPostprocess, EndToEnd
from detrcli.inference.torch import DTYPES, Precision, TorchBackend, count_gflops, training_precision
from detrcli.models.lwdetr import SIZES, LwDetr

from .. import fill, golden
from ..tiny import save_tiny
from ..training.small import small_rfdetr


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny(folder)
    return folder


def loaded(model: Path) -> LoadedModel:
    return load_checkpoint(find(str(model)))


def random_images(count: int, height: int, width: int) -> list[NDArray[np.uint8]]:
    return [fill.image(seed, height, width) for seed in range(count)]


def test_float_images_are_normalized_like_8_bit_ones_and_left_unchanged() -> None:
    module = EndToEnd(torch.nn.Identity(), torch.nn.Identity(), scale=0.5, mean=(1, 2, 3), std=(4, 5, 6))
    images = torch.from_numpy(np.stack(random_images(2, 30, 40)))
    floats, filled = images.float(), torch.tensor([[30, 40], [20, 25]])
    assert torch.equal(module.normalize(floats, filled), module.normalize(images, filled))
    assert torch.equal(floats, images.float())
    torch.testing.assert_close(
        module.normalize(floats + 0.25) - module.normalize(images),
        torch.tensor([0.125 / 4, 0.125 / 5, 0.125 / 6])[:, None, None].expand(2, 3, 30, 40),
        rtol=0,
        atol=1e-5,
    )


def test_operations_of_a_network_whose_positions_are_not_resized() -> None:
    backend = TorchBackend(small_rfdetr(), device="cpu", precision="fp32")
    assert backend.gflops(128, 128) > 0


def test_threads_are_divided_until_no_backend_is_shared(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    first, second = (TorchBackend(loaded(tiny), device="cpu") for _ in range(2))
    torch.set_num_threads(2)
    try:
        with ExitStack() as one, ExitStack() as other:
            one.enter_context(first.shared())
            other.enter_context(second.shared())
            assert torch.get_num_threads() == 1
            one.close()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cpu:0", "", "CPU"])
def test_no_such_device(tiny: Path, device: str) -> None:
    with pytest.raises(DeviceError, match="there are auto, cpu, cuda, cuda:N and mps"):
        detrcli.load(tiny, device=device)


def test_no_such_precision(tiny: Path) -> None:
    with pytest.raises(UsageError, match="no precision is called 'int8'; there are auto, fp32, fp16, bf16"):
        detrcli.load(tiny, device="cpu", precision="int8")  # type: ignore[arg-type]


def test_absent_cuda(tiny: Path) -> None:
    absent = f"cuda:{torch.cuda.device_count() if torch.cuda.is_available() else 0}"
    with pytest.raises(DeviceError, match=r"finds no CUDA device|the CUDA devices are"):
        detrcli.load(tiny, device=absent)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("std::bad_alloc"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("Storage size calculation overflowed with sizes=[1, 99999, 99999, 3]"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_out_of_memory_errors_are_recognized(error: Exception) -> None:
    with (
        pytest.raises(DeviceError, match=r"^the memory of cpu is too small for this$"),
        enough_memory(torch.device("cpu"), "for this"),
    ):
        raise error


def test_gflops_include_attention() -> None:
    """As published for LW-DETR-tiny: 11.2 · 10⁹ multiply-adds, including some small layers."""
    network = LwDetr(SIZES["tiny"]).eval().requires_grad_(False)
    gflops = count_gflops(network, 640, 640)
    assert gflops / 2 == pytest.approx(11.2, rel=0.1)
    pack_linears(network)
    assert count_gflops(network, 640, 640) == gflops


def test_other_errors_are_not_taken_for_out_of_memory() -> None:
    with pytest.raises(RuntimeError, match="shape"), enough_memory(torch.device("cpu"), "for this"):
        raise RuntimeError("shape '[2]' is invalid for input of size 3")


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("fp16", 0.01), ("bf16", 0.05)])
def test_precision_on_the_cpu(tiny: Path, precision: Precision, tolerance: float) -> None:
    images = random_images(2, 64, 96)
    sizes = [(640, 960)] * 2
    trained, rules = loaded(tiny).network.double(), Preprocessing()
    module = EndToEnd(trained, DetrPostprocess(), scale=rules.scale, mean=rules.mean, std=rules.std)
    with torch.inference_mode():
        boxes, scores, _ = module(torch.from_numpy(np.stack(images)), torch.tensor(sizes))
    detections = TorchBackend(loaded(tiny), device="cpu", precision=precision).run(images, sizes)
    for index, one in enumerate(detections):
        assert one.boxes.dtype == one.scores.dtype == np.float32
        assert one.labels.dtype == np.int64
        np.testing.assert_allclose(one.scores, scores[index], rtol=0, atol=tolerance)
        np.testing.assert_allclose(one.boxes, boxes[index], rtol=0, atol=tolerance * 960)


def lwdetr_on_a_cpu(precision: Precision) -> nn.Module:
    torch.manual_seed(0)
    model = LoadedModel("nano", LwDetr(SIZES["nano"]).eval(), COCO, Preprocessing())
    return TorchBackend(model, device="cpu", precision=precision).network


@pytest.mark.parametrize(
    ("cpu", "precision", "exp2", "packs"),
    [
        ({"cpu_name": "AMD EPYC"}, "fp32", False, True),
        ({"cpu_name": "AMD EPYC"}, "fp16", False, False),
        ({"cpu_name": "AMD EPYC"}, "bf16", True, True),
        ({"cpu_name": "Intel(R) Xeon(R)"}, "fp32", False, False),
        ({"cpu_name": "Intel(R) Xeon(R)"}, "fp16", False, False),
        ({"cpu_name": "Intel(R) Xeon(R)"}, "bf16", True, True),
        ({"cpu_name": "Intel(R) Xeon(R)", "amx_bf16": True}, "bf16", False, True),
    ],
)
@pytest.mark.parametrize("native", [True, False])
def test_lwdetr_takes_its_fastest_form_on_each_cpu(
    cpu: dict[str, object],
    precision: Precision,
    exp2: bool,
    packs: bool,
    native: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: cpu)
    native = native and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: native)
    network = lwdetr_on_a_cpu(precision)
    assert any(isinstance(module, Exp2Attention) for module in network.modules()) == exp2
    packed = any(isinstance(module, PackedLinear) for module in network.modules())
    assert packed == (packs and (native or precision == "fp32"))
    with torch.inference_mode():
        predictions = network(torch.zeros(1, 3, 64, 64, dtype=DTYPES[precision]))
    assert predictions.boxes.isfinite().all()


def test_a_batch_gives_the_detections_of_single_images(tiny: Path) -> None:
    backend = TorchBackend(loaded(tiny), device="cpu")
    images = random_images(5, 64, 80)
    sizes = [(100 + index, 200) for index in range(5)]
    together = backend.run(images, sizes)
    for index in (3, 0):
        (alone,) = backend.run([images[index]], [sizes[index]])
        np.testing.assert_array_equal(alone.boxes, together[index].boxes)
        np.testing.assert_array_equal(alone.scores, together[index].scores)
    assert not np.allclose(together[0].boxes, together[1].boxes)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return golden.original_checkpoint("detr-resnet-50", tmp_path_factory.mktemp("original"))


@pytest.mark.gpu
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 2e-3), ("fp16", 2e-2), ("bf16", 0.15)])
def test_precision_on_the_gpu(original: Path, precision: Precision, tolerance: float) -> None:
    images, sizes = random_images(2, 256, 320), [(480, 640)] * 2
    expected = TorchBackend(loaded(original), device="cpu", precision="fp32").run(images, sizes)
    detections = TorchBackend(loaded(original), device="cuda", precision=precision).run(images, sizes)
    for ours, theirs in zip(detections, expected, strict=True):
        assert np.abs(ours.scores - theirs.scores).mean() < tolerance
        assert np.abs(ours.boxes - theirs.boxes).mean() < tolerance * 640


@pytest.mark.gpu
def test_a_batch_gives_the_detections_of_single_images_on_the_gpu(original: Path) -> None:
    backend = TorchBackend(loaded(original), device="cuda", precision="fp32")
    images, sizes = random_images(8, 256, 320), [(480, 640)] * 8
    together = backend.run(images, sizes)
    for index in range(8):
        (alone,) = backend.run([images[index]], [sizes[index]])
        np.testing.assert_allclose(alone.scores, together[index].scores, rtol=0, atol=1e-3)
        np.testing.assert_allclose(alone.boxes, together[index].boxes, rtol=0, atol=0.5)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("model", "height", "width", "gigabytes"), [("detr-resnet-50", 800, 1066, 3), ("lwdetr-large", 640, 640, 1.5)]
)
def test_memory_on_the_gpu_stays_flat(model: str, height: int, width: int, gigabytes: float, tmp_path: Path) -> None:
    backend = TorchBackend(loaded(golden.original_checkpoint(model, tmp_path)), device="cuda")
    images, sizes = random_images(4, height, width), [(480, 640)] * 4
    for _ in range(3):  # then there is a CUDA graph
        backend.run(images, sizes)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    for _ in range(5):
        backend.run(images, sizes)
    assert torch.cuda.memory_allocated() == before
    assert torch.cuda.max_memory_allocated() < gigabytes * 2**30


@pytest.mark.parametrize(
    ("cpu", "precision"), [({"avx512_bf16": True}, "bf16"), ({"amx_bf16": True}, "bf16"), ({"avx512_f": True}, "fp32")]
)
def test_bf16_is_the_default_where_it_is_native(
    tiny: Path, cpu: dict[str, object], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": "AMD EPYC", **cpu})
    assert TorchBackend(loaded(tiny), device="cpu").description == f"cpu, {precision}"
    assert training_precision(torch.device("cpu")) == precision
