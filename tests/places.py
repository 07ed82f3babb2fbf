"""Where the tests' files are."""

from pathlib import Path

DATA = Path(__file__).parent / "data"
PHOTOGRAPHS = Path(__file__).parents[2] / "shared" / "data" / "coco-val128" / "images"
"""128 photographs of COCO val2017, where they are present."""
