"""Object detection with DETR, from the command line and from Python.

import detrcli

detector = detrcli.load("detr-resnet-50")
(detections,) = detector.predict("photo.jpg")
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .checkpoints.load import load_model
    from .detections import Detections
    from .detector import Detector, load
    from .errors import DetrError

__version__ = "0.2.0"
__all__ = ["Detections", "Detector", "DetrError", "__version__", "load", "load_model"]

# ONNX Runtime sends telemetry unless this is set before it is imported
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOMES = {
    "Detections": "detections",
    "Detector": "detector",
    "DetrError": "errors",
    "load": "detector",
    "load_model": "checkpoints.load",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
