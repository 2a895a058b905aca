"""The flags that several commands share, each declared once.

A flag that only hands an argument on is one line: in `MODEL` if it is an argument of `Ranker`, in
`RANKING` if it is one of `Ranker.rank_many`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flashrank_lite.cli.command import UsageError
from flashrank_lite.reading import FORMATS, ReadOptions


@dataclass(frozen=True)
class Flag:
    """A flag and the argument that it sets.

    Attributes:
        names: as typed, the long one last.
        argument: the keyword argument that its value is passed as.
        settings: for `add_argument`.
    """

    names: tuple[str, ...]
    argument: str
    settings: Mapping[str, Any]


def flag(*names: str, argument: str | None = None, **settings: Any) -> Flag:
    """A flag; its argument has the name of its last name unless another is given."""
    return Flag(names, argument or names[-1].lstrip("-").replace("-", "_"), settings)


def add(parser: argparse.ArgumentParser, flags: Iterable[Flag], title: str | None = None) -> None:
    """Declare flags, under a title of their own in `--help` if one is given."""
    group = parser if title is None else parser.add_argument_group(title)
    for one in flags:
        group.add_argument(*one.names, dest=one.argument, **one.settings)


def given(arguments: argparse.Namespace, flags: Iterable[Flag]) -> dict[str, Any]:
    """The keyword arguments that the user's flags stand for; what was not said is left out."""
    values = {one.argument: getattr(arguments, one.argument) for one in flags}
    return {name: value for name, value in values.items() if value is not None}


def positive(value: str) -> int:
    """A whole number of at least 1."""
    try:
        number = int(value)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{value!r} is not a whole number of at least 1")
    return number


def encoding(value: str) -> str:
    """The name of a text encoding that this Python knows."""
    try:
        b"a".decode(value)
    except UnicodeDecodeError:  # one byte is too short for UTF-16
        return value
    except LookupError:
        raise argparse.ArgumentTypeError(
            f"{value!r} is not a text encoding: for instance utf-8, utf-16, cp1252 or shift_jis"
        ) from None
    return value


def delimiter(value: str) -> str:
    """One character; `tab` and `\\t` for the tab."""
    character = {"tab": "\t", "\\t": "\t"}.get(value, value)
    if len(character) != 1 or character in '\r\n"':
        raise argparse.ArgumentTypeError(
            f"{value!r} is not a delimiter: one character such as ; or |, or the word tab"
        )
    return character


MODEL_NAME = flag(
    "--model",
    metavar="M",
    help="a name, a repository org/name, or a folder (default: the bundled nano)",
)
# arguments of Ranker
MODEL = (
    flag("--revision", metavar="R", help="branch, tag or commit of a repository"),
    flag("--file", metavar="F", help="the graph to run, as in onnx/model.onnx"),
    flag("--threads", metavar="N", type=positive, help="default: the cores we may use"),
    flag("--max-length", metavar="N", type=positive, help="tokens per pair at most"),
    flag("--batch-tokens", metavar="N", type=positive, help="tokens that run at the same time"),
    flag("--device", choices=("cpu", "cuda", "auto"), help="default: cpu"),
    flag(
        "--instruction",
        metavar="TEXT",
        help="what to look for, for models that take an instruction (default: the model's own)",
    ),
    flag("--long", choices=("windows", "truncate"), help="how to read a passage that is too long"),
    flag("--then", metavar="M", help="a stronger model that ranks the best of the first again"),
    flag("--keep", metavar="N", type=positive, help="how many --then ranks again (default: 25)"),
    flag(
        "--fusion",
        choices=("rrf", "linear", "z"),
        help='blend with the first stage: the "score" that passages carry, or else their order',
    ),
    flag("--weight", metavar="W", type=float, help="of the model in --fusion, from 0 to 1"),
    flag("--first-stage", choices=("given", "bm25"), help="of --fusion (default: given)"),
)
# arguments of Ranker that do not change its speed
SCORES = (
    flag(
        "--raw",
        argument="activation",
        action="store_const",
        const="raw",
        help="scores are the model's logits, not in [0, 1]",
    ),
    flag(
        "--calibration",
        argument="activation",
        metavar="FILE",
        type=Path,
        help="scores are probabilities, by a calibration that was fitted in Python and saved",
    ),
)
# arguments of Ranker.rank_many
RANKING = (
    flag("-k", "--top-k", metavar="K", type=positive, help="show the K best only"),
    flag("--min-score", metavar="S", type=float, help="leave out what scores less than S"),
    flag("--group-by", metavar="KEY", help="show the best of those that share this metadata only"),
)
READING = (
    flag(
        "--input",
        argument="input_format",
        choices=FORMATS,
        help="default: by FILE's name or content",
    ),
    flag(
        "--field",
        metavar="NAME",
        help="where the text is: a field or column, a path such as doc.text, or several to join, "
        'such as title,body (default: "text")',
    ),
    flag(
        "--id",
        argument="id_field",
        metavar="NAME",
        help='field or column of the id (default: "id", "_id" or "doc_id")',
    ),
    flag(
        "--encoding",
        type=encoding,
        metavar="NAME",
        help="of the text (default: by its byte order mark, else UTF-8)",
    ),
    flag(
        "--delimiter",
        metavar="C",
        type=delimiter,
        help="of a CSV file: one character, or tab (default: found among , ; tab and |)",
    ),
    flag(
        "--no-header",
        argument="header",
        action="store_const",
        const=False,
        help="the first line of a CSV file is a row; --field is then a column's number, from 1",
    ),
)
PROGRESS = flag(
    "--progress",
    action=argparse.BooleanOptionalAction,
    default=None,
    help="show how far it is, on standard error (default: if that is a terminal)",
)


def add_format(parser: argparse.ArgumentParser, *choices: str) -> None:
    """Declare `--format`; the first of the choices is what a terminal gets, the second a pipe."""
    parser.add_argument(
        "--format",
        choices=choices,
        help=f"default: {choices[0]} on a terminal, else {choices[1]}",
    )


def read_options(arguments: argparse.Namespace) -> ReadOptions:
    """How FILE is to be read, of a command that declares `READING`."""
    return ReadOptions(**given(arguments, READING))


def check_not_typed(source: str | None) -> None:
    """Raises UsageError if passages would have to be typed without the user having asked so."""
    import sys

    if source is None and sys.stdin is not None and sys.stdin.isatty():
        raise UsageError(
            "no FILE, and standard input is a terminal: "
            "give a file, pipe passages in, or say - to type them"
        )
