"""Speed of LW-DETR compared with transformers' eager float32, and with a matrix product.

    python -m tests.bench.lwdetr_speed [--iterations N] [--batch-size 1 8] [SIZE ...]

All networks of a size have random weights and run on one tensor of 640 × 640 on the CPU: transformers' in a process of
its own, ours in one that keeps freed memory, as `detr` does. PyTorch counts the operations of our trained form.
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
from detrcli.inference.torch import TorchBackend, count_gflops, matmul_gflops
from detrcli.models.lwdetr import SIZES, LwDetr

from .timing import in_own_process, inference, medians


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
    """Function that runs transformers' network of a size once."""
    return inference(peer(size), pixels_of(batch))


def pixels_of(batch: int) -> torch.Tensor:
    """Input for every network, (B, 3, 640, 640)."""
    return torch.randn(batch, 3, 640, 640, generator=torch.Generator().manual_seed(0))


def measure(size: str, batch: int, iterations: int) -> None:
    """Print a line for each form of a size."""
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
    with torch.inference_mode(), in_own_process(running_peer, size, batch) as theirs:
        seconds = medians(
            {
                "transformers fp32": theirs,
                "detrcli trained fp32": lambda: trained(pixels),
                "detrcli fp32": lambda: backends["fp32"](pixels),
                "detrcli bf16": lambda: backends["bf16"](in_bf16),
            },
            iterations,
        )
    for name, value in seconds.items():
        ratio = value / seconds["transformers fp32"]
        print(
            f"{size:7} {batch:2}  {name:21} {value * 1000:7.0f} ms  {ratio:5.2f}  {work / value:6.0f} GFLOP/s",
            flush=True,
        )


def main() -> None:
    """Print the speed of a matrix product, then of every size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", nargs="*", default=list(SIZES))
    parser.add_argument("--iterations", type=int, default=7)
    parser.add_argument("--batch-size", type=int, nargs="+", default=[1])
    options = parser.parse_args()
    keep_freed_memory()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}")
    for dtype in (torch.float32, torch.bfloat16):
        print(f"matrix product in {dtype}: {matmul_gflops(torch.device('cpu'), dtype):.0f} GFLOP/s")
    for size in options.sizes:
        for batch in options.batch_size:
            measure(size, batch, options.iterations)


if __name__ == "__main__":
    main()
