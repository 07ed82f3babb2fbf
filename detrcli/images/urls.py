"""What is in a URL: its credentials, and the form in which a server takes it."""

import re
from urllib.parse import quote, unquote, urlsplit

_USERINFO = re.compile(r"(?P<kind>[A-Za-z][A-Za-z0-9+.-]*)://(?P<login>[^/?#]*)@")
_NO_LOGIN = frozenset(("github", "abfs", "abfss", "wasb", "wasbs"))
"""Kinds of URLs that have a repository or a container before the `@`."""
_AS_IT_IS = "!$%&'()*+,/:;=?@[]~"
"""What has a meaning in a path or a query, beside letters and digits."""


def is_url(name: str) -> bool:
    """Whether a name is an URL, as `https://host/a.jpg` or `s3://bucket/a.jpg`, and not a path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", name) is not None


def display_name(name: str) -> str:
    """A name as it may be seen by others: of an URL without user and password."""
    return without_credentials(name) if is_url(name) else name


def without_credentials(text: str) -> str:
    """The same text, a URL or some that quotes one, without `user:password@` behind each `://`."""
    return _USERINFO.sub(lambda url: url[0] if url["kind"].lower() in _NO_LOGIN else f"{url['kind']}://", text)


def credentials(url: str) -> tuple[str, str] | None:
    """The user and the password in a URL, or None if it has neither."""
    found = _USERINFO.match(url)
    if found is None:
        return None
    user, _, password = found["login"].partition(":")
    return unquote(user), unquote(password)


def encoded(url: str) -> str:
    """A URL as it is sent: ASCII, without credentials and fragment; what is percent-encoded already stays so.

    Raises:
        ValueError: it is none, or its host cannot be encoded.
    """
    parts = urlsplit(without_credentials(url))
    host = parts.netloc if parts.netloc.isascii() else _ascii_host(parts.netloc)
    return parts._replace(netloc=host, path=_quoted(parts.path), query=_quoted(parts.query), fragment="").geturl()


def _ascii_host(netloc: str) -> str:
    host, colon, port = netloc.partition(":")
    return host.encode("idna").decode() + colon + port


def _quoted(part: str) -> str:
    return quote(re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", part), safe=_AS_IT_IS, errors="surrogateescape")
