"""Feed damaged files to detrcli, and keep those that end in a traceback, a hang or an empty message.

    python -m tests.fuzz FOLDER [--target NAME ...] [--minutes N] [--seed N]

Files are written to FOLDER. An input that fails is kept as `bug-TARGET-N/` with its traceback beside it, and the exit
code is 1. `--minutes` applies to each target.
"""

import argparse
import contextlib
import io
import json
import random
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import yaml
from PIL import Image

import detrcli
from detrcli.checkpoints.bundled import bundled, sample_image
from detrcli.checkpoints.find import find
from detrcli.checkpoints.load import load_checkpoint
from detrcli.cli import main as run_detr
from detrcli.datasets import read_dataset
from detrcli.detections import DetectionFilter
from detrcli.errors import DetrError, ImageError
from detrcli.export.onnx import export_onnx
from detrcli.images.decode import read_image
from detrcli.images.draw import draw, save_annotated
from detrcli.images.resize import PILLOW_BILINEAR, Exactly, resize_image

from .datasets.written import as_coco, as_yolo
from .outputs.folders import small_image

KINDS = "JPEG PNG GIF TIFF WEBP BMP PPM TGA ICO JPEG2000 AVIF PCX SGI MPO QOI".split()
MODES = ("RGB", "L", "P", "RGBA", "CMYK", "1", "I;16", "LA", "F")
TIMEOUT = 20
"""Seconds for one input."""
EXTREMES: tuple[Any, ...] = (
    *(None, True, 0, -1, 1, 2**31, 2**63, 10**30, 1e308, -1e308, float("nan"), float("inf"), 0.5, "", "0", "-1", "nan"),
    *("\0", "\n", "a" * 100_000, "../../x", "1e999", [], {}, [[]], [None], {"a": None}, "\ud800"),
)
"""Unexpected values."""

Files = Mapping[str, bytes]


class TimedOut(BaseException):
    """An input took too long."""


@dataclass(frozen=True)
class Target:
    """Reader of files to test.

    Attributes:
        seeds: creates valid inputs in a folder: contents of files by name.
        damaged: first parts of the names of files to damage.
        check: reads the files of an input and returns the outcome in a word.
    """

    seeds: Callable[[Path, random.Random], list[Files]]
    damaged: tuple[str, ...]
    check: Callable[[Path], str]


def mutate(content: bytes, numbers: random.Random) -> bytes:
    """Change, remove, duplicate or truncate bytes, half of the time in the first ones."""
    raw = bytearray(content)
    for _ in range(numbers.choice((1, 1, 2, 4, 16))):
        end = len(raw) if numbers.random() < 0.5 else min(len(raw), 200)
        at = numbers.randrange(max(1, end))
        way = numbers.randrange(6)
        if way <= 2:
            raw[at : at + 1] = bytes([numbers.choice((0, 1, 127, 128, 255, numbers.randrange(256)))])
        elif way == 3:
            del raw[at : at + numbers.randrange(1, 40)]
        elif way == 4:
            raw[at:at] = raw[at : at + numbers.randrange(1, 40)]
        else:
            del raw[at + numbers.randrange(200) :]
    return bytes(raw)


