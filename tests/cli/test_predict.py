"""`detr predict` as users run it: real processes on real files, with a tiny model."""

import json
import os
import re
import resource
import signal
import struct
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from detrcli.cli.console import printable
from detrcli.images.decode import read_image

from ..detr_process import PATIENCE, PIPES, PythonProcess, detr, on_a_terminal, python, start
from ..tiny import QUERIES, save_tiny

Record = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """Result of a process."""

    code: int
    stdout: str
    stderr: str

    @property
    def records(self) -> list[Record]:
        return [json.loads(line) for line in self.stdout.splitlines()]

    @property
    def paths(self) -> list[str]:
        return [record["path"] for record in self.records]

    @property
    def messages(self) -> list[str]:
        return self.stderr.splitlines()


@dataclass(frozen=True)
class Place:
    """Working folder with a model."""

    folder: Path

    @property
    def options(self) -> list[str]:
        return ["--model", "model", "--threshold", "0", "--device", "cpu", "--precision", "fp32"]

    def detr(self, *arguments: str, **options: Any) -> Run:
        run = detr("predict", *arguments, cwd=self.folder, **options)
        return Run(run.returncode, run.stdout, run.stderr)

    def python(self, code: str, *arguments: str) -> Run:
        run = python(code, "predict", *arguments, cwd=self.folder)
        return Run(run.returncode, run.stdout, run.stderr)

    def start(self, *arguments: str) -> PythonProcess:
        return start("predict", *arguments, cwd=self.folder, **PIPES)

    def on_a_terminal(self, *arguments: str) -> str:
        """What a terminal shows of a run that ends well, without colors and movements."""
        return on_a_terminal("predict", *arguments, cwd=self.folder)

    def files(self, folder: str) -> list[str]:
        """All files in a folder, except those in `.detr`."""
        root = self.folder / folder
        files = (path.relative_to(root) for path in root.rglob("*") if not path.is_dir())
        return sorted(path.as_posix() for path in files if ".detr" not in path.parts)


def noise(seed: int, width: int = 90, height: int = 60) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 9, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.NEAREST)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "model"
    save_tiny(folder)
    return folder


def new_place(folder: Path, model: Path) -> Place:
    (folder / "model").symlink_to(model)
    return Place(folder)


@pytest.fixture
def place(tmp_path: Path, model: Path) -> Place:
    return new_place(tmp_path, model)


@pytest.fixture
def trio(place: Place) -> Place:
    """Place with three good images, p/0.jpg, p/1.jpg and p/2.jpg."""
    (place.folder / "p").mkdir()
    for number in range(3):
        noise(number).save(place.folder / "p" / f"{number}.jpg")
    return place


def small_bomb() -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    body = b"IDAT" + zlib.compress(bytes(1000))
    chunks = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, body, b"IEND"))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


SIZES = {
    "animated.gif": (90, 60),
    "cmyk.jpg": (90, 60),
    "deep.png": (60, 90),
    "grey.png": (90, 60),
    "long.png": (20_000, 10),
    "noise.jpg": (64, 64),
    "noise2.jpg": (64, 64),
    "palette.png": (90, 60),
    "point.png": (1, 1),
    "turned.jpg": (60, 90),
}
"""Upright sizes of the good images."""

FAULTS = {
    "x-bomb.png": "too many pixels",
    "x-cut.jpg": "damaged",
    "x-cut.png": "damaged",
    "x-empty.png": "empty",
    "x-folder.jpg": "is a directory",
    "x-two\nlines.jpg": "not an image",
}
"""Bad images, and a part of their messages."""


def make_mixed(folder: Path) -> None:
    folder.mkdir()
    frames = [noise(1), noise(2), noise(3)]
    frames[0].save(folder / "animated.gif", save_all=True, append_images=frames[1:])
    noise(4).convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(np.random.default_rng(5).integers(0, 65_536, (90, 60), np.uint16)).save(folder / "deep.png")
    noise(6).convert("L").save(folder / "grey.png")
    noise(7, 20_000, 10).save(folder / "long.png")
    noise(8, 64, 64).save(folder / "noise.jpg")
    noise(9, 64, 64).save(folder / "noise2.jpg")
    noise(10).quantize(16).save(folder / "palette.png", transparency=0)
    noise(11, 1, 1).save(folder / "point.png")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    noise(12).save(folder / "turned.jpg", exif=exif)

    (folder / "x-bomb.png").write_bytes(small_bomb())
    (folder / "x-cut.jpg").write_bytes((folder / "noise.jpg").read_bytes()[:-300])
    (folder / "x-cut.png").write_bytes((folder / "grey.png").read_bytes()[:-100])
    (folder / "x-empty.png").touch()
    (folder / "x-folder.jpg").mkdir()
    (folder / "x-two\nlines.jpg").write_text("no image at all\n" * 100)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Place:
    place = new_place(tmp_path_factory.mktemp("mixed"), model)
    make_mixed(place.folder / "images")
    return place


