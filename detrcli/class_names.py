"""Which classes a name means."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

UNUSED = "N/A"
"""How a label is named that no class has; COCO's have gaps."""


def used_labels(class_names: Sequence[str]) -> list[tuple[int, str]]:
    """Each label that a class has, and its name."""
    return [(label, name) for label, name in enumerate(class_names) if name != UNUSED]


def labels_named(names: Iterable[str], classes: Sequence[str]) -> list[list[int]]:
    """The labels that each name means.

    They are those of the classes that are written so, or where there is none, in other capitals. Spaces around a name
    do not count.

    Args:
        names: what is looked for.
        classes: the name of each label.
    """
    written, alike = defaultdict(list), defaultdict(list)
    for label, title in enumerate(classes):
        written[title.strip()].append(label)
        alike[title.strip().casefold()].append(label)
    return [written.get(name.strip()) or alike.get(name.strip().casefold(), []) for name in names]
