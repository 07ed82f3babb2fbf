"""Speed of DETR with ResNet-50 compared with transformers', and of `detr --help`.

    python -m tests.bench.detr_speed [ITERATIONS]

Both networks have the same random weights and run in float32 on a tensor of 800 × 1066, batch 1, on the CPU:
transformers' in a process of its own, ours in one that keeps freed memory, as `detr` does.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable

import torch
from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig

import detrcli
from detrcli.host import keep_freed_memory
from detrcli.inference.fuse import fuse

from .timing import in_own_process, inference, medians


def running_peer(folder: str) -> Callable[[], object]:
    """Function that runs transformers' network once."""
    return inference(DetrForObjectDetection.from_pretrained(folder).eval(), torch.randn(1, 3, 800, 1066))


def main() -> None:
    """Print the medians and the ratios."""
    iterations = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    keep_freed_memory()
    torch.manual_seed(0)
    backbone = ResNetConfig(out_features=["stage4"])
    peer = DetrForObjectDetection(DetrConfig(backbone_config=backbone, use_timm_backbone=False, num_labels=91))
    pixels = torch.randn(1, 3, 800, 1066)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}")
    with tempfile.TemporaryDirectory() as folder:
        peer.save_pretrained(folder)
        trained, fused = detrcli.load_model(folder), fuse(detrcli.load_model(folder))
        with torch.inference_mode(), in_own_process(running_peer, folder) as theirs:
            seconds = medians(
                {
                    "transformers": theirs,
                    "detrcli as trained (load_model)": lambda: trained(pixels),
                    "detrcli fused (Detector)": lambda: fused(pixels),
                },
                iterations,
            )
    for name, value in seconds.items():
        print(f"{name:32} {value * 1000:7.0f} ms   {value / seconds['transformers']:.2f}")
    command = [sys.executable, "-m", "detrcli", "--help"]
    started = medians({"help": lambda: subprocess.run(command, stdout=subprocess.DEVNULL, check=True)}, iterations)
    print(f"{'detr --help':32} {started['help'] * 1000:7.0f} ms")


if __name__ == "__main__":
    main()
