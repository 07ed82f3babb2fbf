"""Sources: the images that names stand for, and the paths of their outputs."""

import codecs
import io
import os
import sys
from collections.abc import Iterable
from pathlib import Path, PurePath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detrcli.errors import UsageError
from detrcli.images.sources import ImageReference, Sources, read_list


class Stdin:
    """Replacement for sys.stdin."""

    def __init__(self, data: bytes) -> None:
        self.buffer = io.BytesIO(data)


class SlowPipe(io.BytesIO):
    """Pipe that delivers a few bytes at a time."""

    def __init__(self, data: bytes, size: int) -> None:
        super().__init__(data)
        self.size = size

    def read(self, most: int | None = -1, /) -> bytes:
        return super().read(self.size)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(*paths: str) -> None:
    for path in paths:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()


def paths_of(*names: str, recursive: bool = False, exclude: Path | None = None) -> list[str]:
    return [reference.path for reference in Sources(names, recursive, exclude)]


def relatives_of(*names: str, recursive: bool = False) -> list[str]:
    return [reference.relative.as_posix() for reference in Sources(names, recursive)]


def check_relative_paths(references: Iterable[ImageReference]) -> None:
    """Check that outputs are below the output folder, and that no two images share one."""
    owners: dict[PurePath, str] = {}
    for reference in references:
        assert not reference.relative.is_absolute()
        assert os.pardir not in reference.relative.parts
        assert reference.relative.parts
        own = os.path.abspath(reference.path).replace("//", "/")
        assert owners.setdefault(reference.relative, own) == own


def test_files_keep_names_and_order(here: Path) -> None:
    make("b.jpg", "a.txt")
    assert paths_of("b.jpg", "a.txt", "missing.jpg", "./b.jpg") == ["b.jpg", "a.txt", "missing.jpg", "./b.jpg"]


def test_images_of_a_folder_are_sorted(here: Path) -> None:
    make("f/b.jpg", "f/a.PNG", "f/c.webp", "f/notes.txt", "f/noext", "f/.hidden.jpg", "f/sub/d.jpg")
    assert paths_of("f") == [os.path.join("f", name) for name in ("a.PNG", "b.jpg", "c.webp")]
    assert paths_of("f/")[0] == "f/a.PNG"


def test_recursion_skips_hidden_folders(here: Path) -> None:
    make("f/b.jpg", "f/a/z.jpg", "f/a/deep/x.png", "f/c/y.txt", "f/.cache/q.jpg")
    assert paths_of("f", recursive=True) == ["f/a/deep/x.png", "f/a/z.jpg", "f/b.jpg"]


def test_recursion_skips_the_output_folder(here: Path) -> None:
    make("f/b.jpg", "f/out/b.jpg", "f/outer/c.jpg", "f/sub/out/d.jpg")
    expected = ["f/b.jpg", "f/outer/c.jpg", "f/sub/out/d.jpg"]
    assert paths_of("f", recursive=True, exclude=Path("f/out")) == expected
    assert paths_of("f", recursive=True, exclude=here / "f" / "sub" / ".." / "out") == expected
    assert paths_of(".", recursive=True, exclude=Path("f")) == []


@pytest.mark.parametrize("output", ["f", ".", "f/../f", "f/sub/..", "link"])
def test_output_folder_that_is_or_contains_the_searched_folder_is_not_skipped(here: Path, output: str) -> None:
    make("f/a.jpg", "f/sub/b.jpg")
    os.symlink(here / "f", "link", target_is_directory=True)
    for recursive, found in ((True, ["f/a.jpg", "f/sub/b.jpg"]), (False, ["f/a.jpg"])):
        assert paths_of("f", recursive=recursive, exclude=Path(output)) == found
        assert paths_of("f/*", recursive=recursive, exclude=Path(output)) == found
    assert paths_of("f/**/*.jpg", exclude=Path(output)) == ["f/a.jpg", "f/sub/b.jpg"]
    assert not Sources(("f", "f/*.jpg"), True, Path(output)).skips_outputs()


