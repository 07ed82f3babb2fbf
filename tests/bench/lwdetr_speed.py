"""How fast LW-DETR is beside transformers' eager float32, and how near to what the machine can do.

    python -m tests.bench.lwdetr_speed [--rounds N] [--batch 1 8] [SIZE ...]

All networks of a size have random weights and run on one tensor of 640 × 640 on the CPU: transformers' in a process of
its own, ours in one that keeps freed memory, as `detr` does. The work of a size is counted by PyTorch on our trained
form (a product and a sum as two), and stands beside the rate of a large product.
"""

import argparse
import copy
from collections.abc import Callable

import torch
from transformers import LwDetrConfig, LwDetrForObjectDetection, LwDetrViTConfig

from detrcli.checkpoints.dataset_classes import COCO
from detrcli.checkpoints.load import LoadedModel
from detrcli.checkpoints.preprocessing import Preprocessing
from detrcli.host import keep_freed_memory
from detrcli.inference.torch import TorchBackend, count_gflops
from detrcli.models.lwdetr import SIZES, LwDetr

from .side_by_side import apart, inference, times


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
        d_model=ours.hidden_dim,
        decoder_self_attention_heads=ours.self_heads,
        decoder_cross_attention_heads=ours.cross_heads,
        decoder_n_points=ours.points,
        num_queries=ours.num_queries,
        num_labels=ours.num_classes,
    )
    return LwDetrForObjectDetection(config).eval()


def running_peer(size: str, batch: int) -> Callable[[], object]:
    """What runs transformers' network of a size once."""
    return inference(peer(size), pixels_of(batch))


def pixels_of(batch: int) -> torch.Tensor:
    """The same for all."""
    return torch.randn(batch, 3, 640, 640, generator=torch.Generator().manual_seed(0))


def product_rate(dtype: torch.dtype) -> float:
    """GFLOP/s of a product of two matrices of 2048 × 2048."""
    matrix = torch.randn(2048, 2048).to(dtype)
    return 2 * 2048**3 / times({"product": lambda: matrix @ matrix}, 9)["product"] / 1e9


def measure(size: str, batch: int, rounds: int) -> None:
    """Print a line for each way to run a size."""
    torch.manual_seed(0)
    trained = LwDetr(SIZES[size]).eval().requires_grad_(False)
    pixels = pixels_of(batch)
    backends = {
        precision: TorchBackend(
            LoadedModel(size, copy.deepcopy(trained), COCO, Preprocessing()), device="cpu", precision=precision
        ).network
        for precision in ("fp32", "bf16")
    }
    work = batch * count_gflops(trained, 640, 640)
    in_bf16 = pixels.bfloat16()
    with torch.inference_mode(), apart(running_peer, size, batch) as theirs:
        seconds = times(
            {
                "transformers fp32": theirs,
                "detrcli trained fp32": lambda: trained(pixels),
                "detrcli fp32": lambda: backends["fp32"](pixels),
                "detrcli bf16": lambda: backends["bf16"](in_bf16),
            },
            rounds,
        )
    for name, value in seconds.items():
        ratio = value / seconds["transformers fp32"]
        print(
            f"{size:7} {batch:2}  {name:21} {value * 1000:7.0f} ms  {ratio:5.2f}  {work / value:6.0f} GFLOP/s",
            flush=True,
        )


def main() -> None:
    """Print what the machine can do, then every size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", nargs="*", default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, nargs="+", default=[1])
    options = parser.parse_args()
    keep_freed_memory()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}")
    for dtype in (torch.float32, torch.bfloat16):
        print(f"matrix product in {dtype}: {product_rate(dtype):.0f} GFLOP/s")
    for size in options.sizes:
        for batch in options.batch:
            measure(size, batch, options.rounds)


if __name__ == "__main__":
    main()
