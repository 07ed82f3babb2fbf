"""Speed of labelling a folder with LW-DETR-tiny compared with a batched script with transformers, and the network.

    python -m tests.bench.labeling_speed PHOTOGRAPHS [--images N] [--iterations N]

PHOTOGRAPHS is a folder; its images are repeated to N. The same random weights everywhere, 640 × 640, on the CPU:
transformers and ONNX Runtime in float32, PyTorch and OpenVINO in the precision that `detr` chooses, and OpenVINO with
an int8 file. Whole processes are timed in turn, and the median of the iterations counts.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from detrcli.checkpoints.dataset_classes import COCO
from detrcli.checkpoints.find import find
from detrcli.checkpoints.load import load_checkpoint
from detrcli.checkpoints.save import save_model
from detrcli.datasets.unlabeled import read_unlabeled
from detrcli.export.int8 import export_int8
from detrcli.export.onnx import export_onnx
from detrcli.training.initial_model import from_scratch

DETR = [sys.executable, "-m", "detrcli"]
PEER = """
import json, sys
from pathlib import Path
import torch
from PIL import Image
from torch.utils.data import DataLoader
from transformers import AutoImageProcessor, AutoModelForObjectDetection

model, folder, workers, output = sys.argv[1:]
processor = AutoImageProcessor.from_pretrained(model)
network = AutoModelForObjectDetection.from_pretrained(model).eval()

def read(paths):
    images = [Image.open(path).convert("RGB") for path in paths]
    return paths, [(one.height, one.width) for one in images], processor(images=images, return_tensors="pt")

paths = sorted(Path(folder).iterdir())
loader = DataLoader(paths, batch_size=8, collate_fn=read, num_workers=int(workers))
with torch.inference_mode(), open(f"{output}/found.jsonl", "w") as file:
    for names, sizes, inputs in loader:
        found = processor.post_process_object_detection(network(**inputs), threshold=0.5, target_sizes=sizes)
        for name, one in zip(names, found):
            labels = [network.config.id2label[label] for label in one["labels"].tolist()]
            record = {"path": str(name), "scores": one["scores"].tolist(), "labels": labels}
            file.write(json.dumps(record | {"boxes": one["boxes"].tolist()}) + "\\n")
"""


def main() -> None:
    """Print the time of each, and its ratio to transformers' time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--iterations", type=int, default=1)
    options = parser.parse_args()
    with TemporaryDirectory() as place:
        root = Path(place)
        folder, weights = root / "images", root / "tiny"
        repeat(options.photographs, folder, options.images)
        save_model(from_scratch("lwdetr-tiny", COCO, size=None, seed=0), weights)
        loaded = load_checkpoint(find(str(weights)))
        onnx = export_onnx(loaded, root / "tiny.onnx", source="random").path
        int8 = export_int8(loaded, root / "int8.onnx", read_unlabeled(options.photographs), source="random").path
        networks = networks_alone(weights, onnx, int8)
        print("images/s of the network alone:", {name: round(rate, 2) for name, rate in networks.items()}, flush=True)
        commands = {
            f"transformers, {workers} loading processes": [
                sys.executable, "-c", PEER, str(weights), str(folder), str(workers)
            ]
            for workers in (0, 1)
        }  # fmt: skip
        predict = [*DETR, "predict", str(folder), "--device", "cpu", "--format", "json"]
        for name, model, *more in (
            ("torch", weights, "--no-draw"),
            ("onnxruntime", onnx, "--no-draw", "--engine", "onnxruntime"),
            ("openvino", onnx, "--no-draw", "--engine", "openvino"),
            ("openvino int8", int8, "--no-draw", "--engine", "openvino"),
            ("torch, drawn", weights, "--draw"),
        ):
            commands[name] = [*predict, "--model", str(model), *more, "--output"]
        taken: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(options.iterations):
            for name, command in commands.items():
                with TemporaryDirectory(dir=root) as output:
                    began = time.perf_counter()
                    run = subprocess.run([*command, output], check=True, capture_output=True, text=True)
                    taken[name].append(time.perf_counter() - began)
                print(f"{name}: {taken[name][-1]:.1f} s", *run.stderr.splitlines()[-1:], sep="; ", flush=True)
    seconds = {name: statistics.median(values) for name, values in taken.items()}
    best = min(value for name, value in seconds.items() if name.startswith("transformers"))
    for name, value in seconds.items():
        rate = options.images / value
        line = f"{name}: {value:.1f} s, {rate:.2f} images/s, {value / best:.2f} of transformers' time"
        network = networks.get(name.partition(",")[0])
        print(line if network is None else f"{line}, {rate / network:.2f} of the network's rate")


def networks_alone(weights: Path, file: Path, int8: Path) -> dict[str, float]:
    """Images per second of the network in each engine at batch size 1, from `detr bench`."""
    rates = {}
    for name, model in (("torch", weights), ("onnxruntime", file), ("openvino", file), ("openvino int8", int8)):
        engine = [] if name == "torch" else ["--engine", name.partition(" ")[0]]
        bench = [*DETR, "bench", str(model), "--device", "cpu", *engine]
        (result,) = json.loads(subprocess.run(bench, check=True, capture_output=True).stdout)["results"]
        rates[name] = 1 / result["network"]["median"]
    return rates


def repeat(photographs: Path, folder: Path, count: int) -> None:
    """Fill a folder with `count` copies of the photographs."""
    folder.mkdir()
    files = sorted(photographs.iterdir())
    for number in range(count):
        source = files[number % len(files)]
        (folder / f"{number:05}{source.suffix}").write_bytes(source.read_bytes())


if __name__ == "__main__":
    main()
