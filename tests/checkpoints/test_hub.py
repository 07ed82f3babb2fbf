"""Models from the Hub or a URL: the real client, in its own processes, with a local Hub."""

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from detrcli.checkpoints.names import KNOWN_MODELS

from ..detr_process import python
from ..hub_server import Fault, Hub
from ..tiny import save_tiny
from .test_rfdetr import ORIGINAL

FIND = """
import json, sys
from detrcli.checkpoints.find import find
found = find(sys.argv[1], **json.loads(sys.argv[2]))
print(json.dumps([found.name, str(found.weights), found.config, found.preprocessor]))
"""
DETR = "from detrcli.cli import main; main()"
NO_PAUSES = "import time; time.sleep = lambda seconds: None\n"
"""Skip the client's pauses between attempts, half a minute in all."""
NO_RETRIES = "import sys, time; time.sleep = lambda seconds: sys.exit('retries')\n"

CONFIG = {"model_type": "detr", "id2label": {"0": "cat"}}
PREPROCESSOR = {"size": 480}
WHOLE = {
    "config.json": json.dumps(CONFIG).encode(),
    "preprocessor_config.json": json.dumps(PREPROCESSOR).encode(),
    "model.safetensors": b"weights",
}
ONCE_EACH = dict.fromkeys(WHOLE, 1)
REPO = "some-org/some.model_1"


def without(name: str) -> dict[str, bytes]:
    return {other: content for other, content in WHOLE.items() if other != name}


