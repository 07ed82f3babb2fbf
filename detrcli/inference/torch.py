"""PyTorch backend for CPU, CUDA and MPS devices."""

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from ..checkpoints.load import LoadedModel
from ..errors import DeviceError, DeviceMemoryError, DeviceUnavailableError, UsageError
from ..host import cpu_name, parallel_images
from ..images.resize import Padded, Pixels
from ..models.lwdetr import LwDetr
from .backend import CPU_FP16_PROBE, CPU_PROBE, GPU_PROBE, RawDetections
from .cpu import flop_formulas, pack_linears, use_exp2_attention
from .cuda_graphs import CapturedModule
from .fuse import fuse
from .memory import enough_memory, for_images
from .postprocess import EndToEnd, images_dtype, postprocess_for

Precision = Literal["auto", "fp32", "fp16", "bf16"]
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class TorchBackend:
    """A fused network on one device.

    Args:
        model: its network is fused in place and belongs to the backend from then on.
        device: auto (CUDA, else MPS, else CPU), cpu, cuda, cuda:N or mps.
        precision: auto (fp16 on CUDA, bf16 on a CPU with native bf16, else fp32), fp32, fp16 or bf16.

    Attributes:
        network: the fused network.

    Raises:
        DeviceError: there is no such device.
        UsageError: there is no such precision.
    """

    engine: str = "PyTorch"

    def __init__(self, model: LoadedModel, *, device: str = "auto", precision: Precision = "auto") -> None:
        self.device = parse_device(device)
        if precision not in ("auto", *DTYPES):
            raise UsageError(f"no precision is called {precision!r}; there are auto, {', '.join(DTYPES)}")
        if precision == "auto":
            precision = _native_precision(self.device)
        self.description = f"{self.device}, {precision}"
        self.device_type: str = self.device.type
        self.precision: str = precision
        on_gpu = self.device.type == "cuda"
        self.batch_size = 8 if on_gpu else 1
        self.grows = on_gpu
        # on a GPU, one thread copies while the other computes
        self.concurrency = 2 if on_gpu else parallel_images() if self.device.type == "cpu" else 1
        rules = model.preprocessing
        self._padded = rules.resize if isinstance(rules.resize, Padded) else None
        self._dtype = images_dtype(rules.resample)
        network = fuse(model.network)
        on_cpu, in_bf16 = self.device.type == "cpu", precision == "bf16"
        # with AMX, PyTorch's own attention is faster
        if on_cpu and in_bf16 and isinstance(network, LwDetr) and not _cpu().get("amx_bf16"):
            use_exp2_attention(network)
        network.to(self.device, DTYPES[precision])
        if on_cpu and (in_bf16 or _mkl_is_slow()):
            pack_linears(network)
        self.network = network
        module = EndToEnd(self.network, postprocess_for(network), scale=rules.scale, mean=rules.mean, std=rules.std)
        self._module = module.to(self.device).eval()
        self._captured = CapturedModule(self._module) if on_gpu else None

    def run(
        self, pixels: Sequence[Pixels], sizes: Sequence[tuple[int, int]], *, settled: bool = True
    ) -> list[RawDetections]:
        """See `Backend.run`.

        Raises:
            DeviceMemoryError: the device's memory is too small for the batch.
        """
        if self.device.type == "cpu" and len(pixels) > 1:
            # on a CPU, a batch is no faster than single images, and needs more memory
            return [self.run([one], [size])[0] for one, size in zip(pixels, sizes, strict=True)]
        try:
            return self._run(pixels, sizes, settled=settled)
        except DeviceMemoryError:
            if self._captured is None or not self._captured.release():
                raise
        return self._run(pixels, sizes, settled=False)

    def _run(self, pixels: Sequence[Pixels], sizes: Sequence[tuple[int, int]], *, settled: bool) -> list[RawDetections]:
        with enough_memory(self.device, for_images(pixels)), torch.inference_mode():
            on_gpu = self.device.type == "cuda"
            batch = torch.empty((len(pixels), *pixels[0].shape), dtype=self._dtype, pin_memory=on_gpu)
            np.stack(pixels, out=batch.numpy())
            images = batch.to(self.device, non_blocking=True)
            heights_widths = torch.tensor(sizes, dtype=torch.float32).to(self.device, non_blocking=True)
            filled = None
            if self._padded is not None:
                filled = torch.tensor(self._padded.filled(sizes), dtype=torch.float32).to(self.device)
            if self._captured is None:
                outputs = self._module(images, heights_widths, filled)
            else:
                outputs = self._captured(images, heights_widths, filled, settled=settled)
            arrays = [output.cpu().numpy() for output in outputs]
        return [RawDetections(*one) for one in zip(*arrays, strict=True)]

    @contextmanager
    def shared(self) -> Iterator[None]:
        """See `Backend.shared`; on a CPU it divides PyTorch's threads for the whole process."""
        if self.device.type != "cpu":
            yield
            return
        _THREADS.divide(self.concurrency)
        try:
            yield
        finally:
            _THREADS.restore()

    def gflops(self, height: int, width: int) -> float:
        """See `Measurable.gflops`."""
        return count_gflops(self.network, height, width)

    def product_gflops(self) -> float:
        """See `Measurable.product_gflops`."""
        with enough_memory(self.device, "for a product of large matrices"):
            return matmul_gflops(self.device, next(self.network.parameters()).dtype)

    def processor(self) -> str:
        """See `Measurable.processor`."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else cpu_name()


class _Threads:
    """PyTorch's threads, which the whole process shares, and several backends may want to divide at the same time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = self._whole = 0

    def divide(self, parts: int) -> None:
        """Let this thread, and those started from now on, compute with one part of the threads."""
        with self._lock:
            if not self._users:
                self._whole = torch.get_num_threads()
            self._users += 1
            torch.set_num_threads(max(1, self._whole // parts))

    def restore(self) -> None:
        """Let this thread, and those started from now on, compute with all threads again."""
        with self._lock:
            self._users -= 1
            torch.set_num_threads(self._whole)


_THREADS = _Threads()


def count_gflops(network: nn.Module, height: int, width: int) -> float:
    """10⁹ floating-point operations of a network for one image; a multiply-add counts as two."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    weights = next(network.parameters())
    # the counter knows the matrix products of the MATH backend, but not the CPU's fused kernel
    counter = FlopCounterMode(display=False, custom_mapping=flop_formulas())
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        network(torch.zeros(1, 3, height, width, dtype=weights.dtype, device=weights.device))
    return float(counter.get_total_flops()) / 1e9


def matmul_gflops(device: torch.device, dtype: torch.dtype) -> float:
    """10⁹ operations a second of a large matrix product."""
    # most CPUs are a hundred times slower in float16
    on_cpu = CPU_FP16_PROBE if dtype == torch.float16 else CPU_PROBE
    probe = on_cpu if device.type == "cpu" else GPU_PROBE
    matrix = torch.ones(probe.side, probe.side, dtype=dtype, device=device)
    result = torch.empty_like(matrix)

    def run() -> None:
        for _ in range(probe.repeats):
            torch.mm(matrix, matrix, out=result)
        result[0, 0].item()

    return probe.gflops(run)


def _mkl_is_slow() -> bool:
    """Whether PyTorch uses MKL on a CPU other than Intel's."""
    return torch.backends.mkl.is_available() and "Intel" not in _cpu().get("cpu_name", "")


def _cpu() -> dict[str, Any]:
    return getattr(torch.cpu, "get_capabilities", dict)()  # missing in old versions


def _native_precision(device: torch.device) -> Precision:
    if device.type == "cuda":
        return "fp16"
    return "bf16" if device.type == "cpu" and _has_native_bf16() else "fp32"


def training_precision(device: torch.device) -> Literal["fp32", "fp16", "bf16"]:
    """Fastest precision for training on a device: bf16 where it is native, since it needs no loss scaling."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if device.type == "cpu" and _has_native_bf16() else "fp32"


def _has_native_bf16() -> bool:
    return bool(_cpu().get("avx512_bf16") or _cpu().get("amx_bf16"))


def parse_device(name: str) -> torch.device:
    """Device called auto (CUDA, else MPS, else CPU), cpu, cuda, cuda:N or mps.

    Raises:
        DeviceError: there is no such device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", name):
        raise DeviceError(f"no device is called {name!r}; there are auto, cpu, cuda, cuda:N and mps")
    device = torch.device(name)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceUnavailableError("this machine has no MPS device")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count == 0:
            raise DeviceUnavailableError("PyTorch finds no CUDA device")
        if (device.index or 0) >= count:
            raise DeviceError(f"there is no {name}; the CUDA devices are cuda:0 to cuda:{count - 1}")
    return device
