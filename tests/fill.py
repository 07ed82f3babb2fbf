"""Deterministic weights for parity tests: every tensor is a pure function of its name and shape.

`fill(name, shape)` returns a float32 array; the golden outputs were computed in float64 from these float32 weights.
Names are those of the original checkpoints, listed with their shapes in the `*.keys.json` files, so any implementation
that loads original checkpoints can have the same weights and must give the same outputs.
"""

import json
import zlib
from math import prod

import numpy as np

EMBEDDINGS = ("query_feat.weight", "refpoint_embed.weight", "pos_embed")
DINOV2_TOKENS = tuple(
    f"backbone.0.encoder.encoder.embeddings.{name}" for name in ("cls_token", "mask_token", "position_embeddings")
)


def fill(name: str, shape: tuple[int, ...]) -> np.ndarray:
    return _fill(name, shape).astype(np.float32)


def _fill(name: str, shape: tuple[int, ...]) -> np.ndarray:
    noise = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape)
    if name.endswith("running_var"):
        return 1.0 + 0.1 * np.abs(noise)
    if name == "query_embed.weight":  # strong, so that queries differ
        return 6.0 * noise
    if name.endswith(EMBEDDINGS) or name.startswith(DINOV2_TOKENS):
        return 0.5 * noise
    if name.endswith("bn3.weight"):  # small residual branches keep 100 layers well conditioned
        return 0.3 * (1.0 + 0.1 * noise)
    if name.endswith("in_proj_weight"):
        return noise / np.sqrt(shape[1])
    if "bbox_embed" in name and "layers.2" in name:  # boxes of a sensible size
        return 0.3 * noise / np.sqrt(prod(shape[1:]) if len(shape) > 1 else 1.0)
    if "sampling_offsets.weight" in name:
        return 0.3 * noise / np.sqrt(shape[1])
    if len(shape) > 1:  # zero mean over the inputs, which removes the common offset of ReLUs
        noise -= noise.mean(axis=tuple(range(1, len(shape))), keepdims=True)
        return noise * np.sqrt(2.0 / prod(shape[1:]))
    if name.endswith(("weight", "gamma_1", "gamma_2", ".lambda1")):  # norm scales and LayerScale
        return 1.0 + 0.1 * noise
    return 0.1 * noise  # biases and running means


def state_dict(keys_file: str) -> dict[str, np.ndarray]:
    """Return a float32 array for each name in a `*.keys.json` file."""
    with open(keys_file) as f:
        return {name: fill(name, tuple(shape)) for name, shape in json.load(f).items()}


def image(seed: int, height: int, width: int) -> np.ndarray:
    """Make a smooth random RGB image, uint8 (height, width, 3)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    out = np.zeros((height, width, 3))
    for channel in range(3):
        for _ in range(12):
            fy, fx, phase = rng.uniform(-40, 40), rng.uniform(-40, 40), rng.uniform(0, 2 * np.pi)
            out[..., channel] += np.sin(fy * y + fx * x + phase)
    return np.clip(127.5 + 127.5 * out / 4, 0, 255).astype(np.uint8)
