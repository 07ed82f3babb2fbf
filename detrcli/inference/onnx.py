"""Runs a network that `detr export` wrote, with ONNX Runtime and without PyTorch."""

import io
import re
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ..checkpoints.find import Checkpoint
from ..errors import DeviceError, DeviceWarning, ModelError, UsageError
from ..export.metadata import PRECISIONS, card_of
from ..export.opsets import DEFAULT_OPSET
from ..host import at_once, cpu_name, cuda_driver, gpu_name, threads
from ..images.resize import Exactly, Padded, ResizeRule, canvas_of, shortest_edge
from .backend import ON_CPU, ON_GPU, RawDetections
from .memory import enough_memory, for_images, is_for_want_of_memory

if TYPE_CHECKING:
    from ..checkpoints.families import Size

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
SILENT = 4
"""ONNX Runtime's severity for messages that end the process; what matters comes as exceptions."""
TAKES = {"images": ("tensor(uint8)", 4), "sizes": ("tensor(float)", 2)}
GIVES = {"boxes": ("tensor(float)", 3), "scores": ("tensor(float)", 2), "labels": ("tensor(int64)", 2)}
"""Types and ranks of what a file takes and gives."""


class OnnxBackend:
    """An exported network on one device.

    Args:
        checkpoint: the file.
        device: auto (CUDA if it starts, else the CPU), cpu, cuda, cuda:N or tensorrt (with CUDA for what it cannot do).
        precision: auto, or what the file was exported in.
        size: what to resize images to, for a file that takes any size.

    Attributes:
        card: what the file says about itself.

    Raises:
        ModelError: the file is damaged or not of `detr export`.
        UsageError: the file has another precision or size.
        DeviceError: there is no such device, or it does not start.

    Warns:
        DeviceWarning: there is a GPU, but the CPU has to do.
    """

    def __init__(
        self, checkpoint: Checkpoint, *, device: str = "auto", precision: str = "auto", size: "Size | None" = None
    ) -> None:
        path = checkpoint.weights
        self._alone, self._device = _started(path, device)
        self._session = self._alone
        self._lock = threading.Lock()
        self._sharing = 0
        self.card = card_of(self._session.get_modelmeta().custom_metadata_map, checkpoint)
        if self.card.form == "raw":
            raise ModelError(
                f"{path} was exported with --raw, for other programs; export it without to predict with it"
            )
        if precision not in ("auto", self.card.precision):
            raise UsageError(
                f"{path} computes in {self.card.precision}; `detr export --precision` writes {' or '.join(PRECISIONS)}"
            )
        self.resize = self.card.preprocessing.resize
        canvas = canvas_of(self.resize)
        self._fixed_size = canvas is not None
        self._fixed_batch = _checked_ends(self._session, self.resize, path)
        if size is not None:
            if canvas is None:
                self.resize = shortest_edge(size) if isinstance(size, int) else Exactly(*size)
            elif ((size, size) if isinstance(size, int) else size) != canvas:
                width, height = canvas
                raise UsageError(
                    f"{path} takes {width} × {height} pixels; export the model anew for another --image-size"
                )
        self.description = f"{self._device}, ONNX, {self.card.precision}"
        self.kind = self._device.partition(":")[0]
        self.precision: str = self.card.precision
        self.batch_size = self._fixed_batch or (1 if self._device == "cpu" else 8)
        self.grows = self._fixed_batch is None and self._device != "cpu"
        self.at_once = at_once() if self._device == "cpu" else 2
        self._path = path

    def run(self, pixels: Sequence[NDArray[np.uint8]], sizes: Sequence[tuple[int, int]]) -> list[RawDetections]:
        """Answer for each image; see `Backend.run`.

        Raises:
            DeviceMemoryError: the device's memory does not hold so many images at once.
            ModelError: the file gives other things than it says, or cannot be run.
        """
        # on a CPU a batch is no faster than its images one by one, and takes more memory
        most = self._fixed_batch or (1 if self._device == "cpu" else len(pixels))
        answers: list[RawDetections] = []
        for start in range(0, len(pixels), most):
            some = pixels[start : start + most]
            missing = most - len(some) if self._fixed_batch else 0
            with enough_memory(self._device, for_images(some)):
                given: dict[str, NDArray[Any]] = {"images": np.stack(some)}
                given["sizes"] = np.array(sizes[start : start + most], dtype=np.float32)
                if isinstance(self.resize, Padded):
                    given["filled"] = np.array(self.resize.filled(sizes[start : start + most]), dtype=np.float32)
                for name, value in given.items():
                    given[name] = np.pad(value, ((0, missing), *((0, 0),) * (value.ndim - 1)), constant_values=1)
                found = self._run(given)
            answers += [RawDetections(*one) for one in islice(zip(*found, strict=True), len(some))]
        return answers

    @contextmanager
    def shared(self) -> Iterator[None]:
        """See `Backend.shared`; on a CPU it takes another session, whose runs have threads of their own."""
        with self._lock:
            if not self._sharing and self._device == "cpu" and self.at_once > 1:
                self._session = _session(self._path, [CPU], max(1, threads() // self.at_once))
            self._sharing += 1
        try:
            yield
        finally:
            with self._lock:
                self._sharing -= 1
                if not self._sharing:
                    self._session = self._alone

    def gflops(self, height: int, width: int) -> float | None:
        """See `Measurable.gflops`; only known for a file that takes one size."""
        return self.card.gflops if self._fixed_size else None

    def product_gflops(self) -> float | None:
        """See `Measurable.product_gflops`; not known without the package `onnx`."""
        try:
            from onnx import TensorProto, helper
        except ModuleNotFoundError:
            return None
        product = ON_CPU if self._device == "cpu" else ON_GPU
        kind = TensorProto.FLOAT16 if self.card.precision == "fp16" else TensorProto.FLOAT
        names = [f"matrix{turn}" for turn in range(product.times + 1)]
        nodes = [helper.make_node("MatMul", ["matrix0", one], [other]) for one, other in pairwise(names)]
        ends = [helper.make_tensor_value_info(name, kind, [product.rows] * 2) for name in (names[0], names[-1])]
        graph = helper.make_graph(nodes, "product", ends[:1], ends[1:])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", DEFAULT_OPSET)], ir_version=8)
        matrix = np.full([product.rows] * 2, 1 / product.rows, helper.tensor_dtype_to_np_dtype(kind))
        providers = [*self._session.get_provider_options().items()]
        with enough_memory(self._device, "for a product of large matrices"):
            session = onnxruntime.InferenceSession(model.SerializeToString(), session_options(), providers=providers)
            binding = session.io_binding()
            place = ("cpu", 0) if self._device == "cpu" else ("cuda", _index(self._device))
            binding.bind_ortvalue_input(names[0], onnxruntime.OrtValue.ortvalue_from_numpy(matrix, *place))
            binding.bind_output(names[-1], *place)
            return product.rate(lambda: session.run_with_iobinding(binding))

    def processor(self) -> str:
        """See `Measurable.processor`."""
        return cpu_name() if self._device == "cpu" else gpu_name(_index(self._device)) or self._device

    def _run(self, given: Mapping[str, NDArray[Any]]) -> Sequence[NDArray[Any]]:
        with _blamed(self._path):
            found = self._on_cpu(given) if self._device == "cpu" else self._on_gpu(given)
        boxes, scores, labels = found
        count = len(given["images"]), *scores.shape[1:2]
        if (boxes.shape, scores.shape, labels.shape) != ((*count, 4), count, count):
            raise ModelError(f"{self._path} gives other things than what `detr export` writes; export it anew")
        return found

    def _on_cpu(self, given: Mapping[str, NDArray[Any]]) -> Sequence[NDArray[Any]]:
        found: Sequence[NDArray[Any]] = self._session.run(list(GIVES), given)
        return found

    def _on_gpu(self, given: Mapping[str, NDArray[Any]]) -> Sequence[NDArray[Any]]:
        binding = self._session.io_binding()
        index = _index(self._device)
        for name, value in given.items():
            binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(value, "cuda", index))
        for name in GIVES:
            binding.bind_output(name, "cuda", index)
        self._session.run_with_iobinding(binding)
        copied: Sequence[NDArray[Any]] = binding.copy_outputs_to_cpu()
        return copied


def _checked_ends(session: onnxruntime.InferenceSession, rule: ResizeRule, path: Path) -> int | None:
    """How many images a file takes at once, or None for any number, if it takes and gives what it says.

    Args:
        session: the file's.
        rule: the resize rule that the file names.
        path: of the file.

    Raises:
        ModelError: it does not.
    """
    inputs, outputs = (
        {one.name: (one.type, one.shape) for one in ends} for ends in (session.get_inputs(), session.get_outputs())
    )
    takes = {**TAKES, "filled": ("tensor(float)", 2)} if isinstance(rule, Padded) else TAKES
    declared = [{name: (kind, len(shape)) for name, (kind, shape) in ends.items()} for ends in (inputs, outputs)]
    if declared == [takes, GIVES]:
        batch, height, width, channels = inputs["images"][1]
        sides = [side if isinstance(side, int) else None for side in (width, height)]
        whole = not isinstance(batch, int) or batch > 0
        if whole and channels == 3 and sides == list(canvas_of(rule) or (None, None)):
            return batch if isinstance(batch, int) else None
    raise ModelError(f"{path} takes or gives other things than what `detr export` writes; export it anew")


@contextmanager
def _blamed(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong in a file, but for want of memory, into a `ModelError`."""
    try:
        yield
    except Exception as error:  # ONNX Runtime's many kinds of error have no common kind of their own
        if is_for_want_of_memory(error):
            raise
        raise ModelError(f"ONNX Runtime {onnxruntime.__version__} cannot run {path} ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:160]


def _started(path: Path, device: str) -> tuple[onnxruntime.InferenceSession, str]:
    if not re.fullmatch(r"auto|cpu|tensorrt|cuda(:\d+)?", device):
        raise DeviceError(f"an ONNX file runs on auto, cpu, cuda, cuda:N or tensorrt, not on {device!r}")
    if device == "cpu" or (device == "auto" and cuda_driver() is None):
        return _session(path, [CPU]), "cpu"
    try:
        return _on_gpu(path, "cuda" if device == "auto" else device)
    except DeviceError as error:
        if device != "auto":
            raise
        warnings.warn(f"{error}; going on on the CPU", DeviceWarning, stacklevel=2)
        return _session(path, [CPU]), "cpu"


def _on_gpu(path: Path, device: str) -> tuple[onnxruntime.InferenceSession, str]:
    wanted = TENSORRT if device == "tensorrt" else CUDA
    if wanted not in onnxruntime.get_available_providers():
        raise DeviceError(f"this ONNX Runtime knows no {device}; install onnxruntime-gpu, or use --device cpu")
    if cuda_driver() is None:
        raise DeviceError("no CUDA device was found; use --device auto or --device cpu")
    # it prints what it misses where records go; whether the provider starts without is seen below
    with suppress(Exception), redirect_stdout(io.StringIO()):
        onnxruntime.preload_dlls()
    options = {"device_id": _index(device)}
    # each image of a DETR has a size of its own: to try all algorithms for each takes longer than it saves
    cuda = (CUDA, options | {"cudnn_conv_algo_search": "HEURISTIC", "arena_extend_strategy": "kSameAsRequested"})
    providers = [cuda, CPU] if wanted == CUDA else [(TENSORRT, options), cuda, CPU]
    try:
        session = _session(path, providers)
    except ModelError as error:
        _session(path, [CPU])  # which fails if it is the file's fault
        raise DeviceError(f"ONNX Runtime could not start {device} ({error})") from error
    if wanted not in session.get_providers():
        raise DeviceError(
            f"ONNX Runtime could not start {device}; its libraries may be missing (`pip install torch` brings them)"
        )
    return session, device


def _session(path: Path, providers: list[Any], count: int | None = None) -> onnxruntime.InferenceSession:
    onnxruntime.set_default_logger_severity(SILENT)
    try:
        path.open("rb").close()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from error
    try:
        with enough_memory("this machine or its GPU", f"for {path}"):
            return onnxruntime.InferenceSession(path, session_options(count), providers=providers, enable_fallback=0)
    except DeviceError:
        raise
    except Exception as error:  # its many kinds of error have no common kind of their own
        raise ModelError(
            f"ONNX Runtime {onnxruntime.__version__} cannot read {path}; export it again ({_reason(error)})"
        ) from error


def session_options(count: int | None = None) -> onnxruntime.SessionOptions:
    """ONNX Runtime's options for every file: it says nothing, and uses so many threads, or `threads` of them."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = SILENT
    options.intra_op_num_threads = count or threads()
    return options


def _index(device: str) -> int:
    return int(device.partition(":")[2] or 0)
