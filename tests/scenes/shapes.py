"""Outlines of the classes of rendered scenes."""

import numpy as np
from numpy.typing import NDArray

CLASSES = ("circle", "square", "triangle", "star", "cross", "ring", "crescent", "heart", "arrow", "bolt")


def curves(name: str, variant: float) -> list[NDArray[np.float64]]:
    """Return the curves of a class, the outer one first, then holes; `variant` from 0 to 1 sets the proportions."""
    match name:
        case "circle":
            return [_arc(0, 2 * np.pi)]
        case "ring":
            return [_arc(0, 2 * np.pi), _arc(0, 2 * np.pi) * (0.5 + 0.2 * variant)]
        case "square":
            return [np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], float)]
        case "triangle":
            return [_arc(0, 4 / 3 * np.pi, 3)]
        case "star":
            return [_arc(0, 1.8 * np.pi, 10) * np.tile((1, 0.36 + 0.12 * variant), 5)[:, None]]
        case "cross":
            arm = 0.22 + 0.14 * variant
            quarter = np.array([(arm, arm), (arm, 1), (-arm, 1)])
            return [np.concatenate([quarter, quarter[:, ::-1] * (-1, 1), -quarter, quarter[:, ::-1] * (1, -1)])]
        case "crescent":
            away, radius = 0.4 + 0.15 * variant, 0.8
            x = (1 - radius**2 + away**2) / (2 * away)
            y = np.sqrt(1 - x**2)
            outer, inner = np.arctan2(y, x), np.arctan2(y, x - away)
            hollow = _arc(2 * np.pi - inner, inner) * radius + (away, 0)
            return [np.concatenate([_arc(outer, 2 * np.pi - outer), hollow])]
        case "heart":
            t = np.linspace(0, 2 * np.pi, 60, endpoint=False)
            y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
            return [np.stack([16 * np.sin(t) ** 3, -y], 1) / 16]
        case "arrow":
            shaft, neck = 0.2 + 0.12 * variant, 0.25 - 0.25 * variant
            upper = np.array([(-1, shaft), (neck, shaft), (neck, 0.72), (1, 0)])
            return [np.concatenate([upper, upper[-2::-1] * (1, -1)])]
        case _:
            points = np.array(
                [(0.15, -1), (-0.65, 0.2), (-0.12, 0.2), (-0.4, 1), (0.7, -0.3), (0.15, -0.3), (0.65, -1)]
            )
            return [points * (-1 if variant < 0.5 else 1, 1)]


def _arc(start: float, end: float, points: int = 64) -> NDArray[np.float64]:
    angles = np.linspace(start, end, points)
    return np.stack([np.cos(angles), np.sin(angles)], 1)
