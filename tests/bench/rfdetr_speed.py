"""Speed of RF-DETR compared with eager float32 in transformers and in the rfdetr package, and with a matrix product.

    python -m tests.bench.rfdetr_speed [--iterations N] [--batch-size 1 8] [SIZE ...]

The rfdetr package takes part if it is installed (`pip install rfdetr`), except for base, which it cannot make without
downloading weights; ratios are to transformers, then to it. All networks of a size have random weights and run on one
tensor on the CPU: others' in processes of their own, ours in one that keeps freed memory, as `detr` does. PyTorch
counts the operations of our trained form. Transformers has no RF-DETR of two scales, so large-2025 is left out.
"""

import importlib
from collections.abc import Callable
from importlib.util import find_spec

import torch
from transformers import RfDetrConfig, RfDetrForObjectDetection

from detrcli.models.rfdetr import SIZES, RfDetr

from .cpu_forms import decoder_settings, measure, pixels_of, run
from .timing import inference

SIDES = {"nano": 384, "small": 512, "medium": 576, "large": 704, "base": 560}


def peer(size: str) -> RfDetrForObjectDetection:
    """Transformers' network of a size, with random weights."""
    ours = SIZES[size]
    backbone = {
        "model_type": "rf_detr_dinov2",
        "hidden_size": ours.vit_dim,
        "num_attention_heads": ours.vit_heads,
        "num_hidden_layers": ours.vit_depth,
        "image_size": ours.patch * ours.vit_positions,
        "patch_size": ours.patch,
        "num_windows": ours.windows,
        "out_indices": [block + 1 for block in ours.features],
    }
    config = RfDetrConfig(
        backbone_config=backbone,
        **decoder_settings(ours),
    )
    return RfDetrForObjectDetection(config).eval()


def running_peer(size: str, batch: int) -> Callable[[], object]:
    """Function that runs transformers' network of a size once."""
    return inference(peer(size), pixels_of(batch, SIDES[size]))


def running_package(size: str, batch: int) -> Callable[[], object]:
    """Function that runs the rfdetr package's network of a size once."""
    model = getattr(importlib.import_module("rfdetr"), f"RFDETR{size.capitalize()}")
    network = model(pretrain_weights=None, device="cpu").model.model.eval()
    return inference(network, pixels_of(batch, SIDES[size]))


def measure_size(size: str, batch: int, iterations: int) -> None:
    """Print a line for each form of a size."""
    torch.manual_seed(0)
    peers = {"transformers": running_peer}
    if size != "base" and find_spec("rfdetr"):
        peers["rfdetr package"] = running_package
    measure(size, RfDetr(SIZES[size]), peers, batch=batch, side=SIDES[size], iterations=iterations)


if __name__ == "__main__":
    run(__doc__, SIDES, measure_size)
