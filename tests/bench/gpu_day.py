"""All that is to be measured on a GPU, in one run of a few minutes.

    python -m tests.bench.gpu_day [--minutes 8] [--output gpu-day] [--device cuda]

Runs the `gpu` tests; a folder from files to files; and each family's network in 16 bits, with and without CUDA graphs,
compared with transformers'. Needs nothing but this repository, PyTorch and transformers. All weights are random, the
same everywhere. Transformers' networks go from normalized pixels on the device to logits, ours from resized pixels in
the host's memory to detections there.

OUTPUT gets `gpu_day.md` and `gpu_day.json`, which are complete after each measurement. One that fails is a row that
says why, and one that no longer fits into the time is left out. `--device cpu --quick` does the same with small images
in about a minute.
"""

import argparse
import json
import logging
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
import transformers
from PIL import Image
from transformers import AutoModelForObjectDetection

import detrcli
from detrcli.checkpoints.bundled import sample_image
from detrcli.checkpoints.dataset_classes import COCO
from detrcli.checkpoints.save import save_model
from detrcli.files import atomic_file
from detrcli.host import cores, keep_freed_memory
from detrcli.inference import cuda_graphs
from detrcli.inference.backend import Measurable
from detrcli.training.initial_model import from_scratch

from .timing import inference, medians

ROOT = Path(__file__).parents[2]
MODELS = (
    *("lwdetr-tiny", "detr-resnet-50", "rfdetr-nano", "table-transformer-detection"),
    *("lwdetr-medium", "rfdetr-medium", "lwdetr-xlarge"),
)
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
SETTLING = 3
"""Batches after which a shape that recurs has its graph."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        device: cuda or cpu.
        models: names of the networks.
        precisions: of the networks.
        batch_sizes: of the networks.
        side: of the networks' images, or None for each model's own.
        seconds: for each network in each precision and batch size, for all its forms.
        images: in the folder.
        tests: arguments of pytest.
    """

    device: Literal["cuda", "cpu"]
    models: tuple[str, ...] = MODELS
    precisions: tuple[Literal["fp32", "fp16", "bf16"], ...] = ("fp16", "bf16")
    batch_sizes: tuple[int, ...] = (1, 8, 32)
    side: int | None = None
    seconds: float = 2
    images: int = 2000
    tests: tuple[str, ...] = ("tests",)


def quick_plan(device: Literal["cuda", "cpu"]) -> Plan:
    """The same with small images, few of them, and one of each kind of network."""
    return Plan(
        device,
        models=("lwdetr-tiny", "detr-resnet-50"),
        precisions=("fp32",),
        batch_sizes=(1, 2),
        side=256,
        seconds=0.1,
        images=4,
        tests=("tests/inference/test_cuda_graphs.py",),
    )


@dataclass(frozen=True)
class Measurement:
    """Something to measure.

    Attributes:
        kind: the table that it belongs to.
        name: of the row.
        seconds: that it will take, roughly.
        run: does it, and returns the other columns.
    """

    kind: str
    name: Row
    seconds: float
    run: Callable[[], Row]


@dataclass
class Report:
    """Rows that are written whenever one is added.

    Attributes:
        folder: where the files are.
        environment: what all of it was measured with.
        rows: of each kind of measurement.
    """

    folder: Path
    environment: Row
    rows: dict[str, list[Row]] = field(default_factory=dict)

    def add(self, kind: str, row: Row) -> None:
        """Add a row, print it, and write the files anew."""
        self.rows.setdefault(kind, []).append(row)
        print(f"{kind}:", ", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        whole = {"environment": self.environment, **self.rows}
        for name, text in {"gpu_day.json": json.dumps(whole, indent=1), "gpu_day.md": self._markdown()}.items():
            with atomic_file(self.folder / name) as file:
                file.write(text.encode())

    def _markdown(self) -> str:
        lines = [", ".join(f"{key} {value}" for key, value in self.environment.items())]
        for kind, rows in self.rows.items():
            columns = list(dict.fromkeys(key for row in rows for key in row))
            lines += ["", f"## {kind}", "", _line(columns), _line(["---"] * len(columns))]
            lines += [_line(row.get(one, "") for one in columns) for row in rows]
        return "\n".join(lines) + "\n"


def _line(cells: Iterable[object]) -> str:
    return f"| {' | '.join(str(one).replace('|', '/') for one in cells)} |"


def main() -> int:
    """Measure everything that fits into the time; returns whether something failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--output", type=Path, default=Path("gpu-day"))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    end = time.monotonic() + 60 * options.minutes
    plan = quick_plan(options.device) if options.quick else Plan(options.device)
    keep_freed_memory()
    failed = False
    with TemporaryDirectory() as place:
        report = Report(options.output, environment(plan))
        for one in measurements(plan, Path(place), options.minutes):
            if time.monotonic() + one.seconds > end:
                report.add(one.kind, one.name | {"note": "left out for lack of time"})
                continue
            try:
                row = one.run()
            except Exception as error:  # whatever it is, the rest is still worth measuring
                failed = True
                row = {"note": f"failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}"}
            report.add(one.kind, one.name | row)
    return int(failed)


def measurements(plan: Plan, place: Path, minutes: float) -> Iterator[Measurement]:
    """Everything, the most important first."""
    limit = 20 * minutes
    yield Measurement("tests", {"tests": " ".join(plan.tests)}, limit / 2, partial(run_tests, plan, limit))
    yield Measurement("folder", {"images": plan.images}, 30, partial(label_folder, plan, place))
    for batch in plan.batch_sizes:
        for precision in plan.precisions:
            for name in plan.models:
                row = {"network": name, "precision": precision, "batch": batch}
                run = partial(measure_network, plan, place, name, precision, batch)
                yield Measurement("networks", row, 4 * plan.seconds, run)


def environment(plan: Plan) -> Row:
    """What is measured with what."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "command": " ".join(["python -m tests.bench.gpu_day", *sys.argv[1:]]),
        "device": torch.cuda.get_device_name() if plan.device == "cuda" else platform.machine(),
        "cores": cores(),
        "torch": torch.__version__,
        "CUDA": torch.version.cuda,
        "transformers": transformers.__version__,
        "detrcli": detrcli.__version__,
    }


