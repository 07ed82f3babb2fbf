"""A picture's bytes, from a file or from an address."""

import io
import os
import re
import stat
from typing import IO

from ..errors import ImageError

WHOLE = 2**26
"""Files up to so many bytes are read in one go; of larger ones Pillow takes what it needs."""
MOST_FETCHED = 2**29
"""Bytes that an address may give."""
PATIENCE = 30
"""Seconds to wait for a server's next bytes."""
OPEN_ALREADY = ("/dev/fd/", "/dev/stdin", "/proc/")
"""Where pipes are that a shell has opened, as for `<(command)`."""
KINDS = {FileNotFoundError: "missing", PermissionError: "no permission", IsADirectoryError: "not a file"}


def is_address(name: str) -> bool:
    """Whether a name is an address, as `https://host/a.jpg` or `s3://bucket/a.jpg`, and not a path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", name) is not None


def opened(name: str) -> IO[bytes]:
    """The bytes of a file or an address.

    Raises:
        ImageError: it is missing, empty, or cannot be read.
    """
    if is_address(name):
        content = _fetched(name)
        if not content:
            raise ImageError(f"{name}: there is nothing in it", "empty")
        return io.BytesIO(content)
    try:
        if stat.S_ISFIFO(os.stat(name).st_mode) and not name.startswith(OPEN_ALREADY):
            raise ImageError(f"{name}: a pipe, not a file", "not a file")  # which might never give anything
        file = open(name, "rb")  # noqa: SIM115 — the caller closes it
        try:
            status = os.fstat(file.fileno())
            if stat.S_ISREG(status.st_mode):
                if status.st_size == 0:
                    raise ImageError(f"{name}: the file is empty", "empty")
                if status.st_size <= WHOLE:
                    with file:
                        return io.BytesIO(file.read())
        except BaseException:
            file.close()
            raise
        return file
    except OSError as error:
        raise _unreadable(name, error) from error
    except ValueError as error:  # a NUL in the name
        raise ImageError(f"{name}: no file can have this name", "missing") from error


def _unreadable(name: str, error: OSError) -> ImageError:
    if isinstance(error, IsADirectoryError) and not os.access(name, os.R_OK | os.X_OK):
        return ImageError(f"{name}: no permission to look into this folder", "no permission")
    return ImageError(f"{name}: {(error.strerror or str(error)).lower()}", KINDS.get(type(error), "unreadable"))


def _fetched(address: str) -> bytes:
    return _over_http(address) if address.lower().startswith(("http://", "https://")) else _from_store(address)


def _over_http(address: str) -> bytes:
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    from .. import __version__

    try:
        request = Request(address, headers={"User-Agent": f"detr/{__version__}"})  # noqa: S310 — http or https
        with urlopen(request, timeout=PATIENCE) as answer:  # noqa: S310
            content = _bounded(address, answer)
            if answer.length:  # what should have followed
                raise ImageError(f"{address}: cannot be fetched (the server broke off)", "not fetched")
            return content
    except HTTPError as error:
        raise ImageError(f"{address}: {error.code} {error.reason}", "not fetched") from error
    except (OSError, HTTPException, ValueError) as error:
        raise ImageError(f"{address}: cannot be fetched ({_words(error)})", "not fetched") from error


def _from_store(address: str) -> bytes:
    import fsspec

    try:
        with fsspec.open(address, "rb") as file:
            return _bounded(address, file)
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError(f"{address}: no such file", "missing") from error
    except ImportError as error:
        raise ImageError(f"{address}: {_words(error)}", "not fetched") from error
    except Exception as error:  # every store has errors of its own
        raise ImageError(f"{address}: cannot be fetched ({_words(error)})", "not fetched") from error


def _bounded(address: str, file: IO[bytes]) -> bytes:
    content = file.read(MOST_FETCHED + 1)
    if len(content) > MOST_FETCHED:
        raise ImageError(f"{address}: larger than {MOST_FETCHED >> 20} MB", "too large")
    return content


def _words(error: Exception) -> str:
    reason = getattr(error, "reason", error)
    reason = getattr(reason, "strerror", None) or reason
    return " ".join(str(reason).split()) or type(error).__name__
