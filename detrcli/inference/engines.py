"""Choice of the engine that runs an exported file."""

from importlib.util import find_spec
from typing import Literal, TypeAlias

from ..checkpoints.find import Checkpoint
from ..host import cuda_driver
from ..images.resize import Size
from .exported import ExportedBackend

Engine: TypeAlias = Literal["auto", "onnxruntime", "openvino"]
OPENVINO = "openvino"
"""Name of the engine and of its package; with a colon, begins the names of devices that only it has."""


def exported_backend(
    checkpoint: Checkpoint, engine: Engine, *, device: str, precision: str, size: Size | None
) -> ExportedBackend:
    """Start the engine for an exported file.

    Args:
        checkpoint: the file.
        engine: auto is OpenVINO on a CPU if it is installed, else ONNX Runtime.
        device: as for the engine.
        precision: as for the engine.
        size: to resize images to, for a file of dynamic size.

    Raises:
        ModelError: the file is damaged, or was not exported by this package.
        DeviceError: there is no such device, or it does not start.
        ModuleNotFoundError: OpenVINO is asked for, but not installed.
    """
    if engine == OPENVINO or (engine == "auto" and _suits_openvino(device)):
        from .openvino import OpenVinoBackend

        return OpenVinoBackend(checkpoint, device=device, precision=precision, size=size)
    from .onnx import OnnxBackend

    return OnnxBackend(checkpoint, device=device, precision=precision, size=size)


def _suits_openvino(device: str) -> bool:
    if device.startswith(f"{OPENVINO}:"):
        return True
    on_cpu = device == "cpu" or (device == "auto" and cuda_driver() is None)
    return on_cpu and find_spec(OPENVINO) is not None
