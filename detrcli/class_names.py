"""Which classes a name means."""

from collections import defaultdict
from collections.abc import Iterable, Sequence


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
