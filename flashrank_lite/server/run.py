"""Serve until told to stop: one process, or several behind one port."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import tempfile
from typing import Any

import uvicorn
from uvicorn.supervisors import Multiprocess

from flashrank_lite.server.app import SETTINGS_VARIABLE, STARTUP_FAILURE, create_app
from flashrank_lite.server.metrics import SHARED_FOLDER
from flashrank_lite.server.settings import Settings


def serve(settings: Settings) -> int:
    """Serve; the exit status.

    Raises:
        InvalidInput: it would be open to other machines without a key.
        FlashRankLiteError: a model cannot be loaded.
    """
    settings.check_reach()
    configure_logging(settings)
    if settings.workers > 1:
        return _several(settings)
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
    server.run()
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


def _several(settings: Settings) -> int:
    folder = tempfile.mkdtemp(prefix="flashrank-lite-metrics-")
    os.environ[SHARED_FOLDER] = folder
    os.environ[SETTINGS_VARIABLE] = settings.to_json()
    try:
        config = _config("flashrank_lite.server.app:app_of_worker", settings)
        socket = config.bind_socket()
        parent = Multiprocess(config, sockets=[socket])
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
        lifespan="on",
    )