@pytest.fixture(scope="module")
def mixed_run(mixed: Place) -> Run:
    return mixed.detr("images", *mixed.options, "--batch-size", "1", "--output", "out")


def test_each_bad_image_is_one_line_on_stderr(mixed_run: Run) -> None:
    assert mixed_run.code == 1
    *messages, summary, stages = mixed_run.messages
    assert len(messages) == len(FAULTS)
    for message, (name, fault) in zip(messages, FAULTS.items(), strict=True):
        assert message.startswith(f"detr: images/{printable(name)}: ")
        assert fault in message
    good = len(SIZES)
    assert summary.startswith(f"{good} images, {good * QUERIES} detections (")
    assert re.search(rf", {len(FAULTS)} failed \(([a-z0-9 ,]+); see out/failures.jsonl\), ", summary)
    assert stages.startswith("time of all threads: read ")


def test_failures_are_listed(mixed: Place, mixed_run: Run) -> None:
    failures = [json.loads(line) for line in (mixed.folder / "out/failures.jsonl").read_text().splitlines()]
    assert [failure["path"] for failure in failures] == [f"images/{name}" for name in FAULTS]
    assert [f"detr: {printable(failure['reason'])}" for failure in failures] == mixed_run.messages[: len(FAULTS)]
    kinds = ["too large", "damaged", "damaged", "empty", "not a file", "not an image"]
    assert [failure["kind"] for failure in failures] == kinds


def test_each_good_image_is_one_json_object_in_order(mixed_run: Run) -> None:
    assert mixed_run.paths == [f"images/{name}" for name in SIZES]
    for record, (width, height) in zip(mixed_run.records, SIZES.values(), strict=True):
        assert list(record) == ["path", "size", "model", "detections"]
        assert record["size"] == {"width": width, "height": height}
        assert record["model"] == "model"
        scores = [found["score"] for found in record["detections"]]
        assert scores == sorted(scores, reverse=True)
        assert len(scores) == QUERIES
        for found in record["detections"]:
            assert found["label"] == f"thing {found['label_id']}"
            x1, y1, x2, y2 = found["box"]
            assert 0 <= x1 <= x2 <= width
            assert 0 <= y1 <= y2 <= height


def test_each_good_image_has_an_annotated_image_and_nothing_else(mixed: Place, mixed_run: Run) -> None:
    assert mixed.files("out") == sorted([*SIZES, "failures.jsonl"])
    for name, size in SIZES.items():
        source, annotated = (read_image(mixed.folder / folder / name) for folder in ("images", "out"))
        assert annotated.image.size == size
        assert annotated.format == source.format
        assert (np.asarray(annotated.image) != np.asarray(source.image)).any()


def same(one: Record, other: Record) -> None:
    assert (one["path"], one["size"]) == (other["path"], other["size"])
    ours, theirs = one["detections"], other["detections"]
    assert [found["label"] for found in ours] == [found["label"] for found in theirs]
    np.testing.assert_allclose([d["box"] for d in ours], [d["box"] for d in theirs], rtol=0, atol=1e-3)
    np.testing.assert_allclose([d["score"] for d in ours], [d["score"] for d in theirs], rtol=0, atol=1e-4)


def test_predictions_do_not_depend_on_batches_or_order(mixed: Place, mixed_run: Run) -> None:
    names = [f"images/{name}" for name in SIZES]
    names = [*names, *reversed(names)]
    run = mixed.detr(*names, *mixed.options, "--batch-size", "8", "--no-draw")
    assert run.code == 0
    assert run.paths == names
    for one, other in zip(run.records, [*mixed_run.records, *reversed(mixed_run.records)], strict=True):
        same(one, other)


