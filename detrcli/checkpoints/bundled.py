"""Files that are part of this package: the demo model and an image for it."""

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
_FOLDERS = (_PACKAGE / "weights", _PACKAGE.parent / "weights")
"""Inside the package once it is installed, beside it in a checkout."""


def bundled(name: str) -> Path:
    """Return the path of a bundled file or folder."""
    return next((folder / name for folder in _FOLDERS if (folder / name).exists()), _FOLDERS[0] / name)


def sample_image() -> Path:
    """Return the path of an image that suits the demo model."""
    return bundled("demo") / "sample.jpg"
