"""URLs: telling them from paths, their credentials, and percent-encoding."""

import re
from urllib.parse import quote, unquote, urlsplit

_USERINFO = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<userinfo>[^/?#]*)@")
_NO_CREDENTIALS = frozenset(("github", "abfs", "abfss", "wasb", "wasbs"))
"""Schemes with a repository or a container before the `@`."""
_SAFE = "!$%&'()*+,/:;=?@[]~"
"""Characters of paths and queries that are not percent-encoded, besides letters and digits."""


def is_url(name: str) -> bool:
    """Whether a name is a URL, such as `https://host/a.jpg` or `s3://bucket/a.jpg`, and not a path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", name) is not None


def display_name(name: str) -> str:
    """Path or URL for messages and files: a URL without its credentials."""
    return without_credentials(name) if is_url(name) else name


def without_credentials(text: str) -> str:
    """Remove `user:password@` after each `://` in a text."""
    return _USERINFO.sub(
        lambda url: url[0] if url["scheme"].lower() in _NO_CREDENTIALS else f"{url['scheme']}://", text
    )


def credentials(url: str) -> tuple[str, str] | None:
    """Return the user and the password in a URL, or None if it has neither."""
    match = _USERINFO.match(url)
    if match is None:
        return None
    user, _, password = match["userinfo"].partition(":")
    return unquote(user), unquote(password)


def encode(url: str) -> str:
    """Percent-encode what is not yet encoded in a URL, and remove its credentials and fragment.

    Raises:
        ValueError: it is not a URL, or its host cannot be encoded.
    """
    parts = urlsplit(without_credentials(url))
    host = parts.netloc if parts.netloc.isascii() else _ascii_host(parts.netloc)
    return parts._replace(netloc=host, path=_quote(parts.path), query=_quote(parts.query), fragment="").geturl()


def _ascii_host(netloc: str) -> str:
    host, colon, port = netloc.partition(":")
    return host.encode("idna").decode() + colon + port


def _quote(part: str) -> str:
    return quote(re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", part), safe=_SAFE, errors="surrogateescape")