def test_output_folder_is_skipped_only_in_folders_that_contain_it(here: Path) -> None:
    make("f/a.jpg", "f/out/b.jpg", "f/out/sub/c.jpg", "g/d.jpg")
    sources = Sources(("f", "f/out/sub", "g"), True, Path("f/out"))
    assert [one.path for one in sources] == ["f/a.jpg", "f/out/sub/c.jpg", "g/d.jpg"]
    assert sources.skips_outputs()
    assert not Sources(("f",), True, Path("f/new")).skips_outputs()
    assert not Sources(("f/a.jpg",), True, Path("f/out")).skips_outputs()


def test_globs(here: Path) -> None:
    make("f/b.jpg", "f/a.jpg", "f/.h.jpg", "f/c.txt", "f/sub/d.jpg", "f/sub/deep/e.jpg", "f/dir.jpg/x.png")
    assert paths_of("f/*.jpg") == ["f/a.jpg", "f/b.jpg"]
    assert paths_of("f/?.*") == ["f/a.jpg", "f/b.jpg", "f/c.txt"]
    assert paths_of("f/**/*.jpg") == ["f/a.jpg", "f/b.jpg", "f/sub/d.jpg", "f/sub/deep/e.jpg"]
    make("f/.cache/q.jpg", "f/sub/.cache/q.jpg")
    assert paths_of("f/**/*.jpg") == ["f/a.jpg", "f/b.jpg", "f/sub/d.jpg", "f/sub/deep/e.jpg"]
    assert paths_of("nothing/*.jpg") == []
    assert relatives_of("f/**/*.jpg") == ["a.jpg", "b.jpg", "sub/d.jpg", "sub/deep/e.jpg"]
    assert relatives_of("*/sub/*.jpg") == ["f/sub/d.jpg"]


def test_glob_skips_the_output_folder(here: Path) -> None:
    make("f/b.jpg", "f/out/b.jpg", "f/out/sub/b.jpg", "f/outer/c.jpg")
    assert paths_of("f/**/*.jpg", exclude=Path("f/out")) == ["f/b.jpg", "f/outer/c.jpg"]
    assert paths_of("f/*/*.jpg", exclude=here / "f" / "out") == ["f/outer/c.jpg"]


def test_file_that_looks_like_a_glob(here: Path) -> None:
    make("a[1].jpg", "a1.jpg")
    assert paths_of("a[1].jpg") == ["a[1].jpg"]
    assert paths_of("a[2].jpg") == []
    assert relatives_of("a[1].jpg") == ["a[1].jpg"]
    make("d[1]/x.jpg", "d[1]/y.jpg")
    assert paths_of("d[1]") == ["d[1]/x.jpg", "d[1]/y.jpg"]


def test_glob_searches_folders_only_with_recursion(here: Path) -> None:
    make("f/a.jpg", "f/sub/b.jpg", "f/sub/deep/c.jpg")
    assert paths_of("f/*") == ["f/a.jpg"]
    assert paths_of("f/*", recursive=True) == ["f/a.jpg", "f/sub/b.jpg", "f/sub/deep/c.jpg"]
    assert paths_of("f/**", recursive=True) == ["f/a.jpg", "f/sub/b.jpg", "f/sub/deep/c.jpg"]


def test_glob_without_matches_is_an_image_that_fails_beside_others(here: Path) -> None:
    make("a.jpg")
    assert paths_of("a.jpg", "typo/*.jpg") == ["a.jpg", "typo/*.jpg"]
    assert paths_of("typo/*.jpg") == []  # the command line reports this itself


