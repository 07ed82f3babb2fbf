"""Runs over folders in processes of their own that are killed, stopped and resumed."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import pytest

from detrcli.outputs.formats import FORMATS

from ..detr_process import PATIENCE, PIPES, SETTINGS, PythonProcess, detr, start
from ..tiny import save_tiny
from .folders import encoded, small_image, write_folder

COUNT = 60
ALL = [argument for name in FORMATS for argument in ("--format", name)]
OPTIONS = ["--recursive", "--model", "model", "--threshold", "0.3", "--device", "cpu", "--precision", "fp32"]
TWO_THREADS = {"OMP_NUM_THREADS": "2"}


class Place:
    """Folder with a model and `images`, one of which is broken."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def detr(self, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        run = detr(*arguments, cwd=self.folder, settings=TWO_THREADS, **options)
        assert "Traceback" not in run.stderr, run.stderr
        return run

    def label(self, output: str, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        return self.detr("predict", "images", *OPTIONS, "--output", output, *arguments, **options)

    def start_until(self, lines: int, output: str, *arguments: object) -> PythonProcess:
        """Start a run and read its first lines."""
        command = ("predict", "images", *OPTIONS, "--output", output, *arguments)
        process = start(*command, cwd=self.folder, settings=TWO_THREADS, bufsize=0, **PIPES)
        assert process.stdout is not None
        for _ in range(lines):
            process.stdout.readline()
        return process

    @contextmanager
    def on_a_list(
        self, output: str, *, pass_fds: Sequence[int] = ()
    ) -> Iterator[tuple[PythonProcess, IO[bytes], IO[bytes]]]:
        """A run over a list that is still being written: the process, its stdin and its stdout."""
        command = ("predict", "-", *OPTIONS, "--output", output)
        options = {"cwd": self.folder, "settings": TWO_THREADS, "bufsize": 0, "pass_fds": pass_fds, **PIPES}
        with start(*command, **options) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            yield process, process.stdin, process.stdout

    def outputs(self, output: str) -> dict[str, bytes]:
        """All files of a run, except those in `.detr`."""
        root = self.folder / output
        files = {path.relative_to(root): path for path in root.rglob("*") if path.is_file()}
        assert not [name for name in files if name.suffix == ".part" and ".detr" not in name.parts]
        return {name.as_posix(): path.read_bytes() for name, path in files.items() if ".detr" not in name.parts}

    def failures(self, output: str) -> list[dict[str, str]]:
        return [json.loads(line) for line in (self.folder / output / "failures.jsonl").read_text().splitlines()]


def paths(stdout: str) -> list[str]:
    return [json.loads(line)["path"] for line in stdout.splitlines()]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("runs")
    save_tiny(folder / "model")
    (bad,) = write_folder(folder / "images", COUNT)
    assert bad == "000/000049.png"
    return Place(folder)


@pytest.fixture(scope="module")
def whole(place: Place) -> dict[str, bytes]:
    """Files in every format of an unbroken run in a fresh interpreter, which has other hashes than all others."""
    command = [sys.executable, "-m", "detrcli", "predict", "images", *OPTIONS, "--output", "whole", *ALL]
    environment = {**os.environ, **SETTINGS, **TWO_THREADS}
    run = subprocess.run(command, cwd=place.folder, env=environment, capture_output=True, text=True)
    assert run.returncode == 1
    assert len(run.stdout.splitlines()) == COUNT - 1
    return place.outputs("whole")


def test_one_broken_image_does_not_stop_the_others(place: Place, whole: dict[str, bytes]) -> None:
    (failure,) = place.failures("whole")
    assert failure["path"] == "images/000/000049.png"
    assert failure["kind"] == "empty"
    singles = {"detections.jsonl", "detections.csv", "coco.json", "coco-results.json", "data.yaml"}
    assert {name for name in whole if "/" not in name} == singles | {
        "label-studio.json",
        "label-studio.xml",
        "cvat.xml",
        "failures.jsonl",
    }
    kinds = (".jpg", ".png", ".jpg.json", ".png.json", ".xml", ".txt")
    stems = [re.sub(r"^labels/", "", name).partition(".")[0] for name in whole if "/" in name]
    assert {stems.count(f"000/{number:06}") for number in range(COUNT) if number != 49} == {5}
    assert all(name.endswith((*kinds, ".json")) for name in whole if "/" in name)


def test_a_run_that_is_killed_repeatedly_ends_as_the_unbroken_run(place: Place, whole: dict[str, bytes]) -> None:
    for lines in (1, 9, 23):
        process = place.start_until(lines, "killed", "--resume", *ALL)
        process.kill()
        process.communicate()
    run = place.label("killed", "--resume", *ALL)
    assert run.returncode == 1
    assert 0 < len(run.stdout.splitlines()) < COUNT - 30
    assert re.search(r"\d+ done earlier", run.stderr)
    assert place.outputs("killed") == whole
    assert not list((place.folder / "killed").rglob("*.part"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_says_how_to_resume_and_can(
    place: Place, whole: dict[str, bytes], number: signal.Signals, code: int
) -> None:
    output = f"stopped-{code}"
    process = place.start_until(5, output, *ALL)
    process.send_signal(number)
    rest, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == code
    assert stderr.decode().splitlines()[-1] == "stopped; continue with the same command and --resume"
    done = 5 + len(rest.splitlines())
    assert done < COUNT - 1
    assert "coco.json" not in place.outputs(output)
    refused = place.label(output, *ALL)
    assert refused.returncode == 2
    assert "holds a run that was stopped; continue with --resume, start anew with --no-resume" in refused.stderr
    run = place.label(output, "--resume", *ALL)
    assert len(run.stdout.splitlines()) == COUNT - 1 - done
    assert place.outputs(output) == whole


def test_results_of_a_list_come_line_by_line(place: Place) -> None:
    with place.on_a_list("line-by-line") as (process, asked, answered):
        for path in ("images/000/000000.jpg", "images/000/000001.png"):
            asked.write(f"{path}\n".encode())
            assert paths(answered.readline().decode()) == [path]
        asked.close()
        assert process.wait() == 0


def test_a_stop_while_a_list_is_still_open(place: Place) -> None:
    with place.on_a_list("open-list") as (process, asked, answered):
        asked.write(b"images/000/000000.jpg\n")
        answered.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 143
        assert b"continue with the same command and --resume" in process.communicate()[1]


def test_a_second_interruption_ends_the_process_at_once(place: Place) -> None:
    reading, writing = os.pipe()
    with place.on_a_list("twice", pass_fds=[reading]) as (process, asked, answered):
        asked.write(b"images/000/000000.jpg\nimages/000/000001.png\n")
        for _ in range(2):
            answered.readline()
        asked.write(f"/dev/fd/{reading}\n".encode())  # reading it takes for ever
        process.send_signal(signal.SIGINT)
        while process.returncode is None:  # the first one waits for the image
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=1)
        assert process.returncode in (130, -signal.SIGINT)
        assert b"Traceback" not in process.communicate()[1]
    os.close(reading)
    os.close(writing)


def test_a_run_in_progress_is_not_reported_as_stopped(place: Place) -> None:
    with place.on_a_list("busy") as (process, asked, answered):
        asked.write(b"images/000/000000.jpg\n")
        answered.readline()
        run = place.label("busy")
        asked.close()
        assert process.wait() == 0
    assert run.returncode == 2
    assert run.stderr.startswith("detr: another run is writing busy/.detr/journal.jsonl; wait for it")


def test_other_options_do_not_resume_a_run(place: Place) -> None:
    place.start_until(3, "other", "--format", "csv").kill()
    run = place.label("other", "--resume", "--format", "csv", "--threshold", "0.7")
    assert run.returncode == 2
    assert run.stderr == (
        "detr: the run in other began with threshold = 0.3, not 0.7; resume with the same options, "
        "or choose another --output\n"
    )
    run = place.label("other", "--resume")
    assert run.returncode == 2
    assert "formats = ['csv'], not []" in run.stderr
    run = place.detr("predict", "images", *OPTIONS, "--output", "other", "--resume", "--model", "demo")
    assert run.returncode == 2
    assert ", not ['circle', 'square', 'triangle', ...]; formats = " in run.stderr
    run = place.label("other", "--no-resume", "--threshold", "0.7", "--no-draw", "--format", "csv")
    assert run.returncode == 1
    assert len(run.stdout.splitlines()) == COUNT - 1


def test_another_device_or_precision_does_not_resume_a_run(place: Place) -> None:
    named(place, [b"a.jpg", b"b.jpg"], "computed")
    arguments = ("predict", "computed", "--model", "model", "--output", "computed-out", "--no-draw", "--format", "csv")
    assert place.detr(*arguments).returncode == 0
    journal = place.folder / "computed-out/.detr/journal.jsonl"
    first, *rest = journal.read_bytes().splitlines(keepends=True)
    setting = json.loads(first)["setting"]
    assert setting["answers"]["device"] == "cpu"
    native = setting["answers"]["precision"]
    assert place.detr(*arguments, "--resume", "--device", "cpu", "--precision", native).returncode == 0
    setting["answers"] |= {"device": "cuda", "precision": "fp16"}
    journal.write_bytes(json.dumps({"setting": setting}).encode() + b"\n" + b"".join(rest))
    run = place.detr(*arguments, "--resume")
    assert run.returncode == 2
    assert f"began with device = 'cuda', not 'cpu'; precision = 'fp16', not '{native}'" in run.stderr


def test_other_weights_or_folders_do_not_resume_a_run(place: Place) -> None:
    named(place, [b"a.jpg", b"b.jpg"], "weights")
    save_tiny(place.folder / "changing")
    arguments = ("predict", "weights", *OPTIONS, "--model", "changing", "--no-draw", "--format", "csv", "--resume")
    assert place.detr(*arguments, "--output", "of-weights").returncode == 0
    other = place.detr(*arguments, "--output", "of-weights", "--recursive", "images")
    assert (other.returncode, "began with root = " in other.stderr) == (2, True)
    save_tiny(place.folder / "changing", seed=1)
    again = place.detr(*arguments, "--output", "of-weights")
    assert (again.returncode, "began with digest = " in again.stderr) == (2, True)


def test_resuming_processes_only_new_images(place: Place) -> None:
    shutil.copytree(place.folder / "images", place.folder / "growing")
    arguments = ("predict", "growing", *OPTIONS, "--output", "grown", "--resume", "--no-draw", "--format", "jsonl")
    assert place.detr(*arguments).returncode == 1
    for name in ("000/000000-new.jpg", "zzz.jpg"):
        (place.folder / "growing" / name).write_bytes(encoded(small_image(77), "JPEG"))
    run = place.detr(*arguments)
    assert run.returncode == 1  # the broken one is still there
    assert paths(run.stdout) == ["growing/000/000000-new.jpg", "growing/zzz.jpg"]
    assert len(place.outputs("grown")["detections.jsonl"].splitlines()) == COUNT + 1
    assert place.detr(*arguments).stdout == ""


@pytest.mark.parametrize("together", [True, False])
def test_shards_are_merged_to_the_unsharded_outputs(place: Place, whole: dict[str, bytes], together: bool) -> None:
    folders = ["shards" if together else f"shard-{index}" for index in range(3)]
    codes, seen = [], []
    for index in (2, 0, 1):
        run = place.label(folders[index], "--shard", f"{index}/3", *ALL)
        codes.append(run.returncode)
        seen += paths(run.stdout)
    assert sorted(codes) == [0, 0, 1]
    assert len(set(seen)) == len(seen) == COUNT - 1
    target = folders[0]
    run = place.detr("merge", *dict.fromkeys(folders), *(() if together else ("--output", "merged")))
    assert run.returncode == 1
    assert "1 image failed (1 empty); see " in run.stderr
    apart = "annotated images and per-image files are still in shard-0 and shard-1 and shard-2; copy them into merged"
    assert (apart in run.stderr) is not together
    merged = place.outputs(target if together else "merged")
    ours = {name: content for name, content in merged.items() if not name.startswith("failures-")}
    assert ours == (whole if together else {name: whole[name] for name in whole if "/" not in name})


def test_shards_of_a_list_are_merged_in_its_order(place: Place) -> None:
    listed = [f"images/000/{number:06}.{'png' if number % 2 else 'jpg'}" for number in (5, 2, 7, 0, 4, 1, 6, 3)]
    arguments = ("predict", "-", *OPTIONS, "--output", "listed", "--no-draw", "--format", "jsonl")
    for index in range(2):
        run = place.detr(*arguments, "--shard", f"{index}/2", stdin="\n".join(listed).encode())
        assert 0 < len(run.stdout.splitlines()) < len(listed)
    assert place.detr("merge", "listed").returncode == 0
    assert paths((place.folder / "listed/detections.jsonl").read_text()) == listed


def test_missing_or_unfinished_shards_are_not_merged(place: Place) -> None:
    assert place.label("partly", "--shard", "0/2", "--no-draw", "--format", "coco").returncode in (0, 1)
    run = place.detr("merge", "partly")
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == "detr: missing from partly: shard 1/2\n"
    place.start_until(2, "partly", "--shard", "1/2", "--no-draw", "--format", "coco").kill()
    run = place.detr("merge", "partly")
    assert run.stderr == "detr: shard 1/2 is not finished; finish it with --resume\n"
    assert place.label("partly", "--shard", "1/3", "--no-draw", "--format", "coco").returncode in (0, 1)
    run = place.detr("merge", "partly")
    assert run.stderr.startswith("detr: found shards of different runs, of 2 and of 3 parts; ")
    run = place.detr("merge", "images")
    assert run.stderr == "detr: no shards were written into images\n"
    assert "coco.json" not in place.outputs("partly")


def test_a_run_resumes_after_a_full_disk(place: Place, whole: dict[str, bytes]) -> None:
    run = place.label("full", *ALL, limits={resource.RLIMIT_FSIZE: 12_000})
    assert run.returncode == 2
    message = run.stderr.splitlines()[-1]
    assert message.startswith("detr: cannot write full/")
    assert message.endswith("free some space, then run it again; continue with --resume")
    run = place.label("full", "--resume", *ALL)
    assert run.returncode == 1
    assert len(run.stdout.splitlines()) < COUNT - 1
    assert place.outputs("full") == whole


def test_several_devices_share_the_work(place: Place, whole: dict[str, bytes]) -> None:
    run = place.label("devices", *ALL, "--device", "cpu,cpu", "--batch-size", "4", "--workers", "3")
    assert run.returncode == 1
    assert place.outputs("devices") == whole


def test_annotated_images_are_no_dataset(place: Place) -> None:
    assert place.label("drawn", "--format", "coco").returncode == 1
    run = place.detr("eval", "drawn", "--model", "model")
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith(
        "detr: drawn/coco.json is among annotated images, which have boxes drawn on them; put it beside"
    )
    (place.folder / "drawn/coco.json").rename(place.folder / "images/coco.json")
    run = place.detr("eval", "images", "--model", "model")
    (place.folder / "images/coco.json").unlink()
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["images"] == COUNT - 1


def test_errors_before_a_run_can_be_json(place: Place) -> None:
    run = place.detr("predict", "images", "--recursive", "--model", "nonesuch", "--log-json")
    (event,) = [json.loads(line) for line in run.stderr.splitlines()]
    assert event["event"] == "error"
    assert event["text"].startswith("detr: no model is called 'nonesuch'")
    assert run.returncode == 2


def test_all_messages_can_be_json(place: Place) -> None:
    run = place.label("logged", "--log-json", "--no-draw", "--format", "csv")
    events = [json.loads(line) for line in run.stderr.splitlines()]
    assert [event["event"] for event in events] == ["error", "summary"]
    assert (events[0]["path"], events[0]["kind"]) == ("images/000/000049.png", "empty")
    summary = events[1]
    assert summary["images"] == COUNT - 1
    assert summary["failed"] == {"empty": 1}
    found = [one["label"] for line in run.stdout.splitlines() for one in json.loads(line)["detections"]]
    assert summary["detections"] == {label: found.count(label) for label in set(found)}
    assert {"read", "decode", "resize", "network", "write"} <= set(summary["stages"])


def named(place: Place, names: Iterable[bytes], folder: str) -> None:
    (place.folder / folder).mkdir(exist_ok=True)
    for number, name in enumerate(names):
        (place.folder / folder / os.fsdecode(name)).write_bytes(encoded(small_image(number), "JPEG"))


def test_a_pipe_in_a_folder_does_not_block_a_run(place: Place) -> None:
    named(place, [b"a.jpg", b"c.jpg"], "piped")
    os.mkfifo(place.folder / "piped" / "b.jpg")
    run = place.detr("predict", "piped", *OPTIONS, "--no-draw")
    assert (run.returncode, paths(run.stdout)) == (1, ["piped/a.jpg", "piped/c.jpg"])
    assert "piped/b.jpg: a pipe, not a file" in run.stderr


def test_a_folder_that_starts_with_one_image(place: Place) -> None:
    named(place, [b"a.jpg"], "first")
    arguments = ("predict", "first", *OPTIONS, "--output", "first-out", "--resume", "--no-draw", "--format", "csv")
    assert paths(place.detr(*arguments).stdout) == ["first/a.jpg"]
    named(place, [b"a.jpg", b"b.jpg"], "first")
    assert paths(place.detr(*arguments).stdout) == ["first/b.jpg"]


def test_lists_with_any_names(place: Place) -> None:
    names = [b" a b .jpg", b"line\nend.jpg", b"raw\xff.jpg", b"-dash.jpg"]
    named(place, names, "odd")
    listed = [b"odd/" + name for name in names]
    (place.folder / "list.txt").write_bytes(b"\0".join(listed))
    run = place.detr("predict", "-", "-0", *OPTIONS, "--no-draw", stdin=b"\0".join(listed) + b"\0")
    assert [os.fsencode(path) for path in paths(run.stdout)] == listed
    again = place.detr("predict", "--files-from", "list.txt", "--from0", *OPTIONS, "--no-draw")
    assert again.stdout == run.stdout
    run = place.detr("predict", "--files-from", "nowhere.txt", *OPTIONS)
    assert (run.returncode, run.stderr) == (2, "detr: cannot read the list nowhere.txt: No such file or directory\n")


def test_a_name_too_long_for_its_outputs(place: Place) -> None:
    named(place, [b"x" * 251 + b".jpg", b"short.jpg"], "long")
    run = place.detr("predict", "long", *OPTIONS, "--output", "long-out", "--format", "json")
    assert run.returncode == 0, run.stderr
    (name,) = (name for name in place.outputs("long-out") if name.startswith("xx") and name.endswith(".json"))
    assert len(name) == 255
    assert json.loads(place.outputs("long-out")[name])["path"] == f"long/{'x' * 251}.jpg"


def test_images_with_the_same_stem_share_no_label_file(place: Place) -> None:
    named(place, [b"a.jpg", b"a.jpeg", b"b.jpg"], "alike")
    run = place.detr("predict", "alike", *OPTIONS, "--output", "alike-out", "--format", "yolo", "--no-draw")
    assert run.returncode == 1
    assert [failure["kind"] for failure in place.failures("alike-out")] == ["not written"] * 2
    assert "yolo has one file for it and for a.jpeg" in run.stderr
    assert set(place.outputs("alike-out")) == {"labels/b.txt", "data.yaml", "failures.jsonl"}


@pytest.mark.parametrize(
    ("names", "formats", "message"),
    [
        ((b"a", b"a.jpg"), ("voc",), "a: voc has one file for it and for a.jpg"),
        ((b"a.jpg", b"a.jpg.jpg"), ("json", "labelme"), "a.jpg.jpg: labelme has one file for it and json for"),
    ],
)
def test_images_whose_outputs_would_have_the_same_path_fail(
    place: Place, names: tuple[bytes, ...], formats: tuple[str, ...], message: str
) -> None:
    folder = f"alike-{formats[0]}"
    named(place, names, folder)
    sources = [f"{folder}/{name.decode()}" for name in names]
    chosen = [argument for name in formats for argument in ("--format", name)]
    run = place.detr("predict", *sources, *OPTIONS, "--output", f"{folder}-out", *chosen, "--no-draw")
    assert run.returncode == 1
    assert message in run.stderr
    assert len(place.failures(f"{folder}-out")) == 1


def test_stdout_on_a_full_disk(place: Place) -> None:
    with open("/dev/full", "wb") as full:
        run = place.label("full-stdout", stdout=full)
    assert run.returncode == 2
    assert run.stderr.splitlines()[-1] == (
        "detr: cannot write stdout: No space left on device; free some space, then run it again; continue with --resume"
    )


def test_an_image_whose_labels_would_overwrite_a_file_for_all_images_fails(place: Place) -> None:
    named(place, [b"coco.jpg", b"other.jpg"], "named")
    formats = ("--format", "labelme", "--format", "coco", "--no-draw")
    run = place.detr("predict", "named", *OPTIONS, "--output", "named-out", *formats)
    assert run.returncode == 1
    assert "named/coco.jpg: its outputs would overwrite named-out/coco.json; rename it" in run.stderr
    assert len(json.loads(place.outputs("named-out")["coco.json"])["images"]) == 1
    named(place, [b"failures.jsonl"], "named")
    run = place.detr("predict", "named/failures.jsonl", "named/other.jpg", *OPTIONS, "--output", "named-failures")
    assert run.returncode == 1
    assert "named/failures.jsonl: its outputs would overwrite named-failures/failures.jsonl" in run.stderr
    assert [failure["path"] for failure in place.failures("named-failures")] == ["named/failures.jsonl"]


def test_an_image_whose_output_cannot_be_written_stops_no_other(place: Place) -> None:
    named(place, [b"a.jpg", b"b.jpg"], "taken")
    (place.folder / "taken-out" / "a.jpg").mkdir(parents=True)
    run = place.detr("predict", "taken", *OPTIONS, "--output", "taken-out")
    assert (run.returncode, paths(run.stdout)) == (1, ["taken/b.jpg"])
    (failure,) = place.failures("taken-out")
    assert (failure["path"], failure["kind"]) == ("taken/a.jpg", "not written")
    assert "b.jpg" in place.outputs("taken-out")


def test_shards_of_different_runs_are_not_merged(place: Place) -> None:
    named(place, [b"%d.jpg" % number for number in range(8)], "few")
    for index, threshold in ((0, "0.3"), (1, "0.7")):
        arguments = ("--shard", f"{index}/2", "--no-draw", "--format", "coco", "--threshold", threshold)
        assert place.detr("predict", "few", *OPTIONS, "--output", "different", *arguments).returncode == 0
    run = place.detr("merge", "different")
    assert (run.returncode, run.stdout) == (2, "")
    assert "are of different runs: they differ in threshold" in run.stderr
    assert "coco.json" not in place.outputs("different")


def test_failures_can_be_retried(place: Place) -> None:
    shutil.copytree(place.folder / "images", place.folder / "mended")
    place.detr("predict", "mended", *OPTIONS, "--output", "tried", "--no-draw", "--format", "csv")
    (failure,) = place.failures("tried")
    (place.folder / failure["path"]).write_bytes(encoded(small_image(5), "PNG"))
    run = place.detr("predict", "-", *OPTIONS, "--no-draw", stdin=failure["path"].encode())
    assert (run.returncode, paths(run.stdout)) == (0, [failure["path"]])
    run = place.detr("predict", "mended", *OPTIONS, "--output", "tried", "--no-draw", "--format", "csv")
    assert run.returncode == 0
    assert "failures.jsonl" not in place.outputs("tried")
