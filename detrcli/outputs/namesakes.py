"""Images of a folder that share a stem, so that formats that name files by stem would write one file for both."""

import os
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ..images.sources import SUFFIXES
from ..images.urls import is_url


def find_namesake(path: str) -> str | None:
    """Name of another image in the same folder with the same stem, or None; always None for a URL."""
    if is_url(path):
        return None
    folder, name = os.path.split(os.path.abspath(path))
    stem, suffix = os.path.splitext(name)
    if suffix.lower() not in SUFFIXES:  # `_namesakes` does not list this image
        digests = _stem_digests(folder)
        place = int(np.searchsorted(digests, hash(stem)))
        if place == len(digests) or digests[place] != hash(stem):
            return None
        return next((other for one, other in _stems(folder) if one == stem), None)
    return next((other for other in _namesakes(folder).get(stem, ()) if other != name), None)


@lru_cache(maxsize=16)
def _namesakes(folder: str) -> dict[str, list[str]]:
    """Names of the images of a folder that share their stem with others, by stem."""
    digests = _stem_digests(folder)
    repeated = set(digests[1:][digests[1:] == digests[:-1]].tolist())
    seen: dict[str, list[str]] = {}
    for stem, name in _stems(folder):
        if hash(stem) in repeated:
            seen.setdefault(stem, []).append(name)
    return {stem: names for stem, names in seen.items() if len(names) > 1}


@lru_cache(maxsize=16)
def _stem_digests(folder: str) -> NDArray[np.int64]:
    """Sorted digests of the stems of a folder's images; for a million names they take a tenth of the memory."""
    return np.sort(np.fromiter((hash(stem) for stem, _ in _stems(folder)), np.int64))


def _stems(folder: str) -> Iterator[tuple[str, str]]:
    """Stem and name of each image in a folder."""
    with suppress(OSError), os.scandir(folder) as listing:
        for entry in listing:
            stem, suffix = os.path.splitext(entry.name)
            if suffix.lower() in SUFFIXES:
                yield stem, entry.name