def test_filters(mixed: Place, mixed_run: Run) -> None:
    def selected(threshold: float, label: str | None, limit: int | None) -> list[list[Record]]:
        return [
            [d for d in record["detections"] if d["score"] > threshold and label in (None, d["label"])][:limit]
            for record in mixed_run.records
        ]

    label, _ = Counter(d["label"] for record in mixed_run.records for d in record["detections"]).most_common(1)[0]
    scores = sorted(d["score"] for record in mixed_run.records for d in record["detections"] if d["label"] == label)
    threshold = (scores[2] + scores[3]) / 2
    expected = selected(threshold, label, 1)
    for weaker in (selected(0, label, 1), selected(threshold, None, 1), selected(threshold, label, None)):
        assert weaker != expected  # each of the three filters does something here

    run = mixed.detr(
        *(f"images/{name}" for name in SIZES),
        *mixed.options,
        *("--threshold", str(threshold), "--class", label.upper(), "--max-detections", "1", "--no-draw"),
    )
    assert [record["detections"] for record in run.records] == expected


@pytest.fixture(scope="module")
def sized_run(mixed: Place) -> Run:
    stretched = read_image(mixed.folder / "images" / "noise.jpg").image.resize((96, 64), Image.Resampling.BILINEAR)
    stretched.save(mixed.folder / "stretched.png")
    options = ("--image-size", "96x64", "--no-draw", "--verbose")
    return mixed.detr("images/noise.jpg", "stretched.png", *mixed.options, *options)


def test_image_size_changes_the_networks_input_but_not_the_boxes_units(mixed_run: Run, sized_run: Run) -> None:
    square, wide = sized_run.records
    assert (square["size"], wide["size"]) == ({"width": 64, "height": 64}, {"width": 96, "height": 64})
    for found in wide["detections"]:
        x1, y1, x2, y2 = found["box"]
        found["box"] = [x1 * 64 / 96, y1, x2 * 64 / 96, y2]
    same(square, {**wide, "path": square["path"], "size": square["size"]})
    (as_the_model_says,) = (record for record in mixed_run.records if record["path"] == square["path"])
    assert square["detections"] != as_the_model_says["detections"]


def test_verbose_names_the_model_and_the_device(sized_run: Run) -> None:
    first, note, summary, _ = sized_run.messages
    assert first.startswith("model on cpu, fp32, ")
    assert note == "model: the backbone is not dilated (no DC5), according to config.json"
    assert summary.startswith(f"2 images, {2 * QUERIES} detections (")


@pytest.fixture(scope="module")
def quiet_run(mixed: Place) -> Iterator[Run]:
    before = mixed.files(".")
    yield mixed.detr("images/**/*.png", *mixed.options, "--no-draw", "--quiet", "--output", "nowhere")
    assert mixed.files(".") == before


def test_a_glob_in_quotes(quiet_run: Run) -> None:
    assert quiet_run.paths == [f"images/{name}" for name in SIZES if name.endswith(".png")]


def test_quiet_prints_only_errors(quiet_run: Run) -> None:
    assert quiet_run.code == 1
    expected = [f"detr: images/{name}" for name in FAULTS if name.endswith(".png")]
    assert [": ".join(line.split(": ")[:2]) for line in quiet_run.messages] == expected


def test_without_annotated_images_and_formats_nothing_is_written(mixed: Place, quiet_run: Run) -> None:
    assert quiet_run.records
    assert not (mixed.folder / "nowhere").exists()


TREE = ["a.jpg", "a.png", "b/a.jpg", "b/c d/a.jpg", "b/c d/ünï 🦊.webp"]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Place:
    place = new_place(tmp_path_factory.mktemp("tree"), model)
    for number, name in enumerate(TREE):
        path = place.folder / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise(number).save(path)
    earlier = place.folder / "tree" / "out" / "earlier.jpg"
    earlier.parent.mkdir()
    noise(99).save(earlier)
    return place


@pytest.fixture(scope="module")
def tree_run(tree: Place) -> Run:
    formats = ("--format", "json", "--format", "jsonl", "--format", "csv", "--format", "json")
    return tree.detr("tree", "--recursive", *tree.options, "--output", "tree/out", *formats)


def test_a_tree_of_good_images(tree_run: Run) -> None:
    assert tree_run.code == 0
    assert tree_run.paths == [f"tree/{name}" for name in TREE]
    summary, _ = tree_run.messages
    assert summary.startswith(f"{len(TREE)} images, {len(TREE) * QUERIES} detections (")
    assert "failed" not in summary


