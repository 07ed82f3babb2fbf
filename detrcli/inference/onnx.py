"""ONNX Runtime backend for exported files; needs no PyTorch."""

import io
import re
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ..checkpoints.find import Checkpoint
from ..errors import DeviceError, DeviceUnavailableError, DeviceWarning, ModelError, OnnxFileError, OnnxSettingError
from ..export import DEFAULT_OPSET
from ..export.metadata import parse_metadata
from ..host import cpu_name, cuda_driver, gpu_name, threads
from ..images.resize import Size
from .backend import CPU_PROBE, GPU_PROBE
from .exported import OUTPUTS, Arrays, ExportedBackend, Port, open_file
from .memory import enough_memory, is_out_of_memory

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
FATAL = 4
"""ONNX Runtime's severity of messages that end the process; all else is raised as an exception."""
TYPES = {"tensor(float)": "float32", "tensor(uint8)": "uint8", "tensor(int64)": "int64"}
"""ONNX Runtime's names of types → NumPy's."""


class OnnxBackend(ExportedBackend):
    """An exported network on one device.

    Args:
        checkpoint: the file.
        device: auto (CUDA if it starts, else CPU), cpu, cuda, cuda:N or tensorrt (CUDA for operators it lacks).
        precision: auto, or the one that the file was exported in.
        size: to resize images to, for a file of dynamic size.

    Raises:
        OnnxFileError: the file is damaged, a bare network, or was not exported by this package.
        OnnxSettingError: the file has another precision or size.
        DeviceError: there is no such device, or it does not start.

    Warns:
        DeviceWarning: there is a GPU, but the network runs on the CPU.
    """

    engine = "ONNX Runtime"

    def __init__(
        self, checkpoint: Checkpoint, *, device: str = "auto", precision: str = "auto", size: Size | None = None
    ) -> None:
        path = checkpoint.weights
        session, device = _start(path, device)
        metadata = parse_metadata(session.get_modelmeta().custom_metadata_map, path)
        if precision not in ("auto", metadata.precision):
            raise OnnxSettingError(f"{path} computes in {metadata.precision}, not in {precision}")
        inputs, outputs = (
            {one.name: _port(one) for one in values} for values in (session.get_inputs(), session.get_outputs())
        )
        super().__init__(path, metadata, inputs, outputs, device=device, precision=metadata.precision, size=size)
        self._session = self._whole_session = session
        self._lock = threading.Lock()
        self._users = 0

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

    def _run(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        with _as_model_error(self._path):
            return self._run_on_cpu(inputs) if self._device == "cpu" else self._run_on_gpu(inputs)

    def _run_on_cpu(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        outputs: Arrays = self._session.run(list(OUTPUTS), inputs)
        return outputs

    def _run_on_gpu(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        binding = self._session.io_binding()
        index = _index(self._device)
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(value, "cuda", index))
        for name in OUTPUTS:
            binding.bind_output(name, "cuda", index)
        self._session.run_with_iobinding(binding)
        copied: Arrays = binding.copy_outputs_to_cpu()
        return copied


def _port(value: onnxruntime.NodeArg) -> Port:
    dtype = TYPES.get(value.type, value.type)
    return Port(dtype, tuple(side if isinstance(side, int) else None for side in value.shape))


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
    open_file(path)
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
