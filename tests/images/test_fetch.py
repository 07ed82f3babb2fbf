"""Images at URLs: over HTTP from a local server, and in stores of fsspec."""

import base64
import io
import itertools
import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image

from detrcli.cli import main
from detrcli.errors import ImageError, UsageError
from detrcli.images import fetch
from detrcli.images.decode import read_image
from detrcli.images.fetch import open_bytes
from detrcli.images.http import Deadline
from detrcli.images.sources import ImageReference, Sources
from detrcli.images.urls import display_name, encode, is_url

AUTHORIZATION = "Basic " + base64.b64encode("us@er:sÄ:cret".encode()).decode()
CREDENTIALS = "us%40er:s%C3%84:cret@"
ENCODED = "/%C3%A4%20b/100%25/%C3%BC.png?q=%C3%A4%20x"


def png(width: int = 8) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, 4), "red").save(file, "PNG")
    return file.getvalue()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if (page := self.path.partition("?")[0]) in ("/slow.png", "/slow-head.png", "/circle.png"):
            self.send_slowly(page)
            return
        if page == "/locked.png":
            self.send_response(200 if self.headers["Authorization"] == AUTHORIZATION else 401)
            self.end_headers()
            self.wfile.write(png())
            return
        if page in ("/same-host.png", "/other-host.png"):
            self.send_response(302)
            host = "localhost" if page == "/other-host.png" else "127.0.0.1"
            self.send_header("Location", f"http://{host}:{self.server.server_port}/locked.png")  # type: ignore[attr-defined]
            self.end_headers()
            return
        if self.path == ENCODED:
            page = "/a.png"
        body = {"/a.png": png(), "/empty.png": b"", "/page.png": b"<html>"}.get(page)
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

    def send_slowly(self, page: str) -> None:
        """Send an endless response, or endless redirects."""
        if page == "/circle.png":
            self.send_response(302)
            self.send_header("Location", f"/circle.png?{int(self.path.partition('?')[2] or 0) + 1}")
            self.end_headers()
            return
        self.send_response(200)
        if page == "/slow.png":
            self.end_headers()
        with suppress(OSError):
            while True:
                self.wfile.write(b"x" * 100)
                self.wfile.flush()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.mark.parametrize("name", ["a.png", "moved.png", "a.png?size=1&of=2"])
def test_http(server: str, name: str) -> None:
    assert read_image(f"{server}/{name}").image.size == (8, 4)


@pytest.mark.parametrize(
    ("name", "message", "kind"),
    [
        ("nowhere.png", "404 Not Found", "not fetched"),
        ("empty.png", "the file is empty", "empty"),
        ("page.png", "not an image", "not an image"),
        ("short.png", "cannot be fetched", "not fetched"),
    ],
)
def test_http_failures(server: str, name: str, message: str, kind: str) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        read_image(f"{server}/{name}")
    assert str(caught.value).startswith(f"{server}/{name}: ")
    assert caught.value.kind == kind


@pytest.mark.parametrize("name", ["ä b/100%/ü.png?q=ä x", "%C3%A4 b/100%25/%C3%BC.png?q=%C3%A4%20x#part", ENCODED[1:]])
def test_urls_are_encoded_once(server: str, name: str) -> None:
    assert read_image(f"{server}/{name}").image.size == (8, 4)


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("https://bücher.example:81/a.jpg", "https://xn--bcher-kva.example:81/a.jpg"),
        ("http://host/a\udce4.jpg", "http://host/a%E4.jpg"),
        ("http://host/a%zz%41.jpg", "http://host/a%25zz%41.jpg"),
        ("http://host/@x/[1](2)?a=b&c=d/e+f", "http://host/@x/[1](2)?a=b&c=d/e+f"),
        ("http://user:p@host/a", "http://host/a"),
    ],
)
def test_encode(url: str, sent: str) -> None:
    assert encode(url) == sent
    assert encode(sent) == sent


