"""Class names: from a checkpoint, from a file, or from the user."""

import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..classes import UNUSED, clean_name
from ..errors import ClassNamesWarning, UsageError, one_line
from ..files import read_file
from .find import Checkpoint


@dataclass(frozen=True)
class Numbering:
    """How the authors' training numbers its classes, for which the class head has more rows than there are classes.

    Attributes:
        first: label of the first class.
        known: whether the files tell, or it is only likely.
    """

    first: int
    known: bool


def checkpoint_class_names(
    checkpoint: Checkpoint, count: int, datasets: Iterable[tuple[str, ...]], numbering: Numbering | None = None
) -> tuple[str, ...]:
    """Return the name of each label, from config.json, the training arguments, or the dataset with as many classes.

    Args:
        checkpoint: the model's files.
        count: number of labels.
        datasets: class names of the datasets that published models of this family detect.
        numbering: how the training arguments number the classes they name; None if they name every label.

    Warns:
        ClassNamesWarning: the files do not name all classes, or may not number them as assumed.
    """
    names = (checkpoint.config or {}).get("id2label")
    if isinstance(names, dict):
        unnamed = all(name == f"LABEL_{label}" for label, name in names.items())
        # only the gaps in a dataset's ids tell that it is no coincidence to have as many labels
        known = (classes for classes in datasets if unnamed and UNUSED in classes and len(classes) == count)
        return next(known, None) or _named_labels(names, count, checkpoint.name)
    trained = _training_class_names(checkpoint)
    if len(trained) == count:
        return trained
    for classes in datasets:
        if len(classes) == count and set(trained) in (set(), set(classes) - {UNUSED}):
            return classes
    if numbering is not None and trained and numbering.first + len(trained) <= count:
        return _numbered_labels(trained, count, numbering, checkpoint.name)
    _warn(f"{checkpoint.name} does not name its {count} classes")
    return tuple(f"class {label}" for label in range(count))


def _numbered_labels(names: Sequence[str], count: int, numbering: Numbering, model: str) -> tuple[str, ...]:
    """Return the name of each label, and warn of those that may be wrong or are missing."""
    labels = [UNUSED] * numbering.first + list(names)
    unnamed = [f"class {label}" for label in range(len(labels), count)]
    if len(labels) == count - 1 and numbering.first == 0:
        unnamed = [UNUSED]
    if not numbering.known:
        _warn(f"{model} does not say whether its labels count from 0 or from 1: class names may be off by one")
    elif UNUSED not in unnamed:
        _warn(f"{model} names only {len(names)} of its {count} classes")
    return (*labels, *unnamed)


def _named_labels(names: Mapping[str, Any], count: int, model: str) -> tuple[str, ...]:
    """Return the name of each label in config.json, and warn if they count from 1."""
    if str(count) in names and "0" not in names:
        last = clean_name(str(names[str(count)]))
        _warn(
            f"id2label in the config.json of {model} counts from 1, but labels count from 0: names may be "
            f"off by one, and {last!r} is never predicted"
        )
    return tuple(clean_name(str(names.get(str(label), f"class {label}"))) for label in range(count))


def _training_class_names(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Return the class names among the training arguments; empty if there are none."""
    names = (checkpoint.arguments or {}).get("class_names")
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        return ()
    return tuple(clean_name(name) or UNUSED for name in names)


def _warn(text: str) -> None:
    warnings.warn(text, ClassNamesWarning, stacklevel=4)


def check_class_names(names: Sequence[str], count: int, model: str) -> tuple[str, ...]:
    """Check and clean the class names that a user gives for a model.

    Raises:
        UsageError: there is not one for each label.
    """
    if len(names) != count:
        raise UsageError(
            f"{model} has {count} labels, but {len(names)} class names were given; {UNUSED} stands for a label "
            "without a class"
        )
    return tuple(map(clean_name, names))


def read_class_names(file: Path) -> tuple[str, ...]:
    """Read the name of each label.

    Args:
        file: YAML with `names`, such as YOLO's data.yaml; JSON with a list, a mapping from labels to names, or
            config.json's `id2label`; or text with one name per line.

    Raises:
        UsageError: it cannot be read, or has no class names.
    """
    try:
        text = read_file(file).decode("utf-8-sig")
        match file.suffix.lower():
            case ".json":
                content = json.loads(text)
                return _ordered(content.get("id2label", content) if isinstance(content, dict) else content)
            case ".yaml" | ".yml":
                import yaml

                try:
                    content = yaml.load(text, yaml.BaseLoader)  # noqa: S506 (a class may be called "no")
                except yaml.YAMLError as error:
                    raise ValueError(f"not YAML: {error}") from error
                return _ordered(content["names"])
            case _:
                return _ordered([line.strip() for line in text.rstrip().splitlines()])
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else one_line(error)[:120]
        raise UsageError(f"{file} has no class names ({reason})") from error


def _ordered(names: Any) -> tuple[str, ...]:
    if isinstance(names, dict):
        numbered = {int(label): name for label, name in names.items()}
        if sorted(numbered) != list(range(len(numbered))):
            raise ValueError("labels must count from 0, without gaps")
        names = [numbered[label] for label in range(len(numbered))]
    if not isinstance(names, list) or not names:
        raise ValueError("neither a list nor labels with names")
    if not all(isinstance(name, str) and name for name in names):
        raise ValueError("a name is empty or not text")
    return tuple(names)
