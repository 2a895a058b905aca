"""README.md keeps its word: its commands exist, its Python runs, its links lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest

from flashrank_lite.cli import main
from flashrank_lite.cli.command import find
from flashrank_lite.cli.program import root

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "examples/README.md"]


def blocks(page, language):
    text = (ROOT / page).read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def shell_commands(page):
    script = "\n".join(blocks(page, "sh"))
    parts = [part for line in script.splitlines() for part in line.split("&&")]
    return [shlex.split(part, comments=True) for part in parts]


@pytest.mark.parametrize("number", range(len(blocks("README.md", "python"))))
def test_a_snippet_runs(number, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    exec(compile(blocks("README.md", "python")[number], "README.md", "exec"), {})
    assert capsys.readouterr().out


def test_the_snippet_finds_the_answer(monkeypatch, capsys):
    exec(blocks("README.md", "python")[0], {})
    assert capsys.readouterr().out.splitlines()[0].split()[1:3] == ["1", "farming"]


def test_the_two_commands_are_there():
    scripts = [block.strip() for block in blocks("README.md", "sh")]
    assert scripts[0].startswith("pip install . && flashrank-lite rank ")
    assert scripts[1] == 'pip install ".[test]" && pytest'


@pytest.mark.parametrize("page", ["README.md", "examples/README.md"])
def test_the_rank_commands_run(page, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    ranks = [part for part in shell_commands(page) if part[:2] == ["flashrank-lite", "rank"]]
    assert ranks
    for command in ranks:
        assert main(command[1:]) == 0
        assert '"id": "history-of-agriculture"' in capsys.readouterr().out.splitlines()[0]


def test_the_models_commands_are_understood():
    found = [part for part in shell_commands("README.md") if part[1:2] == ["models"]]
    assert {part[2] for part in found} == {"list", "info", "pull", "verify"}
    for _, *arguments in found:
        _, parser, rest = find(root(), arguments)
        assert parser.parse_args(rest)


@pytest.mark.parametrize("page", PAGES)
def test_the_extras_that_are_named_exist(page):
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    table = project.split("[project.optional-dependencies]")[1].split("\n[")[0]
    known = set(re.findall(r"^([\w-]+) = \[", table, re.MULTILINE))
    text = (ROOT / page).read_text("utf-8")
    named = {name for names in re.findall(r'"\.\[([\w,-]+)\]"', text) for name in names.split(",")}
    assert named <= known


@pytest.mark.parametrize("page", PAGES)
def test_the_links_and_files_that_are_named_exist(page):
    text = (ROOT / page).read_text("utf-8")
    here = (ROOT / page).parent
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert [link for link in links if not (here / link).exists()] == []
    named = re.findall(
        r"`((?:scripts|tests|benchmarks|examples|flashrank_lite|\.ci)/[\w./]*)`", text
    )
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_module_is_the_command(run_python):
    shown = run_python(
        "import runpy; runpy.run_module('flashrank_lite', run_name='__main__')",
        arguments=("--version",),
    )
    assert shown.startswith("flashrank-lite ")