@pytest.mark.parametrize("name", ["slow.png", "slow-head.png", "circle.png"])
def test_slow_server_times_out(server: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count(0, 40)  # a clock that advances by 40 s per call
    monkeypatch.setattr("detrcli.images.http.monotonic", lambda: next(ticks))
    with pytest.raises(ImageError, match=r"cannot be fetched \(timed out after 300 s\)"):
        read_image(f"{server}/{name}")
    assert 300 < next(ticks) < 500


def test_read_timeout_is_limited_by_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter((0.0, 0.0, 60.0, 80.0, 99.0))
    monkeypatch.setattr("detrcli.images.http.monotonic", lambda: next(times))
    deadline = Deadline(100)
    assert [deadline.timeout() for _ in range(4)] == [30, 30, 20, 1]


def test_slow_store_times_out(store: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count(0, 40)  # a clock that advances by 40 s per call
    monkeypatch.setattr("detrcli.images.http.monotonic", lambda: next(ticks))
    monkeypatch.setattr(fetch, "CHUNK", 4)
    with pytest.raises(ImageError, match=r"cannot be fetched \(timed out after 300 s\)"):
        open_bytes("memory://bucket/a.png")


def test_credentials_are_used_and_not_shown(server: str) -> None:
    secret = server.replace("://", f"://{CREDENTIALS}")
    assert read_image(f"{secret}/locked.png").image.size == (8, 4)
    assert read_image(f"{secret}/same-host.png").image.size == (8, 4)
    with pytest.raises(ImageError, match="401"):
        read_image(f"{server}/locked.png")
    for name in ("nowhere.png", "page.png", "short.png", "empty.png"):
        with pytest.raises(ImageError) as caught:
            read_image(f"{secret}/{name}")
        assert str(caught.value).startswith(f"{server}/{name}: ")


def test_credentials_are_not_sent_to_another_server(server: str) -> None:
    with pytest.raises(ImageError, match="401"):
        read_image(f"{server.replace('://', f'://{CREDENTIALS}')}/other-host.png")


@pytest.mark.parametrize("host", ["127.0.0.1:9", "127.0.0.1:x", "[::1", "a" * 70 + "ä"])
def test_errors_contain_no_password(host: str) -> None:
    with pytest.raises(ImageError) as caught:
        open_bytes(f"https://user:secret@{host}/a.png")
    assert "secret" not in str(caught.value)
    assert host in str(caught.value)


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("https://user:secret@host/a.jpg", "https://host/a.jpg"),
        ("https://token@host/a.jpg", "https://host/a.jpg"),
        ("https://user:se@cret@host/@a.jpg", "https://host/@a.jpg"),
        ("ftp://user:secret@host/a.jpg", "ftp://host/a.jpg"),
        ("s3://key:secret@bucket/a.jpg", "s3://bucket/a.jpg"),
        ("abfs://container@account/a.jpg", "abfs://container@account/a.jpg"),
        ("github://org:repository@branch/a.jpg", "github://org:repository@branch/a.jpg"),
        ("https://host/@user/a.jpg", "https://host/@user/a.jpg"),
    ],
)
def test_path_of_a_url_has_no_credentials(url: str, public: str) -> None:
    (reference,) = Sources((url,)) if url.startswith("http") else (ImageReference(display_name(url), Path(), url),)
    assert (reference.path, reference.location) == (public, url)


def test_outputs_contain_no_password(
    server: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    secret = server.replace("://", f"://{CREDENTIALS}")
    names = [f"{secret}/{name}" for name in ("locked.png", "nowhere.png", "page.png", "short.png")]
    options = ["--model", "demo", "--device", "cpu", "--format", "coco", "--format", "label-studio", "--format", "json"]

    def run(*more: str) -> str:
        monkeypatch.setattr("sys.argv", ["detr", "predict", *names, *options, "--output", "out", *more])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 1
        printed = "".join(capfd.readouterr())
        assert "cret@" not in printed
        return printed

    assert run("--log-json").count('"kind"') == 3
    assert '"path"' not in run("--resume")  # all images are recognized by their public URL
    for path in (tmp_path / "out").rglob("*"):
        assert "cret" not in str(path)
        assert path.is_dir() or b"cret@" not in path.read_bytes()
    failures = [json.loads(line) for line in (tmp_path / "out" / "failures.jsonl").read_text().splitlines()]
    assert [one["path"] for one in failures] == [
        f"{server}/{name}" for name in ("nowhere.png", "page.png", "short.png")
    ]


class ServerFileSystem(MemoryFileSystem):  # type: ignore[misc]
    """File system on a server with credentials, whose paths do not include the server, like FTP."""

    protocol = "oneserver"
    cachable = False

    def __init__(self, host: str = "", username: str = "", password: str = "") -> None:
        super().__init__()
        if (username, password) != ("user", "secret"):
            raise PermissionError(f"access denied for oneserver://{username}:{password}@{host}")

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.partition("://")[2].partition("/")[2] if "://" in path else path

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, str]:
        parts = urlsplit(path)
        return {"host": parts.hostname or "", "username": parts.username or "", "password": parts.password or ""}


