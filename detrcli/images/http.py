"""HTTP downloads with a deadline for the whole download."""

import base64
import io
import socket
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from time import monotonic
from typing import Any
from urllib.parse import urlsplit
from urllib.request import HTTPHandler, HTTPRedirectHandler, HTTPSHandler, Request, build_opener

from .. import __version__
from .urls import credentials, encode

READ_TIMEOUT = 30.0
"""Seconds to wait for the next bytes of a server."""
TOTAL_TIMEOUT = 300.0
"""Seconds for a download, including redirects."""


class Deadline:
    """Time by which a download has to finish.

    Args:
        seconds: time from now.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = monotonic() + seconds

    def timeout(self) -> float:
        """Return the timeout in seconds for the next bytes.

        Raises:
            TimeoutError: the deadline has passed.
        """
        left = self._end - monotonic()
        if left <= 0:
            raise TimeoutError(f"timed out after {self._seconds:g} s")
        return min(READ_TIMEOUT, left)


def fetch(url: str, limit: int, seconds: float = TOTAL_TIMEOUT) -> bytes:
    """Download a URL, using the credentials in it, which are sent to no other server.

    Args:
        url: HTTP or HTTPS URL, which may contain spaces and non-ASCII characters.
        limit: maximum number of bytes to read; the rest is dropped.
        seconds: timeout for the whole download.

    Raises:
        OSError: the download failed; `urllib.error.HTTPError` if the server returned an error.
        http.client.HTTPException: the server does not speak HTTP, or closed the connection early.
        ValueError: the URL is invalid.
    """
    deadline = Deadline(seconds)
    request = Request(encode(url), headers={"User-Agent": f"detr/{__version__}"})  # noqa: S310 — http or https
    if (user_and_password := credentials(url)) is not None:
        token = base64.b64encode(":".join(user_and_password).encode("utf-8", "surrogateescape")).decode()
        request.add_header("Authorization", f"Basic {token}")
    opener = build_opener(_Handler(deadline), _RedirectHandler())
    with opener.open(request, timeout=deadline.timeout()) as response:
        content: bytes = response.read(limit)
        if response.length and len(content) < limit:
            raise ConnectionError("the server closed the connection early")
    return content


class _SocketReader(io.RawIOBase):
    """Raw socket stream that applies a deadline to each read."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, deadline: Deadline) -> None:
        self._raw, self._sock, self._deadline = raw, sock, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._deadline.timeout())
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def _with_deadline(base: type[HTTPConnection], deadline: Deadline) -> type[HTTPConnection]:
    """Subclass of a connection class that applies a deadline from connecting to the last byte."""

    class Response(HTTPResponse):
        def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
            super().__init__(sock, *args, **options)
            self.fp = io.BufferedReader(_SocketReader(self.fp.detach(), sock, deadline))

    class Connection(base):  # type: ignore[valid-type, misc]
        response_class = Response

        def connect(self) -> None:
            self.timeout = deadline.timeout()
            super().connect()

    return Connection


class _Handler(HTTPHandler, HTTPSHandler):
    """Handler of both protocols that applies a deadline."""

    def __init__(self, deadline: Deadline) -> None:
        super().__init__()
        self._deadline = deadline

    def http_open(self, request: Request) -> HTTPResponse:
        return self.do_open(_with_deadline(HTTPConnection, self._deadline), request)

    def https_open(self, request: Request) -> HTTPResponse:
        return self.do_open(_with_deadline(HTTPSConnection, self._deadline), request)


class _RedirectHandler(HTTPRedirectHandler):
    """Redirect handler that sends credentials only to the first server."""

    def redirect_request(self, request: Request, *args: Any) -> Request | None:
        redirected = super().redirect_request(request, *args)
        if redirected is not None and _origin(redirected.full_url) != _origin(request.full_url):
            redirected.remove_header("Authorization")
        return redirected


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.lower()
