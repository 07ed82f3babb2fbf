"""Python packages that are missing or cannot be loaded, and how to install them."""

from importlib.util import find_spec

from ..errors import one_line

INSTALL = {
    "fsspec": "fsspec",
    "huggingface_hub": "huggingface-hub",
    "matplotlib": "'detrcli[train]'",
    "nncf": "'detrcli[int8]'",
    "numpy": "numpy",
    "onnx": "'detrcli[export]'",
    "onnxruntime": "onnxruntime",
    "onnxscript": "'detrcli[export]'",
    "openvino": "'detrcli[openvino]'",
    "PIL": "pillow",
    "pycocotools": "'detrcli[train]'",
    "safetensors": "safetensors",
    "scipy": "'detrcli[train]'",
    "torch": "torch",
    "torchvision": "torchvision",
    "yaml": "pyyaml",
}
"""What pip installs for each import: a package, or an extra of ours."""
NOT_FOR_ONNX = ("huggingface_hub", "safetensors", "torch")
"""Packages that predicting with an ONNX file does without."""
NO_MEMORY = ("map segment", "cannot allocate memory")
"""Words of the dynamic linker when memory is short."""


def require(*names: str) -> None:
    """Check that packages are installed, before any work that would end without them.

    Raises:
        ModuleNotFoundError: one is missing.
    """
    for name in names:
        if find_spec(name) is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def complaint_about_package(error: BaseException) -> str | None:
    """Message for the user if a package is missing or cannot be loaded; None for any other error."""
    if isinstance(error, ModuleNotFoundError):
        name = (error.name or "").partition(".")[0]
        if name not in INSTALL:
            return None
        hint = ", or name a model that `detr export` wrote" if name in NOT_FOR_ONNX else ""
        return f"this needs {name}; `pip install {INSTALL[name]}`{hint}"
    package = _being_loaded(error)
    if package is None:
        return None
    while error.__cause__ is not None:  # NumPy wraps the reason in many lines of advice
        error = error.__cause__
    reason = one_line(error)
    if isinstance(error, MemoryError) or any(words in reason.lower() for words in NO_MEMORY):
        hint = "free memory, or raise the limit (`ulimit -v`)"
    else:
        hint = "reinstall it"
    return f"{package} could not be loaded ({reason:.200}); {hint}"


def _being_loaded(error: BaseException) -> str | None:
    """Name of the package whose import raised an error, if there is one."""
    at = error.__traceback__
    while at is not None:
        name = str(at.tb_frame.f_globals.get("__name__")).partition(".")[0]
        if name in INSTALL and at.tb_frame.f_code.co_name == "<module>":
            return "pillow" if name == "PIL" else name
        at = at.tb_next
    return None
