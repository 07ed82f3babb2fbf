"""From what a user named to a stream of image references, and where the outputs of each belong."""

import glob
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

STDIN = "-"
_OUTSIDE = "_outside"
SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .apng .webp .bmp .dib .gif .tif .tiff .avif .heic .heif .jp2 .jpx .j2k"
    " .ppm .pgm .pbm .pnm .tga .ico .mpo .pcx .psd .qoi .sgi".split()
)
"""What a picture's name ends with when a folder is searched. A file that is named goes by its contents alone."""


@dataclass(frozen=True)
class ImageReference:
    """One picture to read.

    Attributes:
        path: as the user would name it.
        relative: where its outputs belong below the output folder, unlike that of any other picture.
    """

    path: str
    relative: Path


@dataclass(frozen=True)
class Sources:
    """Files, folders, globs, and `-` for a list of paths on stdin.

    Attributes:
        names: what the user named.
        recursive: whether to go down into the folders' folders.
        exclude: a folder that is left out of the search, for it holds the outputs.
    """

    names: tuple[str, ...]
    recursive: bool = False
    exclude: Path | None = None

    @property
    def countable(self) -> bool:
        """Whether the pictures can be counted without using them up."""
        return STDIN not in self.names

    def root(self) -> str:
        """The folder that the output tree mirrors: the deepest that holds all that was named; for stdin, this one."""
        if not self.countable:
            return os.getcwd()
        folders = [_folder(name) for name in self.names]
        try:
            return os.path.commonpath(folders)
        except ValueError:  # different drives
            return os.getcwd()

    def hold(self, folder: Path) -> bool:
        """Whether pictures mirrored into this folder could take the place of pictures that were named."""
        root, target = Path(os.path.realpath(self.root())), Path(os.path.realpath(folder))
        named = (root if name == STDIN else Path(os.path.realpath(_folder(name))) for name in self.names)
        return target.is_relative_to(root) and any(place.is_relative_to(target) for place in named)

    def __iter__(self) -> Iterator[ImageReference]:
        root = self.root()
        for path in self._paths():
            yield ImageReference(path, _below(root, os.path.abspath(path)))

    def _paths(self) -> Iterator[str]:
        for name in self.names:
            if name == STDIN:
                yield from read_list(sys.stdin.buffer)
            elif os.path.isdir(name):
                yield from self._search(name)
            elif not os.path.lexists(name) and glob.has_magic(name):
                yield from self._match(name)
            else:
                yield name

    def _match(self, pattern: str) -> Iterator[str]:
        for path in sorted(_expand(pattern)):
            if not os.path.isdir(path) and not self._excluded(path):
                yield path

    def _search(self, folder: str) -> Iterator[str]:
        try:
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError:
            yield folder
            return
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if self.recursive and entry.is_dir(follow_symlinks=False):
                if not self._excluded(entry.path):
                    yield from self._search(entry.path)
            elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:
                yield entry.path

    def _excluded(self, path: str) -> bool:
        return self.exclude is not None and Path(os.path.realpath(path)).is_relative_to(os.path.realpath(self.exclude))


def read_list(lines: Iterable[bytes]) -> Iterator[str]:
    """Paths, one a line; empty lines do not count."""
    for line in lines:
        path = os.fsdecode(line.rstrip(b"\r\n"))
        if path:
            yield path


def _expand(pattern: str) -> set[str]:
    """What a glob matches; `**` does not pass symlinks to folders, for glob's own would follow loops of them."""
    parts = pattern.split(os.sep)
    if "**" not in parts:
        return set(glob.glob(pattern))
    at = parts.index("**")
    starts = glob.glob(os.sep.join([*parts[:at], ""])) if at else [""]
    rest = os.sep.join(parts[at + 1 :]) or "*"
    found: set[str] = set()
    for start in starts:
        for folder, below, _ in os.walk(start or os.curdir):
            below[:] = [name for name in below if not name.startswith(".")]
            folder = folder if start else os.path.relpath(folder)
            found |= _expand(rest if folder == os.curdir else os.path.join(glob.escape(folder), rest))
    return found


def _folder(name: str) -> str:
    if os.path.isdir(name):
        return os.path.abspath(name)
    if not os.path.lexists(name) and glob.has_magic(name):
        while glob.has_magic(name):
            name = os.path.dirname(name)
        return os.path.abspath(name)
    return os.path.dirname(os.path.abspath(name))


def _below(root: str, path: str) -> Path:
    relative = os.path.relpath(path, root)
    if relative.split(os.sep)[0] not in (os.pardir, _OUTSIDE):
        return Path(relative)
    drive, outside = os.path.splitdrive(path)
    return Path(_OUTSIDE, drive.rstrip(":"), outside.lstrip(os.sep))
