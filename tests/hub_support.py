"""A Hugging Face Hub on the loopback interface: what the real huggingface_hub client talks to.

It speaks the endpoints that the client calls to list, download and upload small files:
/api/models/NAME/revision/REV with checksums, /NAME/resolve/REV/FILE with the headers of a commit
and an ETag, a redirect to another host for files in LFS, byte ranges, tokens, private and gated
repositories, one commit of files; and it fails on request.
"""

import base64
import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from conftest import PASSAGES, QUERY

from flashrank_lite import Ranker

TOKEN = "hf_right"
LFS_FROM = 1_000  # bytes; the real Hub decides by .gitattributes


@dataclass
class Repository:
    """Files by commit; the last commit is "main". `tags` are further names of commits."""

    commits: dict[str, dict[str, bytes]]
    tags: dict[str, str] = field(default_factory=dict)
    private: bool = False
    gated: bool = False

    def commit(self, revision: str) -> str | None:
        if revision == "main":
            return list(self.commits)[-1]
        commit = self.tags.get(revision, revision)
        return commit if commit in self.commits else None


@dataclass
class Failure:
    """What goes wrong with requests whose path holds `path`, `times` times.

    `status` answers with it; `cut` breaks the body off after so many bytes; `wait` sleeps so many
    seconds before it answers; `body` is sent instead of the file's bytes.
    """

    path: str
    status: int | None = None
    cut: int | None = None
    wait: float = 0
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    method: str | None = None
    times: int = 1_000


