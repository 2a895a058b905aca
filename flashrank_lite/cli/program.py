"""The command line: which commands there are, and what each way of failing looks like."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from flashrank_lite import __version__
from flashrank_lite.cli.command import Command, UsageError, find, parse
from flashrank_lite.errors import FlashRankLiteError

PROGRAM = "flashrank-lite"
COMMANDS = (  # modules of this package, each with a COMMAND
    "rank",
    "encode",
    "info",
    "bench",
    "eval",
    "export",
    "models",
    "serve",
)
FAILURE, USAGE, CLOSED_PIPE, INTERRUPTED = 1, 2, 141, 130  # the last two: 128 + the signal's number


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0, 1 for a failure, 2 for wrong usage."""
    try:
        words = sys.argv[1:] if argv is None else list(argv)
        command, parser, rest = find(root(*words[:1]), words)
        arguments = parse(parser, rest)
        assert command.run is not None  # a group never gets here
        try:
            status = command.run(arguments)
        except UsageError as error:
            parser.error(str(error))  # which adds where to look
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except UsageError as error:
        return _complain(error, USAGE)
    except FlashRankLiteError as error:
        return _complain(error, FAILURE)
    except BrokenPipeError:
        # The reader of our output has left. Python flushes at exit: give it somewhere to flush to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED_PIPE
    except OSError as error:
        message = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        return _complain(message or error, FAILURE)
    except UnicodeError as error:
        return _complain(error, FAILURE)
    except KeyboardInterrupt:
        return INTERRUPTED


def root(wanted: str | None = None) -> Command:
    """`flashrank-lite` itself, with every command below it; with one alone, if that is wanted."""
    names = (wanted,) if wanted in COMMANDS else COMMANDS
    return Command(
        name=PROGRAM,
        help="Rank passages for a query with a small reranker, on the CPU.",
        add_flags=_add_version,
        commands=tuple(import_module(f"flashrank_lite.cli.{name}").COMMAND for name in names),
    )


def _add_version(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")


def _complain(error: object, status: int) -> int:
    if sys.stderr is not None:
        line = f"{PROGRAM}: error: {' '.join(str(error).split())}\n"
        encoding = sys.stderr.encoding or "ascii"
        sys.stderr.write(line.encode(encoding, "backslashreplace").decode(encoding))
    return status
