"""Serve until told to stop: one process, or several behind one port."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
from typing import Any

import uvicorn
from uvicorn.supervisors import Multiprocess

from flashrank_lite.errors import InvalidInput, first_line
from flashrank_lite.server.app import SETTINGS_VARIABLE, STARTUP_FAILURE, create_app
from flashrank_lite.server.metrics import SHARED_FOLDER
from flashrank_lite.server.settings import Settings

logger = logging.getLogger("flashrank_lite.server")

WORKER_PATIENCE = 60  # seconds


def serve(settings: Settings) -> int:
    """Serve; the exit status.

    Raises:
        InvalidInput: it would be open to other machines without a key.
        FlashRankLiteError: a model cannot be loaded.
    """
    settings.check_reach()
    configure_logging(settings)
    listener = _listen(settings)
    if settings.workers > 1:
        return _several(settings, listener)
    failed: list[BaseException] = []
    server: uvicorn.Server

    def on_failure(error: BaseException) -> None:
        failed.append(error)
        server.should_exit = True

    app = create_app(settings, on_failure)
    server = uvicorn.Server(_config(app, settings))

    def stop(signal_number: int, frame: Any) -> None:
        server.should_exit = True

    # For a signal that comes before uvicorn listens to them; and uvicorn raises the one that ended
    # it once more afterwards, which would end this process with that signal as its status.
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, stop)
    server.run(sockets=[listener])
    if failed:
        raise failed[0]
    return 0 if server.started else STARTUP_FAILURE


def configure_logging(settings: Settings) -> None:
    """A line a record on standard error; the command does this, the application never."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    level = settings.log_level.upper()
    for name in ("flashrank_lite", "uvicorn"):
        logging.getLogger(name).setLevel(level)


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family=family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise InvalidInput(
            f"cannot listen on {settings.host}, port {settings.port} ({first_line(error)}): "
            "choose another --host or --port, or stop what listens there"
        ) from error
    listener.set_inheritable(True)
    shown = f"[{settings.host}]" if family == socket.AF_INET6 else settings.host
    logger.info("listening on http://%s:%d", shown, listener.getsockname()[1])
    return listener


def _several(settings: Settings, listener: socket.socket) -> int:
    folder = tempfile.mkdtemp(prefix="flashrank-lite-metrics-")
    os.environ[SHARED_FOLDER] = folder
    os.environ[SETTINGS_VARIABLE] = settings.to_json()
    try:
        config = _config("flashrank_lite.server.app:app_of_worker", settings)
        parent = Multiprocess(config, sockets=[listener])
        parent.run()
        codes = [process.exitcode for process in parent.processes]
        return 1 if STARTUP_FAILURE in codes else 0
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _config(app: Any, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        factory=isinstance(app, str),
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        log_config=None,
        access_log=False,  # its lines would hold whatever a client put into a path
        server_header=False,
        timeout_graceful_shutdown=max(1, round(settings.grace)),
        # a worker on a busy machine, still importing, is not a hung one
        timeout_worker_healthcheck=WORKER_PATIENCE,
        lifespan="on",
    )