def test_read_list() -> None:
    lines = [b"a.jpg\n", b"\n", b"b c.jpg\r\n", b"\r\n", b" d.jpg\n", b"odd\xff.jpg\n", "é.jpg".encode()]
    paths = list(read_list(io.BytesIO(b"".join(lines))))
    assert [os.fsencode(path) for path in paths] == [
        b"a.jpg",
        b"b c.jpg",
        b" d.jpg",
        b"odd\xff.jpg",
        "é.jpg".encode(),
    ]
    assert list(read_list(io.BytesIO(b""))) == []
    for size in (1, 3, 7):
        assert list(read_list(SlowPipe(b"".join(lines), size))) == paths
    assert list(read_list(io.BytesIO(b"a\nb\0\0c\r\0"), b"\0")) == ["a\nb", "c\r"]


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_byte_order_mark_is_removed(size: int) -> None:
    mark = codecs.BOM_UTF8
    assert list(read_list(SlowPipe(mark + b"a.jpg\nb.jpg\n", size))) == ["a.jpg", "b.jpg"]
    assert list(read_list(SlowPipe(mark + mark + b"a.jpg\n" + mark + b"b.jpg", size))) == ["\ufeffa.jpg", "\ufeffb.jpg"]
    assert list(read_list(SlowPipe(mark, size))) == []
    assert list(map(os.fsencode, read_list(SlowPipe(mark[:2], size)))) == [mark[:2]]
    assert list(read_list(SlowPipe(mark + b"a\0", size), b"\0")) == [
        "\ufeffa"
    ]  # find -print0 writes no byte order mark
    for encoding in ("utf-16", "utf-16-be"):
        text = "\ufeffa.jpg\n" if encoding == "utf-16-be" else "a.jpg\n"
        with pytest.raises(UsageError, match="the list is UTF-16; save it as UTF-8"):
            list(read_list(SlowPipe(text.encode(encoding), size)))


def test_list_file_with_byte_order_mark(here: Path) -> None:
    Path("list.txt").write_bytes(codecs.BOM_UTF8 + b"a.jpg\r\nb.jpg\r\n")
    assert [one.path for one in Sources((), lists=("list.txt",))] == ["a.jpg", "b.jpg"]
    Path("list.txt").write_text("a.jpg\n", "utf-16")
    with pytest.raises(UsageError, match=r"list\.txt is UTF-16; save it as UTF-8"):
        list(Sources((), lists=("list.txt",)))


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no pseudoterminals")
def test_list_that_is_a_terminal_is_refused() -> None:
    parent, child = os.openpty()
    try:
        with pytest.raises(UsageError, match="a terminal, not a file"):
            list(Sources((), lists=(os.ttyname(child),)))
    finally:
        os.close(parent)
        os.close(child)


def test_list_on_stdin(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Stdin(b"x/a.jpg\nodd\xff.jpg\n*.jpg\n"))
    make("first.jpg")
    sources = Sources(("first.jpg", "-"))
    assert not sources.countable
    references = list(sources)
    assert [os.fsencode(reference.path) for reference in references] == [
        b"first.jpg",
        b"x/a.jpg",
        b"odd\xff.jpg",
        b"*.jpg",  # not a glob in a list
    ]
    assert os.fsencode(references[2].relative) == b"odd\xff.jpg"
    assert Sources(("first.jpg",)).countable
    assert not Sources(("first.jpg",), lists=("list.txt",)).countable


def test_link_loop_in_a_folder(here: Path) -> None:
    make("f/a.jpg", "f/sub/b.jpg")
    for link in ("f/sub/up", "f/sub/up2", "f/self"):
        os.symlink(here / "f", link, target_is_directory=True)
    os.symlink("dangling-itself.jpg", "f/dangling-itself.jpg")
    assert paths_of("f", recursive=True) == ["f/a.jpg", "f/dangling-itself.jpg", "f/sub/b.jpg"]


def test_link_loop_in_a_glob(here: Path) -> None:
    make("f/a.jpg", "f/sub/b.jpg")
    os.symlink(here / "f", "f/sub/up", target_is_directory=True)  # with a second one, there would be 2^40 paths
    assert paths_of("f/**/*.jpg") == ["f/a.jpg", "f/sub/b.jpg"]


