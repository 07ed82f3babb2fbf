"""Sources: from files, folders, globs, URLs and lists to a stream of image references."""

import codecs
import glob
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from ..errors import UsageError, one_line
from .urls import display_name, is_url, without_credentials

CocoId = int | str
"""Id of an image or a category in a COCO dataset; some tools write strings."""
STDIN = "-"
_OUTSIDE = "_outside"
"""Folder for the outputs of images outside the root."""
_BYTE_ORDER_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .apng .webp .bmp .dib .gif .tif .tiff .avif .heic .heif .hif .jp2 .jpx .j2k"
    " .ppm .pgm .pbm .pnm .tga .ico .mpo .pcx .psd .qoi .sgi".split()
)
"""Suffixes of images in searched folders. Files that are named explicitly may have any."""


@dataclass(frozen=True)
class ImageReference:
    """Image to read.

    Attributes:
        path: path as the user would write it, or URL without credentials.
        relative: unique path of its outputs below the output folder.
        private_url: URL with credentials, or None if it has none.
        image_id: id in a COCO file, or None.
    """

    path: str
    relative: Path
    private_url: str | None = None
    image_id: CocoId | None = None

    @property
    def location(self) -> str:
        """Path or URL to read from; may contain credentials, so it must not be printed."""
        return self.private_url or self.path


@dataclass(frozen=True)
class Sources:
    """Files, folders, globs, URLs, and `-` for a list of paths on stdin.

    Attributes:
        names: paths, globs and URLs, or `-`.
        recursive: whether to search subfolders.
        exclude: output folder, which is skipped if it is strictly inside a searched folder.
        lists: files that list paths.
        separator: separator of the paths in lists.
    """

    names: tuple[str, ...]
    recursive: bool = False
    exclude: Path | None = None
    lists: tuple[str, ...] = ()
    separator: bytes = b"\n"

    @property
    def countable(self) -> bool:
        """Whether the images can be counted in advance."""
        return STDIN not in self.names and not self.lists and not any(map(is_url, self.names))

    @property
    def listable(self) -> bool:
        """Whether the images can be listed repeatedly."""
        return STDIN not in self.names and all(map(os.path.isfile, self.lists))

    def root(self) -> str:
        """Return the folder that the output tree mirrors: the deepest common one, or for lists the current one."""
        folders = [_folder(name) for name in self.names if not is_url(name)]
        if STDIN in self.names or self.lists or not folders:
            return os.getcwd()
        try:
            return os.path.commonpath(folders)
        except ValueError:  # different drives
            return os.getcwd()

    def overlaps(self, folder: Path) -> bool:
        """Whether outputs in a folder, which have the images' names, could overwrite the images."""
        root, target = Path(os.path.realpath(self.root())), Path(os.path.realpath(folder))
        local = (name for name in self.names if not is_url(name))
        named = [root if name == STDIN else Path(os.path.realpath(_folder(name))) for name in local]
        named += [root] * bool(self.lists)
        return target.is_relative_to(root) and any(path.is_relative_to(target) for path in named)

    def skips_outputs(self) -> bool:
        """Whether the output folder exists and is inside a searched folder."""
        searched = (name for name in self.names if not is_url(name) and (os.path.isdir(name) or _is_glob(name)))
        return any((outputs := self._outputs_inside(_folder(name))) and os.path.isdir(outputs) for name in searched)

    def __iter__(self) -> Iterator[ImageReference]:
        root = self.root()
        for path in self._paths():
            relative = _relative_of_url(path) if is_url(path) else _relative_to(root, os.path.abspath(path))
            public = display_name(path)
            yield ImageReference(public, relative, path if path != public else None)

    def _paths(self) -> Iterator[str]:
        for name in self.lists:
            try:
                with open(name, "rb", buffering=0) as file:
                    if file.isatty():  # reading it might block forever
                        raise UsageError(f"cannot read the list {name}: a terminal, not a file")
                    yield from read_list(file, self.separator)
            except OSError as error:
                raise UsageError(f"cannot read the list {name}: {error.strerror}") from error
        for name in self.names:
            if name == STDIN:
                # unbuffered, because Python aborts if a thread reads the buffered stdin at exit
                yield from read_list(getattr(sys.stdin.buffer, "raw", sys.stdin.buffer), self.separator)
            elif is_url(name):
                yield from self._expand_url(name)
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
            yield pattern  # reading it fails with an error message
        for path in found:
            if _is_inside(path, outputs):
                continue
            if not os.path.isdir(path):
                yield path
            elif self.recursive and "**" not in pattern:
                yield from self._search(path, outputs)

    def _search(self, folder: str, outputs: str | None) -> Iterator[str]:
        folders = set[str]()
        try:
            with os.scandir(folder) as listing:
                names = sorted(self._images_and_folders(listing, folders))
        except OSError:
            yield folder  # reading it fails with an error message
            return
        for name in names:
            path = os.path.join(folder, name)
            if name not in folders:
                yield path
            elif not _is_inside(path, outputs):
                yield from self._search(path, outputs)

    def _images_and_folders(self, listing: Iterable[os.DirEntry[str]], folders: set[str]) -> Iterator[str]:
        """Yield the names of images and of folders to search; add the latter to `folders`."""
        for entry in listing:
            if entry.name.startswith("."):
                continue
            if self.recursive and entry.is_dir(follow_symlinks=False):
                folders.add(entry.name)
                yield entry.name
            elif _is_image(entry.name):
                yield entry.name

    def _expand_url(self, url: str) -> Iterator[str]:
        """Yield an HTTP URL itself, or the files in a remote store that a URL names or matches."""
        if url.lower().startswith(("http://", "https://")):
            yield url
            return
        from fsspec.core import url_to_fs

        try:
            store, path = url_to_fs(url)
            if glob.has_magic(path) and not store.exists(path):
                paths = sorted(store.glob(path))
            elif store.isdir(path):
                listed = store.find(path) if self.recursive else store.ls(path, detail=False)
                paths = sorted(one for one in listed if _is_image(one))
            else:
                paths = [path]
        except Exception as error:  # each store raises its own errors
            reason = without_credentials(one_line(error))
            raise UsageError(f"{display_name(url)} cannot be listed ({reason})") from None
        if store._get_kwargs_from_urls(url).get("host"):  # as for FTP, whose paths do not include the server
            server = "://".join(urlsplit(url)[:2])
            yield from (f"{server}/{str(one).lstrip('/')}" for one in paths)
        else:
            yield from (str(store.unstrip_protocol(one)) for one in paths)

    def _outputs_inside(self, folder: str) -> str | None:
        """Return the output folder if it is strictly inside a folder, with links resolved."""
        if self.exclude is None:
            return None
        outputs, searched = os.path.realpath(self.exclude), os.path.realpath(folder)
        return outputs if outputs != searched and Path(outputs).is_relative_to(searched) else None


