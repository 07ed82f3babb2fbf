"""Runs a network with PyTorch on a CPU, CUDA or MPS device."""

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..checkpoints.load import LoadedModel
from ..errors import DeviceError, UsageError
from ..host import at_once, cpu_name
from ..images.resize import Padded
from ..models.lwdetr import LwDetr
from .backend import IN_FP16_ON_CPU, ON_CPU, ON_GPU, RawDetections
from .cpu import flop_formulas, pack_linears, use_exp2_attention
from .fuse import fuse
from .memory import enough_memory, for_images
from .postprocess import EndToEnd, postprocess_for

Precision = Literal["auto", "fp32", "fp16", "bf16"]
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class TorchBackend:
    """A network in its inference form on one device.

    Args:
        model: its network is folded in place and belongs to this backend from now on.
        device: auto (CUDA, else MPS, else CPU), cpu, cuda, cuda:N or mps.
        precision: auto (fp16 on CUDA, bf16 on a CPU that computes in it, else fp32), fp32, fp16 or bf16.

    Attributes:
        network: the network in its form for inference.

    Raises:
        DeviceError: there is no such device.
    """

    def __init__(self, model: LoadedModel, *, device: str = "auto", precision: Precision = "auto") -> None:
        self.device = device_named(device)
        if precision not in ("auto", *DTYPES):
            raise UsageError(f"no precision is called {precision!r}; there are auto, {', '.join(DTYPES)}")
        if precision == "auto":
            precision = _native_precision(self.device)
        self.description = f"{self.device}, {precision}"
        self.kind: str = self.device.type
        self.precision: str = precision
        on_gpu = self.device.type == "cuda"
        self.batch_size = 8 if on_gpu else 1
        self.grows = on_gpu
        # on a GPU one fills memory while the other computes
        self.at_once = 2 if on_gpu else at_once() if self.device.type == "cpu" else 1
        rules = model.preprocessing
        self._padded = rules.resize if isinstance(rules.resize, Padded) else None
        network = fuse(model.network)
        on_cpu, in_bf16 = self.device.type == "cpu", precision == "bf16"
        # a CPU with tiles (AMX) to multiply with has them used by PyTorch's own attention
        if on_cpu and in_bf16 and isinstance(network, LwDetr) and not _cpu().get("amx_bf16"):
            use_exp2_attention(network)
        network.to(self.device, DTYPES[precision])
        if on_cpu and (in_bf16 or _asks_slow_mkl()):
            pack_linears(network)
        self.network = network
        module = EndToEnd(self.network, postprocess_for(network), scale=rules.scale, mean=rules.mean, std=rules.std)
        self._module = module.to(self.device).eval()

    def run(self, pixels: Sequence[NDArray[np.uint8]], sizes: Sequence[tuple[int, int]]) -> list[RawDetections]:
        """Answer for each image; see `Backend.run`.

        Raises:
            DeviceMemoryError: the device's memory does not hold so many images at once.
        """
        if self.device.type == "cpu" and len(pixels) > 1:
            # a batch is no faster here than its images one by one, and takes more memory
            return [self.run([one], [size])[0] for one, size in zip(pixels, sizes, strict=True)]
        with enough_memory(self.device, for_images(pixels)), torch.inference_mode():
            on_gpu = self.device.type == "cuda"
            batch = torch.empty((len(pixels), *pixels[0].shape), dtype=torch.uint8, pin_memory=on_gpu)
            np.stack(pixels, out=batch.numpy())
            images = batch.to(self.device, non_blocking=True)
            heights_widths = torch.tensor(sizes, dtype=torch.float32).to(self.device, non_blocking=True)
            filled = None
            if self._padded is not None:
                filled = torch.tensor(self._padded.filled(sizes), dtype=torch.float32).to(self.device)
            boxes, scores, labels = (answer.cpu().numpy() for answer in self._module(images, heights_widths, filled))
        return [RawDetections(*answers) for answers in zip(boxes, scores, labels, strict=True)]

    @contextmanager
    def shared(self) -> Iterator[None]:
        """See `Backend.shared`; on a CPU it holds for all that PyTorch does."""
        if self.device.type != "cpu":
            yield
            return
        _THREADS.divide(self.at_once)
        try:
            yield
        finally:
            _THREADS.give_back()

    def gflops(self, height: int, width: int) -> float:
        """See `Measurable.gflops`."""
        return count_gflops(self.network, height, width)

    def product_gflops(self) -> float:
        """See `Measurable.product_gflops`."""
        dtype = next(self.network.parameters()).dtype
        # most CPUs compute in float16 a hundred times slower
        on_cpu = IN_FP16_ON_CPU if dtype == torch.float16 else ON_CPU
        product = on_cpu if self.device.type == "cpu" else ON_GPU
        matrix = torch.ones(product.rows, product.rows, dtype=dtype, device=self.device)
        result = torch.empty_like(matrix)

        def run() -> None:
            for _ in range(product.times):
                torch.mm(matrix, matrix, out=result)
            result[0, 0].item()

        with enough_memory(self.device, "for a product of large matrices"):
            return product.rate(run)

    def processor(self) -> str:
        """See `Measurable.processor`."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return cpu_name()


class _Threads:
    """PyTorch's threads, which all of a process has in common; several may want them divided at the same time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = self._whole = 0

    def divide(self, parts: int) -> None:
        """Let this thread, and those that begin from now on, compute with their share of the threads."""
        with self._lock:
            if not self._users:
                self._whole = torch.get_num_threads()
            self._users += 1
            torch.set_num_threads(max(1, self._whole // parts))

    def give_back(self) -> None:
        """Let this thread, and those that begin from now on, compute with all threads again."""
        with self._lock:
            self._users -= 1
            torch.set_num_threads(self._whole)


_THREADS = _Threads()


def count_gflops(network: nn.Module, height: int, width: int) -> float:
    """What a network in its form for inference does for one image, in 10⁹ operations, a product and a sum as two."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    weights = next(network.parameters())
    # the counter does not know the CPU's own kernel for attention, but the products that it stands for
    counter = FlopCounterMode(display=False, custom_mapping=flop_formulas())
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        network(torch.zeros(1, 3, height, width, dtype=weights.dtype, device=weights.device))
    return float(counter.get_total_flops()) / 1e9


def _asks_slow_mkl() -> bool:
    """Whether PyTorch has MKL multiply on a CPU that is not Intel's, on which it is slow."""
    return torch.backends.mkl.is_available() and "Intel" not in _cpu().get("cpu_name", "")


def _cpu() -> dict[str, Any]:
    return getattr(torch.cpu, "get_capabilities", dict)()  # not in old versions


def _native_precision(device: torch.device) -> Precision:
    if device.type == "cuda":
        return "fp16"
    return "bf16" if device.type == "cpu" and _computes_bf16() else "fp32"


def training_precision(device: torch.device) -> Literal["fp32", "fp16", "bf16"]:
    """What training is fast in on a device: bf16, whose range is float32's, where the device computes in it."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if device.type == "cpu" and _computes_bf16() else "fp32"


def _computes_bf16() -> bool:
    return bool(_cpu().get("avx512_bf16") or _cpu().get("amx_bf16"))


def device_named(name: str) -> torch.device:
    """The device that a user means by auto (CUDA, else MPS, else CPU), cpu, cuda, cuda:N or mps.

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
        raise DeviceError("this machine has no MPS device; use --device auto or --device cpu")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count == 0:
            raise DeviceError("PyTorch finds no CUDA device here; use --device auto or --device cpu")
        if (device.index or 0) >= count:
            raise DeviceError(f"there is no {name}; the CUDA devices are cuda:0 to cuda:{count - 1}")
    return device
