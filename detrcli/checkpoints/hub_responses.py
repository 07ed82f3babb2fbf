"""What the Hub may answer: its client names files in its cache after some of the headers, unchecked."""

from pathlib import PureWindowsPath
from typing import Any

from ..errors import ModelError

NAMES = ("ETag", "X-Linked-Etag", "X-Repo-Commit", "X-Xet-Hash")
"""Headers that become names of files and folders."""


def check_responses() -> None:
    """From now on, have the Hub's client refuse responses that would make it write outside its cache."""
    from huggingface_hub import get_session

    hooks = get_session().event_hooks["response"]
    if _check not in hooks:
        hooks.append(_check)


def _check(response: Any) -> None:
    if response.request.method != "HEAD":  # the others give contents alone
        return
    for header in NAMES:
        path = PureWindowsPath(response.headers.get(header, "").removeprefix("W/").strip('"'))
        if path.anchor or ".." in path.parts:
            raise ModelError(
                f"{response.url} gives {path.as_posix()!r} as {header}, which no file in the cache can have"
            )
