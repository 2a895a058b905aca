"""`flashrank-lite eval`: did reranking help on these queries, and which model helped more?"""

from __future__ import annotations

import argparse
import re
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from flashrank_lite.cli import flags
from flashrank_lite.cli.command import Command, UsageError
from flashrank_lite.cli.tables import Cell, Column, write_table

if TYPE_CHECKING:
    from flashrank_lite.cli.screen import Screen
    from flashrank_lite.evaluation.comparison import Comparison, Difference
    from flashrank_lite.evaluation.judged import JudgedData

BUNDLED = "nano"
MEASURES = ("nDCG@10", "RR@10", "R@10")
# --first-stage says here what the baseline is, and a fusion blends with that
MODEL = tuple(flag for flag in flags.MODEL if flag.argument != "first_stage")
# nano:long=truncate,fusion=rrf
_WITH_SETTINGS = re.compile(
    r"(?P<model>.+?):(?P<settings>[a-z][\w-]*=[^,]+(?:,[a-z][\w-]*=[^,]+)*)"
)

DESCRIPTION = """\
Rank the candidates of judged queries with one model or several, and compare with the first stage.
"""
EXAMPLES = """\
examples:
  flashrank-lite eval examples/questions.jsonl --qrels examples/questions.qrels
  flashrank-lite eval examples/questions.jsonl --qrels examples/questions.qrels \\
      --first-stage bm25 --fusion rrf --measures nDCG@5 AP
  flashrank-lite eval --run examples/agriculture.run --topics examples/agriculture.topics.tsv \\
      --texts examples/agriculture.jsonl --qrels examples/agriculture.qrels

--model A --model B compares two models, --model nano --model nano:fusion=rrf,weight=0.7 two ways
to run one; --out report.html writes a page to look at.
DATA is a file with a query and its passages in each row, as JSONL, JSON, CSV, TSV or Parquet:
{"query", "candidates": [{"text", "label"}]}, {"query", "positive": [...], "negative": [...]}, or
columns query, text and label; or a folder as BEIR, CoIR, BRIGHT or T2Ranking have it. A folder
without --run gets its candidates by BM25. Needs ir-measures: pip install "flashrank-lite[eval]",
or pip install ".[eval]" in a checkout.
"""


def run(arguments: argparse.Namespace) -> int:
    """Read, rank, compare and write; the exit status."""
    from flashrank_lite.evaluation.comparison import compare
    from flashrank_lite.evaluation.measures import parse_measures
    from flashrank_lite.progress import progress

    names = arguments.model or [BUNDLED]
    models = [_model(name) for name in names]
    if len(set(names)) < len(names):
        raise UsageError("the same --model twice: they would be equal")
    if arguments.out is not None and not Path(arguments.out).absolute().parent.is_dir():
        raise UsageError(f"--out {arguments.out}: there is no such folder")
    parse_measures(arguments.measures)  # before anything slow
    blended = any("fusion" in own for _, own in models)
    data = _read(arguments, blended or arguments.fusion is not None)

    from flashrank_lite.cli.screen import Screen, write_json
    from flashrank_lite.ranker import Ranker

    screen = Screen.of_stdout()
    options = flags.given(arguments, MODEL)
    with ExitStack() as stack, progress(arguments.progress) as report:
        rankers = [
            (name, stack.enter_context(Ranker(model, **{**options, **own})))
            for name, (model, own) in zip(names, models, strict=True)
        ]
        comparison = compare(
            data,
            rankers,
            arguments.measures,
            judged_only=arguments.judged_only,
            report=report,
        )
    if arguments.out is not None:
        from flashrank_lite.evaluation.report import html_report

        Path(arguments.out).write_text(html_report(comparison), encoding="utf-8")
    if screen.choose(arguments.format, "table", "table") == "json":
        write_json(comparison.to_dict(), screen, lines=False)
    else:
        write_comparison(comparison, screen)
        if arguments.out is not None:
            screen.write(f"report: {arguments.out}")
    return 0


