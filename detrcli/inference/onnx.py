"""ONNX Runtime backend for exported files; needs no PyTorch."""

import io
import re
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ..checkpoints.find import Checkpoint
from ..checkpoints.preprocessing import Preprocessing
from ..errors import DeviceError, DeviceUnavailableError, DeviceWarning, ModelError, OnnxFileError, OnnxSettingError
from ..export import DEFAULT_OPSET
from ..export.metadata import parse_metadata
from ..host import cpu_name, cuda_driver, gpu_name, parallel_images, threads
from ..images.resize import Padded, Pixels, Size, fixed_size
from .backend import CPU_PROBE, GPU_PROBE, RawDetections
from .memory import enough_memory, for_images, is_out_of_memory

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
FATAL = 4
"""ONNX Runtime's severity of messages that end the process; all else is raised as an exception."""
OUTPUTS = {"boxes": ("tensor(float)", 3), "scores": ("tensor(float)", 2), "labels": ("tensor(int64)", 2)}
"""Type and rank of each output of a file."""


class OnnxBackend:
    """An exported network on one device.

    Args:
        checkpoint: the file.
        device: auto (CUDA if it starts, else CPU), cpu, cuda, cuda:N or tensorrt (CUDA for operators it lacks).
        precision: auto, or the one that the file was exported in.
        size: to resize images to, for a file of dynamic size.

    Attributes:
        metadata: of the file.
        resize: rule for images.

    Raises:
        OnnxFileError: the file is damaged, a bare network, or was not exported by this package.
        OnnxSettingError: the file has another precision or size.
        DeviceError: there is no such device, or it does not start.

    Warns:
        DeviceWarning: there is a GPU, but the network runs on the CPU.
    """

    def __init__(
        self, checkpoint: Checkpoint, *, device: str = "auto", precision: str = "auto", size: Size | None = None
    ) -> None:
        path = checkpoint.weights
        self._whole_session, self._device = _start(path, device)
        self._session = self._whole_session
        self._lock = threading.Lock()
        self._users = 0
        self.metadata = parse_metadata(self._session.get_modelmeta().custom_metadata_map, path)
        if self.metadata.form == "raw":
            raise OnnxFileError(f"{path} was exported without postprocessing, for other programs")
        if precision not in ("auto", self.metadata.precision):
            raise OnnxSettingError(f"{path} computes in {self.metadata.precision}, not in {precision}")
        self.resize = self.metadata.preprocessing.resize
        canvas = fixed_size(self.resize)
        self._fixed_size = canvas is not None
        self._fixed_batch = _check_signature(self._session, self.metadata.preprocessing, path)
        if size is not None:
            if canvas is None:
                self.resize = self.resize.for_size(size)
            elif ((size, size) if isinstance(size, int) else size) != canvas:
                width, height = canvas
                raise OnnxSettingError(f"{path} only takes {width} × {height} pixels")
        self.description = f"{self._device}, ONNX, {self.metadata.precision}"
        self.device_type = self._device.partition(":")[0]
        self.precision: str = self.metadata.precision
        self.batch_size = self._fixed_batch or (1 if self._device == "cpu" else 8)
        self.grows = self._fixed_batch is None and self._device != "cpu"
        self.concurrency = parallel_images() if self._device == "cpu" else 2
        self._path = path

    def run(self, pixels: Sequence[Pixels], sizes: Sequence[tuple[int, int]]) -> list[RawDetections]:
        """See `Backend.run`.

        Raises:
            DeviceMemoryError: the device's memory is too small for the batch.
            ModelError: the file cannot be run, or its outputs have unexpected shapes.
        """
        # on a CPU, a batch is no faster than single images, and needs more memory
        count = self._fixed_batch or (1 if self._device == "cpu" else len(pixels))
        detections: list[RawDetections] = []
        for start in range(0, len(pixels), count):
            batch = pixels[start : start + count]
            missing = count - len(batch) if self._fixed_batch else 0
            with enough_memory(self._device, for_images(batch)):
                inputs: dict[str, NDArray[Any]] = {"images": np.stack(batch)}
                inputs["sizes"] = np.array(sizes[start : start + count], dtype=np.float32)
                if isinstance(self.resize, Padded):
                    inputs["filled"] = np.array(self.resize.filled(sizes[start : start + count]), dtype=np.float32)
                for name, value in inputs.items():
                    inputs[name] = np.pad(value, ((0, missing), *((0, 0),) * (value.ndim - 1)), constant_values=1)
                outputs = self._run(inputs)
            detections += [RawDetections(*one) for one in islice(zip(*outputs, strict=True), len(batch))]
        return detections

    @contextmanager
    def shared(self) -> Iterator[None]:
        """See `Backend.shared`; on a CPU, runs then use another session, of fewer threads each."""
        with self._lock:
            if not self._users and self._device == "cpu" and self.concurrency > 1:
                self._session = _session(self._path, [CPU], max(1, threads() // self.concurrency))
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    self._session = self._whole_session

    def gflops(self, height: int, width: int) -> float | None:
        """See `Measurable.gflops`; known for files of fixed size only."""
        return self.metadata.gflops if self._fixed_size else None

    def product_gflops(self) -> float | None:
        """See `Measurable.product_gflops`; unknown where the package `onnx` is missing."""
        try:
            from onnx import TensorProto, helper
        except ModuleNotFoundError:
            return None
        probe = CPU_PROBE if self._device == "cpu" else GPU_PROBE
        dtype = TensorProto.FLOAT16 if self.metadata.precision == "fp16" else TensorProto.FLOAT
        shape = [probe.side] * 2
        names = [f"matrix{index}" for index in range(probe.repeats + 1)]
        nodes = [helper.make_node("MatMul", [names[0], one], [following]) for one, following in pairwise(names)]
        first, last = (helper.make_tensor_value_info(name, dtype, shape) for name in (names[0], names[-1]))
        graph = helper.make_graph(nodes, "product", [first], [last])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", DEFAULT_OPSET)], ir_version=8)
        matrix = np.full(shape, 1 / probe.side, helper.tensor_dtype_to_np_dtype(dtype))
        providers = [*self._session.get_provider_options().items()]
        with enough_memory(self._device, "for a product of large matrices"):
            session = onnxruntime.InferenceSession(model.SerializeToString(), session_options(), providers=providers)
            binding = session.io_binding()
            place = ("cpu", 0) if self._device == "cpu" else ("cuda", _index(self._device))
            binding.bind_ortvalue_input(names[0], onnxruntime.OrtValue.ortvalue_from_numpy(matrix, *place))
            binding.bind_output(names[-1], *place)
            return probe.gflops(lambda: session.run_with_iobinding(binding))

    def processor(self) -> str:
        """See `Measurable.processor`."""
        return cpu_name() if self._device == "cpu" else gpu_name(_index(self._device)) or self._device

    def _run(self, inputs: Mapping[str, NDArray[Any]]) -> Sequence[NDArray[Any]]:
        with _as_model_error(self._path):
            outputs = self._run_on_cpu(inputs) if self._device == "cpu" else self._run_on_gpu(inputs)
        boxes, scores, labels = outputs
        count = len(inputs["images"]), *scores.shape[1:2]
        if (boxes.shape, scores.shape, labels.shape) != ((*count, 4), count, count):
            raise OnnxFileError(f"{self._path} has outputs of unexpected shapes")
        return outputs

    def _run_on_cpu(self, inputs: Mapping[str, NDArray[Any]]) -> Sequence[NDArray[Any]]:
        outputs: Sequence[NDArray[Any]] = self._session.run(list(OUTPUTS), inputs)
        return outputs

    def _run_on_gpu(self, inputs: Mapping[str, NDArray[Any]]) -> Sequence[NDArray[Any]]:
        binding = self._session.io_binding()
        index = _index(self._device)
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(value, "cuda", index))
        for name in OUTPUTS:
            binding.bind_output(name, "cuda", index)
        self._session.run_with_iobinding(binding)
        copied: Sequence[NDArray[Any]] = binding.copy_outputs_to_cpu()
        return copied


def _check_signature(session: onnxruntime.InferenceSession, rules: Preprocessing, path: Path) -> int | None:
    """Return a file's fixed batch size or None; refuse inputs and outputs that are not ours or do not fit the rules."""
    inputs, outputs = (
        {one.name: (one.type, one.shape) for one in values} for values in (session.get_inputs(), session.get_outputs())
    )
    kind = "tensor(uint8)" if rules.resample.dtype is np.uint8 else "tensor(float)"
    expected = {"images": (kind, 4), "sizes": ("tensor(float)", 2)}
    if isinstance(rules.resize, Padded):
        expected["filled"] = ("tensor(float)", 2)
    declared = [{name: (kind, len(shape)) for name, (kind, shape) in values.items()} for values in (inputs, outputs)]
    if declared == [expected, OUTPUTS]:
        batch, height, width, channels = inputs["images"][1]
        sides = [side if isinstance(side, int) else None for side in (width, height)]
        valid_batch = not isinstance(batch, int) or batch > 0
        if valid_batch and channels == 3 and sides == list(fixed_size(rules.resize) or (None, None)):
            return batch if isinstance(batch, int) else None
    raise OnnxFileError(f"{path} has unexpected inputs or outputs")


@contextmanager
def _as_model_error(path: Path) -> Iterator[None]:
    """Turn every error of a file, except lack of memory, into a `ModelError`."""
    try:
        yield
    except Exception as error:  # ONNX Runtime's errors share no class
        if is_out_of_memory(error):
            raise
        raise ModelError(f"ONNX Runtime {onnxruntime.__version__} cannot run {path} ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:160]


def _start(path: Path, device: str) -> tuple[onnxruntime.InferenceSession, str]:
    if not re.fullmatch(r"auto|cpu|tensorrt|cuda(:\d+)?", device):
        raise DeviceError(f"an ONNX file runs on auto, cpu, cuda, cuda:N or tensorrt, not on {device!r}")
    if device == "cpu" or (device == "auto" and cuda_driver() is None):
        return _session(path, [CPU]), "cpu"
    try:
        return _start_on_gpu(path, "cuda" if device == "auto" else device)
    except DeviceError as error:
        if device != "auto":
            raise
        warnings.warn(f"{error}; running on the CPU", DeviceWarning, stacklevel=2)
        return _session(path, [CPU]), "cpu"


def _start_on_gpu(path: Path, device: str) -> tuple[onnxruntime.InferenceSession, str]:
    wanted = TENSORRT if device == "tensorrt" else CUDA
    if wanted not in onnxruntime.get_available_providers():
        raise DeviceUnavailableError(f"this ONNX Runtime has no support for {device} (onnxruntime-gpu has)")
    if cuda_driver() is None:
        raise DeviceUnavailableError("no CUDA device was found")
    # it prints missing libraries to stdout; if the provider does not start without them, that is noticed below
    with suppress(Exception), redirect_stdout(io.StringIO()):
        onnxruntime.preload_dlls()
    options = {"device_id": _index(device)}
    # the images of a DETR differ in size, and trying all algorithms for each size takes longer than it saves
    cuda = (CUDA, options | {"cudnn_conv_algo_search": "HEURISTIC", "arena_extend_strategy": "kSameAsRequested"})
    providers = [cuda, CPU] if wanted == CUDA else [(TENSORRT, options), cuda, CPU]
    try:
        session = _session(path, providers)
    except ModelError as error:
        _session(path, [CPU])  # fails, too, if the file is at fault
        raise DeviceUnavailableError(f"ONNX Runtime could not start {device} ({error})") from error
    if wanted not in session.get_providers():
        raise DeviceUnavailableError(
            f"ONNX Runtime could not start {device}; its libraries may be missing (`pip install torch` brings them)"
        )
    return session, device


def _session(path: Path, providers: list[Any], count: int | None = None) -> onnxruntime.InferenceSession:
    onnxruntime.set_default_logger_severity(FATAL)
    try:
        path.open("rb").close()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from error
    try:
        return onnxruntime.InferenceSession(path, session_options(count), providers=providers, enable_fallback=0)
    except Exception as error:  # ONNX Runtime's errors share no class
        if is_out_of_memory(error):
            raise DeviceError(f"the memory of this machine or its GPU is too small for {path}") from error
        raise OnnxFileError(f"ONNX Runtime {onnxruntime.__version__} cannot read {path} ({_reason(error)})") from error


def session_options(count: int | None = None) -> onnxruntime.SessionOptions:
    """Options for every session: no log messages, and `count` threads, by default those of `host.threads`."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = FATAL
    options.intra_op_num_threads = count or threads()
    return options


def _index(device: str) -> int:
    return int(device.partition(":")[2] or 0)
