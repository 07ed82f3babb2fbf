"""The end-to-end module on fake CUDA tensors, which need no GPU: right devices, right dtypes, and no waiting.

Fake tensors have a device, a dtype and a shape, but no values: a module that asks for one fails.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from detrcli.checkpoints.load import LoadedModel
from detrcli.images.resize import Padded
from detrcli.inference.fuse import fuse
from detrcli.inference.postprocess import EndToEnd, images_dtype, postprocess_for

from ..exported import Make, detr, lwdetr, padded_lwdetr, rfdetr, table_transformer, two_scales

PRODUCTS = ("linear", "conv", "matmul", "einsum", "scaled_dot_product_attention", "mm", "addmm", "bmm", "baddbmm")
"""Beginnings of the names of the operators that take most of the time."""
HEIGHT, WIDTH = 128, 192


class Recorder(TorchDispatchMode):
    """Records where operators compute, and in which dtype they multiply matrices.

    Attributes:
        devices: types of the devices of all inputs and outputs.
        dtypes: of the inputs and outputs of products.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.devices: set[str] = set()
        self.dtypes: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        outputs = func(*args, **(kwargs or {}))
        tensors = [one for one in tree_leaves((args, kwargs, outputs)) if isinstance(one, Tensor)]
        self.devices |= {one.device.type for one in tensors}
        if func.__name__.startswith(PRODUCTS):
            self.dtypes |= {one.dtype for one in tensors if one.is_floating_point()}
        return outputs


def on_fake_gpu(module: nn.Module, mode: FakeTensorMode, dtype: torch.dtype | None = None) -> None:
    """Replace parameters and buffers as `Module.to` does, which cannot make fake ones of real ones."""
    for part in module.modules():
        for name, value in (*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)):
            fake = mode.from_tensor(value).to("cuda", dtype if value.is_floating_point() else None)
            delattr(part, name)
            if isinstance(value, nn.Parameter):
                part.register_parameter(name, nn.Parameter(fake, requires_grad=False))
            else:
                part.register_buffer(name, fake)


def run(model: LoadedModel, dtype: torch.dtype, batch: int) -> tuple[Recorder, list[Tensor]]:
    """Detect objects as `TorchBackend` does: what was recorded, and the outputs."""
    rules, network = model.preprocessing, fuse(model.network)
    module = EndToEnd(network, postprocess_for(network), scale=rules.scale, mean=rules.mean, std=rules.std).eval()
    with FakeTensorMode() as mode, torch.inference_mode():
        on_fake_gpu(network, mode, dtype)
        on_fake_gpu(module, mode)
        images = torch.empty(batch, HEIGHT, WIDTH, 3, dtype=images_dtype(rules.resample), device="cuda")
        sizes, filled = (torch.empty(batch, 2, device="cuda") for _ in range(2))
        with Recorder() as recorder:
            outputs = module(images, sizes, filled if isinstance(rules.resize, Padded) else None)
    return recorder, list(outputs)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("make", [detr, table_transformer, lwdetr, padded_lwdetr, rfdetr, two_scales])
def test_a_gpu_computes_everything_in_the_precision(make: Make, dtype: torch.dtype, batch: int) -> None:
    recorder, (boxes, scores, labels) = run(make(), dtype, batch)
    assert recorder.devices == {"cuda"}
    assert recorder.dtypes == {dtype}
    assert {boxes.device.type, scores.device.type, labels.device.type} == {"cuda"}
    assert (boxes.dtype, scores.dtype, labels.dtype) == (torch.float32, torch.float32, torch.int64)
    assert scores.shape == labels.shape
    assert boxes.shape == (*scores.shape, 4)
    assert len(scores) == batch


def waiting(pixels: Tensor) -> Tensor:
    return pixels * float(pixels.max())


def copying(pixels: Tensor) -> Tensor:
    return pixels * torch.arange(2.0)[1:].to(pixels)


def widening(pixels: Tensor) -> Tensor:
    rows = pixels.flatten(1).float()
    return pixels * (rows @ rows.mT).mean().to(pixels)


@pytest.mark.parametrize("fault", [waiting, copying, widening])
def test_faults_that_only_a_gpu_shows_are_found(fault: Callable[[Tensor], Tensor]) -> None:
    model = lwdetr()
    model.network.register_forward_pre_hook(lambda _, inputs: fault(inputs[0]))
    if fault is waiting:
        with pytest.raises(DataDependentOutputException):
            run(model, torch.float16, 1)
        return
    recorder, _ = run(model, torch.float16, 1)
    assert (recorder.devices == {"cuda"}) == (fault is not copying)
    assert (recorder.dtypes == {torch.float16}) == (fault is not widening)
