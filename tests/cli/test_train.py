"""`detr train` in processes of its own."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoModelForObjectDetection

import detrcli
from detrcli.datasets import read_dataset
from detrcli.datasets.annotations import align_classes
from detrcli.files import lock_directory

from .. import scenes
from ..datasets.written import as_coco, write_image, write_json
from ..detr_process import SETTINGS, PythonProcess, detr, detr_until
from ..tiny import save_tiny
from ..training.two_processes import in_two_processes

SCRATCH = ("--from-scratch", "--model", "lwdetr-nano", "--image-size", "128", "--batch-size", "2", "--no-multi-scale")


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a dataset `shapes` of two splits, a DETR `tiny`, and a folder `foreign` that holds a config.json."""
    place = tmp_path_factory.mktemp("train")
    save_tiny(place / "tiny")
    (place / "foreign").mkdir()
    (place / "foreign/config.json").write_text("{}")
    scenes.write(place / "shapes/train", 6, seed=5)
    scenes.write(place / "shapes/val", 2, seed=6)
    return place


@pytest.fixture(scope="module")
def trained(place: Path) -> subprocess.CompletedProcess[str]:
    return detr("train", "shapes", "--output", "out", "--epochs", 2, *SCRATCH, cwd=place)


def test_progress_and_output_files(place: Path, trained: subprocess.CompletedProcess[str]) -> None:
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout == ""
    lines = trained.stderr.splitlines()
    assert "lwdetr-nano, 10 classes, 6 images, 2 to validate, on cpu" in trained.stderr
    assert [line[:14] for line in lines if line.startswith("epoch")] == ["epoch   1 of 2", "epoch   2 of 2"]
    assert lines[-1] == "try it: detr predict IMAGE --model out"
    written = {path.relative_to(place / "out").as_posix() for path in (place / "out").rglob("*") if path.is_file()}
    model = {"config.json", "model.safetensors", "preprocessor_config.json"}
    assert written == model | {f"last/{name}" for name in model} | {"metrics.jsonl", "curves.png", "resume.pt"}
    assert (place / "out/curves.png").read_bytes().startswith(b"\x89PNG")
    assert [record["epoch"] for record in records(place / "out")] == [1, 2]
    assert set(records(place / "out")[0]) == {
        "epoch", "step", "lr", "loss", "loss_class", "loss_bbox", "loss_giou", "ap", "ap50", "ap75",
    }  # fmt: skip


@pytest.mark.usefixtures("trained")
def test_the_trained_model_predicts_and_evaluates(place: Path) -> None:
    run = detr("predict", "shapes/val/000000.jpg", "--model", "out", "--threshold", 0.0, "--no-draw", cwd=place)
    assert run.returncode == 0, run.stderr
    assert set() < {found["label"] for found in json.loads(run.stdout)["detections"]} <= set(scenes.CLASSES)
    run = detr("eval", "shapes", "--model", "out", cwd=place)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["ap"] == pytest.approx(max(line["ap"] for line in records(place / "out")), abs=1e-6)


@pytest.mark.usefixtures("trained")
def test_transformers_predicts_the_same(place: Path) -> None:
    image = Image.open(place / "shapes/val/000000.jpg")
    processor = AutoImageProcessor.from_pretrained(place / "out", backend="pil")
    network = AutoModelForObjectDetection.from_pretrained(place / "out").eval()
    with torch.inference_mode():
        outputs = network(**processor(image, return_tensors="pt"))
    sizes = [(image.height, image.width)]
    (theirs,) = processor.post_process_object_detection(outputs, threshold=0.0, target_sizes=sizes)
    (ours,) = detrcli.load(place / "out", device="cpu", precision="fp32").predict(image, threshold=0.0)
    count = 20
    assert min(len(ours), len(theirs["scores"])) >= count
    scale = np.array([image.width, image.height] * 2)
    np.testing.assert_allclose(ours.scores[:count], theirs["scores"][:count].numpy(), atol=1e-4)
    limits = np.clip(theirs["boxes"][:count].numpy(), 0, scale)
    np.testing.assert_allclose(ours.boxes[:count] / scale, limits / scale, atol=1e-3)


