"""Files of known models that are only at a URL, in a cache beside that of the Hub's client."""

import hashlib
from pathlib import Path
from urllib.parse import urlsplit

from ..errors import HubUnreachableError, ModelError, NotCachedError, OutputError
from ..files import as_output_error, atomic_file
from .hub import first_line
from .names import Download


def cache_folder() -> Path:
    """Return the folder of the downloaded files, which `HF_HOME` moves along with the Hub's cache."""
    from huggingface_hub import constants

    return Path(constants.HF_HOME, "detrcli")


def cached_file(download: Download) -> Path:
    """Return the path in the cache of a file, which is whole if it exists."""
    return cache_folder() / Path(urlsplit(download.url).path).name


def fetch_file(name: str, download: Download, *, offline: bool) -> Path:
    """Return the path in the cache of a model's file; download it if it is not there.

    Args:
        name: name of the model, for errors.
        download: what to download.
        offline: use only the cache.

    Raises:
        ModelError: the file cannot be downloaded or saved, or is damaged.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

    path = cached_file(download)
    if path.is_file():
        return path
    if offline or constants.HF_HUB_OFFLINE:
        raise NotCachedError(f"{name} is not in the cache")
    host = urlsplit(download.url).hostname
    try:
        with as_output_error(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with WeakFileLock(path.with_name(f".{path.name}.lock")):
                if not path.is_file():  # another process may have downloaded it meanwhile
                    with atomic_file(path, before_rename=lambda hidden, _: _check(hidden, name, download.md5)) as file:
                        http_get(download.url, file, displayed_filename=path.name)  # type: ignore[arg-type]
    except ModelError:
        raise
    except OutputError as error:
        raise ModelError(f"{error}; HF_HOME moves the cache") from error
    except HfHubHTTPError as error:
        raise ModelError(f"{host} answered with an error for {name} ({first_line(error)}); try again later") from error
    except Exception as error:  # the client passes on errors of its transports as well
        raise HubUnreachableError(
            f"{name} is not in the cache and cannot be downloaded from {host} ({first_line(error)})"
        ) from error
    return path


def _check(path: Path, name: str, expected: str) -> None:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if digest != expected:
        raise ModelError(f"the download of {name} is damaged (its MD5 is {digest}, not {expected}); try again")
