"""Which classes a name means."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

UNUSED = "N/A"
"""How a label is named that no class has; COCO's have gaps."""


LONGEST = 200
"""Letters that are kept of a class's name."""
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def clean_name(name: str) -> str:
    """A class's name in one line, and not too long; what no file could hold becomes a question mark."""
    line = _CONTROLS.sub(" ", name[: LONGEST + 1]).encode("utf-8", "replace").decode()
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"


def used_labels(class_names: Sequence[str]) -> list[tuple[int, str]]:
    """Each label that a class has, and its name."""
    return [(label, name) for label, name in enumerate(class_names) if name != UNUSED]


def matching_labels(names: Iterable[str], classes: Sequence[str]) -> list[list[int]]:
    """The labels that each name means.

    They are those of the classes that are written so, or where there is none, in other capitals. Spaces around a name
    do not count.

    Args:
        names: what is looked for.
        classes: the name of each label.
    """
    written, alike = defaultdict(list), defaultdict(list)
    for label, title in enumerate(classes):
        written[clean_name(title).strip()].append(label)
        alike[clean_name(title).strip().casefold()].append(label)
    looked_for = [clean_name(name).strip() for name in names]
    return [written.get(name) or alike.get(name.casefold(), []) for name in looked_for]
