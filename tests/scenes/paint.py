"""Colors, textures, shadows and noise of a rendered scene."""

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from .layout import OVERSAMPLING, Floats, Item, Layout, oversampled

CONTRAST = 0.3
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
NORMAL = np.array([NormalDist().inv_cdf((byte + 0.5) / 256) for byte in range(256)])
"""Normally distributed values for uniformly distributed bytes."""


def paint(rng: np.random.Generator, layout: Layout) -> Image.Image:
    """Paint the RGB image of a layout."""
    gray = rng.uniform() < 0.07
    canvas = _background(rng, layout.size)
    for item in layout.items:
        _paint_item(rng, canvas, item, gray)
    return _finish(rng, canvas, gray)


def _background(rng: np.random.Generator, size: tuple[int, int]) -> Floats:
    shape = size[::-1]
    first, second, third = _colors(rng, 3, str(rng.choice(("pale", "dark", "any"), p=(0.4, 0.25, 0.35))))
    kind = str(rng.choice(("flat", "gradient", "noise", "checks", "stripes"), p=(0.12, 0.3, 0.28, 0.12, 0.18)))
    pattern = _pattern(rng, kind, shape, rng.uniform(14, 70))
    canvas = _mix(first, second, pattern * np.float32(rng.uniform(0.15, 0.7)))
    if rng.uniform() < 0.35:
        blobs = np.clip((_noise(rng, shape, rng.uniform(40, 120)) - np.float32(rng.uniform(0.45, 0.6))) * 25, 0, 1)
        _cover(canvas, third, blobs * np.float32(rng.uniform(0.2, 0.7)))
    if rng.uniform() < 0.45:
        _cover(canvas, _colors(rng, 1)[0], _scribbles(rng, size) * np.float32(rng.uniform(0.3, 0.9)))
    return canvas


def _scribbles(rng: np.random.Generator, size: tuple[int, int]) -> Floats:
    """Draw open curves, straight lines or short dashes, which resemble no class."""
    width, height = size
    image = Image.new("L", (width * 2, height * 2))
    pen = ImageDraw.Draw(image)
    count, steps, step, bend = (
        (rng.integers(2, 7), 40, 20.0, 0.3),
        (rng.integers(2, 9), 2, 1600.0, 0.0),
        (rng.integers(20, 120), 2, rng.uniform(8, 36), 0.0),
    )[rng.integers(3)]
    thickness = int(rng.integers(2, 9))
    for _ in range(count):
        heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, bend, steps))
        path = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], 1) * step, 0)
        path += rng.uniform(0, 2, 2) * size - path.mean(0)
        pen.line(path.ravel().tolist(), fill=255, width=thickness)
    return _share(image.reduce(2))


def _paint_item(rng: np.random.Generator, canvas: Floats, item: Item, gray: bool) -> None:
    extent, shape = max(item.mask.shape), item.mask.shape
    if rng.uniform() < 0.35:
        _cast_shadow(rng, canvas, item)
    first, second, third = _contrasting_colors(rng, _surrounding_colors(canvas, item), gray)
    kinds = ("flat", "gradient", "stripes", "checks", "dots", "noise")
    kind = str(rng.choice(kinds, p=(0.28, 0.22, 0.16, 0.1, 0.1, 0.14)))
    texture = _mix(first, second, _pattern(rng, kind, shape, max(5.0, extent * rng.uniform(0.12, 0.3))))
    if rng.uniform() < 0.3:
        texture *= np.float32(1.1) - np.float32(0.25) * _pattern(rng, "gradient", shape, extent)
    if rng.uniform() < 0.3:
        _cover(texture, third, _rim(item, max(1.0, extent * rng.uniform(0.015, 0.05))))
    on_image, on_mask = item.inside((canvas.shape[2], canvas.shape[1]))
    _cover(canvas[:, *on_image], texture[:, *on_mask], _share(item.mask[on_mask]))


def _cast_shadow(rng: np.random.Generator, canvas: Floats, item: Item) -> None:
    extent = max(item.mask.shape)
    blur = max(1.0, extent * rng.uniform(0.02, 0.06))
    margin = int(3 * blur) + 1
    dark = np.asarray(Image.fromarray(np.pad(item.mask, margin)).filter(ImageFilter.BoxBlur(blur)))
    right, down = (rng.uniform(-0.08, 0.08, 2) * extent).astype(int).tolist()
    shadow = Item(item.label, (), item.left - margin + right, item.top - margin + down, dark)
    on_image, on_mask = shadow.inside((canvas.shape[2], canvas.shape[1]))
    canvas[:, *on_image] *= 1 - _share(dark[on_mask]) * np.float32(rng.uniform(0.25, 0.6))


def _rim(item: Item, thick: float) -> Floats:
    height, width = item.mask.shape
    image = Image.new("L", (width * OVERSAMPLING, height * OVERSAMPLING))
    pen = ImageDraw.Draw(image)
    for curve in item.outline:
        closed = np.concatenate([curve, curve[:2]])
        joint = "curve" if len(curve) < 20 else None
        pen.line(oversampled(closed, item.left, item.top), fill=255, width=round(2 * thick * OVERSAMPLING), joint=joint)
    return _share(image.reduce(OVERSAMPLING))


