"""From what a user named to a stream of image references, and where the outputs of each belong."""

import glob
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ..errors import UsageError
from .fetch import is_address

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
        path: as the user would name it; or an address.
        relative: where its outputs belong below the output folder, unlike that of any other picture.
    """

    path: str
    relative: Path


@dataclass(frozen=True)
class Sources:
    """Files, folders, globs, addresses, and `-` for a list of paths on stdin.

    Attributes:
        names: what the user named.
        recursive: whether to go down into the folders' folders.
        exclude: a folder that is left out of the search, for it holds the outputs.
        lists: files that name pictures, as stdin does.
        separator: what stands between the names of a list.
    """

    names: tuple[str, ...]
    recursive: bool = False
    exclude: Path | None = None
    lists: tuple[str, ...] = ()
    separator: bytes = b"\n"

    @property
    def countable(self) -> bool:
        """Whether the pictures can be counted without using them up."""
        return STDIN not in self.names and not self.lists and not any(map(is_address, self.names))

    def root(self) -> str:
        """The folder that the output tree mirrors: the deepest that holds all that was named; for lists, this one."""
        folders = [_folder(name) for name in self.names if not is_address(name)]
        if STDIN in self.names or self.lists or not folders:
            return os.getcwd()
        try:
            return os.path.commonpath(folders)
        except ValueError:  # different drives
            return os.getcwd()

    def hold(self, folder: Path) -> bool:
        """Whether pictures mirrored into this folder could take the place of pictures that were named."""
        root, target = Path(os.path.realpath(self.root())), Path(os.path.realpath(folder))
        local = (name for name in self.names if not is_address(name))
        named = [root if name == STDIN else Path(os.path.realpath(_folder(name))) for name in local]
        named += [root] * bool(self.lists)
        return target.is_relative_to(root) and any(place.is_relative_to(target) for place in named)

    def __iter__(self) -> Iterator[ImageReference]:
        root = self.root()
        for path in self._paths():
            place = _place_of(path) if is_address(path) else _below(root, os.path.abspath(path))
            yield ImageReference(path, place)

    def _paths(self) -> Iterator[str]:
        for name in self.lists:
            try:
                with open(name, "rb", buffering=0) as file:
                    yield from read_list(file, self.separator)
            except OSError as error:
                raise UsageError(f"cannot read the list {name}: {error.strerror}") from error
        for name in self.names:
            if name == STDIN:
                # whoever reads the buffered one when the process ends makes Python abort
                yield from read_list(getattr(sys.stdin.buffer, "raw", sys.stdin.buffer), self.separator)
            elif is_address(name):
                yield from self._stored(name)
            elif os.path.isdir(name):
                yield from self._search(name)
            elif not os.path.lexists(name) and glob.has_magic(name):
                yield from self._match(name)
            else:
                yield name

    def _match(self, pattern: str) -> Iterator[str]:
        found = sorted(_expand(pattern))
        if not found and len(self.names) + len(self.lists) > 1:
            yield pattern  # reading it will fail, and tell of it
        for path in found:
            if self._excluded(path):
                continue
            if not os.path.isdir(path):
                yield path
            elif self.recursive and "**" not in pattern:
                yield from self._search(path)

    def _search(self, folder: str) -> Iterator[str]:
        folders = set[str]()
        try:
            with os.scandir(folder) as listing:
                names = sorted(self._of_interest(listing, folders))
        except OSError:
            yield folder  # reading it will fail, and say why
            return
        for name in names:
            path = os.path.join(folder, name)
            if name not in folders:
                yield path
            elif not self._excluded(path):
                yield from self._search(path)

    def _of_interest(self, listing: Iterable[os.DirEntry[str]], folders: set[str]) -> Iterator[str]:
        """The names of pictures, and of folders to search, which are taken note of as well."""
        for entry in listing:
            if entry.name.startswith("."):
                continue
            if self.recursive and entry.is_dir(follow_symlinks=False):
                folders.add(entry.name)
                yield entry.name
            elif _is_picture(entry.name):
                yield entry.name

    def _stored(self, address: str) -> Iterator[str]:
        """What an address stands for: itself, or what a store has below it or like it."""
        if address.lower().startswith(("http://", "https://")):
            yield address
            return
        from fsspec.core import url_to_fs

        try:
            store, place = url_to_fs(address)
            if glob.has_magic(place) and not store.exists(place):
                places = sorted(store.glob(place))
            elif store.isdir(place):
                listed = store.find(place) if self.recursive else store.ls(place, detail=False)
                places = sorted(one for one in listed if _is_picture(one))
            else:
                places = [place]
        except Exception as error:  # every store has errors of its own
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UsageError(f"{address} cannot be listed ({reason})") from error
        yield from (str(store.unstrip_protocol(one)) for one in places)

    def _excluded(self, path: str) -> bool:
        return self.exclude is not None and Path(os.path.realpath(path)).is_relative_to(os.path.realpath(self.exclude))


def read_list(file: IO[bytes], separator: bytes = b"\n") -> Iterator[str]:
    """The paths of a list, each as soon as an unbuffered file has it; empty ones do not count."""
    ending = b"\r" if separator == b"\n" else b""
    rest = b""
    while piece := file.read(2**16):
        *whole, rest = (rest + piece).split(separator)
        yield from (os.fsdecode(one) for line in whole if (one := line.rstrip(ending)))
    if last := rest.rstrip(ending):
        yield os.fsdecode(last)


def _is_picture(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES


def _place_of(address: str) -> Path:
    """Below the name of the host and its port, or of the kind of store; whatever the address, it has one."""
    kind, _, rest = address.partition("://")
    if kind.lower() in ("http", "https"):
        host, slash, path = rest.partition("#")[0].partition("/")
        name, colon, port = host.rpartition("@")[2].lower().partition(":")
        rest = name + "+" * bool(colon) + port + slash + path
    else:
        rest = f"{kind}/{rest}"
    inside = [part for part in rest.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return Path(*(part.replace("\0", "") for part in inside))


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
