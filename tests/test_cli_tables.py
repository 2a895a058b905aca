"""What a terminal and a pipe get to see: tables, facts, JSON."""

import io
import json
import sys

import pytest
from cli_support import screen, written
from hypothesis import given
from hypothesis import strategies as st

from flashrank_lite import InvalidInput
from flashrank_lite.cli.hits import trec_lines, write_hits
from flashrank_lite.cli.screen import Screen, printable, write_facts, write_json
from flashrank_lite.cli.tables import Cell, Column, write_table
from flashrank_lite.hits import RankedPassage


def hit(text, score, index, truncated=False, id=None):
    return RankedPassage(
        text=text, score=score, logit=score, index=index, truncated=truncated, id=id
    )


def columns(text):
    """Columns that a text takes on a terminal."""
    return pytest.importorskip("rich.cells").cell_len(text)


def one_cell(text, room, **of):
    """What a cut column of so many columns shows of a text."""
    to = screen(width=room, **of)
    write_table([Column("x", rest=True)], [[Cell(text)]], to)
    return written(to).split("\n")[1]


HITS = [hit("was third", 0.9, 2), hit("stayed", 0.5, 1), hit("was first", 0.05, 0, truncated=True)]


@pytest.mark.parametrize(
    ("text", "width"),
    [
        ("plain", 5),
        ("日本語", 6),
        ("ｆｕｌｌ", 8),
        ("한글", 4),
        ("e\u0301", 1),  # e and a combining accent
        ("ไม่", 2),  # a Thai tone mark stands above
        ("👍", 2),
        ("👍🏽", 2),  # with a skin tone
        ("👩‍👩‍👧", 2),  # a family, joined
        ("❤️", 2),  # a narrow sign in emoji style
        ("🇫🇷", 2),  # a flag is two letters
        ("\u200bzero", 4),
    ],
)
def test_columns_are_what_a_terminal_takes(text, width):
    assert columns(text) == width


@given(st.text(), st.integers(1, 30))
def test_a_cut_text_fits_and_a_short_one_stays(text, room):
    safe = printable(text)
    shown = one_cell(text, room)
    assert columns(shown) <= room
    assert shown == safe or (shown.endswith("…") and safe.startswith(shown[:-1]))
    assert (shown == safe) == (columns(safe) <= room)


def test_a_wide_character_is_not_cut_in_half():
    assert one_cell("日本語", 5) == "日本…"
    assert one_cell("日本語", 4) == "日…"
    assert one_cell("日本語", 6) == "日本語"


def test_without_rich_a_table_counts_characters(monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.cells", None)  # as if it were not installed
    assert one_cell("plain text", 6) == "plain…"
    to = screen(width=60)
    write_hits(HITS, 3, 512, to)
    assert written(to).split("\n")[1] == "   1  0.900  █████████    ▲ 2  was third"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mred\x1b[0m", "ared"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x9b2Jcleared", "cleared"),
        ("bell\x07back\x08", "bellback"),
        ("two\r\n  lines\tand\u2028more", "two lines and more"),
        ("a\u202eb", "ab"),
        ("\ud800", "\ufffd"),
        ("nul\0", "nul"),
    ],
)
def test_what_could_move_the_cursor_is_left_out(text, shown):
    assert printable(text) == shown


def test_the_table_shows_rank_score_bar_move_and_text():
    to = screen(width=60)
    write_hits(HITS, 3, 512, to)
    assert written(to).split("\n") == [
        "rank  score             moved  passage",
        "   1  0.900  █████████    ▲ 2  was third",
        "   2  0.500  █████          ·  stayed",
        "   3  0.050  ▌            ▼ 2  was first",
        "(3 passages; 1 of those shown cut to 512 tokens before scoring)",
        "",
    ]


def test_ids_are_shown_where_there_are_any_and_cut_where_they_are_long():
    to = screen(width=80)
    write_hits([hit("a", 0.5, 0, id=7), hit("b", 0.4, 1, id="x" * 99), hit("c", 0.3, 2)], 3, 9, to)
    lines = written(to).split("\n")
    assert lines[0].split() == ["rank", "score", "moved", "id", "passage"]
    assert lines[1].split()[-2:] == ["7", "a"]
    assert lines[2].split()[-2:] == ["x" * 19 + "…", "b"]
    assert lines[3].split()[-2:] == ["·", "c"]


def test_without_unicode_the_table_is_drawn_in_ascii():
    to = screen(width=60, unicode=False, encoding="ascii")
    write_hits([hit("naïve " * 30, 1.0, 1), hit("two", 0.0, 0)], 2, 512, to)
    lines = written(to).split("\n")
    assert lines[1].startswith("   1  1.000  ##########     +1  na?ve")
    assert lines[1].endswith("...")
    assert lines[2] == "   2  0.000                 -1  two"


def test_logits_fill_the_bar_between_the_lowest_and_the_highest():
    to = screen(width=60)
    write_hits([hit("a", 6.0, 0), hit("b", 1.0, 1), hit("c", -4.0, 2)], 3, 512, to)
    assert [line.count("█") for line in written(to).split("\n")[1:4]] == [10, 5, 0]


