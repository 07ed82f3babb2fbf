"""Fetch over HTTP, within a time that a slow server cannot stretch."""

import base64
import io
import socket
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from time import monotonic
from typing import Any
from urllib.parse import urlsplit
from urllib.request import HTTPHandler, HTTPRedirectHandler, HTTPSHandler, Request, build_opener

from .. import __version__
from .urls import credentials, encoded

PATIENCE = 30.0
"""Seconds to wait for a server's next bytes."""
AT_MOST = 300.0
"""Seconds that a download may take, redirects included."""


class Deadline:
    """A moment by which a download has to be done.

    Args:
        seconds: from now on.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = monotonic() + seconds

    def wait(self) -> float:
        """Seconds that the next bytes may take.

        Raises:
            TimeoutError: the moment has come.
        """
        left = self._end - monotonic()
        if left <= 0:
            raise TimeoutError(f"not done after {self._seconds:g} s")
        return min(PATIENCE, left)


def fetch(url: str, most: int, seconds: float = AT_MOST) -> bytes:
    """Fetch a URL, with the credentials in it, which no other server is given.

    Args:
        url: of HTTP or HTTPS; it may have spaces and letters beyond ASCII.
        most: bytes to read; what follows is left out.
        seconds: that it may take in all.

    Raises:
        OSError: it cannot be fetched; `urllib.error.HTTPError` if the server says so.
        http.client.HTTPException: the server does not speak HTTP, or broke off.
        ValueError: the URL is none.
    """
    deadline = Deadline(seconds)
    request = Request(encoded(url), headers={"User-Agent": f"detr/{__version__}"})  # noqa: S310 — http or https
    if (login := credentials(url)) is not None:
        token = base64.b64encode(":".join(login).encode("utf-8", "surrogateescape")).decode()
        request.add_header("Authorization", f"Basic {token}")
    opener = build_opener(_Http(deadline), _Https(deadline), _Redirects())
    with opener.open(request, timeout=deadline.wait()) as answer:
        content: bytes = answer.read(most)
        if answer.length and len(content) < most:
            raise ConnectionError("the server broke off")
    return content


class _InTime(io.RawIOBase):
    """A socket's bytes, each read within the time that is left."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, deadline: Deadline) -> None:
        self._raw, self._sock, self._deadline = raw, sock, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._deadline.wait())
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def _in_time(kind: type[HTTPConnection], deadline: Deadline) -> type[HTTPConnection]:
    """A kind of connection whose answers are read, from the first byte, within the time that is left."""

    class Response(HTTPResponse):
        def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
            super().__init__(sock, *args, **options)
            self.fp = io.BufferedReader(_InTime(self.fp.detach(), sock, deadline))

    class Connection(kind):  # type: ignore[valid-type, misc]
        response_class = Response

        def connect(self) -> None:
            self.timeout = deadline.wait()
            super().connect()

    return Connection


class _Http(HTTPHandler):
    def __init__(self, deadline: Deadline) -> None:
        super().__init__()
        self._connection = _in_time(HTTPConnection, deadline)

    def http_open(self, request: Request) -> HTTPResponse:
        return self.do_open(self._connection, request)


class _Https(HTTPSHandler):
    def __init__(self, deadline: Deadline) -> None:
        super().__init__()
        self._connection = _in_time(HTTPSConnection, deadline)

    def https_open(self, request: Request) -> HTTPResponse:
        return self.do_open(self._connection, request)


class _Redirects(HTTPRedirectHandler):
    """Tells another server than the first nothing of the credentials."""

    def redirect_request(self, request: Request, *args: Any) -> Request | None:
        following = super().redirect_request(request, *args)
        if following is not None and _origin(following.full_url) != _origin(request.full_url):
            following.remove_header("Authorization")
        return following


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.lower()