@pytest.mark.usefixtures("trained")
def test_a_killed_and_resumed_run_equals_an_uninterrupted_one(place: Path) -> None:
    arguments = ("train", "shapes", "--epochs", 2, *SCRATCH)
    detr_until("epoch   1", PythonProcess.kill, *arguments, "--output", "broken", cwd=place)
    run = detr(*arguments, "--output", "broken", cwd=place)
    assert run.returncode == 2
    assert (
        run.stderr.strip() == "detr: broken holds a training run; continue it with --resume, or choose another --output"
    )
    run = detr(*arguments, "--output", "broken", "--resume", cwd=place)
    assert run.returncode == 0, run.stderr
    assert records(place / "broken") == records(place / "out")
    weights = [(place / name / "model.safetensors").read_bytes() for name in ("broken", "out")]
    assert weights[0] == weights[1]
    run = detr(*arguments, "--output", "broken", "--resume", "--lr", 0.5, cwd=place)
    assert run.returncode == 2
    assert "began with lr = 0.0001, not 0.5" in run.stderr


def test_two_runs_cannot_share_an_output(place: Path) -> None:
    with lock_directory(place / "busy"):
        run = detr("train", "shapes", "--epochs", 1, *SCRATCH, "--output", "busy", cwd=place)
    assert run.returncode == 2
    assert run.stderr.splitlines()[-1] == "detr: another run is writing busy; wait for it, or choose another --output"
    assert list((place / "busy").iterdir()) == []


def test_a_pretrained_detr_is_fine_tuned_on_other_classes(place: Path) -> None:
    run = detr(*"train shapes -o tuned --model tiny --epochs 1 --image-size 64 --batch-size 3".split(), cwd=place)
    assert run.returncode == 0, run.stderr
    assert f"tiny matches 0 of {len(scenes.CLASSES)} classes by name" in run.stderr
    run = detr("predict", "shapes/val/000001.jpg", "--model", "tuned", "-t", 0.0, "--no-draw", cwd=place)
    assert set() < {found["label"] for found in json.loads(run.stdout)["detections"]} <= set(scenes.CLASSES)


def test_without_validation_the_last_weights_are_saved(place: Path) -> None:
    (place / "lone").mkdir()
    shutil.copytree(place / "shapes/train", place / "lone/train")
    run = detr("train", "lone", "-o", "unvalidated", "--epochs", 1, *SCRATCH, cwd=place)
    assert run.returncode == 0, run.stderr
    assert (
        "lone has no validation images; to measure AP and keep the best weights, name some with --val-data"
        in run.stderr
    )
    assert "ap" not in records(place / "unvalidated")[0]
    names = ("unvalidated/model.safetensors", "unvalidated/last/model.safetensors")
    assert len({(place / name).read_bytes() for name in names}) == 1


def test_images_are_held_out_for_validation(place: Path) -> None:
    shutil.copytree(place / "shapes/train", place / "single/train")
    shutil.copytree(place / "shapes/val", place / "single/test")  # which stays unseen
    arguments = ("train", "single", "-o", "held out", *SCRATCH, "--val-fraction", 0.3)
    run = detr(*arguments, "--epochs", 2, cwd=place)
    assert run.returncode == 0, run.stderr
    assert "2 of 6 images held out for validation" in run.stderr
    assert "4 images, 2 to validate" in run.stderr
    assert all(record["ap"] is not None for record in records(place / "held out"))
    run = detr(*arguments, "--epochs", 2, "--resume", cwd=place)
    assert run.returncode == 0, run.stderr
    run = detr(*arguments, "--epochs", 2, "--resume", "--seed", 1, cwd=place)
    assert run.returncode == 2
    assert "began with" in run.stderr