def test_a_narrow_terminal_keeps_the_text_and_drops_the_bar():
    to = screen(width=42)
    write_hits([hit("a text longer than what is left", 0.9, 0)], 1, 512, to)
    assert "█" not in written(to)
    assert "a text longer than" in written(to)


@given(st.text(), st.integers(40, 200))
def test_no_row_is_wider_than_the_terminal(text, width):
    to = screen(width=width)
    write_hits([hit(text, 0.5, 0), hit("日本語" * 100, 0.4, 1)], 2, 512, to)
    assert max(columns(line) for line in written(to).split("\n")[:3]) <= width


def test_a_huge_hostile_passage_takes_no_time():
    to = screen()
    write_hits([hit("\x9d" * 4_000_000, 0.5, 0)], 1, 512, to)  # each opens a sequence, none ends
    assert "\x9d" not in written(to)


def test_the_table_says_what_it_leaves_out():
    to = screen()
    write_hits(HITS[:1], 3, 512, to)
    assert "(3 passages; the 1 best shown)" in written(to)


def test_the_table_says_when_no_hit_scores_enough():
    to = screen()
    write_hits([], 3, 512, to)
    assert written(to) == "(3 passages; none scores as much as asked for)\n"


def test_columns_of_least_importance_go_first_on_a_narrow_terminal():
    of = [Column("name"), Column("licence", drop=2), Column("size", drop=1), Column("n", rest=True)]
    row = [Cell("a-long-name"), Cell("apache-2.0"), Cell("small"), Cell("note " * 9)]
    heads = {}
    for width in (80, 50, 35):
        to = screen(width=width)
        write_table(of, [row], to)
        heads[width] = written(to).split("\n")[0].split()
    assert heads[80] == ["name", "licence", "size", "n"]
    assert heads[50] == ["name", "size", "n"]
    assert heads[35] == ["name", "n"]


def test_a_trec_run_has_a_line_a_hit_in_their_order():
    hits = [hit("a", 2.5, 3, id="D1"), hit("b", -1.25, 0)]
    assert trec_lines(hits, "q7", "mine") == ["q7 Q0 D1 1 2.5 mine", "q7 Q0 0 2 -1.25 mine"]


def test_the_scores_of_a_trec_run_never_rise():
    """Readers of runs sort by them, and a blend or a cascade does not sort by the logit."""

    def scores(*pairs):
        hits = [RankedPassage("a", score, logit, 0) for score, logit in pairs]
        return [float(line.split()[4]) for line in trec_lines(hits, "q", "run")]

    assert scores((0.9, 2.0), (0.8, 1.0)) == [2.0, 1.0]
    assert scores((0.9, 1.0), (0.8, 2.0)) == [0.9, 0.8]
    assert scores((0.1, 1.0), (0.8, 2.0)) == [2.0, 1.0]


@pytest.mark.parametrize("bad", ["a b", "", "a\tb"])
def test_an_id_that_a_trec_run_cannot_hold_is_refused(bad):
    with pytest.raises(InvalidInput, match="cannot stand in a TREC run"):
        trec_lines([hit("a", 2.5, 3, id=bad)], "q7", "mine")


def test_the_table_says_when_there_was_nothing_to_rank():
    to = screen()
    write_hits([], 0, 512, to)
    assert written(to) == "no passages to rank\n"


def test_colours_are_only_written_where_they_are_wanted():
    plain, painted = screen(), screen(colour=True)
    write_hits(HITS, 3, 512, plain)
    write_hits(HITS, 3, 512, painted)
    assert "\x1b" not in written(plain)
    assert "\x1b[32m" in written(painted)
    assert printable(written(painted)) == printable(written(plain))


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_the_environment_turns_colours_off(variable, value, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr("sys.stdout", Terminal())
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert Screen.of_stdout().colour
    monkeypatch.setenv(variable, value)
    assert not Screen.of_stdout().colour


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_json_can_be_written_in_any_encoding(encoding):
    values = [{"text": "日本語 ü"}, {"text": "plain"}]
    to = screen(encoding=encoding)
    write_json(values, to, lines=True)
    assert [json.loads(line) for line in written(to).splitlines()] == values
    assert ("日本語" in written(to)) == (encoding == "utf-8")


def test_json_in_one_piece_is_one_value():
    to = screen()
    write_json([{"a": 1}, {"a": 2}], to, lines=False)
    assert json.loads(written(to)) == [{"a": 1}, {"a": 2}]


def test_facts_are_one_a_line_with_those_inside_indented():
    to = screen()
    write_facts({"batch_invariant": True, "none": None, "p": ["a", "b"], "versions": {"x": 1}}, to)
    assert [line.split() for line in written(to).splitlines()] == [
        ["batch", "invariant", "yes"],
        ["none", "none"],
        ["p", "a,", "b"],
        ["versions"],
        ["x", "1"],
    ]
    assert "  x" in written(to)
