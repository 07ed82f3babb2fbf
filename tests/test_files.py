"""Atomic writes of output files, and clear errors for those that cannot be written."""

import contextlib
import errno
import os
import stat
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from detrcli.errors import OutputError
from detrcli.files import atomic_file, sync_folder


def test_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "out.bin"
    with atomic_file(path) as file:
        file.write(b"first")
        file.flush()
        assert not path.exists()
        file.write(b" second")
    assert path.read_bytes() == b"first second"
    assert os.listdir(tmp_path) == ["out.bin"]


def test_old_file_stays_until_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "out.bin"
    path.write_bytes(b"old")
    with atomic_file(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


def write_and_fail(path: Path, failure: BaseException) -> None:
    with atomic_file(path) as file:
        file.write(b"half")
        raise failure


@pytest.mark.parametrize("failure", [ValueError("no"), KeyboardInterrupt(), OSError("without errno"), SystemExit(3)])
def test_failure_leaves_no_file(tmp_path: Path, failure: BaseException) -> None:
    with pytest.raises(type(failure)) as caught:
        write_and_fail(tmp_path / "new.bin", failure)
    assert caught.value is failure
    assert os.listdir(tmp_path) == []


def test_failure_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "out.bin"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError):
        write_and_fail(path, ZeroDivisionError())
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["out.bin"]


def test_missing_folders_are_created(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b c" / "out.bin"
    with atomic_file(path) as file:
        file.write(b"x")
    assert path.read_bytes() == b"x"


def test_file_on_another_disk_than_the_staging_folder(tmp_path: Path) -> None:
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system")
    with TemporaryDirectory(dir=memory) as elsewhere:
        for folder in (Path(elsewhere), tmp_path / "here"):
            with atomic_file(folder / "a", staging=tmp_path) as file:
                file.write(b"whole")
            assert [(one.name, one.read_bytes()) for one in folder.iterdir()] == [("a", b"whole")]


def test_unfinished_file_is_in_the_staging_folder(tmp_path: Path) -> None:
    (tmp_path / "staging").mkdir()
    with atomic_file(tmp_path / "a", staging=tmp_path / "staging"):
        assert len([*(tmp_path / "staging").iterdir()]) == 1
    assert [*(tmp_path / "staging").iterdir()] == []


def test_path_below_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"kept")
    for path in (tmp_path / "file" / "out.bin", tmp_path / "file" / "deep" / "out.bin"):
        with pytest.raises(OutputError, match="; choose another place") as caught, atomic_file(path):
            pytest.fail("the block must not run")
        assert str(path) in str(caught.value)
    assert (tmp_path / "file").read_bytes() == b"kept"


def test_folder_of_the_same_name_is_kept(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="cannot write"), atomic_file(tmp_path / "out") as file:
        file.write(b"x")
    assert os.listdir(tmp_path) == ["out"]
    assert os.listdir(tmp_path / "out") == []


def test_broken_pipe_in_the_block_is_not_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(BrokenPipeError):
        write_and_fail(tmp_path / "out.bin", BrokenPipeError(errno.EPIPE, "Broken pipe"))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("umask", "expected"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_follow_the_umask(tmp_path: Path, umask: int, expected: int) -> None:
    before = os.umask(umask)
    try:
        with atomic_file(tmp_path / "out.bin"):
            pass
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out.bin").stat().st_mode) == expected


def test_full_disk_is_one_line_with_advice(tmp_path: Path) -> None:
    path = tmp_path / "out.bin"
    with pytest.raises(OutputError, match="free some space, then run it again") as caught:
        write_and_fail(path, OSError(errno.ENOSPC, "No space left on device"))
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("number", "fails"), [(errno.EIO, True), (errno.ENOSPC, True), (errno.EINVAL, False)])
def test_sync_of_a_folder_fails_only_on_a_broken_or_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, fails: bool
) -> None:
    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=os.strerror(number)) if fails else contextlib.nullcontext():
        sync_folder(tmp_path)
