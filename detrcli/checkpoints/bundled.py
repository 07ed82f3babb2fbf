"""Files that come with this package: the demo model and an image for it."""

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
_PLACES = (_PACKAGE / "weights", _PACKAGE.parent / "weights")
"""Where they are: in the package once it is installed, beside it in a checkout."""


def bundled(name: str) -> Path:
    """The path of an included file or folder."""
    return next((place / name for place in _PLACES if (place / name).exists()), _PLACES[0] / name)


def sample_image() -> Path:
    """An image that the demo model was made for."""
    return bundled("demo") / "sample.jpg"
