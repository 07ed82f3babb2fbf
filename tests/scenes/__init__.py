"""Rendered scenes of simple shapes with exact boxes, for training and testing a small model."""

from .scene import FIRST_OF_VAL, Scene, scene
from .shapes import CLASSES
from .writing import write

__all__ = ["CLASSES", "FIRST_OF_VAL", "Scene", "scene", "write"]