def test_folder_with_an_image_suffix(here: Path) -> None:
    make("f/a.jpg", "f/x.jpg/inner.png")
    assert paths_of("f", recursive=True) == ["f/a.jpg", "f/x.jpg/inner.png"]
    assert paths_of("f") == ["f/a.jpg", "f/x.jpg"]  # fails with an error message
    assert paths_of("f/x.jpg") == ["f/x.jpg/inner.png"]


def test_outputs_mirror_a_folder(here: Path) -> None:
    make("f/b.jpg", "f/a/z.jpg", "f/a/deep/x.png")
    assert relatives_of("f", recursive=True) == ["a/deep/x.png", "a/z.jpg", "b.jpg"]
    assert relatives_of(str(here / "f"), recursive=True) == ["a/deep/x.png", "a/z.jpg", "b.jpg"]
    assert relatives_of("f/a/../a") == ["z.jpg"]


def test_same_names_in_two_folders_do_not_collide(here: Path) -> None:
    make("one/a.jpg", "two/a.jpg", "one/sub/a.jpg", "deep/down/one/a.jpg")
    assert relatives_of("one", "two", recursive=True) == ["one/a.jpg", "one/sub/a.jpg", "two/a.jpg"]
    check_relative_paths(Sources(("one", "two", "deep/down/one", "one/sub", "*/a.jpg"), recursive=True))


def test_same_names_of_files_do_not_collide(here: Path) -> None:
    make("one/a.jpg", "two/a.jpg", "a.jpg")
    assert relatives_of("one/a.jpg", "two/a.jpg") == ["one/a.jpg", "two/a.jpg"]
    assert relatives_of("one/a.jpg", "a.jpg") == ["one/a.jpg", "a.jpg"]
    assert relatives_of("one/a.jpg") == ["a.jpg"]


def test_unusual_names(here: Path) -> None:
    names = [" lead.jpg", "line\nbreak.jpg", "trail .jpg", "ünï 日本 🦊.jpg", os.fsdecode(b"raw\xff.jpg")]
    make(*(f"f/{name}" for name in names))
    assert paths_of("f") == sorted(f"f/{name}" for name in names)
    assert relatives_of("f") == sorted(names)
    assert paths_of(f"f/{names[1]}") == [f"f/{names[1]}"]


def test_outputs_of_images_outside_the_root(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = here / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    listed = ["a.jpg", "../a.jpg", "../../a.jpg", str(here / "other" / "a.jpg"), "sub/../a.jpg", "..a/b.jpg"]
    monkeypatch.setattr(sys, "stdin", Stdin("\n".join(listed).encode()))
    references = list(Sources(("-",)))
    assert references[0].relative == Path("a.jpg")
    assert references[4].relative == Path("a.jpg")
    assert references[5].relative == Path("..a/b.jpg")
    check_relative_paths(references)


def test_folder_named_like_the_one_for_images_outside_the_root(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Stdin(b"/elsewhere/a.jpg\n_outside/elsewhere/a.jpg\n"))
    check_relative_paths(Sources(("-",)))


PART = st.one_of(st.sampled_from(["a", "b", "..", ".", "...", "..a", " "]), st.text("ab.é \n\udcff", min_size=1))
LISTED = st.builds(lambda start, parts: start + "/".join(parts), st.sampled_from(["", "/", "../"]), st.lists(PART))


@settings(deadline=None)
@given(st.lists(LISTED.filter(lambda path: bool(path) and "\n" not in path), max_size=8))
def test_listed_images_have_distinct_outputs(paths: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", Stdin(b"\n".join(os.fsencode(path) for path in paths)))
        files = [reference for reference in Sources(("-",)) if os.path.abspath(reference.path) != os.getcwd()]
    check_relative_paths(files)


@settings(deadline=None)
@given(st.lists(LISTED.filter(lambda path: bool(path) and path != "-"), min_size=1, max_size=8))
def test_named_images_have_distinct_outputs(paths: list[str]) -> None:
    files = [path + "/missing.jpg" for path in paths]
    references = list(Sources(tuple(files)))
    assert [reference.path for reference in references] == files
    check_relative_paths(references)