def test_outputs_mirror_the_tree(tree: Place, tree_run: Run) -> None:
    jsons = [f"{name}.json" for name in TREE]
    assert tree.files("tree/out") == sorted([*TREE, *jsons, "detections.csv", "detections.jsonl", "earlier.jpg"])


def test_every_format_agrees_with_stdout(tree: Place, tree_run: Run) -> None:
    out = tree.folder / "tree" / "out"
    assert [json.loads((out / f"{name}.json").read_text()) for name in TREE] == tree_run.records
    assert (out / "detections.jsonl").read_text() == tree_run.stdout
    assert len((out / "detections.csv").read_text("utf-8").splitlines()) == 1 + len(TREE) * QUERIES


def test_a_list_on_stdin(place: Place) -> None:
    here = place.folder / "here"
    (here / "sub").mkdir(parents=True)
    names = [b"a.jpg", b"sub/b c.jpg", b"odd\xff.jpg", os.fsencode(place.folder / "outside.jpg")]
    for number, name in enumerate(names):
        noise(number).save(here / os.fsdecode(name), "JPEG")
    listed = b"a.jpg\n\nsub/b c.jpg\r\nmissing.jpg\nodd\xff.jpg\n" + names[3]
    (here / "model").symlink_to(place.folder / "model")

    run = Place(here).detr("-", *place.options, "--output", "out", stdin=listed)
    assert run.code == 1
    assert [os.fsencode(path) for path in run.paths] == names
    assert run.messages[0] == "detr: missing.jpg: no such file or directory"
    outside = "_outside/" + str(place.folder / "outside.jpg").lstrip("/")
    annotated_images = [outside, "a.jpg", os.fsdecode(b"odd\xff.jpg"), "sub/b c.jpg"]
    assert Place(here).files("out") == sorted([*annotated_images, "failures.jsonl"])


