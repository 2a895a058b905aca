"""The command line: what may be asked for, and what each way of failing looks like.

Start-up imports argparse and nothing heavy: the model's libraries come in when they are needed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from flashrank_lite import __version__
from flashrank_lite.cli import export
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


def _run(argv: list[str]) -> int:
    parser, commands = _parsers()
    if argv and argv[0] in commands:
        command, rest = commands[argv[0]], argv[1:]
        # Options may stand between QUERY and FILE, unless "--" says that a query starts with "-".
        parse = command.parse_args if "--" in rest else command.parse_intermixed_args
        arguments = parse(rest)
        run = {"rank": _rank, "info": _info, "export": export.run}[argv[0]]
        return run(arguments)
    parser.parse_args(argv)
    parser.error("say what to do: rank, info or export")


def _parsers() -> tuple[_Parser, dict[str, _Parser]]:
    parser = _Parser(
        prog=PROGRAM,
        description="Rank passages for a query with a small cross-encoder, on the CPU.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", dest="command")
    rank = commands.add_parser(
        "rank",
        help="rank the passages of a file or of standard input",
        description="Rank passages for a query, best first.",
        epilog=_RANK_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
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
    info = commands.add_parser(
        "info",
        help="show the model, the threads and why, and the versions",
        description="Show the model that would rank (its files checked against their checksums), "
        "its threads and why, and the versions.",
        allow_abbrev=False,
    )
    info.add_argument(
        "--format", choices=("table", "json"), help="default: table on a terminal, else json"
    )
    exporter = commands.add_parser(
        "export",
        help="make a model folder of a Hugging Face cross-encoder",
        description=export.DESCRIPTION,
        epilog=export.EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    export.add_arguments(exporter, _positive)
    for command in (rank, info):
        command.add_argument(
            "--model", metavar="M", help="a model folder (default: the bundled nano)"
        )
        command.add_argument(
            "--threads", metavar="N", type=_positive, help="default: the cores we may use"
        )
    return parser, {"rank": rank, "info": info, "export": exporter}


def _positive(value: str) -> int:
    try:
        number = int(value)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{value!r} is not a whole number of at least 1")
    return number


def _rank(arguments: argparse.Namespace) -> int:
    if arguments.file is None and sys.stdin is not None and sys.stdin.isatty():
        raise _UsageError(
            "no FILE, and standard input is a terminal: "
            "give a file, pipe passages in, or say - to type them"
        )
    data, name = read_source(arguments.file)
    passages = read_passages(data, name, arguments.input, arguments.field)

    from flashrank_lite.cli import rendering
    from flashrank_lite.ranker import Ranker

    screen = rendering.Screen.of_stdout()
    with Ranker(
        arguments.model,
        max_length=arguments.max_length,
        threads=arguments.threads,
        activation="raw" if arguments.raw else None,
    ) as ranker:
        hits = ranker.rank(arguments.query, passages, arguments.top_k)
        limit = ranker.info()["max_length"]
    output = arguments.format or ("table" if screen.terminal else "jsonl")
    if output == "table":
        rendering.write_table(hits, len(passages), limit, screen)
    else:
        rendering.write_json([hit.to_dict() for hit in hits], screen, lines=output == "jsonl")
    return 0


def _info(arguments: argparse.Namespace) -> int:
    from flashrank_lite.cli import rendering
    from flashrank_lite.models.manifest import verify
    from flashrank_lite.ranker import Ranker

    screen = rendering.Screen.of_stdout()
    with Ranker(arguments.model, threads=arguments.threads) as ranker:
        facts = ranker.info()
        facts["verified_files"] = verify(Path(facts["path"]))
        facts["versions"] = rendering.versions()
    if (arguments.format or ("table" if screen.terminal else "json")) == "table":
        rendering.write_facts(facts, screen)
    else:
        rendering.write_json(facts, screen, lines=False)
    return 0