@dataclass
class User:
    """A user with an empty cache."""

    hub: Hub
    home: Path

    def python(self, program: str, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run a program with these environment variables."""
        environment = {
            name: value for name, value in os.environ.items() if not name.upper().startswith(("HF_", "HUGGING"))
        }
        environment |= {"HF_ENDPOINT": self.hub.url, "HF_HOME": str(self.home), "HF_HUB_DISABLE_TELEMETRY": "1"}
        environment |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", **settings}
        return python(program, *arguments, env=environment)

    def find(self, model: str, *, before: str = "", settings: dict[str, str] | None = None, **options: Any) -> Any:
        """Return what `find` finds: name, weights, config and preprocessor."""
        run = self.python(before + FIND, model, json.dumps(options), **(settings or {}))
        assert run.returncode == 0, run.stderr
        return json.loads(run.stdout)

    def refused(self, *arguments: str, no_pauses: bool = False, before: str = "", **settings: str) -> str:
        """Return the one line that `detr predict` fails with."""
        image = self.home.parent / "image.png"
        Image.new("RGB", (8, 8)).save(image)
        program = before + (NO_PAUSES if no_pauses else "") + DETR
        run = self.python(program, "predict", str(image), "--no-draw", "--device", "cpu", *arguments, **settings)
        assert run.returncode == 2, run.stderr
        assert run.stdout == ""
        assert "Traceback" not in run.stderr
        *notices, message = run.stderr.splitlines()
        assert message.startswith("detr: ")
        if no_pauses:
            assert len(notices) <= 1
            assert all("trying again" in notice for notice in notices)
        else:
            assert notices == []
        return message


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as hub:
        yield hub


@pytest.fixture
def user(hub: Hub, tmp_path: Path) -> User:
    return User(hub, tmp_path / "home")


@pytest.mark.parametrize(("model", "repo"), [("detr-resnet-101", "facebook/detr-resnet-101"), (REPO, REPO)])
def test_download(hub: Hub, user: User, model: str, repo: str) -> None:
    hub.add(repo, WHOLE)
    name, weights, config, preprocessor = user.find(model)
    assert (name, config, preprocessor) == (model, CONFIG, PREPROCESSOR)
    assert Path(weights).is_relative_to(user.home)
    assert Path(weights).name == "model.safetensors"
    assert Path(weights).read_bytes() == b"weights"
    assert hub.downloads(repo) == ONCE_EACH
    assert user.find(model) == [name, weights, config, preprocessor]
    assert hub.downloads(repo) == ONCE_EACH


def test_settings_of_transformers_5(hub: Hub, user: User) -> None:
    nested = json.dumps({"image_processor": PREPROCESSOR}).encode()
    hub.add(REPO, without("preprocessor_config.json") | {"processor_config.json": nested})
    assert user.find(REPO)[3] == PREPROCESSOR
    assert user.find(REPO, offline=True)[3] == PREPROCESSOR


def test_a_newer_revision_is_downloaded(hub: Hub, user: User) -> None:
    hub.add(REPO, WHOLE)
    user.find(REPO)
    hub.add(REPO, WHOLE | {"model.safetensors": b"better weights"})
    assert Path(user.find(REPO)[1]).read_bytes() == b"better weights"
    assert hub.downloads(REPO) == ONCE_EACH | {"model.safetensors": 2}


def test_revision(hub: Hub, user: User) -> None:
    hub.add(REPO, WHOLE)
    repository = hub.add(REPO, WHOLE | {"model.safetensors": b"tagged"}, revision="v1.0")
    assert Path(user.find(REPO, revision="v1.0")[1]).read_bytes() == b"tagged"
    assert Path(user.find(REPO)[1]).read_bytes() == b"weights"
    commit, _ = repository.find("v1.0") or ("", {})
    assert Path(user.find(REPO, revision=commit)[1]).read_bytes() == b"tagged"
    assert Path(user.find(REPO, revision="v1.0", offline=True)[1]).read_bytes() == b"tagged"


@pytest.mark.parametrize("missing", [None, "preprocessor_config.json", "model.safetensors"])
def test_the_cache_is_enough(hub: Hub, user: User, missing: str | None) -> None:
    files = without(missing) if missing else WHOLE
    hub.add(REPO, files | {"pytorch_model.bin": b"pickled weights"})
    found = user.find(REPO)
    assert (found[3] is None) == (missing == "preprocessor_config.json")
    assert Path(found[1]).name == ("pytorch_model.bin" if missing == "model.safetensors" else "model.safetensors")
    hub.requests.clear()
    assert user.find(REPO, offline=True) == found
    assert user.find(REPO, settings={"HF_HUB_OFFLINE": "1"}) == found
    assert not hub.requests
    hub.stop()
    assert user.find(REPO, before=NO_RETRIES) == found


def test_an_interrupted_download_is_retried(hub: Hub, user: User) -> None:
    content = bytes(range(256)) * 1000
    hub.add(REPO, WHOLE | {"model.safetensors": content})
    hub.faults[REPO, "model.safetensors"] = "cut once"
    assert Path(user.find(REPO, before=NO_PAUSES)[1]).read_bytes() == content
    assert hub.downloads(REPO)["model.safetensors"] == 2


def test_download_of_the_wrong_size_is_not_kept(hub: Hub, user: User) -> None:
    hub.add(REPO, WHOLE | {"model.safetensors": b"the whole of the weights"})
    hub.faults[REPO, "model.safetensors"] = "short"
    message = user.refused("--model", REPO)
    assert f"the download of {REPO} failed" in message
    assert "try again" in message
    hub.faults.clear()
    assert Path(user.find(REPO)[1]).read_bytes() == b"the whole of the weights"


def test_no_such_repository(user: User) -> None:
    assert f"the Hub has no model {REPO}" in user.refused("--model", REPO)


def test_no_such_revision(hub: Hub, user: User) -> None:
    hub.add(REPO, WHOLE)
    assert f"{REPO} has no revision 'v9'" in user.refused("--model", REPO, "--revision", "v9")
    assert hub.downloads(REPO) == {}


def test_gated(hub: Hub, user: User) -> None:
    hub.add(REPO, WHOLE, gated=True)
    message = user.refused("--model", REPO)
    assert f"{REPO} is gated" in message
    assert "`hf auth login`" in message


def test_no_config(hub: Hub, user: User) -> None:
    hub.add(REPO, without("config.json"))
    assert f"{REPO} has no config.json" in user.refused("--model", REPO)
    assert hub.downloads(REPO) == {}


def test_config_that_is_not_json(hub: Hub, user: User) -> None:
    hub.add(REPO, WHOLE | {"config.json": b"<html>"})
    assert re.search(r"config\.json is not valid JSON", user.refused("--model", REPO))
    assert "model.safetensors" not in hub.downloads(REPO)


def test_no_weights(hub: Hub, user: User) -> None:
    hub.add(REPO, without("model.safetensors"))
    assert f"{REPO} has neither model.safetensors nor pytorch_model.bin" in user.refused("--model", REPO)


def index_of(*shards: str) -> bytes:
    return json.dumps({"weight_map": {f"layer{number}.weight": name for number, name in enumerate(shards)}}).encode()


def test_shards_are_of_one_commit(hub: Hub, user: User) -> None:
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    files = without("model.safetensors") | {"model.safetensors.index.json": index_of(*names)}
    hub.add(REPO, files | dict.fromkeys(names, b"shard"))
    name, weights, config, _ = user.find(REPO)
    assert (name, config) == (REPO, CONFIG)
    assert Path(weights).name == "model.safetensors.index.json"
    assert sorted(path.name for path in Path(weights).parent.glob("model-*")) == names
    assert user.find(REPO, offline=True, before=NO_RETRIES)[1] == weights
    hub.add("org/cut", files | {names[0]: b"shard"})
    assert f"org/cut has no {names[1]}" in user.refused("--model", "org/cut")
    hub.add("org/evil", files | {"model.safetensors.index.json": index_of("../../../evil.safetensors")})
    assert "names '../../../evil.safetensors'" in user.refused("--model", "org/evil")


def test_unsupported_models_are_refused_before_download(hub: Hub, user: User) -> None:
    hub.add(REPO, WHOLE | {"config.json": b'{"model_type": "yolos"}'})
    message = user.refused("--model", REPO)
    assert "'yolos'" in message
    assert "only box detection" in message
    assert {name for _, _, name in hub.requests} == {"config.json"}


@pytest.mark.parametrize("name", ["org/two..dots", "org/name.git"])
def test_invalid_names(hub: Hub, user: User, name: str) -> None:
    assert f"{name!r} cannot be the name of a model on the Hub" in user.refused("--model", name)
    assert not hub.requests


@pytest.mark.parametrize("how", ["--offline", "HF_HUB_OFFLINE"])
def test_offline_with_nothing_in_the_cache(hub: Hub, user: User, how: str) -> None:
    hub.add(REPO, WHOLE)
    if how == "--offline":
        message = user.refused("--model", REPO, "--offline")
    else:
        message = user.refused("--model", REPO, HF_HUB_OFFLINE="1")
    assert f"{REPO} is not in the cache" in message
    assert "run once without --offline" in message
    assert not hub.requests


def test_offline_with_another_revision_in_the_cache(hub: Hub, user: User) -> None:
    hub.add(REPO, WHOLE)
    user.find(REPO)
    message = user.refused("--model", REPO, "--revision", "v1", "--offline")
    assert f"{REPO} at revision v1 is not in the cache" in message


def test_unreachable_hub_with_nothing_in_the_cache(hub: Hub, user: User) -> None:
    hub.stop()
    message = user.refused("--model", REPO, no_pauses=True)
    assert f"the Hub cannot be reached and {REPO} is not in the cache" in message
    assert message.rstrip().endswith("--model demo works offline")


def test_server_error(hub: Hub, user: User) -> None:
    hub.add(REPO, WHOLE)
    hub.faults[REPO, "config.json"] = "error"
    message = user.refused("--model", REPO, no_pauses=True)
    assert REPO in message
    assert "500" in message
    assert "cannot be reached" not in message


def test_server_error_during_a_download(hub: Hub, user: User) -> None:
    hub.add(REPO, WHOLE)
    hub.faults[REPO, "model.safetensors"] = "error on GET"
    message = user.refused("--model", REPO)
    assert f"the Hub answered with an error for {REPO}" in message
    assert "500" in message


def test_server_error_with_everything_in_the_cache(hub: Hub, user: User) -> None:
    hub.add(REPO, WHOLE)
    found = user.find(REPO)
    hub.faults |= dict.fromkeys([(REPO, name) for name in WHOLE], "error")
    assert user.find(REPO, before=NO_RETRIES) == found


@pytest.mark.parametrize("header", ["ETag", "X-Linked-Etag", "X-Repo-Commit"])
@pytest.mark.parametrize("name", ["../../../../out", "a/../../../../../out", "{}/out", "..\\..\\out", "C:out"])
def test_a_hub_cannot_name_files_outside_the_cache(
    hub: Hub, user: User, tmp_path: Path, header: str, name: str
) -> None:
    hub.add(REPO, WHOLE)
    name = name.format(tmp_path)
    hub.headers[REPO] = {header: name if header == "X-Repo-Commit" else f'"{name}"'}
    run = user.python(FIND, REPO, "{}")
    assert run.returncode == 1
    assert f"ModelError: {hub.url}/{REPO}/resolve/main/config.json sent an unsafe {header}: " in run.stderr
    assert {path.name for path in tmp_path.iterdir()} <= {"home"}
    assert not any(path.is_file() and path.read_bytes() in WHOLE.values() for path in user.home.rglob("*"))


@pytest.mark.parametrize("commit", ["", "main; rm", "x" * 300])
def test_an_invalid_commit(hub: Hub, user: User, commit: str) -> None:
    hub.add(REPO, WHOLE)
    hub.headers[REPO] = {"X-Repo-Commit": commit}
    message = user.refused("--model", REPO)
    assert REPO in message
    assert "None" not in message


def test_weights_on_another_host_get_no_token(hub: Hub, user: User) -> None:
    """Large files come from a store elsewhere."""
    store = "some-org/store"
    hub.add(REPO, WHOLE)
    hub.add(store, WHOLE)
    name = "model.safetensors"
    hub.moved[REPO, name] = f"{hub.url.replace('127.0.0.1', 'localhost')}/{store}/resolve/main/{name}"
    environment = {"HF_TOKEN": "hf_secret", "NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}
    found = user.find(REPO, settings=environment)
    assert Path(found[1]).read_bytes() == b"weights"
    assert hub.downloads(store) == {name: 1}
    assert hub.authorizations == {REPO: {"Bearer hf_secret"}, store: {None}}


def test_a_repository_that_was_renamed(hub: Hub, user: User) -> None:
    new = "other-org/new"
    hub.add(REPO, WHOLE)
    hub.add(new, WHOLE)
    hub.moved |= {(REPO, name): f"/{new}/resolve/main/{name}" for name in WHOLE}
    assert Path(user.find(REPO)[1]).read_bytes() == b"weights"
    assert hub.downloads(new) == ONCE_EACH


@pytest.mark.parametrize("to", ["/{repo}/resolve/main/config.json", "file:///etc/passwd", "http://[", "//"])
def test_a_redirect_that_leads_nowhere(hub: Hub, user: User, to: str) -> None:
    hub.add(REPO, WHOLE)
    hub.moved[REPO, "config.json"] = to.format(repo=REPO)
    message = user.refused("--model", REPO, no_pauses=True)
    assert REPO in message
    assert "root:" not in message
    assert not any(path.is_file() and b"root:" in path.read_bytes() for path in user.home.rglob("*"))


WATCHED = """
import os, sys
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.bind"):
        os.write(2, f"{event} {arguments[1:]}\\n".encode())
        os._exit(99)
sys.addaudithook(watch)
"""


def test_offline_opens_no_connection(hub: Hub, user: User, tmp_path: Path) -> None:
    save_tiny(tmp_path / "tiny")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    hub.add(REPO, {path.name: path.read_bytes() for path in (tmp_path / "tiny").iterdir()})
    user.find(REPO)
    arguments = ("predict", str(tmp_path / "a.png"), "-m", REPO, "--no-draw", "--device", "cpu")
    watched = user.python(WATCHED + DETR, *arguments)
    assert (watched.returncode, watched.stderr.partition(" ")[0]) == (99, "socket.getaddrinfo")
    hub.requests.clear()
    run = user.python(WATCHED + DETR, *arguments, "--offline", HF_HUB_DISABLE_TELEMETRY="0")
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["model"] == REPO
    run = user.python(WATCHED + DETR, *arguments[:2], "-m", "org/other", "--offline", HF_HUB_DISABLE_TELEMETRY="0")
    assert run.returncode == 2
    assert "org/other is not in the cache" in run.stderr
    assert not hub.requests


def test_damaged_weights_are_fixed_by_deleting_the_file_in_the_error(hub: Hub, user: User, tmp_path: Path) -> None:
    save_tiny(tmp_path / "tiny")
    hub.add(REPO, {path.name: path.read_bytes() for path in (tmp_path / "tiny").iterdir()})
    hub.faults[REPO, "model.safetensors"] = "garbage once"
    message = user.refused("--model", REPO)
    assert "damaged" in message
    named = re.search(r"delete (\S+) and load the model again", message)
    assert named is not None
    damaged = Path(named[1])
    assert damaged.is_relative_to(user.home)
    damaged.unlink()
    image = tmp_path / "image.png"
    arguments = ("predict", str(image), "-m", REPO, "--no-draw", "--device", "cpu", "--threshold", "0")
    run = user.python(DETR, *arguments)
    assert run.returncode == 0, run.stderr
    (line,) = run.stdout.splitlines()
    assert json.loads(line)["detections"][0]["label"].startswith("thing ")
    assert hub.downloads(REPO) == ONCE_EACH | {"model.safetensors": 2}


def test_models_lists_what_is_in_the_cache(hub: Hub, user: User) -> None:
    def cached() -> dict[str, bool]:
        run = user.python(DETR, "models")
        assert run.returncode == 0, run.stderr
        rows = [json.loads(line) for line in run.stdout.splitlines()]
        assert [row["name"] for row in rows if row["default"]] == ["lwdetr-small"]
        return {row["name"]: row["cached"] for row in rows}

    before = cached()
    assert list(before) == [model.name for model in KNOWN_MODELS]
    assert [name for name, here in before.items() if here] == ["demo"]
    assert not hub.requests
    hub.add("facebook/detr-resnet-50", WHOLE)
    user.find("detr-resnet-50")
    hub.requests.clear()
    assert cached() == before | {"detr-resnet-50": True}
    assert not hub.requests


LARGE = "rfdetr-large-2025"
FILE = "rf-detr-large.pth"
CACHED = ("detrcli", FILE)


def published(hub: Hub, content: bytes) -> str:
    """Publish the file of the model that is only at a URL; return what a program needs to find it there."""
    hub.add(REPO, {FILE: content})
    url = f"{hub.url}/{REPO}/resolve/main/{FILE}"
    return (
        "from detrcli.checkpoints.names import Download, known_model\n"
        f"download = Download({url!r}, {hashlib.md5(content).hexdigest()!r})\n"
        f"object.__setattr__(known_model({LARGE!r}), 'download', download)\n"
    )


def test_a_file_at_a_url_is_downloaded_once(hub: Hub, user: User, tmp_path: Path) -> None:
    tensors = {name: 0.1 * tensor for name, tensor in ORIGINAL.items()}
    torch.save({"model": tensors, "args": {"resolution": 64, "class_names": ["cat", "dog", "cow"]}}, tmp_path / FILE)
    content = (tmp_path / FILE).read_bytes()
    before = published(hub, content)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    arguments = ("predict", str(tmp_path / "a.png"), "--model", LARGE, "--no-draw", "--device", "cpu", "--quiet")
    for more in ([], [], ["--offline"]):
        run = user.python(before + DETR, *arguments, *more, HF_TOKEN="hf_secret")
        assert (run.returncode, run.stderr) == (0, "")
        assert json.loads(run.stdout)["model"] == LARGE
    assert user.home.joinpath(*CACHED).read_bytes() == content
    assert hub.downloads(REPO) == {FILE: 1}
    assert hub.authorizations == {REPO: {None}}


def test_models_says_whether_a_file_at_a_url_is_in_the_cache(hub: Hub, user: User) -> None:
    before = published(hub, b"weights")
    for cached in (False, True):
        run = user.python(before + DETR, "models")
        (row,) = (row for line in run.stdout.splitlines() if (row := json.loads(line))["name"] == LARGE)
        assert row["cached"] is cached
        user.find(LARGE, before=before)


@pytest.mark.parametrize("fault", ["garbage once", "short"])
def test_a_damaged_file_from_a_url_is_not_kept(hub: Hub, user: User, fault: Fault) -> None:
    before = published(hub, b"the whole of the weights")
    hub.faults[REPO, FILE] = fault
    message = user.refused("--model", LARGE, "--quiet", before=before)
    assert f"the download of {LARGE} is damaged" in message
    assert [path.suffix for path in (user.home / "detrcli").iterdir()] == [".lock"]
    hub.faults.clear()
    assert user.find(LARGE, before=before)[1] == str(user.home.joinpath(*CACHED))


def test_an_interrupted_download_from_a_url_is_retried(hub: Hub, user: User) -> None:
    content = bytes(range(256)) * 1000
    before = published(hub, content)
    hub.faults[REPO, FILE] = "cut once"
    assert Path(user.find(LARGE, before=NO_PAUSES + before)[1]).read_bytes() == content


def test_a_cached_file_that_was_damaged_since(hub: Hub, user: User) -> None:
    before = published(hub, b"nothing that PyTorch writes")
    message = user.refused("--model", LARGE, "--quiet", before=before)
    assert f"delete {user.home.joinpath(*CACHED)} and load the model again" in message


TERMINATED = """
import os, signal, time
from huggingface_hub import file_download
def http_get(url, file, **options):
    file.write(b"some of the weights")
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
file_download.http_get = http_get
"""


@pytest.mark.parametrize("command", ["predict", "export"])
def test_a_terminated_download_leaves_no_part(hub: Hub, user: User, tmp_path: Path, command: str) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    arguments = [str(tmp_path / "a.png"), "--no-draw"] if command == "predict" else ["--onnx"]
    run = user.python(published(hub, b"weights") + TERMINATED + DETR, command, *arguments, "--model", LARGE)
    assert (run.returncode, run.stderr) == (143, "")
    assert [path.suffix for path in (user.home / "detrcli").iterdir()] == [".lock"]


@pytest.mark.parametrize("how", ["--offline", "HF_HUB_OFFLINE"])
def test_a_url_is_not_opened_offline(hub: Hub, user: User, how: str) -> None:
    before = WATCHED + published(hub, b"weights")
    if how == "--offline":
        message = user.refused("--model", LARGE, "--offline", before=before)
    else:
        message = user.refused("--model", LARGE, before=before, HF_HUB_OFFLINE="1")
    assert message.startswith(f"detr: {LARGE} is not in the cache; run once without --offline")


def test_an_unreachable_url(hub: Hub, user: User) -> None:
    before = published(hub, b"weights")
    hub.faults[REPO, FILE] = "error"
    message = user.refused("--model", LARGE, before=before)
    assert message.startswith(f"detr: 127.0.0.1 answered with an error for {LARGE} (")
    hub.stop()
    message = user.refused("--model", LARGE, before=before, no_pauses=True)
    assert message.startswith(f"detr: {LARGE} is not in the cache and cannot be downloaded from 127.0.0.1 (")
    assert message.endswith("check the network, or name a local folder; --model demo works offline")


def test_a_cache_that_cannot_be_written(hub: Hub, user: User) -> None:
    before = published(hub, b"weights")
    user.home.mkdir()
    (user.home / "detrcli").write_bytes(b"")
    message = user.refused("--model", LARGE, before=before)
    assert message.startswith(f"detr: cannot write {user.home.joinpath(*CACHED)}: ")
    assert message.endswith("; HF_HOME moves the cache")


def test_a_file_at_a_url_has_no_revisions(hub: Hub, user: User) -> None:
    message = user.refused("--model", LARGE, "--revision", "main", before=published(hub, b"weights"))
    assert message == f"detr: {LARGE} has no revisions: it is not on the Hub"
    assert not hub.requests


def test_processes_that_need_the_same_file_download_it_once(hub: Hub, user: User) -> None:
    content = bytes(range(256)) * 10_000
    before = published(hub, content)
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(lambda _: user.find(LARGE, before=before), range(3)))
    assert [Path(weights).read_bytes() for _, weights, *_ in found] == [content] * 3
    assert hub.downloads(REPO) == {FILE: 1}
