"""`flashrank-lite rank`: the passages of a file, or of many queries, best first."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from flashrank_lite.cli import flags
from flashrank_lite.cli.command import Command, UsageError
from flashrank_lite.cli.encode import is_store
from flashrank_lite.reading import read_file
from flashrank_lite.reading.questions import Question, read_questions, read_trec

if TYPE_CHECKING:
    from flashrank_lite.call import Progress
    from flashrank_lite.cli.screen import Screen
    from flashrank_lite.hits import RankedPassage
    from flashrank_lite.ranker import Ranker

    Ranked = tuple[Question, list[RankedPassage]]

MODEL = (*flags.MODEL, *flags.SCORES)
RUN_NAME = "flashrank-lite"
# Passages that are ranked in one call: batches are shared among its queries, and hits of earlier
# queries are written while later ones wait. A few thousand fill the batches of any machine.
AT_ONCE = 2_000

EXAMPLES = """\
examples:
  flashrank-lite rank "where did agriculture first arise" examples/agriculture.jsonl -k 3
  printf 'Paris\\nBerlin\\n' | flashrank-lite rank "what is the capital of Germany" -k 1
  flashrank-lite rank "corn" examples/agriculture.jsonl --min-score 0.2 --group-by title
  flashrank-lite rank "corn" examples/agriculture.jsonl --field title,text --format json
  flashrank-lite rank --queries examples/questions.jsonl -k 1
  flashrank-lite rank --run examples/agriculture.run --topics examples/agriculture.topics.tsv \\
      --texts examples/agriculture.jsonl --format trec

