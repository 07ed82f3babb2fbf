"""Runs overwrite only files that runs wrote and nobody changed since, unless they are told to."""

import errno
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from detrcli.cli.hints import add_hint, with_hint
from detrcli.detections import Detections
from detrcli.errors import OutputError, OverwriteError, UsageError
from detrcli.files import STATE_FOLDER, atomic_file
from detrcli.images.decode import DecodedImage
from detrcli.images.sources import ImageReference
from detrcli.outputs import namesakes
from detrcli.outputs.merge import merge_shards
from detrcli.outputs.plan import Plan
from detrcli.outputs.record import Failure
from detrcli.outputs.run import OutputRun
from detrcli.outputs.run_files import FAILURES
from detrcli.outputs.shards import Shard
from detrcli.outputs.written import LIST, Written

from ..detr_process import detr
from ..tiny import save_tiny
from .folders import encoded, small_image

EACH = ("json", "yolo", "voc", "labelme")
ALL = (*EACH, "jsonl", "csv", "coco", "coco-results", "label-studio", "cvat")


def detections(score: float) -> Detections:
    box = np.array([[1, 2, 11, 12]], np.float32)
    return Detections(box, np.array([score], np.float32), np.zeros(1, np.int64), ("cat",), 40, 30)


class Place:
    """Folder `images` with images `a.jpg`, `b.jpg` and `c.jpg`, and folder `out`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.out = folder, folder / "out"
        self.images("a.jpg", "b.jpg", "c.jpg")

    def images(self, *names: str) -> list[ImageReference]:
        (self.folder / "images").mkdir(exist_ok=True)
        for name in names:
            Image.new("RGB", (40, 30)).save(self.folder / "images" / name)
        return [ImageReference(str(self.folder / "images" / name), Path(name)) for name in names]

    def start(
        self,
        names: Sequence[str],
        formats: Sequence[str] = ALL,
        *,
        draw: bool = False,
        shard: Shard | None = None,
        resumable: bool = True,
        resume: bool | None = None,
        overwrite: bool = False,
        listable: bool = True,
        out: Path | None = None,
    ) -> OutputRun:
        root = str(self.folder / "images")
        plan = Plan("model", "", ("cat",), root, shard, tuple(formats), draw, {})
        coming = list(enumerate(self.images(*names)))
        return OutputRun(
            out or self.out,
            plan,
            resumable=resumable,
            resume=resume,
            overwrite=overwrite,
            coming=lambda: coming if listable else coming[:1],
            listable=listable,
        )

    def write(self, run: OutputRun, index: int, name: str, score: float, *, draw: bool = False) -> str | None:
        """Message of the failure, if writing fails."""
        (reference,) = self.images(name)
        decoded = DecodedImage(Image.new("RGB", (40, 30))) if draw else None
        outcome = run.write((index, reference), decoded, detections(score))
        run.add(outcome)
        if isinstance(outcome.result, Failure):
            return add_hint(outcome.result.reason, outcome.error) if outcome.error else outcome.result.reason
        return None

    def run(
        self,
        names: Sequence[str] = ("a.jpg", "b.jpg", "c.jpg"),
        formats: Sequence[str] = ALL,
        *,
        score: float = 0.5,
        draw: bool = False,
        **more: object,
    ) -> list[str | None]:
        run = self.start(names, formats, draw=draw, **more)  # type: ignore[arg-type]
        coming = run.remaining(iter(enumerate(self.images(*names))))
        messages = [self.write(run, index, one.relative.name, score, draw=draw) for index, one in coming]
        run.close(finished=True)
        return messages

    def files(self, folder: Path | None = None) -> dict[str, bytes]:
        root = folder or self.out
        found = (path for path in root.rglob("*") if path.is_file() and STATE_FOLDER not in path.parts)
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in found}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize("listable", [True, False])
def test_files_that_runs_wrote_are_overwritten(place: Place, listable: bool) -> None:
    for score in (0.5, 0.25, 0.5, 0.75):
        assert place.run(score=score, draw=True, listable=listable) == [None] * 3
        assert json.loads(place.files()["a.jpg.json"])["detections"][0]["score"] == score
        assert place.files()["detections.jsonl"].count(f'"score": {score}'.encode()) == 3


def test_one_image_repeatedly(place: Place) -> None:
    for score in (0.5, 0.25):
        assert place.run(["a.jpg"], EACH, score=score, draw=True, resumable=False) == [None]
    (place.out / "a.json").write_text("mine")
    with pytest.raises(UsageError, match=r"out/a\.json was not written by detr, or changed since") as caught:
        place.run(["a.jpg"], EACH, resumable=False)
    assert "replace them with --overwrite" in with_hint(caught.value)
    assert place.run(["b.jpg"], EACH, resumable=False) == [None]


FILES = {
    "json": "b.jpg.json",
    "yolo": "labels/b.txt",
    "voc": "b.xml",
    "labelme": "b.json",
    "annotated": "b.jpg",
    "data.yaml": "data.yaml",
    "csv": "detections.csv",
    "coco": "coco.json",
    "label-studio": "label-studio.json",
    "failures": FAILURES,
}


@pytest.mark.parametrize("changed", [False, True], ids=["made by hand", "changed since"])
@pytest.mark.parametrize("file", FILES.values(), ids=FILES)
def test_files_of_others_are_not_overwritten(place: Place, file: str, changed: bool) -> None:
    if changed:
        place.run(draw=True)
    (place.out / file).parent.mkdir(parents=True, exist_ok=True)
    (place.out / file).write_bytes(b"mine")
    before = place.files()
    journal = [path.read_bytes() for path in place.out.glob(f"{STATE_FOLDER}/journal.jsonl")]
    with pytest.raises(UsageError, match=r"was not written by detr, or changed since") as caught:
        place.run(score=0.25, draw=True)
    assert str(place.out / file) in str(caught.value)
    assert place.files() == before
    assert [path.read_bytes() for path in place.out.glob(f"{STATE_FOLDER}/journal.jsonl")] == journal
    assert place.run(score=0.25, draw=True, overwrite=True) == [None] * 3
    assert place.files().get(file) != b"mine"
    assert place.run(score=0.5, draw=True) == [None] * 3  # for now it is ours


def test_the_error_names_the_first_file_and_counts_the_others(place: Place) -> None:
    (place.out / "labels").mkdir(parents=True)
    for name in ("b.txt", "c.txt", "d.txt"):
        (place.out / "labels" / name).write_text("mine")
    (place.out / "data.yaml").write_text("mine")
    with pytest.raises(UsageError, match=r"out/data\.yaml and 2 more were not written by detr"):
        place.run(formats=["yolo"])
    assert not (place.out / STATE_FOLDER).exists()


@pytest.mark.parametrize("changed", [False, True], ids=["made by hand", "changed since"])
def test_in_a_list_from_stdin_only_the_image_fails(place: Place, changed: bool) -> None:
    if changed:
        place.run(formats=EACH)
    place.out.mkdir(exist_ok=True)
    (place.out / "b.json").write_bytes(b"mine")
    messages = place.run(formats=EACH, score=0.25, listable=False)
    assert [one is not None for one in messages] == [False, True, False]
    assert "out/b.json was not written by detr, or has changed since; --overwrite replaces it" in str(messages[1])
    assert (place.out / "b.json").read_bytes() == b"mine"
    assert place.run(formats=EACH, score=0.25, listable=False, overwrite=True) == [None] * 3


def test_files_that_appear_during_a_run_are_not_overwritten(place: Place) -> None:
    run = place.start(["a.jpg", "b.jpg"], ["labelme", "csv"])
    assert place.write(run, 0, "a.jpg", 0.5) is None
    (place.out / "b.json").write_text("mine")
    assert "out/b.json was not written by detr" in str(place.write(run, 1, "b.jpg", 0.5))
    (place.out / "detections.csv").write_text("mine, too")
    with pytest.raises(OverwriteError, match=r"out/detections\.csv was not written by detr"):
        run.close(finished=True)
    assert place.files().keys() == {"a.json", "b.json", "detections.csv"}
    assert place.files()["detections.csv"] == b"mine, too"
    (place.out / "detections.csv").unlink()
    place.run(["a.jpg", "b.jpg"], ["labelme", "csv"], resume=True)
    assert place.files()["detections.csv"].count(b"a.jpg") == 1


def test_files_with_equal_bytes_are_no_conflict(place: Place) -> None:
    formats = ("json", "voc", "labelme")
    place.run(formats=formats)
    (place.out / STATE_FOLDER).rename(place.folder / "away")
    assert place.run(formats=formats, listable=False) == [None] * 3
    assert place.run(formats=formats, score=0.25) == [None] * 3


def test_a_kill_before_the_journals_line_does_not_make_a_file_foreign(place: Place) -> None:
    run = place.start(["a.jpg", "b.jpg"], EACH)
    place.write(run, 0, "a.jpg", 0.5)
    (reference,) = place.images("b.jpg")
    run.write((1, reference), None, detections(0.5))
    run.close(finished=False)  # as far as the disk is concerned, it ends here
    assert place.run(["a.jpg", "b.jpg"], EACH, resume=True, score=0.51) == [None]  # as a GPU may predict next time
    assert json.loads(place.files()["b.jpg.json"])["detections"][0]["score"] == 0.51


def test_a_list_that_a_power_cut_truncated_is_still_used(place: Place) -> None:
    place.run(formats=EACH)
    with (place.out / STATE_FOLDER / LIST).open("ab") as file:
        file.write(b"cut")
    assert place.run(["a.jpg"], EACH, score=0.25) == [None]
    assert place.run(["a.jpg"], EACH, score=0.75) == [None]
    assert (place.out / STATE_FOLDER / LIST).stat().st_size % 8 == 0


def test_links_are_neither_followed_nor_overwritten(place: Place) -> None:
    elsewhere = place.folder / "elsewhere"
    elsewhere.mkdir()
    place.out.mkdir()
    (elsewhere / "kept").write_text("mine")
    (place.out / "labels").symlink_to(elsewhere, target_is_directory=True)
    messages = place.run(formats=["yolo"])
    assert all("out/labels leads out of the output folder" in str(one) for one in messages)
    assert [path.name for path in elsewhere.iterdir()] == ["kept"]
    (place.out / "labels").unlink()
    (place.out / "labels").mkdir()
    (place.out / "labels" / "a.txt").symlink_to(elsewhere / "kept")
    with pytest.raises(UsageError, match=r"labels/a\.txt was not written by detr"):
        place.run(formats=["yolo"])
    assert place.run(formats=["yolo"], overwrite=True) == [None] * 3
    assert (elsewhere / "kept").read_text() == "mine"
    assert not (place.out / "labels" / "a.txt").is_symlink()


def test_links_within_the_output_folder_and_to_it_are_followed(place: Place) -> None:
    (place.folder / "real" / "deep").mkdir(parents=True)
    place.out.symlink_to(place.folder / "real", target_is_directory=True)
    (place.out / "labels").symlink_to("deep", target_is_directory=True)
    assert place.run(formats=["yolo"]) == [None] * 3
    assert (place.folder / "real" / "deep" / "a.txt").exists()


def test_a_runs_own_folder_must_not_link_elsewhere(place: Place) -> None:
    (place.folder / "elsewhere").mkdir()
    place.out.mkdir()
    (place.out / STATE_FOLDER).symlink_to(place.folder / "elsewhere", target_is_directory=True)
    for resumable in (True, False):
        with pytest.raises(UsageError, match=r"\.detr leads out of the output folder"):
            place.run(["a.jpg"], EACH, resumable=resumable)
    assert not list((place.folder / "elsewhere").iterdir())


@pytest.mark.parametrize("listable", [True, False])
def test_files_for_other_images_are_not_overwritten(place: Place, listable: bool) -> None:
    place.run(["a.jpg", "b.jpg"], ["csv"], listable=listable)
    before = place.files()
    with pytest.raises(UsageError, match=r"detections\.csv covers 2 other images, such as .*a\.jpg") as caught:
        place.run(["c.jpg"], ["csv"], listable=listable)
    assert "add to it with --resume" in with_hint(caught.value)
    assert place.files() == before
    place.run(["c.jpg"], ["csv"], resume=True, listable=listable)
    rows = place.files()["detections.csv"].decode().splitlines()[1:]
    assert [Path(row.partition(",")[0]).name for row in rows] == ["a.jpg", "b.jpg", "c.jpg"]
    place.run(["c.jpg"], ["csv"], overwrite=True, listable=listable)
    assert len(place.files()["detections.csv"].splitlines()) == 2


def test_files_for_images_that_no_longer_exist_are_overwritten(place: Place) -> None:
    place.run(["a.jpg", "b.jpg"], ["csv", "yolo"])
    (place.folder / "images" / "a.jpg").unlink()
    place.run(["b.jpg", "c.jpg"], ["csv", "yolo"])
    assert len(place.files()["detections.csv"].splitlines()) == 3
    place.run(["c.jpg"], ["yolo"])  # data.yaml says nothing of images


def test_a_list_that_lacks_images_does_not_overwrite_their_files(place: Place) -> None:
    place.run(["a.jpg", "b.jpg", "c.jpg"], ["csv"], listable=False)
    before = place.files()
    with pytest.raises(OutputError, match=r"the list lacks 1 of the images of .*detections\.csv"):
        place.run(["a.jpg", "c.jpg"], ["csv"], score=0.25, listable=False)
    assert place.files() == before


def test_shards_and_merges_overwrite_only_their_own_files(place: Place) -> None:
    names = ["a.jpg", "b.jpg", "c.jpg"]
    for index in range(2):
        place.run(names, ["labelme", "csv"], shard=Shard(index, 2))
    (place.out / "b.json").write_text("mine")
    with pytest.raises(UsageError, match=r"out/b\.json was not written by detr"):
        place.run(names, ["labelme", "csv"], shard=Shard(0, 2))
    (place.out / "b.json").unlink()
    place.run(names, ["labelme", "csv"], shard=Shard(0, 2), score=0.25)
    with pytest.raises(UsageError, match=r"covers 2 other images"):
        place.run(["c.jpg"], ["labelme", "csv"], shard=Shard(0, 2), score=0.25)
    for _ in range(2):
        assert merge_shards([place.out], place.out, None).written == [place.out / "detections.csv"]
    (place.out / "detections.csv").write_text("mine")
    with pytest.raises(UsageError, match=r"out/detections\.csv was not written by detr"):
        merge_shards([place.out], place.out, None)
    assert place.files()["detections.csv"] == b"mine"
    merge_shards([place.out], place.out, None, overwrite=True)
    assert merge_shards([place.out], place.folder / "new", None).written == [place.folder / "new" / "detections.csv"]
    place.images("d.jpg")
    other = place.folder / "other"
    place.run(["d.jpg"], ["csv"], out=other)
    with pytest.raises(UsageError, match=r"other/detections\.csv covers another image, .*d\.jpg"):
        merge_shards([place.out], other, None)


def test_a_folder_that_was_replaced_or_removed_is_not_written_to(place: Place) -> None:
    for change in ("removed", "replaced by a link", "replaced by a folder"):
        run = place.start(["a.jpg", "b.jpg"], ["json", "csv"])
        assert place.write(run, 0, "a.jpg", 0.5) is None
        place.out.rename(place.folder / change)
        elsewhere = place.folder / f"elsewhere {change}"
        elsewhere.mkdir()
        if change == "replaced by a link":
            place.out.symlink_to(elsewhere, target_is_directory=True)
        elif change == "replaced by a folder":
            place.out.mkdir()
        with pytest.raises(OutputError, match=r"cannot write|was replaced"):
            place.write(run, 1, "b.jpg", 0.5)
        with pytest.raises(OutputError, match=r"was removed or replaced"):
            run.close(finished=True)
        assert not list(elsewhere.iterdir())
        if place.out.is_symlink():
            place.out.unlink()
        assert place.run(["a.jpg", "b.jpg"], ["json", "csv"], resume=True) == [None] * 2
        place.out.rename(place.folder / f"{change} and written again")


def test_a_run_resumes_after_the_disk_became_read_only(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    run = place.start(["a.jpg", "b.jpg"], ["json", "csv"])
    assert place.write(run, 0, "a.jpg", 0.5) is None
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", refuse)
        with pytest.raises(OutputError, match="Read-only file system"):
            place.write(run, 1, "b.jpg", 0.5)
    run.close(finished=False)
    assert place.files().keys() == {"a.jpg.json"}
    assert place.run(["a.jpg", "b.jpg"], ["json", "csv"], resume=True) == [None]


CONTENT = st.sampled_from([b"", b"a", b"bc"])
STEPS = st.lists(st.tuples(st.sampled_from(["ours", "theirs", "gone", "again"]), st.sampled_from("xy"), CONTENT))


@settings(deadline=None)
@given(STEPS)
def test_files_of_others_are_never_lost(
    tmp_path_factory: pytest.TempPathFactory, steps: Iterable[tuple[str, str, bytes]]
) -> None:
    """Only files that we once wrote to the same path are overwritten."""
    output = tmp_path_factory.mktemp("out")
    (output / STATE_FOLDER).mkdir()
    written = Written(output, output / STATE_FOLDER)
    ours: set[tuple[str, bytes]] = set()
    for who, name, content in steps:
        path = output / name
        if who == "again":
            written.close()
            written = Written(output, output / STATE_FOLDER)
        elif who == "theirs":
            path.write_bytes(content)
        elif who == "gone":
            path.unlink(missing_ok=True)
        else:
            before = path.read_bytes() if path.exists() else content
            try:
                with atomic_file(path, before_rename=written.admit) as file:
                    file.write(content)
            except OverwriteError:
                assert before != content
                assert (name, before) not in ours
                assert path.read_bytes() == before
            else:
                assert before == content or (name, before) in ours
                assert path.read_bytes() == content
                ours.add((name, content))
    written.close()


def predict(folder: Path, *arguments: object) -> tuple[int, str]:
    run = detr("predict", *arguments, "--model", "model", "--device", "cpu", cwd=folder)
    assert "Traceback" not in run.stderr
    return run.returncode, run.stderr


def test_a_large_folder_is_listed_once_for_all_its_images(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = []
    stems = namesakes._stems

    def noting(folder: str) -> Iterator[tuple[str, str]]:
        listed.append(folder)
        return stems(folder)

    monkeypatch.setattr(namesakes, "_stems", noting)
    for number in range(20):
        Image.new("RGB", (40, 30)).save(place.folder / "images" / f"{number}", "JPEG")
        assert namesakes.find_namesake(str(place.folder / "images" / f"{number}")) is None
        assert namesakes.find_namesake(str(place.folder / "images" / "a.jpg")) is None
    assert namesakes.find_namesake(str(place.folder / "images" / "a")) == "a.jpg"
    assert len(listed) <= 3


def test_labels_made_by_hand_are_kept(tmp_path: Path) -> None:
    save_tiny(tmp_path / "model")
    for name in ("images/a.jpg", "images/c.jpg"):
        (tmp_path / "w" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "w" / name).write_bytes(encoded(small_image(1), "JPEG"))
    for name in ("labels/a.txt", "data.yaml"):
        (tmp_path / "w" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "w" / name).write_text("by hand")
    before = {path: path.read_bytes() for path in (tmp_path / "w").rglob("*") if path.is_file()}
    command = ("w/images", "-o", "w", "-f", "yolo", "--no-draw", "--threshold", "0")
    code, stderr = predict(tmp_path, *command)
    assert code == 2
    assert stderr.splitlines()[-1] == (
        "detr: w/data.yaml and 1 more were not written by detr, or changed since; replace them with --overwrite, "
        "or choose another --output"
    )
    assert {path: path.read_bytes() for path in (tmp_path / "w").rglob("*") if path.is_file()} == before
    assert predict(tmp_path, *command, "--overwrite")[0] == 0
    assert (tmp_path / "w/labels/a.txt").read_text() != "by hand"
    assert predict(tmp_path, *command, "--threshold", "0.5")[0] == 0


def test_batches_of_a_list_do_not_overwrite_each_other(tmp_path: Path) -> None:
    save_tiny(tmp_path / "model")
    (tmp_path / "p").mkdir()
    for number in range(5):
        (tmp_path / f"p/{number}.jpg").write_bytes(encoded(small_image(number), "JPEG"))
    for output, options, codes in (("out", [], [0, 2, 2]), ("added", ["--resume"], [0, 0, 0])):
        batches = (["p/0.jpg", "p/1.jpg"], ["p/2.jpg", "p/3.jpg"], ["p/4.jpg"])  # as xargs -n 2 gives them
        runs = [
            predict(tmp_path, *batch, "-o", output, "-f", "jsonl", "--no-draw", *options, "--threshold", "0")
            for batch in batches
        ]
        assert [code for code, _ in runs] == codes
        if not options:
            assert "name all images in one run (… | detr predict -), add to it with --resume" in runs[1][1]
        lines = (tmp_path / output / "detections.jsonl").read_text().splitlines()
        assert [json.loads(line)["path"] for line in lines] == [
            f"p/{number}.jpg" for number in range(5 if options else 2)
        ]
    for number, code in ((0, 0), (1, 2), (0, 0)):  # one by one
        arguments = (f"p/{number}.jpg", "-o", "single", "-f", "jsonl", "--no-draw", "--threshold", "0")
        assert predict(tmp_path, *arguments)[0] == code
