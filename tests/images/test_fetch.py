"""Pictures at addresses: over HTTP from a small server on this machine, and in stores that fsspec knows."""

import io
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest
from PIL import Image

from detrcli.errors import ImageError, UsageError
from detrcli.images import fetch
from detrcli.images.decode import read_picture
from detrcli.images.fetch import is_address, opened
from detrcli.images.sources import Sources


def png(width: int = 8) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, 4), "red").save(file, "PNG")
    return file.getvalue()


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = {"/a.png": png(), "/empty.png": b"", "/page.png": b"<html>"}.get(self.path.partition("?")[0])
        if self.path == "/moved.png":
            self.send_response(302)
            self.send_header("Location", "/a.png")
        elif self.path == "/short.png":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            body = png()[:20]
        elif body is None:
            self.send_error(404)
            return
        else:
            self.send_response(200)
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.mark.parametrize("name", ["a.png", "moved.png", "a.png?size=1&of=2"])
def test_a_picture_comes_over_http(server: str, name: str) -> None:
    assert read_picture(f"{server}/{name}").image.size == (8, 4)


@pytest.mark.parametrize(
    ("name", "said", "kind"),
    [
        ("nowhere.png", "404 Not Found", "not fetched"),
        ("empty.png", "nothing in it", "empty"),
        ("page.png", "not a picture", "not a picture"),
        ("short.png", "cannot be fetched", "not fetched"),
    ],
)
def test_what_is_not_served_is_a_line(server: str, name: str, said: str, kind: str) -> None:
    with pytest.raises(ImageError, match=said) as caught:
        read_picture(f"{server}/{name}")
    assert str(caught.value).startswith(f"{server}/{name}: ")
    assert caught.value.kind == kind


def test_nobody_listens() -> None:
    with pytest.raises(ImageError, match="cannot be fetched") as caught:
        opened("http://127.0.0.1:9/a.png")
    assert "\n" not in str(caught.value)


def test_an_address_gives_only_so_much(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "MOST_FETCHED", len(png()) - 1)
    with pytest.raises(ImageError, match="larger than"):
        opened(f"{server}/a.png")


@pytest.fixture
def store() -> Iterator[fsspec.AbstractFileSystem]:
    store = fsspec.filesystem("memory")
    for number, name in enumerate(("a.png", "b.PNG", "notes.txt", "sub/c.png")):
        store.pipe(f"/bucket/{name}", png(number + 1))
    yield store
    store.rm("/bucket", recursive=True)


@pytest.mark.usefixtures("store")
def test_a_store_is_searched_like_a_folder() -> None:
    def found(*names: str, recursive: bool = False) -> list[tuple[str, str]]:
        return [(one.path, one.relative.as_posix()) for one in Sources(names, recursive)]

    assert found("memory://bucket") == [
        ("memory:///bucket/a.png", "memory/bucket/a.png"),
        ("memory:///bucket/b.PNG", "memory/bucket/b.PNG"),
    ]
    assert len(found("memory://bucket", recursive=True)) == 3
    assert found("memory://bucket/*/c.png") == [("memory:///bucket/sub/c.png", "memory/bucket/sub/c.png")]
    assert found("memory://bucket/[ab].png") == [("memory:///bucket/a.png", "memory/bucket/a.png")]
    assert read_picture("memory://bucket/sub/c.png").image.size == (4, 4)
    with pytest.raises(ImageError, match="no such file"):
        read_picture("memory://bucket/none.png")


def test_a_name_in_a_store_may_look_like_a_pattern(store: fsspec.AbstractFileSystem) -> None:
    store.pipe("/bucket/[ab].png", png(1))
    assert [one.path for one in Sources(("memory://bucket/[ab].png",))] == ["memory:///bucket/[ab].png"]


def test_a_store_that_is_not_known() -> None:
    with pytest.raises(UsageError, match="cannot be listed"):
        list(Sources(("nonsense://bucket/a.png",)))
    with pytest.raises(ImageError, match="cannot be fetched"):
        opened("nonsense://bucket/a.png")


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("https://host:81/d/a.jpg", "host+81/d/a.jpg"),
        ("HTTP://HOST/a.jpg#part", "host/a.jpg"),
        ("https://[x/a.jpg", "[x/a.jpg"),
        ("memory:///d/a#1.jpg", "memory/d/a#1.jpg"),
        ("https://user:secret@host/a.jpg?x=1/2", "host/a.jpg?x=1/2"),
        ("https://host/../../etc/a.jpg", "host/etc/a.jpg"),
        ("https://host//a//./b.jpg", "host/a/b.jpg"),
        ("https://host/..\\..\\a.jpg", "host/a.jpg"),
    ],
)
def test_outputs_of_addresses_stay_below_the_output_folder(address: str, place: str) -> None:
    (reference,) = Sources((address,))
    assert reference.relative == Path(place)
    assert reference.path == address


@pytest.mark.parametrize("name", ["a.jpg", "C:/a.jpg", "c:\\a.jpg", "odd://", "dir/http://a"])
def test_what_is_an_address(name: str) -> None:
    assert is_address(name) == (name == "odd://")