def write_comparison(comparison: Comparison, screen: Screen) -> None:
    """Write the systems, their differences, and what to know about the data."""
    from flashrank_lite.evaluation.remarks import remarks

    columns = [
        Column("", rest=True),
        *(Column(name, right=True) for name in comparison.measures),
        Column("ms a query", right=True),
    ]
    rows = []
    for system in comparison.systems:
        median = system.median_milliseconds
        cells = [
            system.name,
            *(f"{system.values[name].mean():.3f}" for name in comparison.measures),
            "" if median is None else f"{median:.1f}",
        ]
        rows.append([Cell(text) for text in cells])
    write_table(columns, rows, screen)
    screen.write("")
    columns = [
        Column("difference", rest=True),
        Column("measure"),
        Column("mean", right=True),
        Column("95 % interval", right=True),
        *(Column(name, right=True) for name in ("wins", "ties", "losses")),
    ]
    write_table(columns, [_difference(one) for one in comparison.differences], screen)
    screen.write("")
    for line in remarks(comparison):
        screen.write(line)


def _difference(one: Difference) -> list[Cell]:
    interval = "" if one.low is None or one.high is None else f"{one.low:+.3f} to {one.high:+.3f}"
    texts = [
        f"{one.second} - {one.first}",
        one.measure,
        f"{one.mean:+.3f}",
        interval,
        str(one.wins),
        str(one.ties),
        str(one.losses),
    ]
    return [Cell(text) for text in texts]


class _Settings(argparse.ArgumentParser):
    """The settings of one `--model`."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"--model {self.prog}: {message}")


def _model(name: str) -> tuple[str, dict[str, Any]]:
    """`nano:long=truncate,fusion=rrf` as the model and the arguments of `Ranker` for it alone."""
    found = _WITH_SETTINGS.fullmatch(name)
    if found is None:
        return name, {}
    parser = _Settings(prog=name, add_help=False, allow_abbrev=False)
    flags.add(parser, MODEL)
    own = parser.parse_args([f"--{setting}" for setting in found["settings"].split(",")])
    return found["model"], flags.given(own, MODEL)


def _read(arguments: argparse.Namespace, blended: bool) -> JudgedData:
    from flashrank_lite.evaluation.folders import CANDIDATES
    from flashrank_lite.evaluation.reading import DataFiles, read_data

    if arguments.data is None and arguments.run is None:
        raise UsageError("give DATA, or --run, --topics, --texts and --qrels")
    files = DataFiles(**{one.name: getattr(arguments, one.name) for one in fields(DataFiles)})
    data = read_data(files, flags.read_options(arguments), arguments.top or CANDIDATES)
    if arguments.first_stage == "bm25" and data.order != "bm25":
        data = data.by_bm25()
    if arguments.top is not None:
        data = data.first(arguments.top)
    if blended and data.order == "shuffled":
        raise UsageError(
            "--fusion blends with a first stage, and this data has none: add --first-stage bm25"
        )
    return data


def _add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", nargs="?", help="a file or a folder, see below")
    parser.add_argument(
        "--model",
        metavar="M",
        action="append",
        help="a name, a repository org/name, or a folder; again for another to compare with. "
        "The flags of the models hold for all of them; M:long=truncate,fusion=rrf sets some for "
        "this one (default: the bundled nano)",
    )
    parser.add_argument(
        "--measures",
        metavar="NAME",
        nargs="+",
        default=list(MEASURES),
        help="as ir-measures names them, the first leads (default: nDCG@10 RR@10 R@10)",
    )
    parser.add_argument(
        "--first-stage",
        choices=("given", "bm25"),
        help="the baseline: the order that DATA has, or BM25 over each query's candidates "
        "(default: given)",
    )
    parser.add_argument(
        "--top", metavar="N", type=flags.positive, help="rank the first N candidates of a query"
    )
    parser.add_argument(
        "--judged-only",
        action="store_true",
        help="take out candidates that nobody judged; else they count as not relevant",
    )
    parser.add_argument(
        "--out", metavar="FILE", help="write an HTML report with the queries that won and lost most"
    )
    flags.add_format(parser, "table", "json")
    flags.add(parser, [flags.PROGRESS])
    files = parser.add_argument_group("files")
    files.add_argument("--qrels", metavar="FILE", help="judgments: those of --run, or for DATA")
    files.add_argument("--run", metavar="FILE", help="a TREC run: what the first stage found")
    files.add_argument("--topics", metavar="FILE", help="the queries of --run: id, tab, query")
    files.add_argument("--texts", metavar="FILE", help="the passages of --run, with their ids")
    files.add_argument("--split", metavar="NAME", help="which set of a folder (default: test)")
    flags.add(parser, flags.READING, "reading passages")
    flags.add(parser, MODEL, "the models")


COMMAND = Command(
    name="eval",
    help="measure whether reranking helps on your judged queries",
    description=DESCRIPTION,
    examples=EXAMPLES,
    add_flags=_add_flags,
    run=run,
)
