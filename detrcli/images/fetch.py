"""An image's bytes, from a file or from an URL."""

import io
import os
from typing import IO

from ..errors import ImageError
from ..files import NotAFileError, open_file
from .http import Deadline
from .urls import display_name, is_url, without_credentials

WHOLE = 2**24
"""Files up to so many bytes are read in one go; of larger ones Pillow takes what it needs."""
PIECE = 2**20
"""Bytes of a store's file to read at once."""
MOST_FETCHED = 2**29
"""Bytes that an URL may give."""
AT_MOST = 300.0
"""Seconds that an URL may take, however slowly it gives its bytes."""
KINDS = {
    FileNotFoundError: "missing",
    PermissionError: "no permission",
    IsADirectoryError: "not a file",
    NotAFileError: "not a file",
}


def open_bytes(name: str) -> IO[bytes]:
    """The bytes of a file or an URL, at which one can seek.

    Raises:
        ImageError: it is missing, empty, or cannot be read.
    """
    if is_url(name):
        return io.BytesIO(_fetched(name))
    try:
        file = open_file(name)
        if os.fstat(file.fileno()).st_size > WHOLE:
            return file
        with file:
            content = file.read()
    except OSError as error:
        raise _unreadable(name, error) from error
    except ValueError as error:  # a NUL in the name
        raise ImageError(f"{name}: no file can have this name", "missing") from error
    if not content:
        raise ImageError(f"{name}: the file is empty", "empty")
    return io.BytesIO(content)


def _unreadable(name: str, error: OSError) -> ImageError:
    if isinstance(error, IsADirectoryError) and not os.access(name, os.R_OK | os.X_OK):
        return ImageError(f"{name}: no permission to look into this folder", "no permission")
    return ImageError(f"{name}: {(error.strerror or str(error)).lower()}", KINDS.get(type(error), "unreadable"))


def _fetched(url: str) -> bytes:
    web = url.lower().startswith(("http://", "https://"))
    content = _over_http(url) if web else _from_store(url)
    if len(content) > MOST_FETCHED:
        raise ImageError(f"{display_name(url)}: larger than {MOST_FETCHED >> 20} MB", "too large")
    if not content:
        raise ImageError(f"{display_name(url)}: there is nothing in it", "empty")
    return content


def _over_http(url: str) -> bytes:
    from http.client import HTTPException
    from urllib.error import HTTPError

    from .http import fetch

    try:
        return fetch(url, MOST_FETCHED + 1, AT_MOST)
    except HTTPError as error:
        with error:
            raise ImageError(f"{display_name(url)}: {error.code} {error.reason}", "not fetched") from None
    except (OSError, HTTPException, ValueError) as error:
        raise ImageError(f"{display_name(url)}: cannot be fetched ({_words(error)})", "not fetched") from None


def _from_store(url: str) -> bytes:
    import fsspec

    deadline, pieces, size = Deadline(AT_MOST), [], 0
    try:
        with fsspec.open(url, "rb") as file:
            while size <= MOST_FETCHED and (piece := file.read(PIECE)):
                deadline.wait()
                pieces.append(piece)
                size += len(piece)
    except FileNotFoundError:
        raise ImageError(f"{display_name(url)}: no such file", "missing") from None
    except ImportError as error:
        raise ImageError(f"{display_name(url)}: {_words(error)}", "not fetched") from None
    except Exception as error:  # every store has errors of its own
        raise ImageError(f"{display_name(url)}: cannot be fetched ({_words(error)})", "not fetched") from None
    return b"".join(pieces)


def _words(error: Exception) -> str:
    reason = getattr(error, "reason", error)
    reason = getattr(reason, "strerror", None) or reason
    return without_credentials(" ".join(str(reason).split())) or type(error).__name__
