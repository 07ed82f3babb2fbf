"""Images that `detr predict` runs on, from its arguments."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

from ..checkpoints.bundled import sample_image
from ..checkpoints.names import DEMO_MODEL
from ..errors import UsageError
from ..images.sources import STDIN, ImageReference, Sources
from ..images.urls import display_name

if TYPE_CHECKING:
    from ..datasets.coco_ids import CocoIds
    from ..images.decode import ImageFile
    from ..outputs.record import IndexedReference
    from ..outputs.shards import Shard
    from ..timing import Clock


def parse_sources(
    names: list[str] | None,
    files_from: list[Path] | None,
    *,
    from0: bool,
    recursive: bool,
    output: Path,
    draw: bool,
    model: str,
) -> Sources:
    """Sources that the arguments name; those of the demo model default to its sample image.

    Raises:
        UsageError: there are none, or annotated images would overwrite them.
    """
    if not names and not files_from:
        if model != DEMO_MODEL:
            raise UsageError(f"name at least one image; `detr predict --model {DEMO_MODEL}` has one of its own")
        names = [str(sample_image())]
    lists = tuple(map(str, files_from or ()))
    sources = Sources(tuple(names or ()), recursive, output, lists, separator=b"\0" if from0 else b"\n")
    if draw and sources.overlaps(output):
        raise UsageError(
            f"annotated images in {output} would overwrite the images; choose another --output, or add --no-draw"
        )
    return sources


@dataclass(frozen=True)
class Inputs:
    """Images of a run, each with its position among all images of all shards.

    Attributes:
        sources: what the user named.
        first: first images; of a list only one, because whoever writes it may wait for the first result.
        rest: all others, which can be iterated once.
        listed: whether images are named in lists.
        shard: part of the images to take, or None for all.
        ids: ids of the images in a COCO file, if one was given.
    """

    sources: Sources
    first: list[ImageReference]
    rest: Iterator[ImageReference]
    listed: bool
    shard: "Shard | None"
    ids: "CocoIds | None"

    @classmethod
    def begin(cls, sources: Sources, shard: "Shard | None", ids: "CocoIds | None") -> "Inputs":
        """Find the first images.

        Raises:
            UsageError: there are none, and it is not lists that are empty.
        """
        listed = STDIN in sources.names or bool(sources.lists)
        references = iter(sources)
        first = list(islice(references, 1 if listed else 2))
        if not first and not listed:
            shallow = not sources.recursive and any(map(os.path.isdir, sources.names))
            deeper = "; --recursive searches subfolders, too" if shallow else ""
            skipped = f" outside {sources.exclude}, the output folder" if sources.skips_outputs() else ""
            raise UsageError(f"no images in {', '.join(map(display_name, sources.names))}{skipped}{deeper}")
        return cls(sources, first, references, listed, shard, ids)

    @property
    def many(self) -> bool:
        """Whether there may be more than one image."""
        return self.listed or len(self.first) > 1

    def stream(self) -> "Iterator[IndexedReference]":
        """All images, once."""
        images = chain(self.first, self.rest)
        return self._indexed(self.ids.with_ids(images) if self.ids else images)

    def listing(self) -> "Iterator[IndexedReference]":
        """All images that can be listed before the run begins, as often as it takes: all, or only the first."""
        return self._indexed(self.sources if self.sources.listable else self.first)

    def _indexed(self, images: Iterable[ImageReference]) -> "Iterator[IndexedReference]":
        shard = self.shard
        return (one for one in enumerate(images) if shard is None or shard.takes(one[1].relative.as_posix()))


def open_image(item: "IndexedReference", ids: "CocoIds | None", clock: "Clock") -> "ImageFile":
    """Open an image, which must have an id if ids were given.

    Raises:
        ImageError: it cannot be opened, or has no id.
    """
    from ..images.decode import open_image_file

    _, reference = item
    if ids:
        ids.require_id(reference)
    return open_image_file(reference.location, clock)
