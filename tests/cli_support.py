"""What tests of the command share: the real command in a process of its own, in a pipe or on a
pseudo-terminal."""

import io
import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import flashrank_lite
from flashrank_lite.cli.screen import Screen

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "agriculture.jsonl"
QUESTIONS = ROOT / "examples" / "questions.jsonl"
QUERY = "where did agriculture first arise"


class Done(NamedTuple):
    """What a finished command left."""

    status: int
    out: str
    err: str


def environment(**changes: str) -> dict[str, str]:
    """The environment of a child that imports the package that we test, wherever it runs."""
    return {**os.environ, "PYTHONPATH": str(Path(flashrank_lite.__file__).parents[1]), **changes}


def start(*arguments: object, **options: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "flashrank_lite", *map(str, arguments)]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, **{**pipes, "env": environment(), **options})


def run(*arguments: object, stdin: bytes = b"", **options: Any) -> Done:
    process = start(*arguments, stdin=subprocess.PIPE, **options)
    out, err = process.communicate(stdin, timeout=120)
    return Done(process.returncode, out.decode(), err.decode())


def on_a_terminal(
    *arguments: object,
    width: int = 80,
    stdin: Any = subprocess.DEVNULL,
    stderr_too: bool = False,
    first_path: str = "",
    **variables: str,
) -> Done:
    """Run the command with its standard output on a terminal.

    Args:
        arguments: of the command.
        width: columns of the terminal.
        stdin: as for `Popen`, or "terminal".
        stderr_too: whether standard error is that terminal, instead of a pipe.
        first_path: a folder that Python imports from before all others.
        variables: of the environment.
    """
    import fcntl
    import pty
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    hidden = {"NO_COLOR", "COLUMNS", "TERM"}
    env = {name: value for name, value in environment().items() if name not in hidden}
    if first_path:
        env["PYTHONPATH"] = os.pathsep.join([first_path, env["PYTHONPATH"]])
    env |= {"TERM": "xterm", "PYTHONIOENCODING": "utf-8", **variables}
    process = start(
        *arguments,
        stdin=theirs if stdin == "terminal" else stdin,
        stdout=theirs,
        stderr=theirs if stderr_too else subprocess.PIPE,
        env=env,
    )
    os.close(theirs)
    shown = b"".join(iter(lambda: _read(ours), b""))
    os.close(ours)
    with process:
        err = "" if process.stderr is None else process.stderr.read().decode()
    return Done(process.returncode, shown.decode().replace("\r\n", "\n"), err)


def screen(
    width: int = 80, colour: bool = False, unicode: bool = True, encoding: str = "utf-8"
) -> Screen:
    """A terminal in memory; `written` reads it."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="")
    return Screen(stream, terminal=True, width=width, colour=colour, unicode=unicode)


def written(to: Screen) -> str:
    """What was written to a screen in memory."""
    to.stream.flush()
    content: bytes = to.stream.buffer.getvalue()  # type: ignore[attr-defined]
    return content.decode(to.stream.encoding)


def rows(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # Linux's way to say that the other end has been closed
        return b""
