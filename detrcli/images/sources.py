"""From what a user named to a stream of image references, and where the outputs of each belong."""

import codecs
import glob
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from ..errors import UsageError
from .urls import display_name, is_url, without_credentials

CocoId = int | str
"""Id of an image or a category in a COCO dataset; some tools write text."""
STDIN = "-"
_OUTSIDE = "_outside"
_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .apng .webp .bmp .dib .gif .tif .tiff .avif .heic .heif .hif .jp2 .jpx .j2k"
    " .ppm .pgm .pbm .pnm .tga .ico .mpo .pcx .psd .qoi .sgi".split()
)
"""What an image's name ends with when a folder is searched. A file that is named goes by its contents alone."""


@dataclass(frozen=True)
class ImageReference:
    """One image to read.

    Attributes:
        path: as the user would name it; or an URL, without user and password.
        relative: where its outputs belong below the output folder, unlike that of any other image.
        private_url: the URL with user and password, or None if it has neither.
        image_id: its id in a COCO file, or None.
    """

    path: str
    relative: Path
    private_url: str | None = None
    image_id: CocoId | None = None

    @property
    def location(self) -> str:
        """What to read it from, which nobody is to see."""
        return self.private_url or self.path


@dataclass(frozen=True)
class Sources:
    """Files, folders, globs, URLs, and `-` for a list of paths on stdin.

    Attributes:
        names: what the user named.
        recursive: whether to go down into the folders' folders.
        exclude: the folder of the outputs; strictly inside a folder that is searched, it is passed over.
        lists: files that name images, as stdin does.
        separator: what stands between the names of a list.
    """

    names: tuple[str, ...]
    recursive: bool = False
    exclude: Path | None = None
    lists: tuple[str, ...] = ()
    separator: bytes = b"\n"

    @property
    def countable(self) -> bool:
        """Whether the images can be counted without using them up."""
        return STDIN not in self.names and not self.lists and not any(map(is_url, self.names))

    @property
    def listable(self) -> bool:
        """Whether the images can be listed before they are looked at, as often as it takes."""
        return STDIN not in self.names and all(map(os.path.isfile, self.lists))

    def root(self) -> str:
        """The folder that the output tree mirrors: the deepest that holds all that was named; for lists, this one."""
        folders = [_folder(name) for name in self.names if not is_url(name)]
        if STDIN in self.names or self.lists or not folders:
            return os.getcwd()
        try:
            return os.path.commonpath(folders)
        except ValueError:  # different drives
            return os.getcwd()

    def overlaps(self, folder: Path) -> bool:
        """Whether images mirrored into this folder could take the place of images that were named."""
        root, target = Path(os.path.realpath(self.root())), Path(os.path.realpath(folder))
        local = (name for name in self.names if not is_url(name))
        named = [root if name == STDIN else Path(os.path.realpath(_folder(name))) for name in local]
        named += [root] * bool(self.lists)
        return target.is_relative_to(root) and any(place.is_relative_to(target) for place in named)

    def skips_outputs(self) -> bool:
        """Whether the output folder lies where images are searched for, and is there already."""
        searched = (name for name in self.names if not is_url(name) and (os.path.isdir(name) or _is_glob(name)))
        return any((outputs := self._outputs_inside(_folder(name))) and os.path.isdir(outputs) for name in searched)

    def __iter__(self) -> Iterator[ImageReference]:
        root = self.root()
        for path in self._paths():
            place = _place_of(path) if is_url(path) else _below(root, os.path.abspath(path))
            public = display_name(path)
            yield ImageReference(public, place, path if path != public else None)

    def _paths(self) -> Iterator[str]:
        for name in self.lists:
            try:
                with open(name, "rb", buffering=0) as file:
                    if file.isatty():  # which might never give anything
                        raise UsageError(f"cannot read the list {name}: a terminal, not a file")
                    yield from read_list(file, self.separator)
            except OSError as error:
                raise UsageError(f"cannot read the list {name}: {error.strerror}") from error
        for name in self.names:
            if name == STDIN:
                # whoever reads the buffered one when the process ends makes Python abort
                yield from read_list(getattr(sys.stdin.buffer, "raw", sys.stdin.buffer), self.separator)
            elif is_url(name):
                yield from self._stored(name)
            elif os.path.isdir(name):
                yield from self._search(name, self._outputs_inside(name))
            elif _is_glob(name):
                yield from self._match(name)
            else:
                yield name

    def _match(self, pattern: str) -> Iterator[str]:
        found = sorted(_expand(pattern))
        outputs = self._outputs_inside(_folder(pattern))
        if not found and len(self.names) + len(self.lists) > 1:
            yield pattern  # reading it will fail, and tell of it
        for path in found:
            if _lies_in(path, outputs):
                continue
            if not os.path.isdir(path):
                yield path
            elif self.recursive and "**" not in pattern:
                yield from self._search(path, outputs)

    def _search(self, folder: str, outputs: str | None) -> Iterator[str]:
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
            elif not _lies_in(path, outputs):
                yield from self._search(path, outputs)

    def _of_interest(self, listing: Iterable[os.DirEntry[str]], folders: set[str]) -> Iterator[str]:
        """The names of images, and of folders to search, which are taken note of as well."""
        for entry in listing:
            if entry.name.startswith("."):
                continue
            if self.recursive and entry.is_dir(follow_symlinks=False):
                folders.add(entry.name)
                yield entry.name
            elif _is_image(entry.name):
                yield entry.name

    def _stored(self, url: str) -> Iterator[str]:
        """What an URL stands for: itself, or what a store has below it or like it."""
        if url.lower().startswith(("http://", "https://")):
            yield url
            return
        from fsspec.core import url_to_fs

        try:
            store, place = url_to_fs(url)
            if glob.has_magic(place) and not store.exists(place):
                places = sorted(store.glob(place))
            elif store.isdir(place):
                listed = store.find(place) if self.recursive else store.ls(place, detail=False)
                places = sorted(one for one in listed if _is_image(one))
            else:
                places = [place]
        except Exception as error:  # every store has errors of its own
            reason = without_credentials(" ".join(str(error).split())) or type(error).__name__
            raise UsageError(f"{display_name(url)} cannot be listed ({reason})") from None
        if store._get_kwargs_from_urls(url).get("host"):  # as of FTP: its places do not name the server
            server = "://".join(urlsplit(url)[:2])
            yield from (f"{server}/{str(one).lstrip('/')}" for one in places)
        else:
            yield from (str(store.unstrip_protocol(one)) for one in places)

    def _outputs_inside(self, folder: str) -> str | None:
        """The output folder if it lies strictly inside a folder, links resolved."""
        if self.exclude is None:
            return None
        outputs, searched = os.path.realpath(self.exclude), os.path.realpath(folder)
        return outputs if outputs != searched and Path(outputs).is_relative_to(searched) else None


