"""A minimal local Hugging Face Hub that serves files."""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import TracebackType
from typing import Literal, Self

Fault = Literal["error", "error on GET", "cut once", "short", "garbage once"]
"""`error`: 500 for all requests. `error on GET`: 500 for downloads. `cut once`: the first download breaks off halfway.
`short`: downloads are only half as long. `garbage once`: the first download has other bytes of the same length."""


@dataclass
class Repository:
    """Files of each revision, by branch or tag."""

    revisions: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: bool = False

    @staticmethod
    def commit(revision: str, files: Mapping[str, bytes]) -> str:
        """Compute a commit's id, which changes with its files."""
        content = hashlib.sha1(revision.encode())
        for name in sorted(files):
            content.update(name.encode() + hashlib.sha1(files[name]).digest())
        return content.hexdigest()

    def find(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Find the id and the files of the commit that a branch, tag or id refers to."""
        for name, files in self.revisions.items():
            commit = self.commit(name, files)
            if revision in (name, commit):
                return commit, files
        return None


class Hub:
    """Server that runs inside a `with` block.

    Attributes:
        repositories: by `org/name`.
        faults: fault of each (repository, file).
        headers: replaced response headers, by repository.
        moved: absolute or relative URL that a (repository, file) redirects to.
        authorizations: Authorization headers of the requests, by repository.
        requests: number of requests for each (method, repository, file).
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.faults: dict[tuple[str, str], Fault] = {}
        self.headers: dict[str, dict[str, str]] = {}
        self.moved: dict[tuple[str, str], str] = {}
        self.authorizations: defaultdict[str, set[str | None]] = defaultdict(set)
        self.requests: Counter[tuple[str, str, str]] = Counter()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop serving: further connections are refused."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()

    def add(self, repo: str, files: Mapping[str, bytes], *, revision: str = "main", gated: bool = False) -> Repository:
        """Publish files as a revision of a repository."""
        repository = self.repositories.setdefault(repo, Repository())
        repository.revisions[revision] = dict(files)
        repository.gated = gated
        return repository

    def downloads(self, repo: str) -> dict[str, int]:
        """Count the GET requests for each file of a repository."""
        return {file: times for (method, of, file), times in self.requests.items() if (method, of) == ("GET", repo)}


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self, *, body: bool) -> None:
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path)
        if match is None:
            self._refuse(404, "NotFound")
            return
        repo, revision, name = match.groups()
        self.hub.requests[self.command, repo, name] += 1
        self.hub.authorizations[repo].add(self.headers["Authorization"])
        repository = self.hub.repositories.get(repo)
        if repository is None:
            self._refuse(404, "RepoNotFound")
            return
        if repository.gated:
            self._refuse(403, "GatedRepo")
            return
        found = repository.find(revision)
        if found is None:
            self._refuse(404, "RevisionNotFound")
            return
        commit, files = found
        fault = self.hub.faults.get((repo, name))
        if fault == "error" or (fault == "error on GET" and body):
            self._refuse(500, None)
            return
        if name not in files:
            self._refuse(404, "EntryNotFound", commit)
            return
        content = files[name]
        etag = hashlib.sha256(content).hexdigest()
        if (repo, name) in self.hub.moved:
            self.send_response(302)
            linked = {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(content)), "X-Repo-Commit": commit}
            for header, value in {**linked, "Location": self.hub.moved[repo, name], "Content-Length": "0"}.items():
                self.send_header(header, value)
            self.end_headers()
            return
        length = len(content)
        if body:
            first = self.hub.requests["GET", repo, name] == 1
            if fault == "garbage once" and first:
                content = b"\xff" * length
            if fault == "short" or (fault == "cut once" and first):
                content = content[: length // 2]
                length = length if fault == "cut once" else len(content)
        self.send_response(200)
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": commit, "Content-Length": str(length)}
        for header, value in {**headers, **self.hub.headers.get(repo, {})}.items():
            self.send_header(header, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def _refuse(self, status: int, code: str | None, commit: str | None = None) -> None:
        self.send_response(status)
        if code is not None:
            self.send_header("X-Error-Code", code)
        if commit is not None:
            self.send_header("X-Repo-Commit", commit)
        self.send_header("Content-Length", "0")
        self.end_headers()
