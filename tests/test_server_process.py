"""The command `flashrank-lite serve`: how it starts, stops, and runs in several processes."""

import concurrent.futures
import os
import signal
import socket
import subprocess
import sys
import time

from conftest import PASSAGES, QUERY, ROOT
from server_support import PATIENCE, command, http, until

from benchmarks.server_load import kill_a_worker

SMALL = {"query": QUERY, "texts": PASSAGES}
LARGE = {"query": QUERY, "texts": [f"{n} " + "flea dog rust " * 150 for n in range(30)]}


def failing(*flags: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "flashrank_lite", "serve", "--port", "0", *flags],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    return done.stderr


def test_sigterm_finishes_what_is_in_flight_and_exits_with_0():
    patient = ("--grace", "600", "--timeout", "600")
    with command(*patient) as (server, process), concurrent.futures.ThreadPoolExecutor() as clients:
        answered = clients.submit(server.post, "/rerank", LARGE)
        until(lambda: b"queue_length 1" in server.get("/metrics").body or answered.done())
        process.send_signal(signal.SIGTERM)
        assert answered.result().status == 200
        output, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, output
        assert "path=/rerank status=200" in output


def test_past_the_grace_time_what_is_left_is_refused():
    huge = {"query": QUERY, "texts": [f"{n} " + "flea dog rust " * 150 for n in range(2000)]}
    with command("--grace", "1") as (server, process):
        with server.connect(http("/rerank", huge)) as connection:
            until(lambda: b"queue_length 1" in server.get("/metrics").body)
            process.send_signal(signal.SIGTERM)
            assert b" 503 " in connection.recv(65536)
        process.communicate(timeout=PATIENCE)
        assert process.returncode == 0


def test_several_processes_serve_one_port_and_a_killed_one_is_replaced():
    with command("--workers", "2", "--threads", "1") as (server, process):

        def children() -> list[int]:
            path = f"/proc/{process.pid}/task/{process.pid}/children"
            with open(path, encoding="ascii") as file:
                found = [int(pid) for pid in file.read().split()]
            return [pid for pid in found if b"spawn_main" in _command_line(pid)]

        until(lambda: len(children()) == 2)
        before = children()
        for _ in range(6):  # also while the second one is still loading
            assert server.post("/rerank", SMALL).status == 200
        assert b"flashrank_lite_pairs_total" in server.get("/metrics").body
        os.kill(before[0], signal.SIGKILL)
        until(lambda: len(children()) == 2 and before[0] not in children())
        until(lambda: _answers(server))
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, output


def test_when_a_process_is_killed_nothing_breaks_but_what_it_was_at():
    kill = kill_a_worker(seconds=3.0, clients=8)  # until a new process has taken a request
    assert kill.held > 0
    assert set(kill.tally.statuses) <= {"200", "broken"}
    assert kill.tally.statuses["broken"] <= kill.held
    assert kill.lost() == 0
    assert kill.tally.statuses["200"] > 8


def test_a_model_that_is_not_there_ends_it_with_the_reason(tmp_path):
    said = failing("--model", str(tmp_path / "gone"))
    assert "flashrank-lite: error: no model" in said
    assert "Traceback" not in said


def test_workers_whose_model_is_not_there_end_it_too(tmp_path):
    said = failing("--workers", "2", "--model", str(tmp_path / "gone"))
    assert "no model" in said


def test_it_does_not_serve_other_machines_without_a_key():
    assert "set a key" in failing("--host", "0.0.0.0")


def test_a_port_that_is_taken_is_said():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert "address already in use" in failing("--port", port).lower()


def test_its_help_needs_none_of_its_libraries(run_python):
    code = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("starlette", "uvicorn", "pydantic", "yaml", "numpy"):
            raise ImportError(name)
sys.meta_path.insert(0, Block())
from flashrank_lite.cli import main
try:
    main(["serve", "--help"])
except SystemExit:
    pass
sys.exit(main(["serve"]) - 1)
"""
    assert "--max-queue" in run_python(code)


def _command_line(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except OSError:
        return b""


def _answers(server) -> bool:
    try:
        return all(server.post("/rerank", SMALL).status == 200 for _ in range(4))
    except OSError:
        time.sleep(0.1)
        return False
