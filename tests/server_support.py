"""A real server for tests: in a thread of this process, or as the command that users run."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PATIENCE = 600.0  # seconds; a busy machine is no failure
REQUIRED = os.environ.get("FLASHRANK_LITE_REQUIRE_SERVER") == "1"


def needs(*modules: str) -> None:
    """Skip without these modules, or fail where the gate says that nothing may be skipped."""
    for module in modules:
        try:
            __import__(module)
        except ImportError:
            if REQUIRED:
                raise
            pytest.skip(f"{module} is not installed", allow_module_level=True)


needs("starlette", "uvicorn", "pydantic", "prometheus_client", "yaml")

import uvicorn  # noqa: E402

from flashrank_lite.server.app import create_app  # noqa: E402
from flashrank_lite.server.settings import Settings  # noqa: E402


class Answer:
    """What a server said."""

    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Server:
    """A running server and a plain client of it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.port = int(url.rpartition(":")[2])

    def get(self, path: str, **headers: str) -> Answer:
        return self._send(urllib.request.Request(self.url + path, headers=headers))

    def post(self, path: str, body: Any, **headers: str) -> Answer:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **headers}
        return self._send(urllib.request.Request(self.url + path, data, headers))

    def connect(self, data: bytes = b"") -> socket.socket:
        """A bare connection that has sent `data`."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        connection.sendall(data)
        return connection

    def _send(self, request: urllib.request.Request) -> Answer:
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as response:
                return Answer(response.status, response.headers, response.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.headers, error.read())


def http(path: str, body: Any, *, length: int | None = None) -> bytes:
    """A request as it goes over the wire."""
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {length or len(data)}\r\n\r\n"
    return head.encode() + data


@contextmanager
def serving(settings: Settings | None = None, app: Any = None) -> Iterator[Server]:
    """Serve within this process; the models are loaded when it is entered."""
    app = app or create_app(settings or Settings(timeout=PATIENCE))
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_config=None, access_log=False, lifespan="on"
    )
    listener = config.bind_socket()
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        running = Server(f"http://127.0.0.1:{listener.getsockname()[1]}")
        until(lambda: _ready(running))
        yield running
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@contextmanager
def command(*flags: str, **environment: str) -> Iterator[tuple[Server, subprocess.Popen[str]]]:
    """`flashrank-lite serve`, ready; the caller may stop it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    root = Path(__file__).resolve().parent.parent
    process = subprocess.Popen(
        [sys.executable, "-m", "flashrank_lite", "serve", "--port", str(port), *flags],
        env={**os.environ, "PYTHONPATH": str(root), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    server = Server(f"http://127.0.0.1:{port}")
    try:
        until(lambda: process.poll() is not None or _ready(server))
        assert process.poll() is None, process.stdout.read() if process.stdout else ""
        yield server, process
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=PATIENCE)


def until(true: Callable[[], Any], seconds: float = PATIENCE) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def _ready(server: Server) -> bool:
    try:
        return server.get("/ready").status == 200
    except OSError:
        return False
