"""The command line: what may be asked for, and what each way of failing looks like.

Start-up imports argparse and nothing heavy: the model's libraries come in when they are needed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from flashrank_lite import __version__
from flashrank_lite.cli import bench, export, models, serve
from flashrank_lite.cli.reading import FORMATS, read_passages, read_source
from flashrank_lite.errors import FlashRankLiteError

PROGRAM = "flashrank-lite"
OUTPUTS = ("table", "jsonl", "json")
FAILURE, USAGE, CLOSED_PIPE, INTERRUPTED = 1, 2, 141, 130  # the last two: 128 + the signal's number

_RANK_EXAMPLES = """\
examples:
  flashrank-lite rank "where did agriculture first arise" examples/agriculture.jsonl --top-k 3
  grep -rhi "timeout" docs | flashrank-lite rank "how do I set a timeout"
  flashrank-lite rank "refund policy" faq.csv --field answer --format json

FILE is text (one passage a line, blank lines left out), JSONL or a JSON array (strings, or objects
with a field "text"), CSV or TSV with a header; the extension decides, else the content does.
On a terminal the answer is a table, in a pipe JSONL. Both are best first.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0, 1 for a failure, 2 for wrong usage."""
    try:
        status = _run(sys.argv[1:] if argv is None else list(argv))
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except _UsageError as error:
        return _complain(error, USAGE)
    except FlashRankLiteError as error:
        return _complain(error, FAILURE)
    except BrokenPipeError:
        # Whoever read us has left. Python flushes at exit: give it somewhere to flush to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED_PIPE
    except OSError as error:
        message = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        return _complain(message or error, FAILURE)
    except UnicodeError as error:
        return _complain(error, FAILURE)
    except KeyboardInterrupt:
        return INTERRUPTED


class _UsageError(Exception):
    """The command line itself is wrong."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _UsageError(f"{message} (see {self.prog} --help)")


def _complain(error: object, status: int) -> int:
    if sys.stderr is not None:
        line = f"{PROGRAM}: error: {' '.join(str(error).split())}\n"
        encoding = sys.stderr.encoding or "ascii"
        sys.stderr.write(line.encode(encoding, "backslashreplace").decode(encoding))
    return status


class Commands:
    """The commands below a parser; a group is a command that has commands of its own.

    A new command is one function that calls `add` or `group` on what it is given, and one line in
    `make_commands`.
    """

    def __init__(self, parser: _Parser) -> None:
        self.parser = parser
        self.groups: dict[str, Commands] = {}
        self.runs: dict[str, tuple[_Parser, Callable[[argparse.Namespace], int]]] = {}
        self._parsers = parser.add_subparsers(metavar="COMMAND", dest="command")

    def add(
        self, name: str, run: Callable[[argparse.Namespace], int], **options: Any
    ) -> argparse.ArgumentParser:
        """Add a command that is run by `run`; options as for `ArgumentParser`."""
        parser = self._parsers.add_parser(name, allow_abbrev=False, **options)
        self.runs[name] = (parser, run)
        return parser

    def group(self, name: str, **options: Any) -> Commands:
        """Add a command that has commands below it."""
        self.groups[name] = Commands(self._parsers.add_parser(name, allow_abbrev=False, **options))
        return self.groups[name]


def _run(argv: list[str]) -> int:
    commands = make_commands()
    while argv and argv[0] in commands.groups:
        commands, argv = commands.groups[argv[0]], argv[1:]
    if argv and argv[0] in commands.runs:
        (parser, run), rest = commands.runs[argv[0]], argv[1:]
        # Options may stand between QUERY and FILE, unless "--" says that a query starts with "-".
        parse = parser.parse_args if "--" in rest else parser.parse_intermixed_args
        return run(parse(rest))
    commands.parser.parse_args(argv)
    names = [*commands.runs, *commands.groups]
    commands.parser.error(f"say what to do: {', '.join(names[:-1])} or {names[-1]}")


