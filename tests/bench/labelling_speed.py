"""How fast a folder is labelled with LW-DETR-tiny, beside a batched script with transformers, and beside the network.

    python -m tests.bench.labelling_speed PHOTOGRAPHS [--pictures N]

PHOTOGRAPHS is a folder; its pictures are repeated to N. The same random weights everywhere, 640 × 640, float32, on the
CPU, each a process of its own from its start to its end.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from detrcli.checkpoints.classes import COCO
from detrcli.checkpoints.find import find
from detrcli.checkpoints.load import load_checkpoint
from detrcli.checkpoints.save import save_model
from detrcli.export import export_onnx
from detrcli.training.start import from_scratch

PEER = """
import json, sys
from pathlib import Path
import torch
from PIL import Image
from torch.utils.data import DataLoader
from transformers import AutoImageProcessor, AutoModelForObjectDetection

model, folder, output, workers = sys.argv[1:]
processor = AutoImageProcessor.from_pretrained(model)
network = AutoModelForObjectDetection.from_pretrained(model).eval()

def read(paths):
    pictures = [Image.open(path).convert("RGB") for path in paths]
    return paths, [(one.height, one.width) for one in pictures], processor(images=pictures, return_tensors="pt")

paths = sorted(Path(folder).iterdir())
loader = DataLoader(paths, batch_size=8, collate_fn=read, num_workers=int(workers))
with torch.inference_mode(), open(output, "w") as file:
    for names, sizes, inputs in loader:
        found = processor.post_process_object_detection(network(**inputs), threshold=0.5, target_sizes=sizes)
        for name, one in zip(names, found):
            labels = [network.config.id2label[label] for label in one["labels"].tolist()]
            record = {"path": str(name), "scores": one["scores"].tolist(), "labels": labels}
            file.write(json.dumps(record | {"boxes": one["boxes"].tolist()}) + "\\n")
"""


def main() -> None:
    """Print how long each takes, and what part of the peer's time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--pictures", type=int, default=1024)
    options = parser.parse_args()
    with TemporaryDirectory() as place:
        root = Path(place)
        folder, weights = root / "pictures", root / "tiny"
        repeat(options.photographs, folder, options.pictures)
        save_model(from_scratch("lwdetr-tiny", COCO, size=None, seed=0), weights)
        onnx = export_onnx(load_checkpoint(find(str(weights))), root / "tiny.onnx", source="random").path
        detr = [sys.executable, "-m", "detrcli"]
        bench = [*detr, "bench", str(weights), str(onnx), "--device", "cpu"]
        alone = json.loads(subprocess.run(bench, check=True, capture_output=True).stdout)["results"]
        networks = dict(zip(("torch", "onnx"), (1 / one["network"]["median"] for one in alone), strict=True))
        print("the network alone, a second:", {name: round(rate, 2) for name, rate in networks.items()}, flush=True)
        predict = [*detr, "predict", str(folder), "--device", "cpu", "--format", "json"]
        things = {
            f"transformers, {workers} loading processes": [
                sys.executable, "-c", PEER, str(weights), str(folder), str(root / "out.jsonl"), str(workers)
            ]
            for workers in (0, 1)
        }  # fmt: skip
        for name, model, draw in (("torch", weights, False), ("onnx", onnx, False), ("torch, drawn", weights, True)):
            output = str(root / name)
            things[f"detr predict, {name}"] = [
                *predict, "--model", str(model), "--draw" if draw else "--no-draw", "--output", output
            ]  # fmt: skip
        seconds = {}
        for name, command in things.items():
            began = time.perf_counter()
            run = subprocess.run(command, check=True, capture_output=True, text=True)
            seconds[name] = time.perf_counter() - began
            rate = options.pictures / seconds[name]
            print(
                f"{name}: {seconds[name]:.1f} s, {rate:.2f} a second",
                *run.stderr.splitlines()[-1:],
                sep="; ",
                flush=True,
            )
        best = min(taken for name, taken in seconds.items() if name.startswith("transformers"))
        for name, taken in seconds.items():
            if name.startswith("detr"):
                of_network = options.pictures / taken / networks["onnx" if "onnx" in name else "torch"]
                print(f"{name}: {taken / best:.2f} of transformers' time, {of_network:.2f} of the network's rate")


def repeat(photographs: Path, folder: Path, count: int) -> None:
    """Fill a folder with so many pictures."""
    folder.mkdir()
    files = sorted(photographs.iterdir())
    for number in range(count):
        source = files[number % len(files)]
        (folder / f"{number:05}{source.suffix}").write_bytes(source.read_bytes())


if __name__ == "__main__":
    main()