def test_folder_on_a_server_is_searched_with_credentials(store: fsspec.AbstractFileSystem) -> None:
    fsspec.register_implementation("oneserver", ServerFileSystem, clobber=True)
    first, second = Sources(("oneserver://user:secret@host/bucket",))
    assert (first.path, first.relative.as_posix()) == ("oneserver://host/bucket/a.png", "oneserver/host/bucket/a.png")
    assert read_image(first.location).image.size == (1, 4)
    assert read_image(second.location).image.size == (2, 4)
    with pytest.raises(UsageError) as caught:
        list(Sources(("oneserver://user:wrong@host/bucket",)))
    assert "wrong" not in str(caught.value)
    with pytest.raises(ImageError) as failed:
        open_bytes("oneserver://user:wrong@host/bucket/a.png")
    assert "wrong" not in str(failed.value)


def test_connection_refused() -> None:
    with pytest.raises(ImageError, match="cannot be fetched") as caught:
        open_bytes("http://127.0.0.1:9/a.png")
    assert "\n" not in str(caught.value)


def test_download_limit(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "MAX_DOWNLOAD", len(png()) - 1)
    with pytest.raises(ImageError, match="larger than"):
        open_bytes(f"{server}/a.png")


@pytest.fixture
def store() -> Iterator[fsspec.AbstractFileSystem]:
    store = fsspec.filesystem("memory")
    for number, name in enumerate(("a.png", "b.PNG", "notes.txt", "sub/c.png")):
        store.pipe(f"/bucket/{name}", png(number + 1))
    yield store
    store.rm("/bucket", recursive=True)


@pytest.mark.usefixtures("store")
def test_store_is_searched_like_a_folder() -> None:
    def found(*names: str, recursive: bool = False) -> list[tuple[str, str]]:
        return [(one.path, one.relative.as_posix()) for one in Sources(names, recursive)]

    assert found("memory://bucket") == [
        ("memory:///bucket/a.png", "memory/bucket/a.png"),
        ("memory:///bucket/b.PNG", "memory/bucket/b.PNG"),
    ]
    assert len(found("memory://bucket", recursive=True)) == 3
    assert found("memory://bucket/*/c.png") == [("memory:///bucket/sub/c.png", "memory/bucket/sub/c.png")]
    assert found("memory://bucket/[ab].png") == [("memory:///bucket/a.png", "memory/bucket/a.png")]
    assert read_image("memory://bucket/sub/c.png").image.size == (4, 4)
    with pytest.raises(ImageError, match="no such file"):
        read_image("memory://bucket/none.png")


def test_name_in_a_store_that_looks_like_a_glob(store: fsspec.AbstractFileSystem) -> None:
    store.pipe("/bucket/[ab].png", png(1))
    assert [one.path for one in Sources(("memory://bucket/[ab].png",))] == ["memory:///bucket/[ab].png"]


def test_unknown_store() -> None:
    with pytest.raises(UsageError, match="cannot be listed"):
        list(Sources(("nonsense://bucket/a.png",)))
    with pytest.raises(ImageError, match="cannot be fetched"):
        open_bytes("nonsense://bucket/a.png")


@pytest.mark.parametrize(
    ("url", "relative"),
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
def test_outputs_of_urls_are_below_the_output_folder(url: str, relative: str) -> None:
    (reference,) = Sources((url,))
    assert reference.relative == Path(relative)
    assert reference.path == url.replace("user:secret@", "")
    assert reference.location == url


@pytest.mark.parametrize("name", ["a.jpg", "C:/a.jpg", "c:\\a.jpg", "odd://", "dir/http://a"])
def test_is_url(name: str) -> None:
    assert is_url(name) == (name == "odd://")