def restructure(content: bytes, name: str, numbers: random.Random) -> bytes:
    """Remove, duplicate or replace a value in JSON lines, JSON or YAML; mutate other files."""
    text = content.decode("utf-8", "replace")
    try:
        if name.endswith(".jsonl"):
            lines = text.splitlines(keepends=True)
            index = numbers.randrange(len(lines))
            line = lines[index]
            changed = json.dumps(_change(json.loads(line), numbers)) + "\n"
            others = ("", line * 2, "{}\n", "null\n", "\0" * 4096, line[: len(line) // 2])
            lines[index] = numbers.choice((*others, changed, changed, changed))
            return "".join(lines).encode("utf-8", "surrogatepass")
        if name.endswith((".yaml", ".yml")):
            return yaml.safe_dump(_change(yaml.safe_load(text), numbers)).encode("utf-8", "surrogatepass")
        return json.dumps(_change(json.loads(text), numbers)).encode("utf-8", "surrogatepass")
    except (ValueError, IndexError, yaml.YAMLError):
        return mutate(content, numbers)


def _change(value: Any, numbers: random.Random) -> Any:
    """Copy a value with a change at a random place."""
    if isinstance(value, dict) and value and numbers.random() < 0.85:
        key = numbers.choice(list(value))
        changed = dict(value)
        if numbers.random() < 0.1:
            del changed[key]
        else:
            changed[key] = _change(value[key], numbers)
        return changed
    if isinstance(value, list) and value and numbers.random() < 0.85:
        index = numbers.randrange(len(value))
        new = [] if numbers.random() < 0.1 else [_change(value[index], numbers)] * numbers.choice((1, 1, 1, 2))
        return [*value[:index], *new, *value[index + 1 :]]
    return numbers.choice(EXTREMES)


def _image_seeds(_: Path, numbers: random.Random) -> list[Files]:
    found: list[Files] = []
    for kind in KINDS:
        for mode in MODES:
            file = io.BytesIO()
            exif = Image.Exif()
            exif[274] = numbers.randrange(1, 9)
            image = small_image(numbers.randrange(1000))
            with contextlib.suppress(OSError, ValueError, KeyError):
                image.convert(mode).save(file, kind, **({"exif": exif} if kind in ("JPEG", "TIFF", "PNG") else {}))
                found.append({"image": file.getvalue()})
    return found


def _check_image(folder: Path) -> str:
    try:
        decoded = read_image(folder / "image")
        pixels = resize_image(decoded.image, Exactly(64, 64), PILLOW_BILINEAR)
        assert pixels.shape == (64, 64, 3)
        assert pixels.dtype == "uint8"
        box = np.array([[1, 1, 20, 20]], np.float32)
        found = DetectionFilter().select(
            box, np.ones(1, np.float32), np.zeros(1, np.int64), ("thing",), decoded.image.size
        )
        if decoded.image.width * decoded.image.height < 10**6:
            save_annotated(draw(decoded, found), decoded, folder / "drawn" / "image")
    except ImageError as error:
        return _check_message(error, error.kind)
    return "decoded"


def _check_message(error: DetrError, kind: str) -> str:
    text = str(error)
    assert text.strip(), "empty message"
    assert len(text) < 2000, f"message of {len(text)} characters"
    return kind


def _model_seeds(_: Path, __: random.Random) -> list[Files]:
    return [{path.name: path.read_bytes() for path in bundled("demo").iterdir() if path.suffix != ".jpg"}]


def _load_and_predict(model: Path) -> str:
    try:
        (found,) = detrcli.load(model, device="cpu").predict(sample_image())
        assert np.isfinite(found.boxes).all()
        assert np.isfinite(found.scores).all()
    except DetrError as error:
        return _check_message(error, type(error).__name__)
    return f"{len(found)} found"


def _onnx_seeds(folder: Path, _: random.Random) -> list[Files]:
    import onnx

    loaded = load_checkpoint(find("demo"))
    path = folder / "demo.onnx"
    export_onnx(loaded, path, source="demo", license="")
    metadata = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    return [{"metadata.json": json.dumps(metadata).encode(), "demo.onnx": path.read_bytes()}]


def _check_onnx(folder: Path) -> str:
    """Check an ONNX file with damaged metadata, whose values are JSON, too."""
    import onnx

    model = onnx.load(folder / "demo.onnx")
    try:
        metadata = json.loads((folder / "metadata.json").read_bytes())
        texts = {str(key): value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
        onnx.helper.set_model_props(model, texts)
        onnx.save(model, folder / "demo.onnx")
    except (ValueError, AttributeError, TypeError):
        return "no file"
    return _load_and_predict(folder / "demo.onnx")


def _dataset_seeds(_: Path, __: random.Random) -> list[Files]:
    boxes = {"a.png": [(0, (4.0, 5.0, 20.0, 25.0)), (1, (1.0, 1.0, 30.0, 20.0))], "b.png": [(1, (3.0, 3.0, 9.0, 9.0))]}
    file = io.BytesIO()
    Image.new("RGB", (40, 30), "teal").save(file, "PNG")
    image = file.getvalue()
    coco = json.dumps(as_coco(boxes, ["ring", "star"])).encode()
    data = yaml.safe_dump(
        {"path": ".", "train": "images", "val": "images", "nc": 2, "names": ["ring", "star"]}
    ).encode()
    labels = {f"labels/{name[0]}.txt": as_yolo(objects).encode() for name, objects in boxes.items()}
    pose = data + b"kpt_shape: [2, 2]\n"
    voc = (
        "<annotation><filename>{}</filename><size><width>40</width><height>30</height><depth>3</depth></size>"
        "<object><name>ring</name><difficult>0</difficult><bndbox><xmin>4</xmin><ymin>5</ymin><xmax>20</xmax>"
        "<ymax>25</ymax></bndbox></object></annotation>"
    )
    labelme: dict[str, Any] = {
        "version": "5.0.0",
        "flags": {},
        "shapes": [{"label": "ring", "points": [[4, 5], [20, 25]], "shape_type": "rectangle", "group_id": None}],
        "imagePath": "a.png",
        "imageData": None,
        "imageHeight": 30,
        "imageWidth": 40,
    }
    yolo_images = {"images/a.png": image, "images/b.png": image}
    return [
        {"annotations.json": coco, "a.png": image, "b.png": image},
        {"data.yaml": data, **labels, **yolo_images},
        {"data.yaml": pose, "labels/a.txt": b"0 .5 .5 .2 .2 .1 .1 .3 .3\n", "labels/b.txt": b"", **yolo_images},
        {"classes.txt": b"ring\nstar\n", **labels, **yolo_images},
        {"Annotations/a.xml": voc.format("a.png").encode(), "JPEGImages/a.png": image},
        {"a.json": json.dumps(labelme).encode(), "a.png": image},
    ]


def _check_dataset(folder: Path) -> str:
    try:
        dataset = read_dataset(folder, "val")
    except DetrError as error:
        return _check_message(error, type(error).__name__)
    for example in dataset.examples:
        assert np.isfinite(example.boxes).all()
        assert ((example.labels >= 0) & (example.labels < len(dataset.classes))).all()
    return "read"


def _journal_seeds(folder: Path, numbers: random.Random) -> list[Files]:
    for number in range(4):
        small_image(number).save(folder / f"{number}.png")
    whole, part = folder / "whole", folder / "part"
    _detr("predict", folder, "-o", whole, "-m", "demo", "-f", "csv", "-f", "voc", "--device", "cpu")
    shutil.copytree(whole, part)
    journal = part / ".detr" / "journal.jsonl"
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:3]))
    return [
        {path.relative_to(top).as_posix(): path.read_bytes() for path in top.rglob("*") if path.is_file()}
        for top in (whole, part)
    ]


