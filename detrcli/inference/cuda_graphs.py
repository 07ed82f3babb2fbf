"""CUDA graphs: what a module does for a batch is launched at once instead of kernel by kernel.

Small batches are bound by these launches on a fast GPU. A graph repeats the same kernels on the same memory, so it fits
one shape of batch only.
"""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn

Inputs: TypeAlias = Sequence[Tensor | None]
Outputs: TypeAlias = tuple[Tensor, ...]

BATCHES_BEFORE = 2
"""Batches of a shape that run without a graph; by then, libraries have chosen their algorithms for it."""
MAX_GRAPHS = 4
"""Shapes that get a graph: the first to recur. Each holds on to the memory that its batch needs."""
TOLERANCE = 1e-3
"""Largest difference, absolute and relative, from the answer without a graph: kernels may differ by their rounding."""

_LOG = logging.getLogger(__name__)
_ONE_AT_A_TIME = threading.Lock()
"""Held while something is captured, which a process can only do once at a time."""


class Graph(Protocol):
    """What was captured."""

    def replay(self) -> None:
        """Compute again from what the inputs hold now."""


Capture: TypeAlias = Callable[[nn.Module, Inputs], tuple[Graph, Outputs]]


class CapturedModule:
    """A module that runs from a graph for each of the shapes of batch that recur.

    A graph is used if its answer for the batch that it was captured on equals the module's. If it differs, or capturing
    fails, the module runs without graphs from then on, and a line in the log says why. Any thread may call it, within
    `torch.inference_mode`.

    Args:
        module: takes tensors or None and returns tensors, all of them on one CUDA device, which it never waits for;
            other tensors that it reads stay where they are.
        capture: captures a module's work on inputs that stay where they are: the graph, and its outputs.
    """

    def __init__(self, module: nn.Module, capture: Capture | None = None) -> None:
        self._module = module
        self._capture = capture or CudaCapture()
        self._lock = threading.Lock()
        self._seen: Counter[object] = Counter()
        self._graphs: dict[object, _Captured] = {}
        self._enabled = True

    def __call__(self, *inputs: Tensor | None, settled: bool = True) -> Outputs:
        """Return the module's outputs.

        Args:
            inputs: for the module.
            settled: whether batches of this shape are likely to follow.
        """
        shape = tuple(None if one is None else (one.shape, one.dtype) for one in inputs)
        with self._lock:
            if shape in self._graphs:
                return self._graphs[shape](inputs)
            outputs: Outputs = self._module(*inputs)
            if self._enabled and settled and len(self._graphs) < MAX_GRAPHS:
                self._seen[shape] += 1
                if self._seen[shape] >= BATCHES_BEFORE:
                    self._add(shape, inputs, outputs)
            return outputs

    def release(self) -> bool:
        """Give up all graphs for good, and with them their memory; whether there were any."""
        with self._lock:
            return self._give_up()

    def _add(self, shape: object, inputs: Inputs, expected: Outputs) -> None:
        try:
            captured = _Captured(self._capture, self._module, inputs)
            found = captured(inputs)
        except Exception as error:  # of CUDA, its libraries or the module
            _LOG.info("without CUDA graphs: %s", " ".join(str(error).split())[:160])
            self._give_up()
            return
        if all(map(_equal, found, expected)):
            self._graphs[shape] = captured
        else:
            _LOG.info("without CUDA graphs, whose detections differ here")
            self._give_up()

    def _give_up(self) -> bool:
        had_any = bool(self._graphs)
        self._enabled = False
        self._graphs.clear()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        return had_any


class _Captured:
    """A graph with the memory that it reads and writes."""

    def __init__(self, capture: Capture, module: nn.Module, inputs: Inputs) -> None:
        self._inputs = [None if one is None else one.clone() for one in inputs]
        self._graph, self._outputs = capture(module, self._inputs)

    def __call__(self, inputs: Inputs) -> Outputs:
        for ours, given in zip(self._inputs, inputs, strict=True):
            if ours is not None and given is not None:
                ours.copy_(given)
        self._graph.replay()
        return tuple(one.clone() for one in self._outputs)


class CudaCapture:
    """Captures CUDA graphs, which share their memory for intermediate results since one runs at a time."""

    def __init__(self) -> None:
        self._place: tuple[torch.cuda.Stream, Any] | None = None

    def __call__(self, module: nn.Module, inputs: Inputs) -> tuple[Graph, Outputs]:
        """Graph of what a module does with these inputs, and its outputs.

        Raises:
            RuntimeError: the module does what a graph cannot hold, or memory is short.
        """
        device = next(one.device for one in inputs if one is not None)
        with _ONE_AT_A_TIME, torch.cuda.device(device):
            if self._place is None:
                self._place = torch.cuda.Stream(), torch.cuda.graph_pool_handle()
            stream, pool = self._place
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                module(*inputs)  # libraries allocate their workspace for a stream when they first use it
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            # meanwhile, other threads may allocate and copy
            with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
                outputs = module(*inputs)
        return graph, outputs


def _equal(found: Tensor, expected: Tensor) -> bool:
    return torch.allclose(found.double(), expected.double(), rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)
