"""Plain data that training checkpoints pickle beside their weights, and what each kind is read as.

The unpickler may call these functions and no others. NumPy's own are not among them, because they trust their input.
"""

import argparse
import pickle
import re
import types
from collections.abc import Callable
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np


class ScalarType:
    """Type of a NumPy scalar: a number, a truth value or text.

    Raises:
        pickle.UnpicklingError: it is of another kind.
    """

    def __init__(self, code: str, *_: object) -> None:
        if not isinstance(code, str) or not re.fullmatch(r"b1|[iu][1248]|f[248]|c8|c16|[SU]\d+", code):
            raise pickle.UnpicklingError(f"Can only build numpy scalars of numbers and text, not {code!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[object, ...]) -> None:
        """Set the byte order."""
        order = state[1]
        if order in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(order)


def scalar(kind: ScalarType, data: bytes) -> Any:
    """Return the Python value of a NumPy scalar."""
    return np.frombuffer(data, kind.dtype, count=1)[0].item()


def plain_dict(*_: object) -> dict[Any, Any]:
    """Return a plain dictionary in place of a defaultdict."""
    return {}


SAFE_GLOBALS: tuple[tuple[Callable[..., Any], str], ...] = (
    (argparse.Namespace, "argparse.Namespace"),
    (types.SimpleNamespace, "types.SimpleNamespace"),
    *((PurePosixPath, f"{module}.{name}") for module in ("pathlib", "pathlib._local")
      for name in ("PosixPath", "PurePosixPath")),
    *((PureWindowsPath, f"{module}.{name}") for module in ("pathlib", "pathlib._local")
      for name in ("WindowsPath", "PureWindowsPath")),
    *((scalar, f"{module}.multiarray.scalar") for module in ("numpy.core", "numpy._core")),
    (ScalarType, "numpy.dtype"),
    (plain_dict, "collections.defaultdict"),
    *((factory, f"builtins.{factory.__name__}") for factory in (dict, list, int, float)),
)  # fmt: skip
"""Function to call, and the name in the pickle that it stands in for."""
