"""Speed of LW-DETR compared with transformers' eager float32, and with a matrix product.

    python -m tests.bench.lwdetr_speed [--iterations N] [--batch-size 1 8] [SIZE ...]

All networks of a size have random weights and run on one tensor of 640 × 640 on the CPU: transformers' in a process of
its own, ours in one that keeps freed memory, as `detr` does. PyTorch counts the operations of our trained form.
"""

from collections.abc import Callable

import torch
from transformers import LwDetrConfig, LwDetrForObjectDetection, LwDetrViTConfig

from detrcli.models.lwdetr import SIZES, LwDetr

from .cpu_forms import decoder_settings, measure, pixels_of, run
from .timing import inference

SIDE = 640


def peer(size: str) -> LwDetrForObjectDetection:
    """Transformers' network of a size, with random weights."""
    ours = SIZES[size]
    vit = LwDetrViTConfig(
        hidden_size=ours.vit_dim,
        num_hidden_layers=ours.vit_depth,
        num_attention_heads=ours.vit_heads,
        window_block_indices=list(ours.window_blocks),
        out_indices=[block + 1 for block in ours.features],
    )
    config = LwDetrConfig(
        backbone_config=vit,
        projector_scale_factors=[float(scale) for scale in ours.scales],
        **decoder_settings(ours),
    )
    return LwDetrForObjectDetection(config).eval()


def running_peer(size: str, batch: int) -> Callable[[], object]:
    """Function that runs transformers' network of a size once."""
    return inference(peer(size), pixels_of(batch, SIDE))


def measure_size(size: str, batch: int, iterations: int) -> None:
    """Print a line for each form of a size."""
    torch.manual_seed(0)
    peers = {"transformers": running_peer}
    measure(size, LwDetr(SIZES[size]), peers, batch=batch, side=SIDE, iterations=iterations)


if __name__ == "__main__":
    run(__doc__, SIZES, measure_size)
