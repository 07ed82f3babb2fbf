"""Where the tests' files are."""

from pathlib import Path

DATA = Path(__file__).parent / "data"
SHARED = Path(__file__).parents[2] / "shared"
"""Larger files that not every checkout has beside it."""
PHOTOGRAPHS = SHARED / "data" / "coco-val128" / "images"
"""128 photographs of COCO val2017, where they are present."""
