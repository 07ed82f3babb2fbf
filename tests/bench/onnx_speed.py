"""Speed of LW-DETR-tiny in ONNX Runtime compared with transformers: the network, and a process for one image.

    python -m tests.bench.onnx_speed [--iterations N]

The same random weights everywhere, 640 × 640, float32, on the CPU: transformers' in a process of its own, ours in one
that keeps freed memory, as `detr` does.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from transformers import AutoModelForObjectDetection

from detrcli.checkpoints.bundled import sample_image
from detrcli.checkpoints.dataset_classes import COCO
from detrcli.checkpoints.find import find
from detrcli.checkpoints.load import load_checkpoint
from detrcli.checkpoints.save import save_model
from detrcli.export.onnx import export_onnx
from detrcli.host import keep_freed_memory
from detrcli.inference.onnx import OnnxBackend
from detrcli.inference.torch import TorchBackend
from detrcli.training.initial_model import from_scratch

from .timing import in_own_process, inference, medians

PEER = """
import sys
from transformers import pipeline
print(pipeline("object-detection", model=sys.argv[1], device="cpu")(sys.argv[2]))
"""


def main() -> None:
    """Print both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=9)
    options = parser.parse_args()
    keep_freed_memory()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    with TemporaryDirectory() as place:
        folder = Path(place) / "tiny"
        save_model(from_scratch("lwdetr-tiny", COCO, size=None, seed=0), folder)
        files = {
            opset: export_onnx(
                load_checkpoint(find(str(folder))), Path(place) / f"tiny-{opset}.onnx", source="random", opset=opset
            ).path
            for opset in (18, 23)
        }
        networks(folder, files, options.iterations)
        processes(folder, files[18], options.iterations)


def networks(folder: Path, files: dict[int, Path], iterations: int) -> None:
    """Time the networks: transformers' from normalized pixels to logits, ours from 8-bit pixels to detections."""
    images = [np.zeros((640, 640, 3), np.uint8)]
    ours = TorchBackend(load_checkpoint(find(str(folder))), device="cpu", precision="fp32")
    runs: dict[str, Callable[[], object]] = {
        "detrcli with PyTorch": partial(ours.run, images, [(640, 640)]),
    }
    for opset, path in files.items():
        backend = OnnxBackend(find(str(path)), device="cpu")
        runs[f"ONNX Runtime, opset {opset}"] = partial(backend.run, images, [(640, 640)])
    with in_own_process(running_peer, folder) as theirs:
        report(medians({"transformers": theirs, **runs}, iterations))


def running_peer(folder: Path) -> Callable[[], object]:
    """Function that runs transformers' network once."""
    return inference(AutoModelForObjectDetection.from_pretrained(folder).eval(), torch.randn(1, 3, 640, 640))


def processes(folder: Path, file: Path, iterations: int) -> None:
    """Time processes that predict one image."""
    image = str(sample_image())
    commands = {
        "transformers": [sys.executable, "-c", PEER, str(folder), image],
        "detr predict": [sys.executable, "-m", "detrcli", "predict", image, "--model", str(file), "--no-draw"],
    }
    runs: dict[str, Callable[[], object]] = {
        name: partial(subprocess.run, command, check=True, capture_output=True) for name, command in commands.items()
    }
    report(medians(runs, iterations))


def report(seconds: dict[str, float]) -> None:
    """Print each time and its ratio to transformers'."""
    for name, value in seconds.items():
        print(f"{name:26} {value * 1000:6.0f} ms  {value / seconds['transformers']:.2f}", flush=True)


if __name__ == "__main__":
    main()
