"""Images without annotations, as a dataset without objects."""

from pathlib import Path

import numpy as np

from ..images.sources import Sources
from .annotations import Dataset, Example


def read_unlabeled(folder: Path) -> Dataset:
    """All images in a folder and its subfolders; their sizes are not read."""
    references = Sources((str(folder),), recursive=True)
    examples = (
        Example(
            path=Path(one.location),
            image_id=number,
            width=0,
            height=0,
            boxes=np.empty((0, 4), np.float32),
            labels=np.empty(0, np.int64),
            areas=np.empty(0, np.float32),
            crowd=np.empty(0, np.bool_),
        )
        for number, one in enumerate(references, 1)
    )
    return Dataset(str(folder), (), (), tuple(examples), ())
