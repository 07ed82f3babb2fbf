"""Class names: cleaning them, and finding labels by them."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

UNUSED = "N/A"
"""Name of a label without a class, as in the gaps of COCO's ids."""
MAX_LENGTH = 200
"""Characters of a class name that are kept."""
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def clean_name(name: str) -> str:
    """Put a class name on one line, shorten it, and replace characters that cannot be encoded by question marks."""
    line = _CONTROLS.sub(" ", name[: MAX_LENGTH + 1]).encode("utf-8", "replace").decode()
    return line if len(line) <= MAX_LENGTH else f"{line[: MAX_LENGTH - 1]}…"


def used_labels(class_names: Sequence[str]) -> list[tuple[int, str]]:
    """List the labels that have a class, with its name."""
    return [(label, name) for label, name in enumerate(class_names) if name != UNUSED]


def matching_labels(names: Iterable[str], classes: Sequence[str]) -> list[list[int]]:
    """Find the labels of each name: those of classes spelled exactly so, else those that differ in case only.

    Spaces around names are ignored.

    Args:
        names: the names to find.
        classes: the name of each label.
    """
    exact, caseless = defaultdict(list), defaultdict(list)
    for label, title in enumerate(classes):
        title = clean_name(title).strip()
        exact[title].append(label)
        caseless[title.casefold()].append(label)
    wanted = [clean_name(name).strip() for name in names]
    return [exact.get(name) or caseless.get(name.casefold(), []) for name in wanted]