@pytest.mark.parametrize("arguments", [["-"], ["-", "--format", "jsonl"]])
def test_an_empty_list_is_no_error(place: Place, arguments: Sequence[str]) -> None:
    run = place.detr(*arguments, *place.options)
    assert (run.code, run.stdout, run.messages) == (0, "", ["the list names no images"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["p", "--format", "xml"], "'xml' is not one of json, jsonl, csv"),
        (["p", "--threshold", "2"], "'--threshold'"),
        (["p", "--max-detections", "0"], "'--max-detections'"),
        (["p", "--precision", "fp8"], "'--precision'"),
        (["p", "--model", "no-such-model"], "no model is called 'no-such-model'"),
        (["p", "--model", "./no/such/model"], "no such file or folder: ./no/such/model"),
        (["p", "--model", "no-such-model.safetensors"], "no such file or folder: no-such-model.safetensors"),
        (["p", "--image-size", "0"], "--image-size takes one number below 100000, or WIDTHxHEIGHT, not '0'"),
        (["p", "--image-size", "96x64x3"], "or WIDTHxHEIGHT, not '96x64x3'"),
        (["p", "--image-size", "100000x64"], "number below 100000, or WIDTHxHEIGHT, not '100000x64'"),
        (["p", "--model", "model", "--device", "toaster"], "no device is called 'toaster'; there are auto, cpu, cuda"),
        (["p", "--model", "model", "--class", "thign 3"], "no class 'thign 3'; did you mean 'thing 3'"),
        (["empty", "--model", "model"], "no images in empty; --recursive"),
        (["none/*.jpg", "--model", "model"], "no images in none/*.jpg"),
        (["p", "--model", "model", "--output", "p"], "would overwrite the images"),
        (["p/0.jpg", "--model", "model", "--output", "empty/../p"], "would overwrite the images"),
        (["-", "--model", "model", "--output", "."], "would overwrite the images"),
        (["--files-from", "list.txt", "--model", "model", "--output", "."], "would overwrite the images"),
        (["p", "--model", "none", "--resume", "--no-draw"], "--resume needs a run that writes files"),
        (["--model", "model"], "name at least one image; `detr predict --model demo` has one of its own"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage(trio: Place, arguments: Sequence[str], message: str) -> None:
    (trio.folder / "empty").mkdir()
    before = {name: (trio.folder / "p" / name).read_bytes() for name in trio.files("p")}
    run = trio.detr(*arguments)
    assert run.code == 2
    assert run.stdout == ""
    assert message in run.messages[-1]
    assert "Traceback" not in run.stderr
    assert {name: (trio.folder / "p" / name).read_bytes() for name in trio.files("p")} == before
    assert not (trio.folder / "detections").exists()


@pytest.mark.parametrize(
    ("arguments", "written"),
    [
        (["p", "-r", "-o", "."], {"0.jpg", "1.jpg", "2.jpg", "sub/3.jpg"}),
        (["p/*.jpg", "-o", "."], {"0.jpg", "1.jpg", "2.jpg"}),
        (["p", "-r", "-o", "p", "-f", "labelme", "--no-draw"], {"p/0.json", "p/1.json", "p/2.json", "p/sub/3.json"}),
        (["p", "-r", "-o", "p", "-f", "voc", "--no-draw"], {"p/0.xml", "p/1.xml", "p/2.xml", "p/sub/3.xml"}),
        (
            ["p", "-r", "-o", ".", "-f", "yolo", "--no-draw"],
            {*(f"labels/{name}.txt" for name in ("0", "1", "2", "sub/3")), "data.yaml"},
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_outputs_beside_or_above_the_images(trio: Place, arguments: Sequence[str], written: set[str]) -> None:
    (trio.folder / "p" / "sub").mkdir()
    noise(3).save(trio.folder / "p" / "sub" / "3.jpg")
    before = set(trio.files("."))
    for _ in range(2):
        run = trio.detr(*arguments, *trio.options)
        assert run.code == 0, run.stderr
        assert len(run.paths) == (3 if "p/*.jpg" in arguments else 4)
        assert set(trio.files(".")) - before == written


def test_images_only_in_the_output_folder_are_an_error_that_says_so(trio: Place) -> None:
    run = trio.detr(".", "--recursive", *trio.options, "--output", "p", "--format", "labelme", "--no-draw")
    assert run.code == 2
    assert run.messages == ["detr: no images in . outside p, the output folder"]


def test_a_tilde_that_the_shell_leaves_is_expanded(trio: Place) -> None:
    options = [*trio.options, "--output=~/out", "--no-draw", "--format=json", "--files-from=~/list"]
    home = {"HOME": str(trio.folder)}
    (trio.folder / "list").write_text("p/0.jpg")
    run = trio.detr("~/p/1.*", *options, settings=home)
    assert run.code == 0, run.stderr
    assert trio.files("out") == ["p/0.jpg.json", "p/1.jpg.json"]
    assert not (trio.folder / "~").exists()
    for option in ("--image-ids", "--font", "--class-names"):
        run = trio.detr("~/p/1.*", "--format=coco", f"{option}=~/nothing", "--output=~/other", settings=home)
        assert run.code == 2
        assert str(trio.folder / "nothing") in run.stderr, option


def test_a_stderr_that_cannot_be_written_changes_nothing(trio: Place) -> None:
    (trio.folder / "p" / "bad.jpg").write_bytes(b"bad")
    reading, gone = os.pipe()
    os.close(reading)
    with open("/dev/full", "wb") as full:
        for stderr in (full.fileno(), gone):
            for sources, code in (
                (["p/0.jpg", "p/1.jpg"], 0),
                (["p/0.jpg", "p/1.jpg", "--log-json"], 0),
                (["p"], 1),
                (["nowhere/*.jpg"], 2),
            ):
                run = trio.detr(*sources, *trio.options, "--no-draw", "--verbose", stderr=stderr)
                assert run.code == code
                assert len(run.stdout.splitlines()) == {0: 2, 1: 3, 2: 0}[code]
    os.close(gone)


def test_a_single_image_that_fails(trio: Place) -> None:
    run = trio.detr("missing.jpg", *trio.options, "--output", "out", "--format", "jsonl")
    assert (run.code, run.stdout) == (1, "")
    assert run.messages == [
        "detr: missing.jpg: no such file or directory",
        "0 images, 0 detections, 1 failed (1 missing)",
    ]
    assert trio.files("out") == ["detections.jsonl"]
    assert (trio.folder / "out" / "detections.jsonl").read_bytes() == b""


def test_an_annotated_image_does_not_replace_another_image(trio: Place) -> None:
    (trio.folder / "p" / "sub").mkdir()
    noise(9).save(trio.folder / "p" / "sub" / "0.jpg")
    before = (trio.folder / "p" / "sub" / "0.jpg").read_bytes()
    run = trio.detr("p", "p/sub", *trio.options, "--output", "p/sub")
    assert (trio.folder / "p" / "sub" / "0.jpg").read_bytes() == before
    assert run.code == 2
    assert "would overwrite" in run.messages[-1]


@pytest.mark.parametrize(
    ("arguments", "target"),
    [
        (["--output", "taken"], "taken"),
        (["--output", "taken/deeper"], "taken/deeper"),
        (["--output", "taken/deeper", "--format", "jsonl", "--no-draw"], "taken/deeper"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_output_that_cannot_be_written(trio: Place, arguments: Sequence[str], target: str) -> None:
    (trio.folder / "taken").write_bytes(b"kept")
    run = trio.detr("p/0.jpg", *trio.options, *arguments)
    assert (run.code, run.stdout) == (2, "")
    (message,) = run.messages
    assert message.startswith(f"detr: cannot write {target}: ")
    assert (trio.folder / "taken").read_bytes() == b"kept"


SEVEN_GIGABYTES = {resource.RLIMIT_AS: 7 * 2**30}


def test_an_image_size_that_does_not_fit_into_memory(trio: Place) -> None:
    run = trio.detr("p/0.jpg", *trio.options, "--no-draw", "--image-size", "9000x9000", limits=SEVEN_GIGABYTES)
    assert "Traceback" not in run.stderr
    assert (run.code, run.stdout) == (2, "")
    assert run.messages[-1].startswith("detr: ")
    assert "--image-size" in run.messages[-1]


def test_an_image_that_does_not_fit_into_memory_once_resized(trio: Place) -> None:
    run = trio.detr("p", *trio.options, "--no-draw", "--image-size", "99999x99999", limits=SEVEN_GIGABYTES)
    assert "Traceback" not in run.stderr
    assert (run.code, run.stdout) == (1, "")
    assert sorted(run.messages[:3]) == [
        f"detr: p/{number}.jpg: not enough memory to resize it to 99999 × 99999" for number in range(3)
    ]


WITH_TOO_LITTLE_MEMORY = """
import sys
from detrcli.images import draw as module
from detrcli.cli import main

draw = module.draw

def fail(image, *others):
    if image.image.getpixel((0, 0)) == FAILS:
        raise ERROR
    return draw(image, *others)

module.draw = fail
sys.argv[0] = "detr"
main()
"""


@pytest.mark.parametrize("error", ["MemoryError()", "OverflowError('x')"])
def test_an_image_that_cannot_be_annotated_does_not_end_a_run(trio: Place, error: str) -> None:
    bad = Image.new("RGB", (90, 60), (1, 2, 3))
    bad.save(trio.folder / "p" / "1.png")
    code = WITH_TOO_LITTLE_MEMORY.replace("FAILS", "(1, 2, 3)").replace("ERROR", error)
    for again in ([], ["--resume"]):
        run = trio.python(code, "p", *trio.options, "--output", "out", *again)
        assert run.code == 1
        assert "Traceback" not in run.stderr
        assert trio.files("out") == ["0.jpg", "1.jpg", "2.jpg", "failures.jsonl"]
        (failure,) = map(json.loads, (trio.folder / "out" / "failures.jsonl").read_text().splitlines())
        assert failure["path"] == "p/1.png"
        assert failure["reason"].startswith("p/1.png: ")


UNDER_A_LIMIT = """
import re, resource, sys
from pathlib import Path
from detrcli.cli import main
from detrcli.detector import Detector

stream = Detector.stream

def limited(*arguments, **options):
    (used,) = re.findall(r"VmSize:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
    resource.setrlimit(resource.RLIMIT_AS, (int(used) * 1024 + 300_000_000,) * 2)
    return stream(*arguments, **options)

Detector.stream = limited
sys.argv[0] = "detr"
main()
"""
"""Once the model is loaded, 300 MB are left."""


def test_an_image_that_does_not_fit_into_memory_does_not_end_a_run(trio: Place) -> None:
    Image.new("1", (12000, 12000)).save(trio.folder / "p" / "1large.png")  # 576 MB in RGB
    options = (*trio.options, "-o", "out", "-f", "jsonl", "--workers", "2")
    (trio.folder / "p" / "2.jpg").rename(trio.folder / "later.jpg")
    printed = []
    for again in ([], ["--resume"]):
        run = trio.python(UNDER_A_LIMIT, "p", *options, *again)
        assert run.code == 1, run.stderr
        printed.append(run.stdout)
        assert "Traceback" not in run.stderr
        found = (trio.folder / "out" / "detections.jsonl").read_text().splitlines()
        assert [json.loads(line)["path"] for line in found] == ["p/0.jpg", "p/1.jpg"]
        (failure,) = map(json.loads, (trio.folder / "out" / "failures.jsonl").read_text().splitlines())
        assert (failure["path"], failure["kind"]) == ("p/1large.png", "too large")
    assert printed[0]
    assert not printed[1]


def test_images_with_too_many_pixels_are_refused(trio: Place) -> None:
    noise(5, 91, 60).save(trio.folder / "p" / "large.jpg")
    run = trio.detr("p", *trio.options, "--no-draw", "--max-pixels", str(90 * 60))
    assert run.code == 1
    assert run.paths == ["p/0.jpg", "p/1.jpg", "p/2.jpg"]
    assert run.messages[0].startswith("detr: p/large.jpg: too many pixels (5460; the limit is 5400)")


def test_heic_images_without_their_package_are_counted_once(trio: Place) -> None:
    from pillow_heif import from_pillow

    for number in range(3):
        from_pillow(noise(number)).save(trio.folder / "p" / f"{number}.heic")
    code = "import sys; sys.modules['pillow_heif'] = None; from detrcli.cli import main; main()"
    run = trio.python(code, "p", *trio.options, "--output", "out", "--format", "jsonl")
    assert run.code == 1
    lines = [line for line in run.stderr.splitlines() if "heif" in line]
    assert lines[0] == "detr: 3 HEIC images cannot be read without pillow-heif: pip install 'detrcli[heif]'"
    assert not any(".heic" in line for line in run.stderr.splitlines())
    assert "3 failed (3 needs pillow-heif; see out/failures.jsonl)" in run.stderr
    failures = map(json.loads, (trio.folder / "out" / "failures.jsonl").read_text().splitlines())
    assert [one["path"] for one in failures] == [f"p/{number}.heic" for number in range(3)]
    alone = trio.python(code, "p/0.heic", *trio.options, "--no-draw")
    assert alone.stderr.startswith("detr: p/0.heic: HEIC needs pillow-heif: pip install 'detrcli[heif]'\n")


def test_heic_images_are_read_and_annotated(trio: Place) -> None:
    from pillow_heif import from_pillow

    from_pillow(noise(0)).save(trio.folder / "p" / "3.heic")
    run = trio.detr("p", *trio.options, "--output", "out")
    assert run.code == 0
    assert run.paths[-1] == "p/3.heic"
    assert "3.heic.png" in trio.files("out")


def test_verbose_says_how_float_images_were_scaled(trio: Place) -> None:
    Image.fromarray(np.array([[0, 1.5]], np.float32)).save(trio.folder / "p" / "a.tif")
    note = "p/a.tif: float values up to 1.5, read as black 0 to white 1"
    assert note in trio.detr("p/a.tif", *trio.options, "--no-draw", "--verbose").messages
    assert note not in trio.detr("p/a.tif", *trio.options, "--no-draw").messages


def test_a_full_disk(trio: Place) -> None:
    run = trio.detr("p", *trio.options, "--output", "out", limits={resource.RLIMIT_FSIZE: 1000})
    assert run.code == 2
    assert [line for line in run.messages if line.startswith("detr: ")] == run.messages[-1:]
    assert run.messages[-1].startswith("detr: cannot write out/0.jpg: File too large; ")
    assert run.messages[-1].endswith("; free some space, then run it again; continue with --resume")
    assert "Traceback" not in run.stderr
    assert trio.files("out") == []


def send(process: PythonProcess, *paths: str) -> None:
    assert process.stdin is not None
    process.stdin.write("".join(f"{path}\n" for path in paths).encode())
    process.stdin.flush()


def test_an_interruption_leaves_only_complete_files(trio: Place) -> None:
    process = trio.start("-", *trio.options, "--output", "out", *("--format", "jsonl", "--format", "csv"))
    assert process.stdout is not None
    send(process, "p/0.jpg", "p/1.jpg")
    lines = [process.stdout.readline() for _ in range(2)]
    process.send_signal(signal.SIGINT)  # it waits for more paths
    rest, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert [json.loads(line)["path"] for line in lines] == ["p/0.jpg", "p/1.jpg"]
    assert rest == b""
    assert b"Traceback" not in stderr
    assert trio.files("out") == ["p/0.jpg", "p/1.jpg"]
    for name in ("p/0.jpg", "p/1.jpg"):
        assert read_image(trio.folder / "out" / name).image.size == (90, 60)


def test_a_reader_that_goes_away_ends_the_run_quietly(trio: Place) -> None:
    process = trio.start("-", *trio.options, "--output", "out", "--format", "jsonl")
    assert process.stdout is not None
    send(process, "p/0.jpg", "p/1.jpg")
    assert json.loads(process.stdout.readline())["path"] == "p/0.jpg"
    process.stdout.close()
    send(process, "p/2.jpg", "p/2.jpg")
    assert process.stdin is not None
    process.stdin.close()
    assert process.stderr is not None
    stderr = process.stderr.read()
    assert process.wait(PATIENCE) == 1
    assert b"Traceback" not in stderr
    assert b"BrokenPipe" not in stderr
    assert b"detr: " not in stderr
    assert not [name for name in trio.files("out") if not name.endswith(".jpg")]
    assert not list((trio.folder / "out").rglob("*.part"))


def test_a_terminal_shows_a_table_for_one_image(trio: Place) -> None:
    screen = trio.on_a_terminal("p/0.jpg", *trio.options, "--output", "out")
    assert "class" in screen
    assert "score" in screen
    assert len(re.findall(r"thing \d +0\.\d{3} +\d+, \d+ – \d+, \d+", screen)) == QUERIES
    assert screen.rstrip().splitlines()[-1] == "annotated image: out/0.jpg"
    assert '"path"' not in screen
    assert trio.files("out") == ["0.jpg"]


def test_a_terminal_shows_a_line_for_each_of_several_images(trio: Place) -> None:
    (trio.folder / "p" / "1.jpg").rename(trio.folder / "p" / "1\n.jpg")
    screen = trio.on_a_terminal("p", *trio.options, "--output", "out").splitlines()
    counts = r"(\d thing \d)(, \d thing \d)*"
    for name in ("0.jpg", r"1\n.jpg", "2.jpg"):
        (line,) = (line for line in screen if f"p/{name}: " in line)
        found = re.search(rf"p/{re.escape(name)}: {counts}", line)
        assert found is not None
        assert sum(int(count) for count in re.findall(r"(\d) thing", found[0])) == QUERIES
    assert screen[-2].startswith(f"3 images, {3 * QUERIES} detections (")
    assert not any('"path"' in line for line in screen)
    assert trio.files("out") == ["0.jpg", "1\n.jpg", "2.jpg"]


def test_a_terminal_shows_nothing_if_quiet(trio: Place) -> None:
    assert trio.on_a_terminal("p", *trio.options, "--output", "out", "--quiet") == ""
    assert trio.files("out") == ["0.jpg", "1.jpg", "2.jpg"]


def test_a_class_name_that_cannot_be_drawn_is_reported_once(tmp_path: Path) -> None:
    save_tiny(tmp_path / "model")
    config = json.loads((tmp_path / "model/config.json").read_text())
    config["id2label"] = dict.fromkeys(config["id2label"], "\U0001f98a")
    config["label2id"] = {"\U0001f98a": 0}
    (tmp_path / "model/config.json").write_text(json.dumps(config))
    for name in ("a.png", "b.png"):
        Image.new("RGB", (64, 64), "teal").save(tmp_path / name)
    arguments = ("a.png", "b.png", "--model", "model", "--threshold", "0", "--device", "cpu")
    settings = {"PATH": str(tmp_path)}  # where there is no fontconfig
    run = detr("predict", *arguments, cwd=tmp_path, settings=settings)
    assert run.returncode == 0, run.stderr
    assert run.stderr.count("no font has all letters of '\U0001f98a'") == 1
    assert "; install a font for the script, such as Noto, or name one with --font\n" in run.stderr
    assert json.loads(run.stdout.splitlines()[0])["detections"][0]["label"] == "\U0001f98a"


def test_an_invalid_font_is_refused_before_anything_starts(tmp_path: Path) -> None:
    run = detr("predict", "--model", "demo", "--font", "absent.ttf", cwd=tmp_path)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == "detr: cannot read the font absent.ttf: cannot open resource\n"
    run = detr("predict", "--model", "demo", "--font", "/dev/null", cwd=tmp_path)
    assert run.returncode == 2
    assert "cannot read the font /dev/null: a device or socket, not a file" in run.stderr
    assert not any(tmp_path.iterdir())
