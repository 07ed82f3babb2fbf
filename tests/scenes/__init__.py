"""Rendered scenes of plain shapes with exact boxes, to train and test a small model on."""

from .scene import FIRST_OF_VAL, Scene, scene
from .shapes import CLASSES
from .writing import write

__all__ = ["CLASSES", "FIRST_OF_VAL", "Scene", "scene", "write"]
