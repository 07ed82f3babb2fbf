"""Values that config.json and the shapes of the tensors give, checked."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor


class SettingError(ValueError):
    """A setting that no supported model has.

    Args:
        name: its name in config.json.
        value: its value.
        reason: what it would have to be, or what is supported.
    """

    def __init__(self, name: str, value: Any, reason: str) -> None:
        super().__init__(name, value, reason)
        self.name, self.value, self.reason = name, value, reason


def backbone_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the settings of the backbone.

    Raises:
        SettingError: they are not an object.
    """
    nested = config.get("backbone_config") or {}
    if not isinstance(nested, dict):
        raise SettingError("backbone_config", nested, "it must be an object")
    return nested


def require(family: str, *expected: tuple[str, Any, Any]) -> None:
    """Refuse settings that the models here do not have.

    Args:
        family: name of the model family.
        expected: name of each setting, its value, and the only supported value.

    Raises:
        SettingError: a value is not the supported one.
    """
    for name, value, supported in expected:
        if value != supported:
            raise SettingError(name, value, f"{family} is supported with {supported!r} only")


def attention_heads(value: Any, name: str, width: int) -> int:
    """Return a number of attention heads.

    Raises:
        SettingError: it does not divide the width.
    """
    if type(value) is not int or value < 1 or width % value:
        raise SettingError(name, value, f"it must divide the width {width}")
    return value


def count_modules(tensors: Mapping[str, Tensor], pattern: str) -> int:
    """Count modules by the largest number that a pattern's group finds in the names of the tensors."""
    matches = (re.match(pattern, name) for name in tensors)
    return 1 + max((int(match[1]) for match in matches if match), default=-1)
