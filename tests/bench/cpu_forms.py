"""Speed of the forms of an LW-DETR or RF-DETR on the CPU, compared with others' implementations in eager float32."""

import argparse
import copy
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack

import torch
from torch import Tensor

from detrcli.checkpoints.load import LoadedModel
from detrcli.checkpoints.preprocessing import Preprocessing
from detrcli.host import keep_freed_memory
from detrcli.inference.torch import TorchBackend, count_gflops, matmul_gflops
from detrcli.models.lwdetr import LwDetr, LwDetrConfig

from .timing import in_own_process, medians


def pixels_of(batch: int, side: int) -> Tensor:
    """Input for every network, (B, 3, side, side)."""
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0))


def decoder_settings(config: LwDetrConfig) -> dict[str, int]:
    """Settings of the decoder and its heads, by transformers' names."""
    return {
        "d_model": config.hidden_dim,
        "decoder_layers": config.decoder_layers,
        "decoder_self_attention_heads": config.self_heads,
        "decoder_cross_attention_heads": config.cross_heads,
        "decoder_n_points": config.points,
        "num_queries": config.num_queries,
        "num_labels": config.num_classes,
    }


def measure(
    name: str,
    trained: LwDetr,
    peers: Mapping[str, Callable[[str, int], Callable[[], object]]],
    *,
    batch: int,
    side: int,
    iterations: int,
) -> None:
    """Print a line for each form of a network, with its time relative to each peer's.

    Args:
        name: name of the size.
        trained: network with random weights.
        peers: by the names of other implementations, what makes from the name of the size and the batch size the
            function that runs their network once.
        batch: images per run.
        side: side of the images.
        iterations: timed runs.
    """
    trained.eval().requires_grad_(False)
    pixels = pixels_of(batch, side)
    classes = tuple(map(str, range(trained.config.num_classes)))
    backends = {
        precision: TorchBackend(
            LoadedModel(name, copy.deepcopy(trained), classes, Preprocessing()), device="cpu", precision=precision
        ).network
        for precision in ("fp32", "bf16")
    }
    work = batch * count_gflops(trained, side, side)
    in_bf16 = pixels.bfloat16()
    with torch.inference_mode(), ExitStack() as stack:
        seconds = medians(
            {
                **{peer: stack.enter_context(in_own_process(make, name, batch)) for peer, make in peers.items()},
                "detrcli trained fp32": lambda: trained(pixels),
                "detrcli fp32": lambda: backends["fp32"](pixels),
                "detrcli bf16": lambda: backends["bf16"](in_bf16),
            },
            iterations,
        )
    for form, value in seconds.items():
        ratios = "  ".join(f"{value / seconds[peer]:5.2f}" for peer in peers)
        print(
            f"{name:7} {batch:2}  {form:21} {value * 1000:7.0f} ms  {ratios}  {work / value:6.0f} GFLOP/s",
            flush=True,
        )


def run(description: str | None, sizes: Iterable[str], measure_size: Callable[[str, int, int], None]) -> None:
    """Parse the command line, then print the speed of a matrix product and of every size.

    Args:
        description: of the command.
        sizes: names of all sizes.
        measure_size: prints the lines of a size, for a batch size and a number of iterations.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("sizes", nargs="*", default=list(sizes))
    parser.add_argument("--iterations", type=int, default=7)
    parser.add_argument("--batch-size", type=int, nargs="+", default=[1])
    options = parser.parse_args()
    keep_freed_memory()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}")
    for dtype in (torch.float32, torch.bfloat16):
        print(f"matrix product in {dtype}: {matmul_gflops(torch.device('cpu'), dtype):.0f} GFLOP/s")
    for size in options.sizes:
        for batch in options.batch_size:
            measure_size(size, batch, options.iterations)