FILE is text (one passage a line, blank lines left out), JSONL or a JSON array (strings, or objects
with a field "text"), what a search engine answered ({"hits": {"hits": [...]}}), CSV or TSV with a
header, Parquet or Arrow; compressed or not. The extension decides, else the content does. On a
terminal the answer is a table, in a pipe JSONL, which rank reads again: id, metadata and the first
index stay. Tables measure wide characters if rich is installed: pip install "flashrank-lite[cli]",
or pip install ".[cli]" in a checkout.
"""


def run(arguments: argparse.Namespace) -> int:
    """Read, rank and write; the exit status."""
    from flashrank_lite.cli.screen import Screen

    many = _check(arguments)
    questions = _questions(arguments)

    from flashrank_lite.ranker import Ranker

    screen = Screen.of_stdout()
    output = screen.choose(arguments.format, "table", "jsonl")
    with Ranker(arguments.model, **flags.given(arguments, MODEL)) as ranker:
        limit = ranker.info()["max_length"]
        ranked: Iterable[Ranked] = _rank(ranker, questions, arguments)
        if screen.terminal:
            ranked = list(ranked)  # the bar has gone before anything is written
        if output == "json":
            _write_json(list(ranked), many, screen)
        else:
            for question, hits in ranked:
                _write(question, hits, many, output, limit, arguments.run_name, screen)
    return 0


def _check(arguments: argparse.Namespace) -> bool:
    """Whether there are many queries.

    Raises:
        UsageError: what is given does not go together.
    """
    trec = (arguments.run, arguments.topics, arguments.texts)
    if arguments.queries is None and trec == (None, None, None):
        if arguments.query is None:
            raise UsageError("give a QUERY and a FILE, or --queries FILE")
        flags.check_not_typed(arguments.source)
        return False
    if arguments.query is not None:
        raise UsageError("a QUERY does not go with --queries or --run, which bring their own")
    if arguments.queries is not None and trec != (None, None, None):
        raise UsageError("--queries does not go with --run, --topics and --texts")
    if arguments.queries is None and None in trec:
        raise UsageError("--run, --topics and --texts go together: give all three")
    return True


def _questions(arguments: argparse.Namespace) -> list[Question]:
    options = flags.read_options(arguments)
    if arguments.queries is not None:
        return read_questions(arguments.queries, options)
    if arguments.run is not None:
        return read_trec(arguments.run, arguments.topics, arguments.texts, options)
    if arguments.source is not None and is_store(arguments.source):
        from flashrank_lite.store import PassageStore

        return [Question("1", arguments.query, PassageStore.open(arguments.source).all())]
    return [Question("1", arguments.query, read_file(arguments.source, options))]


def _rank(
    ranker: Ranker, questions: Sequence[Question], arguments: argparse.Namespace
) -> Iterator[Ranked]:
    """Each question with its hits, as they come."""
    from flashrank_lite.call import Call, running
    from flashrank_lite.progress import progress

    options = flags.given(arguments, flags.RANKING)
    total = sum(len(question.passages) for question in questions)
    before = 0
    with progress(arguments.progress) as report:
        for group in _groups(questions):
            count = sum(len(question.passages) for question in group)
            shown = None if report is None else _share(report, before, count, total)
            with running(Call(progress=shown)):
                lists = ranker.rank_many(
                    [question.query for question in group],
                    [question.passages for question in group],
                    **options,
                )
            before += count
            yield from zip(group, lists, strict=True)


def _share(report: Progress, before: int, count: int, total: int) -> Progress:
    """What reports a call's pairs as its share of all passages.

    Scorers may score a passage more than once, or only some of them.
    """
    return lambda done, known: report(before + count * done // max(known, 1), total)


def _groups(questions: Sequence[Question]) -> Iterator[list[Question]]:
    group: list[Question] = []
    waiting = 0
    for question in questions:
        group.append(question)
        waiting += len(question.passages)
        if waiting >= AT_ONCE:
            yield group
            group, waiting = [], 0
    if group:
        yield group


def _write(
    question: Question,
    hits: Sequence[RankedPassage],
    many: bool,
    output: str,
    limit: int,
    run_name: str,
    screen: Screen,
) -> None:
    from flashrank_lite.cli.hits import trec_lines, write_hits
    from flashrank_lite.cli.screen import BOLD, printable, write_json

    if output == "trec":
        for line in trec_lines(hits, question.id, run_name):
            screen.write(line)
    elif output == "table":
        if many:
            screen.write(screen.paint(BOLD, f"{question.id}: {printable(question.query)}"))
        write_hits(hits, len(question.passages), limit, screen)
    else:
        rows = [_answer(question, hits)] if many else [hit.to_dict() for hit in hits]
        write_json(rows, screen, lines=True)


def _write_json(ranked: Sequence[Ranked], many: bool, screen: Screen) -> None:
    from flashrank_lite.cli.screen import write_json

    answers = [_answer(question, hits) for question, hits in ranked]
    write_json(answers if many else answers[0]["hits"], screen, lines=False)


def _answer(question: Question, hits: Sequence[RankedPassage]) -> dict[str, Any]:
    return {
        "id": question.id,
        "query": question.query,
        "hits": [hit.to_dict() for hit in hits],
    }


def _add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("query", metavar="QUERY", nargs="?", help="what the passages should answer")
    parser.add_argument(
        "source",
        metavar="FILE",
        nargs="?",
        help="the passages, or a store that encode made; - or none: standard input",
    )
    flags.add(parser, flags.RANKING)
    flags.add_format(parser, "table", "jsonl", "json", "trec")
    flags.add(parser, [flags.PROGRESS])
    many = parser.add_argument_group("many queries")
    many.add_argument(
        "--queries",
        metavar="FILE",
        help='a line each: {"query": "...", "passages": [...]}, and an "id" if there is one',
    )
    many.add_argument("--run", metavar="FILE", help="a TREC run: what is to be ranked again")
    many.add_argument("--topics", metavar="FILE", help="the queries of --run: id, tab, query")
    many.add_argument("--texts", metavar="FILE", help="the passages of --run, with their ids")
    many.add_argument(
        "--run-name",
        metavar="NAME",
        default=RUN_NAME,
        help=f"last field of --format trec (default: {RUN_NAME})",
    )
    flags.add(parser, flags.READING, "reading FILE")
    flags.add(parser, [flags.MODEL_NAME, *MODEL], "the model")


COMMAND = Command(
    name="rank",
    help="rank the passages of a file or of standard input",
    description="Rank passages for a query, best first.",
    examples=EXAMPLES,
    add_flags=_add_flags,
    run=run,
)
