"""Choice of the engine that runs an exported file."""

from importlib.metadata import PackageNotFoundError, version
from typing import Literal, TypeAlias

from ..checkpoints.find import Checkpoint
from ..errors import EngineVersionError
from ..host import cuda_driver
from ..images.resize import Size
from .exported import ExportedBackend

Engine: TypeAlias = Literal["auto", "onnxruntime", "openvino"]
OPENVINO = "openvino"
"""Name of the engine and of its package; with a colon, begins the names of devices that only it has."""
OLDEST_OPENVINO = 2026, 1
"""Versions before it give wrong boxes for LW-DETR and RF-DETR."""


def exported_backend(
    checkpoint: Checkpoint, engine: Engine, *, device: str, precision: str, size: Size | None
) -> ExportedBackend:
    """Start the engine for an exported file.

    Args:
        checkpoint: the file.
        engine: auto is OpenVINO on a CPU if a version that is new enough is installed, else ONNX Runtime.
        device: as for the engine.
        precision: as for the engine.
        size: to resize images to, for a file of dynamic size.

    Raises:
        ModelError: the file is damaged, or was not exported by this package.
        DeviceError: there is no such device, or it does not start.
        EngineVersionError: OpenVINO is asked for, but too old.
        ModuleNotFoundError: OpenVINO is asked for, but not installed.
    """
    if engine == OPENVINO or (engine == "auto" and _suits_openvino(device)):
        installed = _openvino_version()
        if installed is not None and installed < OLDEST_OPENVINO:
            found, needed = (".".join(map(str, numbers)) for numbers in (installed, OLDEST_OPENVINO))
            raise EngineVersionError(f"OpenVINO {found} gives wrong boxes for some models; {needed} does not")
        from .openvino import OpenVinoBackend

        return OpenVinoBackend(checkpoint, device=device, precision=precision, size=size)
    from .onnx import OnnxBackend

    return OnnxBackend(checkpoint, device=device, precision=precision, size=size)


def _suits_openvino(device: str) -> bool:
    if device.startswith(f"{OPENVINO}:"):
        return True
    if device != "cpu" and (device != "auto" or cuda_driver() is not None):
        return False
    installed = _openvino_version()
    return installed is not None and installed >= OLDEST_OPENVINO


def _openvino_version() -> tuple[int, ...] | None:
    """Year and number of the installed version, or None."""
    try:
        return tuple(int(part) for part in version(OPENVINO).split(".")[:2])
    except PackageNotFoundError:
        return None
