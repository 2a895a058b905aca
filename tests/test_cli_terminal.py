"""The flashrank-lite command on a terminal: a pseudo-terminal stands in for it."""

import pytest
from cli_support import EXAMPLE, QUERY, on_a_terminal

pytest.importorskip("pty", reason="pseudo-terminals are a Unix thing")
pytest.importorskip("rich", reason="measures what a terminal shows")

from rich.cells import cell_len

from flashrank_lite.cli.screen import printable


def test_a_terminal_gets_a_table_as_wide_as_itself():
    status, shown, errors = on_a_terminal("rank", QUERY, EXAMPLE, width=76)
    assert (status, errors) == (0, "")
    lines = shown.splitlines()
    assert printable(lines[0]).split() == ["rank", "score", "moved", "id", "passage"]
    assert len(lines) == len(EXAMPLE.read_text("utf-8").splitlines()) + 2
    assert max(cell_len(printable(line)) for line in lines) <= 76
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
