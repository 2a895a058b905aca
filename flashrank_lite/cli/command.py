"""What a sub-command is, so that adding one is a new file and a line in `program.COMMANDS`.

Imports argparse and nothing heavy: `flashrank-lite --help` answers before any model library loads.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn


class UsageError(Exception):
    """The command line itself is wrong: exit status 2."""


class Parser(argparse.ArgumentParser):
    """argparse, with the error raised instead of printed, and no abbreviated flags."""

    def __init__(self, **settings: object) -> None:
        super().__init__(allow_abbrev=False, **settings)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


@dataclass(frozen=True)
class Command:
    """A command, or a group of commands.

    Attributes:
        name: what is typed.
        help: one line, for the list of commands.
        run: does the work and returns the exit status; may raise `FlashRankLiteError` (status 1),
            `OSError` (1) or `UsageError` (2). Heavy imports belong inside it.
        add_flags: declares the arguments.
        description: what `--help` says first; `help`, if there is none.
        examples: what `--help` ends with.
        commands: those of a group, which has no `run` of its own.
    """

    name: str
    help: str
    run: Callable[[argparse.Namespace], int] | None = None
    add_flags: Callable[[argparse.ArgumentParser], None] | None = None
    description: str | None = None
    examples: str | None = None
    commands: tuple[Command, ...] = ()

    def parser(self, program: str) -> Parser:
        """The parser of the command's own arguments; `program` is the command as typed so far."""
        parser = Parser(
            prog=program,
            description=self.description or self.help,
            epilog=self.examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if self.add_flags is not None:
            self.add_flags(parser)
        if self.commands:
            below = parser.add_subparsers(metavar="COMMAND", dest="command")
            for command in self.commands:
                below.add_parser(command.name, help=command.help)
        return parser


def find(command: Command, argv: list[str]) -> tuple[Command, Parser, list[str]]:
    """The command that a command line names, its parser, and the arguments that are left.

    Raises:
        UsageError: no command is named, or an unknown one.
        SystemExit: `--help` or `--version` was asked for, and printed.
    """
    program = command.name
    while command.commands:
        known = {below.name: below for below in command.commands}
        if not argv or argv[0] not in known:
            parser = command.parser(program)
            parser.parse_args(argv)
            *others, last = known
            parser.error(f"say what to do: {', '.join(others)} or {last}")
        program, command, argv = f"{program} {argv[0]}", known[argv[0]], argv[1:]
    return command, command.parser(program), argv


def parse(parser: Parser, argv: list[str]) -> argparse.Namespace:
    """The arguments of a command.

    Flags may stand between QUERY and FILE, unless `--` says that a query starts with a dash.
    """
    return parser.parse_args(argv) if "--" in argv else parser.parse_intermixed_args(argv)
