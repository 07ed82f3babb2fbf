"""Speed of the engines on the CPU compared with transformers' eager float32, and of processes that predict one image.

    python -m tests.bench.engine_speed [--iterations N] [--batch-size 1 8] [--calibrate PHOTOGRAPHS] [MODEL ...]

The same random weights everywhere: transformers' network in a process of its own, ours in one that keeps freed memory,
as `detr` does. Transformers' goes from normalized pixels to logits, ours from resized pixels to detections. Eight
images at once are a batch for transformers; ours are shared between the cores, as in `detr predict`. With photographs
to calibrate on, an int8 file takes part.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import onnxruntime
import openvino
import torch
from PIL import Image
from transformers import AutoModelForObjectDetection

import detrcli
from detrcli.checkpoints.bundled import sample_image
from detrcli.checkpoints.dataset_classes import COCO
from detrcli.checkpoints.find import find
from detrcli.checkpoints.load import load_checkpoint
from detrcli.checkpoints.save import save_model
from detrcli.datasets.unlabeled import read_unlabeled
from detrcli.export.int8 import export_int8
from detrcli.export.onnx import export_onnx
from detrcli.host import keep_freed_memory
from detrcli.images.resize import Pixels
from detrcli.inference.backend import Backend
from detrcli.inference.engines import Engine
from detrcli.inference.torch import Precision
from detrcli.training.initial_model import from_scratch

from .timing import in_own_process, inference, medians

MODELS = (
    *(f"lwdetr-{size}" for size in ("tiny", "small", "medium", "large", "xlarge")),
    *(f"rfdetr-{size}" for size in ("nano", "small", "medium", "large")),
    "detr-resnet-50",
    "table-transformer-detection",
)
FP32_AND_FASTEST: tuple[Precision, ...] = ("fp32", "auto")
PHOTOGRAPH = 640, 480
"""Width and height of the image that is resized for a network."""
PEER = """
import sys
from transformers import pipeline
print(pipeline("object-detection", model=sys.argv[1], device="cpu")(sys.argv[2]))
"""


def main() -> None:
    """Print a table of the networks, then the processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--iterations", type=int, default=7)
    parser.add_argument("--batch-size", type=int, nargs="+", default=[1])
    parser.add_argument("--calibrate", type=Path)
    options = parser.parse_args()
    keep_freed_memory()
    print(f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}, openvino {openvino.__version__}")
    for name in options.models:
        with TemporaryDirectory() as place:
            weights = Path(place) / name
            save_model(from_scratch(name, COCO, size=None, seed=0), weights)
            model = load_checkpoint(find(str(weights)))
            files = [export_onnx(model, Path(place) / "fp32.onnx", source="random").path]
            if options.calibrate is not None:
                images = read_unlabeled(options.calibrate)
                files.append(export_int8(model, Path(place) / "int8.onnx", images, source="random").path)
            for batch in options.batch_size:
                networks(weights, files, batch, options.iterations)
            if name == options.models[0]:
                processes(weights, files[0], options.iterations)


def networks(weights: Path, files: Iterable[Path], batch: int, iterations: int) -> None:
    """Print the time of each engine and precision, and its ratio to transformers'."""
    image = Image.new("RGB", PHOTOGRAPH, "gray")
    with ExitStack() as stack:
        runs: dict[str, Callable[[], object]] = {}
        for path, engine, precision in forms(weights, files):
            detector = detrcli.load(path, device="cpu", engine=engine, precision=precision)
            pixels, backend = detector.resized(image), detector.backend
            if batch > 1 and engine != "auto":
                stack.enter_context(backend.shared())  # otherwise ONNX Runtime would start a session for each run
            runs[backend.description] = partial(run, backend, [pixels] * batch)
        height, width = pixels.shape[:2]
        theirs = stack.enter_context(in_own_process(running_peer, weights, batch, height, width))
        seconds = medians({"transformers, fp32": theirs, **runs}, iterations)
    best = seconds["transformers, fp32"]
    for name, value in seconds.items():
        print(f"{weights.name:28} {batch:2}  {name:32} {value * 1000:6.0f} ms  {value / best:.2f}", flush=True)


def forms(weights: Path, files: Iterable[Path]) -> Iterator[tuple[Path, Engine, Precision]]:
    """Every file with every engine that runs it, in float32 and in the fastest precision."""
    for precision in FP32_AND_FASTEST:
        yield weights, "auto", precision
    for file in files:
        yield file, "onnxruntime", "auto"
        for precision in FP32_AND_FASTEST:
            yield file, "openvino", precision


def run(backend: Backend, images: list[Pixels]) -> None:
    """Detect objects: in one image with all cores, in several with as many images at a time as the backend takes."""
    size = images[0].shape[0], images[0].shape[1]
    if len(images) == 1:
        backend.run(images, [size])
        return
    with backend.shared(), ThreadPoolExecutor(backend.concurrency) as pool:
        list(pool.map(lambda pixels: backend.run([pixels], [size]), images))


def running_peer(folder: Path, batch: int, height: int, width: int) -> Callable[[], object]:
    """Function that runs transformers' network once."""
    network = AutoModelForObjectDetection.from_pretrained(folder).eval()
    return inference(network, torch.randn(batch, 3, height, width))


def processes(folder: Path, file: Path, iterations: int) -> None:
    """Print the times of processes that predict one image."""
    image = str(sample_image())
    predict = [sys.executable, "-m", "detrcli", "predict", image, "--model", str(file), "--no-draw", "--device", "cpu"]
    commands = {
        "transformers": [sys.executable, "-c", PEER, str(folder), image],
        "detr predict, ONNX Runtime": [*predict, "--engine", "onnxruntime"],
        "detr predict, OpenVINO": [*predict, "--engine", "openvino"],
    }
    runs: dict[str, Callable[[], object]] = {
        name: partial(subprocess.run, command, check=True, capture_output=True) for name, command in commands.items()
    }
    seconds = medians(runs, iterations)
    for name, value in seconds.items():
        print(f"{name:26} {value * 1000:6.0f} ms  {value / seconds['transformers']:.2f}", flush=True)


if __name__ == "__main__":
    main()
