"""The pages keep their word: their Python runs and prints what they say, their commands and links
exist.

On every page the Python blocks run one after the other, in one namespace and in the root of the
repository. A `text` block right after a Python block, or after a `rank` command, is its output.
Three comments, each on a line of its own in the page, say what cannot run so everywhere:

    <!-- not run: why -->         the Python block that follows is compiled only
    <!-- needs: module ... -->    the page's Python runs where these modules are installed
    <!-- run by: tests/... -->    the page's Python is run by this test instead, with more at hand
"""

import os
import re
import shlex
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

import pytest

from flashrank_lite.cli import main

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    page.relative_to(ROOT).as_posix()
    for folder in (".", "docs", "examples", "benchmarks", "flashrank_lite/models/nano")
    for page in (ROOT / folder).glob("*.md")
)
BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<why>.+?) -->\n+)?"
    r"^```(?P<language>\w+)\n(?P<code>.*?)^```$"
    r"(?:\n+^```text\n(?P<output>.*?)^```$)?",
    re.MULTILINE | re.DOTALL,
)
NEEDS = re.compile(r"^<!-- needs: (.+) -->$", re.MULTILINE)
RUN_BY = re.compile(r"^<!-- run by: (\S+) -->$", re.MULTILINE)
BAR = re.compile(r"[█▉▊▋▌▍▎▏]+ *")  # a score, drawn
NUMBER = re.compile(r"-?\d+\.\d+")
TOLERANCE = 0.02  # of scores that are shown: int8 differs a little between processors
OPERATORS = {"&&", "||", "|", ";", ">", ">>", "<", "&", "(", ")"}


class Block(NamedTuple):
    """A fenced block; `output` is what it prints, None where the page does not say."""

    language: str
    code: str
    output: str | None
    not_run: str | None


def read(page):
    return (ROOT / page).read_text("utf-8")


def blocks(page, language):
    found = [
        Block(match["language"], match["code"], match["output"], match["why"])
        for match in BLOCK.finditer(read(page))
    ]
    return [block for block in found if block.language == language]


def commands(page):
    """Every call of flashrank-lite in the page's shell blocks: its arguments, and its output."""
    found = []
    for block in blocks(page, "sh"):
        for line in block.code.replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            words = list(lexer)
            for place, word in enumerate(words):
                if word == "flashrank-lite" and words[max(0, place - 1)] != "install":
                    rest = takewhile(lambda word: word not in OPERATORS, words[place + 1 :])
                    found.append((list(rest), block.output))
    return found


def assert_prints(shown, expected):
    """Compare two outputs: words exactly, numbers with a point within the tolerance."""
    words = [BAR.sub("", NUMBER.sub("#", text.rstrip())) for text in (shown, expected)]
    assert words[0] == words[1]
    numbers = [[float(number) for number in NUMBER.findall(text)] for text in (shown, expected)]
    assert numbers[0] == pytest.approx(numbers[1], abs=TOLERANCE)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")])
def test_the_python_of_a_page_runs(page, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    if test := RUN_BY.search(read(page)):
        assert Path(page).name in read(test[1])
        return
    for modules in NEEDS.findall(read(page)):
        for module in modules.replace(",", " ").split():
            if os.environ.get("FLASHRANK_LITE_REQUIRE_EXPORT") != "1":  # the gate skips nothing
                pytest.importorskip(module)
    names = {"__name__": page}
    for number, block in enumerate(blocks(page, "python"), 1):
        code = compile(block.code, f"{page}, Python block {number}", "exec")
        if block.not_run:
            continue
        exec(code, names)
        shown = capsys.readouterr().out
        if block.output is not None:
            assert_prints(shown, block.output)


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)])
def test_the_commands_of_a_page_are_understood(page, capsys):
    for arguments, _ in commands(page):
        # what the parser rejects is the option that does not exist, and nothing before it
        assert main([*arguments, "--no-such-option"]) == 2, arguments
        assert "unrecognized arguments: --no-such-option" in capsys.readouterr().err, arguments


@pytest.mark.parametrize("page", ["README.md", "examples/README.md"])
def test_the_rank_commands_find_the_answer(page, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "100")
    ranks = [(words, output) for words, output in commands(page) if words[0] == "rank"]
    assert ranks
    for words, output in ranks:
        assert main(words) == 0
        shown = capsys.readouterr().out
        if output is None:
            assert '"id": "history-of-agriculture"' in shown.splitlines()[0]
        else:
            assert_prints(shown, output)


def test_the_readme_opens_with_two_commands_for_a_fresh_machine():
    lines = blocks("README.md", "sh")[0].code.splitlines()
    assert lines[0].startswith("pip install . && flashrank-lite rank ")
    assert lines[1] == 'pip install ".[test]" && pytest'


@pytest.mark.parametrize("page", PAGES)
def test_the_extras_that_are_named_exist(page):
    project = read("pyproject.toml")
    table = project.split("[project.optional-dependencies]")[1].split("\n[")[0]
    known = set(re.findall(r"^([\w-]+) = \[", table, re.MULTILINE))
    named = re.findall(r"(?:\"\.|flashrank-lite)\[([\w,-]+)\]", read(page))
    assert {name for names in named for name in names.split(",")} <= known


@pytest.mark.parametrize("page", PAGES)
def test_the_links_and_files_that_are_named_exist(page):
    text = read(page)
    here = (ROOT / page).parent
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    gone = []
    for link in links:
        path, _, anchor = link.partition("#")
        target = here / path if path else ROOT / page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            gone.append(link)
    assert gone == []
    named = re.findall(
        r"`((?:scripts|tests|benchmarks|examples|deploy|docs|flashrank_lite|\.ci|\.github)/[\w./-]*)`",
        text,
    )
    assert [path for path in named if not (ROOT / path).exists()] == []


def anchors(page):
    """The anchors of a page's headings, as GitHub and mkdocs make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    plain = [re.sub(r"[^\w\s-]", "", heading.lower()) for heading in headings]
    return {re.sub(r"\s+", "-", heading.strip()) for heading in plain}


def test_the_module_is_the_command(run_python):
    shown = run_python(
        "import runpy; runpy.run_module('flashrank_lite', run_name='__main__')",
        arguments=("--version",),
    )
    assert shown.startswith("flashrank-lite ")