@pytest.mark.slow  # three interpreters load PyTorch
def test_torchrun_trains_one_network_in_two_processes(place: Path) -> None:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "detrcli")
    arguments = ("train", "shapes", "--epochs", "1", *SCRATCH, "--device", "cpu", "--precision", "fp32")
    command = [sys.executable, *launcher, *arguments, "-o", "both"]
    run = subprocess.run(command, cwd=place, capture_output=True, text=True, env={**os.environ, **SETTINGS})
    assert run.returncode == 0, run.stderr
    assert run.stderr.count("epoch   1 of 1") == 1
    assert run.stderr.count("have no object") == 2  # reported by one process, once per split
    (record,) = records(place / "both")
    assert record["step"] == 1
    assert detr(*arguments, "-o", "alone", "--batch-size", 4, cwd=place).returncode == 0
    assert record["loss"] == pytest.approx(records(place / "alone")[0]["loss"], rel=1e-5)
    both, alone = (load_file(place / name / "last/model.safetensors") for name in ("both", "alone"))
    assert list(both) == list(alone)
    for name in both:
        torch.testing.assert_close(both[name], alone[name], rtol=1e-4, atol=1e-5, msg=name)
    assert [path.name for path in (place / "both").glob("*.pt")] == ["resume.pt"]


@pytest.mark.slow  # three runs, each of two processes
def test_two_processes_stop_and_resume_together(tmp_path: Path) -> None:
    def train(*arguments: object) -> list[int]:
        runs = in_two_processes("-m", "tests.training.distributed_run", *arguments)
        assert not any("RuntimeError" in run.stdout for run in runs), runs
        return [run.returncode for run in runs]

    assert train(tmp_path / "unbroken") == [0, 0]
    assert train(tmp_path / "broken", "--stop-at", 6) == [-signal.SIGINT, 143]
    assert len(records(tmp_path / "broken")) == 1
    assert train(tmp_path / "broken", "--resume") == [0, 0]
    assert records(tmp_path / "broken") == records(tmp_path / "unbroken")
    weights = [(tmp_path / name / "last/model.safetensors").read_bytes() for name in ("broken", "unbroken")]
    assert weights[0] == weights[1]


def test_ctrl_c_saves_the_state_and_hints_at_resume(place: Path) -> None:
    arguments = ("train", "shapes", "-o", "stopped", "--epochs", 50, *SCRATCH)
    code, messages = detr_until("epoch   1", lambda process: process.send_signal(signal.SIGINT), *arguments, cwd=place)
    assert code == 130
    assert messages.splitlines()[-1] == "stopped; the same command with --resume continues"
    assert "Traceback" not in messages


def test_classes_of_the_validation_split_are_matched_by_name(place: Path) -> None:
    boxes = {"a.png": [(0, (4.0, 4.0, 30.0, 30.0)), (1, (20.0, 10.0, 60.0, 50.0))]}
    for part, classes in (
        ("train", ["ring", "star", "heart"]),
        ("valid", ["star", "ring"]),
        ("test", ["ring", "bolt"]),
    ):
        write_image(place / "ordered" / part / "a.png", (64, 64))
        write_json(place / "ordered" / part / "_annotations.coco.json", as_coco(boxes, classes, (64, 64)))
    data, own = (read_dataset(place / "ordered", split) for split in ("train", "val"))
    aligned = align_classes(own, data.classes)
    assert [aligned.classes[label] for label in aligned.examples[0].labels] == ["star", "ring"]
    assert aligned.problems == own.problems
    fewer = align_classes(read_dataset(place / "ordered", "test"), data.classes)
    assert [fewer.classes[label] for label in fewer.examples[0].labels] == ["ring"]
    assert fewer.problems[-1].endswith("1 objects of other classes, such as 'bolt': skipped")
    run = detr("train", "ordered", "-o", "by-name", "--epochs", "1", *SCRATCH, "--device", "cpu", cwd=place)
    assert run.returncode == 0, run.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="finds child processes in /proc")
def test_a_killed_loading_process_is_reported(place: Path) -> None:
    def kill_children(process: PythonProcess) -> None:
        for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            os.kill(int(child), signal.SIGKILL)

    arguments = ("train", "shapes", "-o", "orphaned", "--epochs", 500, "--workers", 1, *SCRATCH)
    code, messages = detr_until("epoch   1", kill_children, *arguments, cwd=place)
    assert code == 2
    assert "detr: an image-loading process was killed" in messages
    assert "Traceback" not in messages


