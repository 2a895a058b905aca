"""The flashrank-lite command on a terminal: a pseudo-terminal stands in for it."""

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

import flashrank_lite
from flashrank_lite.cli.width import columns, printable

pty = pytest.importorskip("pty", reason="pseudo-terminals are a Unix thing")
fcntl = pytest.importorskip("fcntl")
termios = pytest.importorskip("termios")

EXAMPLE = Path(__file__).parents[1] / "examples" / "agriculture.jsonl"
QUERY = "where did agriculture first arise"


def on_a_terminal(*arguments, width=80, stdin=subprocess.DEVNULL, **variables):
    """Run the command with standard output on a terminal: exit status, what it shows, stderr."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    hidden = {"NO_COLOR", "COLUMNS", "TERM"}
    env = {name: value for name, value in os.environ.items() if name not in hidden}
    env |= {"PYTHONPATH": str(Path(flashrank_lite.__file__).parents[1]), "TERM": "xterm"}
    env |= {"PYTHONIOENCODING": "utf-8", **variables}
    command = [sys.executable, "-m", "flashrank_lite", *map(str, arguments)]
    process = subprocess.Popen(
        command,
        stdin=theirs if stdin == "terminal" else stdin,
        stdout=theirs,
        stderr=subprocess.PIPE,
        env=env,
    )
    os.close(theirs)
    shown = b"".join(iter(lambda: _read(ours), b""))
    os.close(ours)
    with process:
        errors = process.stderr.read().decode()
    return process.returncode, shown.decode().replace("\r\n", "\n"), errors


def _read(descriptor):
    try:
        return os.read(descriptor, 65536)
    except OSError:  # Linux's way to say that the other end has been closed
        return b""


def test_a_terminal_gets_a_table_as_wide_as_itself():
    status, shown, errors = on_a_terminal("rank", QUERY, EXAMPLE, width=70)
    assert (status, errors) == (0, "")
    lines = shown.splitlines()
    assert printable(lines[0]).split() == ["rank", "score", "moved", "passage"]
    assert len(lines) == len(EXAMPLE.read_text("utf-8").splitlines()) + 2
    assert max(columns(printable(line)) for line in lines) <= 70
    assert "▲" in shown
    assert "█" in shown
    assert "\x1b[" in shown


def test_no_color_is_honoured():
    _, shown, _ = on_a_terminal("rank", QUERY, EXAMPLE, NO_COLOR="1")
    assert "moved" in shown
    assert "\x1b" not in shown


def test_a_passage_cannot_write_to_the_terminal(tmp_path):
    path = tmp_path / "hostile.txt"
    path.write_text("\x1b]0;owned\x07\x1b[2Jharmless\x9b31m \x08text\n", "utf-8")
    _, shown, _ = on_a_terminal("rank", QUERY, path, NO_COLOR="1")
    assert "harmless text" in shown
    assert not {"\x1b", "\x07", "\x08", "\x9b"} & set(shown)


def test_other_formats_can_be_asked_for_on_a_terminal():
    _, shown, _ = on_a_terminal("rank", QUERY, EXAMPLE, "--format", "jsonl", "--top-k", "1")
    assert shown.startswith('{"text": ')


def test_info_is_a_list_of_facts():
    status, shown, _ = on_a_terminal("info", NO_COLOR="1")
    assert status == 0
    assert "threads source" in shown


def test_waiting_for_a_keyboard_is_refused_with_a_reason():
    status, shown, errors = on_a_terminal("rank", QUERY, stdin="terminal")
    assert (status, shown) == (2, "")
    assert errors.count("\n") == 1
    assert "standard input is a terminal" in errors
