"""Image and category ids of a COCO file, for predictions that will be compared with it."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from ..classes import UNUSED, matching_labels
from ..errors import DatasetError, ImageError, UsageError
from ..files import digest_of
from ..images.sources import CocoId, ImageReference
from ..images.urls import is_url
from .reading import read_bytes

READ = frozenset(("images", "categories", "id", "name", "file_name"))
"""Keys to keep; annotations would take most of the memory."""


@dataclass(frozen=True, eq=False)
class CocoIds:
    """Ids of the images and categories in a COCO file.

    Attributes:
        file: the COCO file.
        digest: digest of its contents.
        images: image ids by `file_name`.
        base_names: image ids by the last part of `file_name`, where it is unique.
        categories: category ids by name.
    """

    file: Path
    digest: str
    images: Mapping[str, CocoId]
    base_names: Mapping[str, CocoId]
    categories: Mapping[str, CocoId]

    def category_ids(self, class_names: Sequence[str]) -> tuple[CocoId | None, ...]:
        """Return the category id of each class, matched by name as in evaluation; None for a class that has none.

        Raises:
            UsageError: the file has none of the classes.
        """
        names = list(self.categories)
        found = matching_labels(class_names, names)
        ids = tuple(
            self.categories[names[labels[0]]] if labels and name != UNUSED else None
            for name, labels in zip(class_names, found, strict=True)
        )
        if all(one is None for one in ids):
            known = ", ".join(map(repr, names[:5])) or "none"
            raise UsageError(f"{self.file} has no category with the name of a class of the model, but {known}")
        return ids

    def image_id(self, path: str) -> CocoId | None:
        """Return the id of the image whose `file_name` ends a path, or else of the only one with its base name."""
        full = unquote(urlsplit(path).path) if is_url(path) else os.path.abspath(path)
        parts = PurePosixPath(full.replace(os.sep, "/")).parts
        tails = ("/".join(parts[start:]) for start in range(1, len(parts)))
        known = next((tail for tail in tails if tail in self.images), None)
        return self.base_names.get(parts[-1]) if known is None else self.images[known]

    def with_ids(self, references: Iterable[ImageReference]) -> Iterator[ImageReference]:
        """Yield the references with their image ids; of several for one id, only the first gets it."""
        taken: set[CocoId] = set()
        for reference in references:
            image_id = self.image_id(reference.path)
            if image_id is None or image_id in taken:
                yield reference
            else:
                taken.add(image_id)
                yield replace(reference, image_id=image_id)

    def require_id(self, reference: ImageReference) -> None:
        """Check that an image got an id.

        Raises:
            ImageError: it has none.
        """
        if reference.image_id is None:
            other = self.image_id(reference.path)
            reason = "does not list it" if other is None else f"lists only one image (id {other}) for it and another"
            raise ImageError(f"{reference.path}: {self.file} {reason}", "no image id")


def read_coco_ids(file: Path) -> CocoIds:
    """Read the ids of a COCO file, which may lack annotations.

    Raises:
        DatasetError: the file cannot be read, or is not a COCO file.
    """
    try:
        content = json.loads(read_bytes(file), object_pairs_hook=_select_keys)
        images = {one["file_name"].replace("\\", "/").removeprefix("./"): _id(one) for one in content["images"]}
        categories = {str(one["name"]).strip(): _id(one) for one in content["categories"]}
        digest = digest_of(file)
    except (KeyError, TypeError, AttributeError) as error:
        raise DatasetError(f"{file} is not a COCO file with images and categories") from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{file} is not JSON: {error}") from error
    last = [name.rpartition("/")[2] for name in images]
    repeated = {name for name, following in zip(sorted(last), sorted(last)[1:], strict=False) if name == following}
    base_names = {name: one for name, one in zip(last, images.values(), strict=True) if name not in repeated}
    return CocoIds(file, digest, images, base_names, categories)


def _select_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {key: value for key, value in pairs if key in READ}


def _id(entry: Mapping[str, Any]) -> CocoId:
    value = entry["id"]
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError(f"{value!r} is not an id")
    return value