def read_list(file: IO[bytes], separator: bytes = b"\n") -> Iterator[str]:
    """Yield the paths in a list as soon as they arrive from an unbuffered file; skip empty ones.

    A byte order mark at the start of a text is removed.

    Raises:
        UsageError: the text is UTF-16.
    """
    text = separator == b"\n"
    ending = b"\r" if text else b""
    rest, at_start = b"", text
    while chunk := file.read(2**16):
        rest += chunk
        if at_start:
            at_start = any(mark.startswith(rest) and mark != rest for mark in _BYTE_ORDER_MARKS)
            if at_start:
                continue
            if rest.startswith(_BYTE_ORDER_MARKS[1:]):
                name = getattr(file, "name", None)
                raise UsageError(f"{name if isinstance(name, str) else 'the list'} is UTF-16; save it as UTF-8")
            rest = rest.removeprefix(codecs.BOM_UTF8)
        *whole, rest = rest.split(separator)
        yield from (os.fsdecode(one) for line in whole if (one := line.rstrip(ending)))
    if last := rest.rstrip(ending):
        yield os.fsdecode(last)


def _is_inside(path: str, folder: str | None) -> bool:
    return folder is not None and Path(os.path.realpath(path)).is_relative_to(folder)


def _is_glob(name: str) -> bool:
    return not os.path.lexists(name) and glob.has_magic(name)


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES


def _relative_of_url(url: str) -> Path:
    """Return the relative path of the outputs for any URL: below the host and port, or below the scheme of a store."""
    scheme, _, rest = display_name(url).partition("://")
    if scheme.lower() in ("http", "https"):
        host, slash, path = rest.partition("#")[0].partition("/")
        name, colon, port = host.lower().partition(":")
        rest = name + "+" * bool(colon) + port + slash + path
    else:
        rest = f"{scheme}/{rest}"
    parts = [part for part in rest.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return Path(*(part.replace("\0", "") for part in parts))


def _expand(pattern: str) -> set[str]:
    """Return the matches of a glob; unlike in `glob`, `**` does not follow links to folders, which may be loops."""
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
    """Return the absolute path of an image, from the root and the relative path of its outputs."""
    first, _, rest = relative.partition("/")
    return os.path.join(os.sep, rest) if first == _OUTSIDE else os.path.join(root, relative)


def _relative_to(root: str, path: str) -> Path:
    relative = os.path.relpath(path, root)
    if relative.split(os.sep)[0] not in (os.pardir, _OUTSIDE):
        return Path(relative)
    drive, outside = os.path.splitdrive(path)
    return Path(_OUTSIDE, drive.rstrip(":"), outside.lstrip(os.sep))
