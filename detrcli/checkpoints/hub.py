"""Files of a repository on the Hugging Face Hub, in its client's cache."""

import errno
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

from ..errors import HubUnreachableError, ModelError, NotCachedError

HEADERS_IN_PATHS = ("ETag", "X-Linked-Etag", "X-Repo-Commit", "X-Xet-Hash")
"""Headers after which the client names files and folders in its cache, without checking them."""


@dataclass(frozen=True)
class HubRepository:
    """A repository on the Hub.

    Attributes:
        name: its name, `org/name`.
        revision: branch, tag or commit, or None for the main branch.
        offline: whether to use only the cache.
        commit: the commit that all files are taken from, once it is known.
    """

    name: str
    revision: str | None
    offline: bool
    commit: str | None = None

    def fetch(self, *names: str) -> Path | None:
        """Return the path in the cache of the first of these files that exists, or None.

        Raises:
            ModelError: the file cannot be downloaded.
        """
        from huggingface_hub import _CACHED_NO_EXIST, try_to_load_from_cache
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        unreachable: Exception | None = None
        for name in names:
            if self.commit and try_to_load_from_cache(self.name, name, revision=self.commit) is _CACHED_NO_EXIST:
                continue
            try:
                return self._load(name)
            except LocalEntryNotFoundError as error:
                unreachable = unreachable or error
            except EntryNotFoundError:
                continue
            except ModelError:
                raise
            except Exception as error:  # the client passes on errors of its transports as well
                raise self._explained(error) from error
        if unreachable is not None:
            raise self._explained(unreachable) from unreachable
        return None

    def _load(self, name: str) -> Path:
        from huggingface_hub import hf_hub_download, try_to_load_from_cache
        from huggingface_hub.errors import LocalEntryNotFoundError

        revision = self.commit or self.revision
        if not self.offline:
            _refuse_unsafe_responses()
            return Path(hf_hub_download(self.name, name, revision=revision))
        cached = try_to_load_from_cache(self.name, name, revision=revision)  # hf_hub_download may open a connection
        if not isinstance(cached, str):
            raise LocalEntryNotFoundError(f"{name} is not in the cache")
        return Path(cached)

    def _explained(self, error: Exception) -> ModelError:
        """Say in plain words why a download failed."""
        from huggingface_hub import errors

        repo = f"{self.name} at revision {self.revision}" if self.revision else self.name
        match error:
            case errors.LocalEntryNotFoundError() if self.offline:
                return NotCachedError(f"{repo} is not in the cache")
            case errors.LocalEntryNotFoundError(__cause__=errors.HfHubHTTPError() as cause):
                text = f"the Hub answered with an error for {repo} ({first_line(cause)}); try again later"
            case errors.LocalEntryNotFoundError():
                return HubUnreachableError(f"the Hub cannot be reached and {repo} is not in the cache")
            case errors.GatedRepoError():
                text = f"{self.name} is gated: accept its terms on its Hub page, then run `hf auth login`"
            case errors.RepositoryNotFoundError():
                text = f"the Hub has no model {self.name}, or it is private: check the name, or run `hf auth login`"
            case errors.RevisionNotFoundError():
                revision = self.commit or self.revision
                text = f"{self.name} has no revision {revision!r}; its Hub page lists the branches and tags"
            case errors.HFValidationError():
                text = f"{self.name!r} cannot be the name of a model on the Hub"
            case errors.HfHubHTTPError():
                text = f"the Hub answered with an error for {repo} ({first_line(error)}); try again later"
            case OSError() if error.errno == errno.ENOSPC:
                text = f"the disk is full: {repo} could not be downloaded; free some space, or set HF_HOME"
            case PermissionError():
                text = f"the Hub's cache is not writable ({error.filename}); set HF_HOME to a folder that is"
            case _:
                text = f"the download of {repo} failed ({first_line(error)}); try again"
        return ModelError(text)


def first_line(error: Exception) -> str:
    """Return the first line of an error's text; its class if it has no text."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _refuse_unsafe_responses() -> None:
    """Make the client refuse responses after which it would write outside its cache."""
    from huggingface_hub import get_session

    hooks = get_session().event_hooks["response"]
    if _check_headers not in hooks:
        hooks.append(_check_headers)


def _check_headers(response: Any) -> None:
    if response.request.method != "HEAD":  # file names come from these only
        return
    for header in HEADERS_IN_PATHS:
        path = PureWindowsPath(response.headers.get(header, "").removeprefix("W/").strip('"'))
        if path.anchor or ".." in path.parts:
            raise ModelError(f"{response.url} sent an unsafe {header}: {path.as_posix()!r}")