def _check_journal(folder: Path) -> str:
    images = folder.parent / "seeds" / "journals"
    for _ in range(2):
        code, message = _detr(
            "predict", images, "-o", folder, "-m", "demo", "-f", "csv", "-f", "voc", "--device", "cpu", "--resume"
        )
        assert code in (0, 1, 2), f"exit code {code}"
        assert "Traceback" not in message, message
        assert message.strip(), "empty message"
    return f"exit code {code}"


def _detr(*arguments: object) -> tuple[int, str]:
    """Run a command in this process and return its exit code and stderr."""
    before, stderr, code = sys.argv, io.StringIO(), 0
    sys.argv = ["detr", *map(str, arguments)]
    try:
        with contextlib.redirect_stderr(stderr), contextlib.redirect_stdout(io.StringIO()):
            run_detr()
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    finally:
        sys.argv = before
    return code, stderr.getvalue()


TARGETS = {
    "images": Target(_image_seeds, ("image",), _check_image),
    "configs": Target(_model_seeds, ("config.json", "preprocessor_config.json"), _load_and_predict),
    "onnx": Target(_onnx_seeds, ("metadata.json",), _check_onnx),
    "datasets": Target(
        _dataset_seeds, ("annotations", "data", "labels", "classes", "Annotations", "a.json"), _check_dataset
    ),
    "journals": Target(_journal_seeds, (".detr/",), _check_journal),
}


def fuzz(name: str, folder: Path, numbers: random.Random, seconds: float) -> Counter[str]:
    """Damage inputs of a target for some time and count the outcomes."""
    target, outcomes = TARGETS[name], Counter[str]()
    work = folder / "seeds" / name
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    valid = target.seeds(work, numbers)
    inputs, end = folder / name, time.monotonic() + seconds
    while time.monotonic() < end:
        files = dict(numbers.choice(valid))
        chosen = numbers.choice([one for one in files if one.startswith(target.damaged)])
        damage = numbers.choice((mutate, partial(restructure, name=chosen)))
        files[chosen] = damage(files[chosen], numbers=numbers)
        shutil.rmtree(inputs, ignore_errors=True)
        for one, content in files.items():
            (inputs / one).parent.mkdir(parents=True, exist_ok=True)
            (inputs / one).write_bytes(content)
        signal.alarm(TIMEOUT)
        try:
            outcomes[target.check(inputs)] += 1
        except (Exception, TimedOut) as error:  # any of these is a bug
            signal.alarm(0)
            outcomes[f"BUG {type(error).__name__}"] += 1
            kept = folder / f"bug-{name}-{outcomes.total()}"
            shutil.rmtree(kept, ignore_errors=True)
            inputs.rename(kept)
            kept.with_suffix(".txt").write_text(f"{chosen}\n{traceback.format_exc()}", errors="replace")
        finally:
            signal.alarm(0)
    return outcomes


def main() -> None:
    """Fuzz each target in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--target", choices=TARGETS, action="append")
    parser.add_argument("--minutes", type=float, default=6)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    def time_out(_: int, __: FrameType | None) -> None:
        raise TimedOut

    signal.signal(signal.SIGALRM, time_out)
    warnings.simplefilter("ignore")
    failed = False
    for name in options.target or TARGETS:
        outcomes = fuzz(name, options.folder, random.Random(options.seed), 60 * options.minutes)
        print(f"{name}: {outcomes.total()} damaged inputs: {dict(outcomes.most_common())}", flush=True)
        failed |= any(outcome.startswith("BUG") for outcome in outcomes)
    sys.exit(failed)


if __name__ == "__main__":
    main()
