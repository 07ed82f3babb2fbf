"""Class names in a file of their own, for models that bring none."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..classes import UNUSED, clean_name
from ..errors import UsageError
from ..files import read_file


def read_class_names(file: Path) -> tuple[str, ...]:
    """Read the name of each label.

    Args:
        file: YAML with `names` (as YOLO's data.yaml), JSON (a list, `id2label` as in config.json, or labels
            with their names), or text with a name a line.

    Raises:
        UsageError: it cannot be read, or holds no names.
    """
    try:
        text = read_file(file).decode("utf-8-sig")
        match file.suffix.lower():
            case ".json":
                content = json.loads(text)
                return _in_order(content.get("id2label", content) if isinstance(content, dict) else content)
            case ".yaml" | ".yml":
                import yaml

                try:
                    content = yaml.load(text, yaml.BaseLoader)  # noqa: S506 (a class may be called "no")
                except yaml.YAMLError as error:
                    raise ValueError(f"no YAML: {error}") from error
                return _in_order(content["names"])
            case _:
                return _in_order([line.strip() for line in text.rstrip().splitlines()])
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(f"{file} holds no class names ({_reason(error)})") from error


def check_class_names(names: Sequence[str], count: int, model: str) -> tuple[str, ...]:
    """The names that a user gives a model's classes.

    Raises:
        UsageError: they are not as many as its labels.
    """
    if len(names) != count:
        raise UsageError(
            f"{model} has {count} labels, but {len(names)} class names were given; {UNUSED} is the name of a label "
            "without a class"
        )
    return tuple(map(clean_name, names))


def _in_order(names: Any) -> tuple[str, ...]:
    if isinstance(names, dict):
        numbered = {int(label): name for label, name in names.items()}
        if sorted(numbered) != list(range(len(numbered))):
            raise ValueError("labels count from 0, without gaps")
        names = [numbered[label] for label in range(len(numbered))]
    if not isinstance(names, list) or not names:
        raise ValueError("neither a list nor labels with names")
    if not all(isinstance(name, str) and name for name in names):
        raise ValueError("a name is empty or no text")
    return tuple(names)


def _reason(error: Exception) -> str:
    return f"it lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:120]
