"""OpenVINO backend for exported files; needs no PyTorch."""

import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoints.find import Checkpoint
from ..errors import DeviceError, DeviceUnavailableError, ModelError, OnnxFileError
from ..export.metadata import parse_metadata
from ..host import cpu_name, threads
from ..images.resize import Size, fixed_size
from ..telemetry import disable_openvino_telemetry
from .backend import CPU_PROBE
from .engines import OPENVINO
from .exported import OUTPUTS, Arrays, ExportedBackend, Port, open_file
from .memory import enough_memory, is_out_of_memory

disable_openvino_telemetry()
import openvino  # noqa: E402

CPU = "CPU"
HINTS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}
"""Precisions, and OpenVINO's names of them."""
CACHE_VARIABLE = "OV_CACHE_DIR"
"""Environment variable with the folder of compiled networks; empty for none."""
MAX_CACHED_BYTES = 2**30
"""Size that the folder in the user's cache is kept below."""


class OpenVinoBackend(ExportedBackend):
    """An exported network on one device.

    It is compiled when it first runs: for all cores, and anew for several images at a time.

    Args:
        checkpoint: the file.
        device: auto or cpu, or openvino:NAME with OpenVINO's name of another device, such as GPU.
        precision: auto (the fastest that the device computes in natively), fp32, fp16 or bf16; of an int8 file, this is
            what is not int8.
        size: to resize images to, for a file of dynamic size.

    Raises:
        OnnxFileError: the file is damaged, a bare network, or was not exported by this package.
        OnnxSettingError: the file has another size.
        DeviceError: there is no such device, or it does not compute in that precision.
    """

    engine = "OpenVINO"

    def __init__(
        self, checkpoint: Checkpoint, *, device: str = "auto", precision: str = "auto", size: Size | None = None
    ) -> None:
        path = checkpoint.weights
        self._core = _core()
        self._plugin = _plugin(self._core, device)
        self._model = _read(self._core, path)
        metadata = parse_metadata(_metadata(self._model), path)
        computes = _precision(self._core, self._plugin, precision)
        self._hint = HINTS[computes]
        super().__init__(
            path,
            metadata,
            {port.get_any_name(): _port(port) for port in self._model.inputs},
            {port.get_any_name(): _port(port) for port in self._model.outputs},
            device="cpu" if self._plugin == CPU else device,
            precision=f"int8+{computes}" if metadata.precision == "int8" else computes,
            size=size,
        )
        canvas = fixed_size(self.resize)
        if self._plugin == CPU and canvas is not None:
            width, height = canvas
            batch = self._fixed_batch or 1
            fixed = {"images": [batch, height, width, 3], "sizes": [batch, 2], "filled": [batch, 2]}
            self._model.reshape({port.get_any_name(): fixed[port.get_any_name()] for port in self._model.inputs})
        self._lock = threading.Lock()
        self._compiled: dict[int, _Compiled] = {}
        self._users = 0

    @contextmanager
    def shared(self) -> Iterator[None]:
        """See `Backend.shared`; on a CPU, each image then has a stream of its own with a part of the threads."""
        with self._lock:
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1

    def product_gflops(self) -> float:
        """See `Measurable.product_gflops`."""
        from openvino import opset13

        side = CPU_PROBE.side
        rows = opset13.parameter([side, side], np.float32)
        columns = opset13.constant(np.full((side, side), 1 / side, np.float32))
        model = openvino.Model([opset13.matmul(rows, columns, False, True)], [rows], "product")
        with enough_memory(self._device, "for a product of large matrices"):
            request = self._core.compile_model(model, self._plugin, self._settings(1)).create_infer_request()
            request.set_input_tensor(openvino.Tensor(np.ones((side, side), np.float32)))
            return CPU_PROBE.gflops(request.infer)

    def processor(self) -> str:
        """See `Measurable.processor`."""
        return cpu_name() if self._plugin == CPU else str(self._core.get_property(self._plugin, "FULL_DEVICE_NAME"))

    def _run(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        with self._lock:
            streams = self.concurrency if self._users else 1
            if streams not in self._compiled:
                self._compiled[streams] = self._compile(streams)
            compiled = self._compiled[streams]
        try:
            return compiled.run(inputs)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            raise ModelError(f"OpenVINO {_version()} cannot run {self._path} ({_reason(error)})") from error

    def _compile(self, streams: int) -> "_Compiled":
        try:
            compiled = self._core.compile_model(self._model, self._plugin, self._settings(streams))
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            raise DeviceError(
                f"OpenVINO {_version()} cannot compile {self._path} for {self._plugin} ({_reason(error)})"
            ) from error
        if CACHE_VARIABLE not in os.environ:
            remove_oldest(_own_cache())
        return _Compiled(compiled)

    def _settings(self, streams: int) -> dict[str, Any]:
        settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": self._hint}
        cache = cache_folder()
        if cache is not None:
            settings["CACHE_DIR"] = str(cache)
        if self._plugin != CPU:
            return settings | {"PERFORMANCE_HINT": "THROUGHPUT"}
        return settings | {
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": threads(),
            # pinned threads of two processes may wait for the same core while others idle
            "ENABLE_CPU_PINNING": False,
            # what an int8 file multiplies in floating point stays so
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
        }


class _Compiled:
    """A compiled network, which any number of threads may run."""

    def __init__(self, model: openvino.CompiledModel) -> None:
        self._model = model
        self._idle: list[openvino.InferRequest] = []

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """Outputs in the order of `OUTPUTS`."""
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._model.create_infer_request()
        outputs = request.infer(dict(inputs), share_inputs=True)
        arrays = [outputs[name] for name in OUTPUTS]
        self._idle.append(request)
        return arrays


def cache_folder() -> Path | None:
    """Folder of compiled networks: OV_CACHE_DIR, else one in the user's cache; None if it cannot be written."""
    named = os.environ.get(CACHE_VARIABLE)
    if named == "":
        return None
    folder = _own_cache() if named is None else Path(named)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def remove_oldest(folder: Path) -> None:
    """Remove the networks that were compiled first until the others fit into `MAX_CACHED_BYTES`."""
    with suppress(OSError):  # another process removes the same ones
        files = [(path, path.stat()) for path in folder.glob("*.blob")]
        size = 0
        for path, found in sorted(files, key=lambda one: one[1].st_mtime, reverse=True):
            size += found.st_size
            if size > MAX_CACHED_BYTES:
                path.unlink()


def _own_cache() -> Path:
    return _user_cache() / "detrcli" / "openvino"


def _user_cache() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


@cache
def _core() -> openvino.Core:
    # Each core's plugin for CPUs replaces the stack on which signals are handled, and takes its own back when it goes.
    # Where two come and go, signals are left with one that is gone, and the next Ctrl+C crashes.
    return openvino.Core()


def _plugin(core: openvino.Core, device: str) -> str:
    if device in ("auto", "cpu"):
        return CPU
    prefix, _, name = device.partition(":")
    if prefix != OPENVINO or not name:
        raise DeviceError(f"OpenVINO runs on auto, cpu, or {OPENVINO}:NAME, such as {OPENVINO}:GPU, not on {device!r}")
    if name not in core.available_devices:
        raise DeviceUnavailableError(f"OpenVINO finds no {name}; it finds {', '.join(core.available_devices)}")
    return name


def _precision(core: openvino.Core, plugin: str, wanted: str) -> str:
    if wanted == "auto":
        native = core.get_property(plugin, "INFERENCE_PRECISION_HINT")
        return next((name for name, hint in HINTS.items() if hint == native.get_type_name()), "fp32")
    if wanted != "fp32" and wanted.upper() not in core.get_property(plugin, "OPTIMIZATION_CAPABILITIES"):
        raise DeviceError(f"OpenVINO does not compute in {wanted} on this {plugin}")
    return wanted


def _read(core: openvino.Core, path: Path) -> openvino.Model:
    open_file(path)
    try:
        return core.read_model(path)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise DeviceError(f"the memory of this machine is too small for {path}") from error
        raise OnnxFileError(f"OpenVINO {_version()} cannot read {path} ({_reason(error)})") from error


def _metadata(model: openvino.Model) -> dict[str, str]:
    if not model.has_rt_info("framework"):
        return {}
    return {key: value.astype(str) for key, value in model.get_rt_info()["framework"].items()}


def _port(port: Any) -> Port:
    shape = (side.get_length() if side.is_static else None for side in port.get_partial_shape())
    return Port(np.dtype(port.get_element_type().to_dtype()).name, tuple(shape))


def _version() -> str:
    return str(openvino.__version__).partition("-")[0]


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