def read_list(file: IO[bytes], separator: bytes = b"\n") -> Iterator[str]:
    """The paths of a list, each as soon as an unbuffered file has it; empty ones do not count.

    A byte order mark at the start of a text is no part of the first path.

    Raises:
        UsageError: the text is UTF-16.
    """
    text = separator == b"\n"
    ending = b"\r" if text else b""
    rest, mark_may_come = b"", text
    while piece := file.read(2**16):
        rest += piece
        if mark_may_come:
            mark_may_come = any(mark.startswith(rest) and mark != rest for mark in _MARKS)
            if mark_may_come:
                continue
            if rest.startswith(_MARKS[1:]):
                name = getattr(file, "name", None)
                raise UsageError(f"{name if isinstance(name, str) else 'the list'} is UTF-16; save it as UTF-8")
            rest = rest.removeprefix(codecs.BOM_UTF8)
        *whole, rest = rest.split(separator)
        yield from (os.fsdecode(one) for line in whole if (one := line.rstrip(ending)))
    if last := rest.rstrip(ending):
        yield os.fsdecode(last)


def _lies_in(path: str, folder: str | None) -> bool:
    return folder is not None and Path(os.path.realpath(path)).is_relative_to(folder)


def _is_glob(name: str) -> bool:
    return not os.path.lexists(name) and glob.has_magic(name)


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES


def _place_of(url: str) -> Path:
    """Below the name of the host and its port, or of the kind of store; whatever the URL, it has one."""
    kind, _, rest = display_name(url).partition("://")
    if kind.lower() in ("http", "https"):
        host, slash, path = rest.partition("#")[0].partition("/")
        name, colon, port = host.lower().partition(":")
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
    if _is_glob(name):
        while glob.has_magic(name):
            name = os.path.dirname(name)
        return os.path.abspath(name)
    return os.path.dirname(os.path.abspath(name))


def original_path(root: str, relative: str) -> str:
    """Absolute path of a file whose outputs belong at a place below the output folder."""
    first, _, rest = relative.partition("/")
    return os.path.join(os.sep, rest) if first == _OUTSIDE else os.path.join(root, relative)


def _below(root: str, path: str) -> Path:
    relative = os.path.relpath(path, root)
    if relative.split(os.sep)[0] not in (os.pardir, _OUTSIDE):
        return Path(relative)
    drive, outside = os.path.splitdrive(path)
    return Path(_OUTSIDE, drive.rstrip(":"), outside.lstrip(os.sep))