def test_validation_images_in_the_training_set_are_reported(place: Path) -> None:
    (place / "both ways").mkdir()
    (place / "both ways/link").symlink_to(place / "shapes/train")
    run = detr(
        "train", "shapes", "-o", "overlapping", "--val-data", "both ways/link", "--epochs", 1, *SCRATCH, cwd=place
    )
    assert run.returncode == 0, run.stderr
    assert "6 of 6 validation images are also in the training set" in run.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere", "-o", "x"), "nowhere: no such file or folder"),
        (("shapes", "-o", "x", "--from-scratch", "--model", "yolo"), "no architecture is called 'yolo'"),
        (("shapes", "-o", "x", "--from-scratch", "--model", "lwdetr-nano", "--image-size", "100"), "multiples of 64"),
        (("shapes", "-o", "x", "--model", "nothing.pth"), "no such file or folder: nothing.pth"),
        (("shapes", "-o", "x", "--resume", *SCRATCH), "nothing to resume"),
        (("shapes", "-o", "x", "--device", "cuda:99", *SCRATCH), "CUDA"),
        (("shapes", "-o", "shapes/x", *SCRATCH), "shapes/x is inside the dataset"),
        (("shapes", "-o", "foreign", *SCRATCH), "foreign holds a model, which would be overwritten"),
        (("shapes", "-o", "shapes/train/000000.jpg/x", *SCRATCH), "is inside the dataset"),
        (("shapes", "-o", "foreign/config.json/x", *SCRATCH), "cannot write foreign/config.json/x"),
        (("shapes", "-o", "x" * 300, *SCRATCH), "File name too long"),
        (("shapes", "-o", "x", "--seed", "99999999999999999999", *SCRATCH), "--seed"),
        (("shapes", "-o", "x", "--warmup-steps", "10", *SCRATCH, "--epochs", "3"), "--warmup-steps 10 is longer than"),
        (("shapes", "-o", "x", "--revision", "main", *SCRATCH), "--revision cannot be combined with --from-scratch"),
        (
            ("shapes", "-o", "x", "--class-names", "a.txt", *SCRATCH),
            "--class-names cannot be combined with",
        ),
        (("shapes", "-o", "x", "--model", "tiny", "--class-names", "absent.txt"), "cannot read absent.txt"),
        (
            ("shapes", "-o", "x", "--val-fraction", "0.1", *SCRATCH),
            "split of 2 images; leave out --val-fraction",
        ),
        (("shapes", "-o", "x", "--val-fraction", "1", *SCRATCH), "above 0 and below 1, not 1"),
        (("shapes", "-o", "x", "--val-fraction", "nan", *SCRATCH), "above 0 and below 1, not nan"),
        (
            ("shapes", "-o", "x", "--val-fraction", "0.1", "--val-data", "shapes"),
            "--val-fraction cannot be combined with --val-data",
        ),
        (
            ("shapes", "-o", "x", "--model", "tiny", "--layer-decay", "0.5"),
            "--layer-decay applies to ViT backbones only",
        ),
        (
            ("shapes", "-o", "x", "--model", "tiny", "--component-decay", "0.5"),
            "--component-decay applies to ViT backbones only",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_errors_are_one_line(place: Path, arguments: tuple[str, ...], message: str) -> None:
    run = detr("train", "--quiet", *arguments, cwd=place)
    assert run.returncode == 2
    assert message in run.stderr
    assert "Traceback" not in run.stderr
    assert "Usage:" in run.stderr or len(run.stderr.strip().splitlines()) <= 2


def test_a_huge_class_name_does_not_fill_the_screen(place: Path) -> None:
    (place / "endless").mkdir()
    Image.new("RGB", (90, 60)).save(place / "endless/0.png")
    content = {
        "images": [{"id": 1, "file_name": "0.png", "width": 90, "height": 60}],
        "categories": [{"id": 1, "name": "x" * 1_000_000}, {"id": 2, "name": "y"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 2, "bbox": [1, 2, 30, 40]}],
    }
    (place / "endless/annotations.json").write_text(json.dumps(content))
    run = detr("train", "endless", "-o", "x", *SCRATCH, "--val-fraction", 0.1, cwd=place)
    assert run.returncode == 2
    assert run.stderr.splitlines()[-1].endswith("1 images are too few to hold out 0.1 of them")
    run = detr("eval", "endless", "--model", "tiny", cwd=place)
    assert run.returncode == 2
    assert max(map(len, run.stderr.splitlines())) == 4000
