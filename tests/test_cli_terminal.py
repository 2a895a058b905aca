"""The flashrank-lite command on a terminal: a pseudo-terminal stands in for it."""

import re

import pytest
from cli_support import EXAMPLE, QUERY, on_a_terminal, run

pytest.importorskip("pty", reason="pseudo-terminals are a Unix thing")
pytest.importorskip("rich", reason="measures what a terminal shows")

from rich.cells import cell_len

from flashrank_lite.cli.screen import printable
from flashrank_lite.models import catalog


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


def test_ids_are_shown_on_80_columns():
    _, shown, _ = on_a_terminal("rank", QUERY, EXAMPLE, "-k", 3, NO_COLOR="1")
    assert "history-of-agricult" in shown.splitlines()[1]


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A file of so many passages that ranking them takes over half a second anywhere."""
    path = tmp_path_factory.mktemp("many") / "many.txt"
    line = "An adult flea lives for about a hundred days when it has a host to feed on, number"
    path.write_text("".join(f"{line} {number}\n" for number in range(1200)), "utf-8")
    return path


def test_progress_is_shown_on_a_terminal_and_gone_when_the_table_comes(many):
    arguments = ("rank", "how long do fleas live", many, "-k", 2, "--threads", 1)
    status, shown, _ = on_a_terminal(*arguments, stderr_too=True)
    assert status == 0
    before, _, table = printable_lines(shown).partition("\nrank score")
    assert re.search(r"ranking .* \d+/1200 passages", before)
    assert "ranking" not in table
    assert table.count("An adult flea") == 2


def test_progress_can_be_turned_off(many):
    arguments = ("rank", "how long do fleas live", many, "-k", 2, "--threads", 1, "--no-progress")
    _, shown, _ = on_a_terminal(*arguments, stderr_too=True, NO_COLOR="1")
    assert shown.startswith("rank  score")
    assert "/1200" not in shown


def test_progress_without_rich_is_a_count_that_is_wiped_out(many, tmp_path):
    (tmp_path / "rich.py").write_text("raise ImportError('not installed')")
    arguments = ("rank", "how long do fleas live", many, "-k", 2, "--threads", 1)
    _, shown, _ = on_a_terminal(*arguments, stderr_too=True, first_path=str(tmp_path))
    assert re.search(r"\rranked \d+ of 1200 passages", shown)
    assert shown.rpartition("\r")[2].lstrip().startswith("\x1b[2mrank")


def test_progress_in_a_pipe_is_off_and_a_line_where_it_is_asked_for(many):
    arguments = ("rank", "how long do fleas live", many, "-k", "2", "--threads", "1")
    assert run(*arguments).err == ""
    lines = run(*arguments, "--progress").err.splitlines()
    assert all(re.fullmatch(r"ranked \d+ of 1200 passages", line) for line in lines)


@pytest.mark.parametrize("width", [80, 120])
def test_the_list_of_models_fits_the_terminal_with_whole_names(width):
    _, shown, _ = on_a_terminal("models", "list", width=width, NO_COLOR="1")
    head, *lines = shown.splitlines()
    assert head.split()[0] == "name"
    assert max(map(cell_len, [head, *lines])) <= width
    assert [line.split()[0] for line in lines[: len(catalog.entries())]] == [
        entry.name for entry in catalog.entries()
    ]


def printable_lines(shown):
    return "\n".join(printable(line) for line in shown.splitlines())