def run_tests(plan: Plan, limit: float) -> Row:
    """Run the tests that need a GPU."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", *plan.tests]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=limit)
    failures = [line for line in run.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if run.returncode:
        raise RuntimeError("; ".join(failures) or run.stdout[-200:] + run.stderr[-200:])
    return {"result": run.stdout.splitlines()[-1].strip("= ")}


def label_folder(plan: Plan, place: Path) -> Row:
    """Label a folder with LW-DETR-tiny by `detr predict`."""
    folder, weights = place / "images", model(plan, place, "lwdetr-tiny")
    folder.mkdir()
    content = sample_image().read_bytes()
    for number in range(plan.images):
        (folder / f"{number:05}.jpg").write_bytes(content)
    command = [sys.executable, "-m", "detrcli", "predict", str(folder), "--model", str(weights), "--no-draw"]
    command += ["--device", plan.device, "--format", "json", "--output", str(place / "found"), "--verbose"]
    began = time.perf_counter()
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    seconds = time.perf_counter() - began
    if run.returncode:
        raise RuntimeError(run.stderr[-300:])
    stages = re.search(r"time of all threads: (.*)", run.stderr)
    return {
        "seconds": round(seconds, 1),
        "images a second": round(plan.images / seconds, 1),
        "seconds of all threads": stages[1] if stages else "",
    }


def measure_network(plan: Plan, place: Path, name: str, precision: Literal["fp32", "fp16", "bf16"], batch: int) -> Row:
    """Time a network in its forms in turn."""
    weights = model(plan, place, name)
    loaded = {
        form: detrcli.load(weights, device=plan.device, precision=precision)
        for form in (("eager", "graphs") if plan.device == "cuda" else ("eager",))
    }
    pixels = loaded["eager"].resized(Image.new("RGB", (640, 480), "gray"))
    height, width = pixels.shape[:2]
    arguments = [pixels] * batch, [(height, width)] * batch
    runs: dict[str, Callable[[], object]] = {
        form: partial(one.backend.run, *arguments, settled=form == "graphs") for form, one in loaded.items()
    }
    notes = []
    try:
        runs["transformers"] = peer(weights, plan.device, DTYPES[precision], batch, height, width)
    except Exception as error:  # it may have no such model
        notes.append(f"transformers: {type(error).__name__}: {' '.join(str(error).split())[:100]}")
    row: Row = {}
    with logged(cuda_graphs.__name__) as said:
        for form, run in runs.items():
            if plan.device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            for _ in range(SETTLING):
                run()
            if plan.device == "cuda":
                row[f"{form}, peak MB"] = round(torch.cuda.max_memory_allocated() / 1e6)
    began = time.perf_counter()
    for run in runs.values():
        run()
    iterations = max(3, int(plan.seconds / (time.perf_counter() - began)))
    seconds = medians(runs, iterations)
    times: Row = {f"{form}, ms": round(1000 * taken, 2) for form, taken in seconds.items()}
    if "transformers" in seconds:
        times |= {f"{form}, ratio": round(seconds[form] / seconds["transformers"], 3) for form in loaded}
    best = min(seconds[form] for form in loaded)
    times["images a second"] = round(batch / best, 1)
    backend = loaded["eager"].backend
    if isinstance(backend, Measurable):
        gflops, products = backend.gflops(height, width), backend.product_gflops()
        if gflops and products:
            times["share of products"] = round(batch * gflops / best / products, 3)
            times["products, TFLOP/s"] = round(products / 1000, 1)
    notes += said
    return times | row | ({"note": "; ".join(notes)} if notes else {})


def model(plan: Plan, place: Path, name: str) -> Path:
    """Folder with a model of random weights, in the Hub's layout."""
    folder = place / name
    if not folder.exists():
        save_model(from_scratch(name, COCO, size=plan.side, seed=0), folder)
    return folder


def peer(weights: Path, device: str, dtype: torch.dtype, batch: int, height: int, width: int) -> Callable[[], object]:
    """Function that runs transformers' network once, and waits for it."""
    network = AutoModelForObjectDetection.from_pretrained(weights).to(device, dtype).eval()
    run = inference(network, torch.randn(batch, 3, height, width, device=device, dtype=dtype))

    def run_and_wait() -> None:
        run()
        if device == "cuda":
            torch.cuda.synchronize()

    return run_and_wait


@contextmanager
def logged(name: str) -> Iterator[list[str]]:
    """Messages of a logger while the block runs."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger(name)
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)


if __name__ == "__main__":
    sys.exit(main())