def _surrounding_colors(canvas: Floats, item: Item) -> Floats:
    """Return the (K, 3) colors of the canvas along both sides of the outer outline of an object."""
    closed = np.concatenate([item.outline[0], item.outline[0][:1]])
    along = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(closed, axis=0).T))])
    even = np.linspace(0, along[-1], 40, endpoint=False)
    line = np.stack([np.interp(even, along, closed[:, 0]), np.interp(even, along, closed[:, 1])], 1)
    points = np.concatenate([line.mean(0) + (line - line.mean(0)) * share for share in (0.8, 1.1)])
    height, width = canvas.shape[1:]
    x, y = points[(points >= 0).all(1) & (points < (width, height)).all(1)].astype(int).T
    return canvas[:, y, x].T


def _contrasting_colors(rng: np.random.Generator, surrounding: Floats, gray: bool) -> Floats:
    """Return the (3, 3) first random colors with enough contrast to most surrounding ones, or else the best."""
    colors = np.concatenate([_colors(rng, 10), _colors(rng, 3, "pale"), _colors(rng, 3, "dark")])
    distance = np.abs(colors @ LUMINANCE - (surrounding @ LUMINANCE)[:, None])
    if not gray:
        distance = (distance + np.sqrt(((colors - surrounding[:, None]) ** 2).sum(2))) / 2
    contrast = np.sort(distance, axis=0)[len(surrounding) // 7]
    return colors[np.argsort(-np.minimum(contrast, CONTRAST), kind="stable")[:3]]


def _colors(rng: np.random.Generator, count: int, kind: str = "any") -> Floats:
    """Return (count, 3) random colors from 0 to 1."""
    saturation, value = {
        "pale": ((0.03, 0.35), (0.78, 1.0)),
        "dark": ((0.1, 0.7), (0.08, 0.35)),
        "any": ((0.3, 1.0), (0.35, 1.0)),
    }[kind]
    hue = rng.uniform(0, 6, (count, 1))
    pure = np.clip(np.abs((hue + np.array((0, 4, 2))) % 6 - 3) - 1, 0, 1)
    strong = rng.uniform(*saturation, (count, 1))
    colors: Floats = ((1 - strong + strong * pure) * rng.uniform(*value, (count, 1))).astype(np.float32)
    return colors


def _mix(first: Floats, second: Floats, share: Floats) -> Floats:
    """Blend two colors to (3, height, width): the first where `share` is 0, the second where it is 1."""
    mixed: Floats = (second - first)[:, None, None] * share
    mixed += first[:, None, None]
    return mixed


def _cover(canvas: Floats, paint: Floats, share: Floats) -> None:
    """Blend one color, or one per pixel, over a canvas in place."""
    over = (paint if paint.ndim == 3 else paint[:, None, None]) - canvas
    over *= share
    canvas += over


def _share(mask: Image.Image | NDArray[np.uint8]) -> Floats:
    return np.asarray(mask, np.float32) / np.float32(255)


def _pattern(rng: np.random.Generator, kind: str, shape: tuple[int, ...], period: float) -> Floats:
    """Return a (height, width) pattern with values from 0 to 1.

    Args:
        rng: random number generator.
        kind: flat, gradient, noise, stripes, checks or dots.
        shape: height and width.
        period: period of stripes, checks or dots in pixels.
    """
    if kind == "flat":
        return np.zeros(shape, np.float32)
    if kind == "noise":
        return _noise(rng, shape, period) * np.float32(0.6) + _noise(rng, shape, period / 3) * np.float32(0.4)
    height, width = shape
    turn = rng.uniform(0, 2 * np.pi)
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    y, x = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)
    along, across = x * cos + y * sin, y * cos - x * sin
    if kind == "gradient":
        if rng.uniform() < 0.4:
            along = np.hypot(x - np.float32(rng.uniform(0, width)), y - np.float32(rng.uniform(0, height)))
        share: Floats = along - along.min()
        share /= share.max()
        return share
    frequency = np.float32(2 * np.pi / period)
    match kind:
        case "stripes":
            wave = np.sin(along * frequency)
        case "checks":
            wave = np.sin(along * frequency) * np.sin(across * frequency)
        case _:
            wave = np.cos(along * frequency) + np.cos(across * frequency) - np.float32(0.9)
    values: Floats = np.clip(wave * np.float32(period / 6) + np.float32(0.5), 0, 1)
    return values


def _noise(rng: np.random.Generator, shape: tuple[int, ...], period: float) -> Floats:
    """Return (height, width) smooth random values from 0 to 1."""
    height, width = shape
    coarse = rng.random((int(height / period) + 2, int(width / period) + 2), np.float32)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    values: Floats = np.clip(np.asarray(smooth), 0, 1)
    return values


def _finish(rng: np.random.Generator, canvas: Floats, gray: bool) -> Image.Image:
    """Convert a canvas to an image with random brightness, contrast, blur and noise."""
    canvas *= np.float32(255 * rng.uniform(0.85, 1.12))
    canvas += np.float32(rng.uniform(-16, 20))
    image = Image.merge("RGB", [Image.fromarray(plane) for plane in np.clip(canvas, 0, 255).astype(np.uint8)])
    if gray:
        image = image.convert("L")
    if rng.uniform() < 0.3:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.1)))
    if rng.uniform() < 0.5:
        pixels = np.asarray(image)
        noise = (NORMAL * rng.uniform(1, 8)).round().astype(np.int16)
        bytes_of_noise = np.frombuffer(rng.bytes(pixels.size), np.uint8).reshape(pixels.shape)
        image = Image.fromarray(np.clip(pixels + noise[bytes_of_noise], 0, 255).astype(np.uint8))
    return image.convert("RGB")
