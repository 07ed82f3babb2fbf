"""Image and category ids of a COCO file, for predictions that are to be compared with it."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from ..classes import UNUSED, matching_labels
from ..errors import DatasetError, ImageError, UsageError
from ..files import digest_of, read_file
from ..images.sources import CocoId, ImageReference
from ..images.urls import is_url

READ = frozenset(("images", "categories", "id", "name", "file_name"))
"""Keys of what is used; annotations would take most of the memory."""


@dataclass(frozen=True, eq=False)
class CocoIds:
    """Ids of a COCO file's images and categories.

    Attributes:
        file: where they are from.
        digest: of the file's contents.
        images: id of each image by its `file_name`.
        base_names: id of each image by the last part of its `file_name`, where no other image has the same.
        categories: id of each category by its name.
    """

    file: Path
    digest: str
    images: Mapping[str, CocoId]
    base_names: Mapping[str, CocoId]
    categories: Mapping[str, CocoId]

    def category_ids(self, class_names: Sequence[str]) -> tuple[CocoId | None, ...]:
        """Category id of each class, by name as `detr eval` matches them; None for one that the file does not have.

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
            known = ", ".join(map(repr, names[:5]))
            raise UsageError(f"{self.file} has no category named like a class of the model, but {known or 'none'}")
        return ids

    def image_id(self, path: str) -> CocoId | None:
        """Id of the image whose `file_name` is the end of a path, else of the only image with the same base name."""
        place = unquote(urlsplit(path).path) if is_url(path) else os.path.abspath(path)
        parts = PurePosixPath(place.replace(os.sep, "/")).parts
        tails = ("/".join(parts[start:]) for start in range(1, len(parts)))
        known = next((tail for tail in tails if tail in self.images), None)
        return self.base_names.get(parts[-1]) if known is None else self.images[known]

    def with_ids(self, references: Iterable[ImageReference]) -> Iterator[ImageReference]:
        """The references with their image ids; of several with the same id, the first one has it."""
        taken: set[CocoId] = set()
        for reference in references:
            identity = self.image_id(reference.path)
            if identity is None or identity in taken:
                yield reference
            else:
                taken.add(identity)
                yield replace(reference, image_id=identity)

    def require_id(self, reference: ImageReference) -> None:
        """Refuse an image that was assigned no id.

        Raises:
            ImageError: it has none.
        """
        if reference.image_id is None:
            other = self.image_id(reference.path)
            reason = "does not list it" if other is None else f"lists one image for it and for another ({other})"
            raise ImageError(f"{reference.path}: {self.file} {reason}", "no image id")


def read_coco_ids(file: Path) -> CocoIds:
    """Read the ids of a COCO file, which need not have annotations.

    Raises:
        DatasetError: it cannot be read, or is not a COCO file.
    """
    try:
        content = json.loads(read_file(file), object_pairs_hook=_what_is_read)
        images = {_normal(one["file_name"]): _id(one) for one in content["images"]}
        categories = {str(one["name"]).strip(): _id(one) for one in content["categories"]}
        digest = digest_of(file)
    except OSError as error:
        raise DatasetError(f"{file}: {error.strerror}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise DatasetError(f"{file} is not a COCO file with images and categories") from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{file} is not JSON: {error}") from error
    last = [name.rpartition("/")[2] for name in images]
    repeated = {name for name, following in zip(sorted(last), sorted(last)[1:], strict=False) if name == following}
    base_names = {name: one for name, one in zip(last, images.values(), strict=True) if name not in repeated}
    return CocoIds(file, digest, images, base_names, categories)


def _what_is_read(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {key: value for key, value in pairs if key in READ}


def _normal(name: str) -> str:
    return name.replace("\\", "/").removeprefix("./")


def _id(entry: Mapping[str, Any]) -> CocoId:
    identity = entry["id"]
    if type(identity) not in (int, str):
        raise TypeError(f"{identity!r} is not an id")
    return identity  # type: ignore[no-any-return]
