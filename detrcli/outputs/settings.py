"""Settings of a run that the files of a format depend on."""

from dataclasses import dataclass
from pathlib import Path

from ..images.sources import CocoId


@dataclass(frozen=True)
class OutputSettings:
    """What a format needs to know besides the images.

    Attributes:
        class_names: name of each label of the model.
        folder: the output folder.
        image_root: URL that image paths are appended to, or "" to write paths as they are.
        category_ids: COCO category id of each label, None for a label without one; or None to number the classes.
    """

    class_names: tuple[str, ...]
    folder: Path = Path()
    image_root: str = ""
    category_ids: tuple[CocoId | None, ...] | None = None