def make_commands() -> Commands:
    """Every command there is."""
    parser = _Parser(
        prog=PROGRAM,
        description="Rank passages for a query with a small cross-encoder, on the CPU.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = Commands(parser)
    _add_rank_and_info(commands)
    bench.add_to(commands, _bench, _positive)
    _add_export(commands)
    models.add_to(commands)
    serve.add_flags(
        commands.add(
            "serve",
            serve.run,
            help="serve models over HTTP, to the clients of others",
            description=serve.DESCRIPTION,
            epilog=serve.EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    )
    return commands


def _add_rank_and_info(commands: Commands) -> None:
    rank = commands.add(
        "rank",
        _rank,
        help="rank the passages of a file or of standard input",
        description="Rank passages for a query, best first.",
        epilog=_RANK_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    rank.add_argument("query", metavar="QUERY", help="what the passages should answer")
    rank.add_argument(
        "file", metavar="FILE", nargs="?", help="the passages; - or none: standard input"
    )
    rank.add_argument("--top-k", metavar="K", type=_positive, help="show the K best only")
    rank.add_argument("--format", choices=OUTPUTS, help="default: table on a terminal, else jsonl")
    rank.add_argument(
        "--input", choices=FORMATS, help="how to read FILE, when its name does not say it"
    )
    rank.add_argument(
        "--field", metavar="NAME", help='field or column of the text (default: "text")'
    )
    rank.add_argument("--max-length", metavar="N", type=_positive, help="tokens per pair at most")
    rank.add_argument(
        "--raw", action="store_true", help="scores are the model's logits, not in [0, 1]"
    )
    rank.add_argument(
        "--instruction",
        metavar="TEXT",
        help="what to look for, for models that are told it (default: what the model says)",
    )
    info = commands.add(
        "info",
        _info,
        help="show the model, the threads and why, and the versions",
        description="Show the model that would rank (its files checked against their checksums), "
        "its threads and why, and the versions.",
    )
    info.add_argument(
        "--format", choices=("table", "json"), help="default: table on a terminal, else json"
    )
    for command in (rank, info):
        command.add_argument(
            "--model",
            metavar="M",
            help="a name, a repository org/name, or a folder (default: the bundled nano)",
        )
        command.add_argument(
            "--revision", metavar="R", help="of a repository: branch, tag or commit"
        )
        command.add_argument(
            "--file", metavar="F", dest="graph", help="the graph to run, as in onnx/model.onnx"
        )
        command.add_argument(
            "--threads", metavar="N", type=_positive, help="default: the cores we may use"
        )


def _add_export(commands: Commands) -> None:
    parser = commands.add(
        "export",
        export.run,
        help="make a model folder of a Hugging Face cross-encoder",
        description=export.DESCRIPTION,
        epilog=export.EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    export.add_arguments(parser, _positive)


def _positive(value: str) -> int:
    try:
        number = int(value)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{value!r} is not a whole number of at least 1")
    return number


def _rank(arguments: argparse.Namespace) -> int:
    _check_source(arguments)
    data, name = read_source(arguments.file)
    passages = read_passages(data, name, arguments.input, arguments.field)

    from flashrank_lite.cli import rendering
    from flashrank_lite.ranker import Ranker

    screen = rendering.Screen.of_stdout()
    with Ranker(
        arguments.model,
        revision=arguments.revision,
        file=arguments.graph,
        max_length=arguments.max_length,
        threads=arguments.threads,
        activation="raw" if arguments.raw else None,
        instruction=arguments.instruction,
    ) as ranker:
        hits = ranker.rank(arguments.query, passages, arguments.top_k)
        limit = ranker.info()["max_length"]
    output = arguments.format or ("table" if screen.terminal else "jsonl")
    if output == "table":
        rendering.write_table(hits, len(passages), limit, screen)
    else:
        rendering.write_json([hit.to_dict() for hit in hits], screen, lines=output == "jsonl")
    return 0


def _bench(arguments: argparse.Namespace) -> int:
    _check_source(arguments)
    return bench.run(arguments)


def _check_source(arguments: argparse.Namespace) -> None:
    if arguments.file is None and sys.stdin is not None and sys.stdin.isatty():
        raise _UsageError(
            "no FILE, and standard input is a terminal: "
            "give a file, pipe passages in, or say - to type them"
        )


def _info(arguments: argparse.Namespace) -> int:
    from flashrank_lite.cli import rendering
    from flashrank_lite.models.verification import verify
    from flashrank_lite.ranker import Ranker

    screen = rendering.Screen.of_stdout()
    with Ranker(
        arguments.model,
        revision=arguments.revision,
        file=arguments.graph,
        threads=arguments.threads,
    ) as ranker:
        facts = ranker.info()
        facts["verified_files"] = verify(facts["path"], facts["repository"], facts["revision"])
        facts["versions"] = rendering.versions()
    if (arguments.format or ("table" if screen.terminal else "json")) == "table":
        rendering.write_facts(facts, screen)
    else:
        rendering.write_json(facts, screen, lines=False)
    return 0
