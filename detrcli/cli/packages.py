"""Packages that are not installed, or that cannot be loaded, and what to do then."""

PACKAGES = {
    "fsspec": "fsspec",
    "huggingface_hub": "huggingface-hub",
    "matplotlib": "matplotlib",
    "numpy": "numpy",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "onnxscript": "onnxscript",
    "PIL": "pillow",
    "pycocotools": "pycocotools",
    "safetensors": "safetensors",
    "scipy": "scipy",
    "torch": "torch",
    "torchvision": "torchvision",
    "yaml": "pyyaml",
}
"""What is imported, and what pip calls it."""
NEEDED_BY_ALL = ("numpy", "onnxruntime", "PIL")
"""What models need that `detr export` wrote, too."""
NO_MEMORY = ("map segment", "cannot allocate memory")
"""How the dynamic linker says that memory is too small."""


def complaint_about_package(error: BaseException) -> str | None:
    """What to tell a user if a package is missing or cannot be loaded, or None if the error is of something else."""
    if isinstance(error, ModuleNotFoundError):
        name = (error.name or "").partition(".")[0]
        if name not in PACKAGES:
            return None
        hint = "" if name in NEEDED_BY_ALL else ", or name a model that `detr export` wrote"
        return f"this needs {name}; `pip install {PACKAGES[name]}`{hint}"
    package = _being_loaded(error)
    if package is None:
        return None
    while error.__cause__ is not None:  # NumPy wraps it in advice of many lines
        error = error.__cause__
    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, MemoryError) or any(words in reason.lower() for words in NO_MEMORY):
        hint = "free memory, or raise the limit (`ulimit -v`)"
    else:
        hint = "install it anew"
    return f"{package} could not be loaded ({reason:.200}); {hint}"


def _being_loaded(error: BaseException) -> str | None:
    """The package in whose import an error was raised, if there is one."""
    at = error.__traceback__
    while at is not None:
        name = str(at.tb_frame.f_globals.get("__name__")).partition(".")[0]
        if name in PACKAGES and at.tb_frame.f_code.co_name == "<module>":
            return PACKAGES[name]
        at = at.tb_next
    return None