class LoopbackHub:
    """The server; `repositories` and `failures` may be changed while it runs."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.failures: list[Failure] = []
        self.log: list[tuple[str, str, int]] = []  # method, path, status
        self.uploads: dict[str, dict[str, bytes]] = {}  # files by repository
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.hub = self  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        # another host, as the real one: the client takes no commit and sends no token there
        self.lfs = f"http://localhost:{self._server.server_port}/lfs"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def add(self, name: str, files: dict[str, bytes], **options: Any) -> Repository:
        """Add a repository, or a commit to one that is there."""
        content = json.dumps(sorted((n, hashlib.sha1(c).hexdigest()) for n, c in files.items()))
        commit = hashlib.sha1(content.encode()).hexdigest()
        repository = self.repositories.setdefault(name, Repository({}, **options))
        repository.commits[commit] = files
        return repository

    def fail(self, path: str, **how: Any) -> None:
        self.failures.append(Failure(path, **how))

    def bodies(self, name: str) -> list[str]:
        """Files of which content was sent, in the order of the requests."""
        paths = [
            path for method, path, status in self.log if method == "GET" and status in (200, 206)
        ]
        content = [path for path in paths if f"/{name}/resolve/" in path or f"/lfs/{name}/" in path]
        return [path.split("/", 6 if "/lfs/" in path else 5)[-1] for path in content]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """An empty Hub, and a client that knows no other, with an empty cache."""
    from huggingface_hub import constants, file_download

    hub = LoopbackHub()
    settings = {
        "ENDPOINT": hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "HF_TOKEN_PATH": str(tmp_path / "token"),
        "HF_HUB_OFFLINE": False,
    }
    try:
        for name, value in settings.items():
            monkeypatch.setattr(constants, name, value)
            if hasattr(file_download, name):  # clients of before 0.26 copy them
                monkeypatch.setattr(file_download, name, value)
        for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HTTP_PROXY", "http_proxy"):
            monkeypatch.delenv(variable, raising=False)
        yield hub
    finally:
        hub.close()


def rank(model: str, **arguments: Any) -> dict[str, Any]:
    """Load a model, rank with it, and return what it says of itself."""
    with Ranker(model, **arguments) as ranker:
        assert len(ranker.rank(QUERY, PASSAGES)) == len(PASSAGES)
        return ranker.info()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._handle(body=True)

    def do_HEAD(self) -> None:
        self._handle(body=False)

    def do_POST(self) -> None:
        path = unquote(urlsplit(self.path).path)
        size = self.headers.get("Content-Length")
        body = self._chunks() if size is None else self.rfile.read(int(size))
        failure = self._failure(path)
        if failure is not None and failure.status is not None:
            return self._send(failure.status, b"{}", True, dict(failure.headers))
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._send(401, b"{}", True)
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            self._hub.uploads.setdefault(name, {})
            return self._json({"url": f"{self._hub.url}/{name}", "id": name})
        return self._upload(path, body)

    def _upload(self, path: str, body: bytes) -> None:
        organisation, name, action, _ = path.removeprefix("/api/models/").split("/", 3)
        repository = f"{organisation}/{name}"
        if repository not in self._hub.uploads:
            return self._send(404, b"{}", True, {"X-Error-Code": "RepoNotFound"})
        if action == "preupload":
            how = {"uploadMode": "regular", "shouldIgnore": False}
            files = [{"path": file["path"], **how} for file in json.loads(body)["files"]]
            return self._json({"files": files})
        for entry in map(json.loads, body.splitlines()):
            if entry["key"] == "file":
                content = base64.b64decode(entry["value"]["content"])
                self._hub.uploads[repository][entry["value"]["path"]] = content
        commit = hashlib.sha1(body).hexdigest()
        url = f"{self._hub.url}/{repository}/commit/{commit}"
        return self._json({"success": True, "commitOid": commit, "commitUrl": url})

    def _chunks(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline().strip() or b"0", 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _json(self, answer: dict[str, Any]) -> None:
        kind = {"Content-Type": "application/json"}
        self._send(200, json.dumps(answer).encode(), True, kind)

    def log_message(self, *_: object) -> None:
        pass

    @property
    def _hub(self) -> LoopbackHub:
        return self.server.hub  # type: ignore[attr-defined, no-any-return]

    def _handle(self, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        failure = self._failure(path)
        if failure is not None:
            time.sleep(failure.wait)
            if failure.status is not None:
                return self._send(failure.status, b"{}", body, dict(failure.headers))
        if path.startswith("/api/models/"):
            return self._info(path.removeprefix("/api/models/"), body)
        if path.startswith("/lfs/"):  # /lfs/ORG/NAME/COMMIT/FILE
            _, _, organisation, name, commit, file = path.split("/", 5)
            repository = self._hub.repositories[f"{organisation}/{name}"]
            return self._file(repository.commits[commit][file], {}, body, failure)
        parts = path.split("/", 5)  # /ORG/NAME/resolve/REVISION/FILE
        if len(parts) == 6 and parts[3] == "resolve":
            return self._resolve("/".join(parts[1:3]), parts[4], parts[5], body, failure)
        return self._send(404, b"", body)

    def _failure(self, path: str) -> Failure | None:
        for failure in self._hub.failures:
            if failure.path in path and failure.method in (None, self.command) and failure.times:
                failure.times -= 1
                return failure
        return None

    def _repository(self, name: str, body: bool) -> Repository | None:
        repository = self._hub.repositories.get(name)
        allowed = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if repository is None or (repository.private and not allowed):
            # the real Hub does not say which of the two it is, except to those who are logged in
            status, code = (404, "RepoNotFound") if allowed else (401, "RepoNotFound")
            said = "Repository not found"
            if self.headers.get("Authorization") and not allowed:
                code, said = "", "Invalid credentials in Authorization header"
            self._send(status, b"", body, {"X-Error-Code": code, "X-Error-Message": said})
            return None
        return repository

    def _info(self, path: str, body: bool) -> None:
        name, _, revision = path.partition("/revision/")
        repository = self._repository(name, body)
        if repository is None:
            return
        commit = repository.commit(revision or "main")
        if commit is None:
            return self._send(404, b"", body, {"X-Error-Code": "RevisionNotFound"})
        siblings = [_sibling(*item) for item in repository.commits[commit].items()]
        answer = {"id": name, "sha": commit, "private": repository.private, "siblings": siblings}
        answer |= {"tags": [], "downloads": 0, "likes": 0}
        self._send(200, json.dumps(answer).encode(), body, {"Content-Type": "application/json"})

    def _resolve(
        self, name: str, revision: str, file: str, body: bool, failure: Failure | None
    ) -> None:
        repository = self._repository(name, body)
        if repository is None:
            return
        commit = repository.commit(revision)
        if commit is None:
            return self._send(404, b"", body, {"X-Error-Code": "RevisionNotFound"})
        if repository.gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._send(403, b"", body, {"X-Error-Code": "GatedRepo"})
        content = repository.commits[commit].get(file)
        if content is None:
            headers = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}
            return self._send(404, b"", body, headers)
        headers = {"X-Repo-Commit": commit}
        if len(content) < LFS_FROM:
            headers["ETag"] = f'"{_blob_id(content)}"'
            return self._file(content, headers, body, failure)
        headers["X-Linked-Size"] = str(len(content))
        headers["X-Linked-Etag"] = f'"{hashlib.sha256(content).hexdigest()}"'
        headers["Location"] = f"{self._hub.lfs}/{name}/{commit}/{file}"
        self._send(302, b"", body, headers)

    def _file(
        self, content: bytes, headers: dict[str, str], body: bool, failure: Failure | None
    ) -> None:
        if failure is not None and failure.body is not None:
            content = failure.body
        wanted = self.headers.get("Range", "")
        status, start = 200, 0
        if wanted.startswith("bytes="):
            status, start = 206, int(wanted.removeprefix("bytes=").split("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        cut = None if failure is None else failure.cut
        self._send(status, content[start:], body, headers, cut)

    def _send(
        self,
        status: int,
        content: bytes,
        body: bool,
        headers: dict[str, str] | None = None,
        cut: int | None = None,
    ) -> None:
        self._hub.log.append((self.command, self.path, status))
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        if body:
            with contextlib.suppress(OSError):  # the client may have been killed meanwhile
                self.wfile.write(content if cut is None else content[:cut])
        if cut is not None:
            self.close_connection = True


def _sibling(name: str, content: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": _blob_id(content)}
    if len(content) >= LFS_FROM:
        sha256 = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"size": len(content), "sha256": sha256, "pointerSize": 134}
        entry["blobId"] = hashlib.sha1(sha256.encode()).hexdigest()
    return entry


def _blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
