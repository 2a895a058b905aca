"""Help and registration: every command is listed, every example runs, and help loads no model."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from cli_support import ROOT, environment

from flashrank_lite.cli import main
from flashrank_lite.cli.command import Command, find, parse
from flashrank_lite.cli.program import COMMANDS, root

# Their examples download, or serve until they are stopped: they are understood, not run.
ENDLESS = {"export", "models", "serve"}


def all_commands(command=None, typed=()):
    """Every command that can be typed, as its words."""
    command = command or root()
    if not command.commands:
        return [(typed, command)]
    return [one for c in command.commands for one in all_commands(c, (*typed, c.name))]


def examples():
    """The examples of every command, each as (command, line)."""
    found = []
    for words, command in all_commands():
        text = (command.examples or "").replace("\\\n", " ")
        lines = re.findall(r"^  (.*flashrank-lite .*)$", text, re.MULTILINE)
        found += [(words, line.strip()) for line in lines]
    return found


@pytest.mark.parametrize("words", [words for words, _ in all_commands()], ids=" ".join)
def test_every_command_has_help_that_fits_a_line(words, capsys):
    with pytest.raises(SystemExit) as left:
        main([*words, "--help"])
    assert left.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: flashrank-lite {' '.join(words)}")
    assert max(map(len, shown.splitlines())) <= 100


def test_the_help_of_all_lists_every_command(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    for command in root().commands:
        assert re.search(rf"^ +{command.name} +{re.escape(command.help)}", shown, re.MULTILINE)


@pytest.mark.parametrize(("words", "line"), examples(), ids=[line for _, line in examples()])
def test_every_example_runs(words, line, tmp_path):
    if words[0] in ENDLESS:
        typed = shlex.split(line)
        _, parser, rest = find(root(), typed[typed.index("flashrank-lite") + 1 :])
        assert parse(parser, rest)
        return
    (tmp_path / "flashrank-lite").write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -m flashrank_lite "$@"\n'
    )
    (tmp_path / "flashrank-lite").chmod(0o755)
    path = f"{tmp_path}:{environment()['PATH']}"
    done = subprocess.run(
        line, shell=True, cwd=ROOT, env=environment(PATH=path), capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout


def test_there_are_examples_of_the_commands_that_need_some():
    assert {words[0] for words, _ in examples()} >= {"rank", "bench", *ENDLESS}


def test_a_command_is_a_module_with_one_object():
    """What `CONTRIBUTING.md` says of a new command: a file, and its name in `COMMANDS`."""
    assert [command.name for command in root().commands] == list(COMMANDS)
    folder = Path(sys.modules["flashrank_lite.cli"].__file__).parent
    assert all((folder / f"{name}.py").is_file() for name in COMMANDS)


def test_a_new_command_needs_no_other_code(monkeypatch, capsys):
    def add_flags(parser):
        parser.add_argument("word")

    def say(arguments):
        print(arguments.word)
        return 0

    module = type(sys)("flashrank_lite.cli.echo")
    module.COMMAND = Command("echo", "say a word", say, add_flags)
    monkeypatch.setitem(sys.modules, "flashrank_lite.cli.echo", module)
    monkeypatch.setattr("flashrank_lite.cli.program.COMMANDS", (*COMMANDS, "echo"))
    assert main(["echo", "hello"]) == 0
    assert capsys.readouterr().out == "hello\n"


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["rank", "--help"], ["models"]])
def test_help_and_version_load_no_model_library_and_no_rich(arguments):
    script = (
        "import sys; from flashrank_lite.cli import main\n"
        f"try: main({arguments})\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'onnxruntime', 'tokenizers', 'huggingface_hub', 'rich', 'pyarrow'}\n"
        "print(sorted(heavy & {*sys.modules}))"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment(), capture_output=True, check=True)
    assert done.stdout.endswith(b"[]\n")


def test_an_answer_in_a_pipe_imports_no_rich():
    script = (
        "import sys; from flashrank_lite.cli import main\n"
        "main(['rank', 'corn', 'examples/agriculture.jsonl', '-k', '1'])\n"
        "print('rich' in sys.modules, file=sys.stderr)"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment(), cwd=ROOT, capture_output=True, check=True)
    assert done.stderr == b"False\n"


@pytest.mark.parametrize(
    ("words", "command"), all_commands(), ids=[" ".join(w) for w, _ in all_commands()]
)
def test_what_is_to_be_installed_is_right_for_a_checkout_too(words, command):
    said = f"{command.description} {command.examples}".replace("\n", " ")
    for extra in re.findall(r'pip install "flashrank-lite\[(\w+)\]"', said):
        assert f'pip install ".[{extra}]"' in said
