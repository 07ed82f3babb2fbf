"""Bytes of an image, from a file or a URL."""

import io
import os
from http.client import HTTPException
from typing import IO
from urllib.error import HTTPError

from ..errors import ImageError, one_line
from ..files import NotAFileError, open_file
from .http import TOTAL_TIMEOUT, Deadline, fetch
from .urls import display_name, is_url, without_credentials

SMALL_FILE = 2**24
"""Largest file, in bytes, that is read at once; Pillow reads what it needs of larger ones."""
CHUNK = 2**20
"""Bytes to read at once from a remote store."""
MAX_DOWNLOAD = 2**29
"""Largest download in bytes."""
KINDS = {
    FileNotFoundError: "missing",
    PermissionError: "no permission",
    IsADirectoryError: "not a file",
    NotAFileError: "not a file",
}


def open_bytes(name: str) -> IO[bytes]:
    """Open a file or a URL as a seekable stream of bytes.

    Raises:
        ImageError: it is missing or empty, or cannot be read.
    """
    if is_url(name):
        return io.BytesIO(_download(name))
    try:
        file = open_file(name)
        if os.fstat(file.fileno()).st_size > SMALL_FILE:
            return file
        with file:
            content = file.read()
    except OSError as error:
        raise _unreadable(name, error) from error
    except ValueError as error:  # NUL in the name
        raise ImageError(f"{name}: invalid file name", "missing") from error
    if not content:
        raise ImageError(f"{name}: the file is empty", "empty")
    return io.BytesIO(content)


def _unreadable(name: str, error: OSError) -> ImageError:
    if isinstance(error, IsADirectoryError) and not os.access(name, os.R_OK | os.X_OK):
        return ImageError(f"{name}: no permission to read this folder", "no permission")
    return ImageError(f"{name}: {(error.strerror or str(error)).lower()}", KINDS.get(type(error), "unreadable"))


def _download(url: str) -> bytes:
    web = url.lower().startswith(("http://", "https://"))
    content = _download_http(url) if web else _download_from_store(url)
    if len(content) > MAX_DOWNLOAD:
        raise ImageError(f"{display_name(url)}: larger than {MAX_DOWNLOAD >> 20} MB", "too large")
    if not content:
        raise ImageError(f"{display_name(url)}: the file is empty", "empty")
    return content


def _download_http(url: str) -> bytes:
    try:
        return fetch(url, MAX_DOWNLOAD + 1)
    except HTTPError as error:
        with error:
            raise ImageError(f"{display_name(url)}: {error.code} {error.reason}", "not fetched") from None
    except (OSError, HTTPException, ValueError) as error:
        raise ImageError(f"{display_name(url)}: cannot be fetched ({_reason(error)})", "not fetched") from None


def _download_from_store(url: str) -> bytes:
    import fsspec

    deadline, chunks, size = Deadline(TOTAL_TIMEOUT), [], 0
    try:
        with fsspec.open(url, "rb") as file:
            while size <= MAX_DOWNLOAD and (chunk := file.read(CHUNK)):
                deadline.timeout()
                chunks.append(chunk)
                size += len(chunk)
    except FileNotFoundError:
        raise ImageError(f"{display_name(url)}: no such file", "missing") from None
    except ImportError as error:
        raise ImageError(f"{display_name(url)}: {_reason(error)}", "not fetched") from None
    except Exception as error:  # each store raises its own errors
        raise ImageError(f"{display_name(url)}: cannot be fetched ({_reason(error)})", "not fetched") from None
    return b"".join(chunks)


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", error)
    reason = getattr(reason, "strerror", None) or reason
    return without_credentials(one_line(reason if str(reason) else error))
