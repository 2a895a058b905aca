"""`flashrank-lite encode`: read passages once, into a store that `rank` takes as its FILE."""

from __future__ import annotations

import argparse
from pathlib import Path

from flashrank_lite.cli import flags
from flashrank_lite.cli.command import Command
from flashrank_lite.reading import read_file

DESCRIPTION = """\
Read passages once and keep what the model has read of them in a store, a folder on disk, so that
`rank QUERY STORE` need not read them again: an exact search over some ten thousand passages. Takes
a model that reads query and passage apart, as the bundled one does.
"""

EXAMPLES = """\
examples:
  flashrank-lite encode examples/agriculture.jsonl -o "$(mktemp -d)/notes.store"

`flashrank-lite rank QUERY notes.store -k 3` ranks what is in it. A passage whose id is in the store
already takes the earlier one's place. FILE is what `rank` reads.
"""

# arguments of Ranker that say how a model is opened
MODEL = tuple(
    one
    for one in flags.MODEL
    if one.argument in ("revision", "file", "threads", "max_length", "batch_tokens", "device")
)


def is_store(path: str) -> bool:
    """Whether there is a store at a path; imports nothing heavy."""
    return (Path(path) / "store.json").is_file()


def run(arguments: argparse.Namespace) -> int:
    """Read, encode and report; the exit status."""
    flags.check_not_typed(arguments.source)
    passages = read_file(arguments.source, flags.read_options(arguments))

    from flashrank_lite.call import Call, running
    from flashrank_lite.cli.screen import Screen, write_facts
    from flashrank_lite.progress import progress
    from flashrank_lite.ranker import Ranker
    from flashrank_lite.store import PassageStore

    path = Path(arguments.output)
    total = len(passages)
    with (
        Ranker(arguments.model, **flags.given(arguments, MODEL)) as ranker,
        progress(arguments.progress, "encoding") as report,
    ):
        shown = None if report is None else lambda done, known: report(done, max(known, total))
        with running(Call(progress=shown)):
            if arguments.add and is_store(arguments.output):
                store = PassageStore.open(path)
                store.add(passages, ranker)
            else:
                store = ranker.encode_passages(
                    passages, path, precision=arguments.precision, texts=arguments.texts
                )
    info = store.info()
    facts = {key: info[key] for key in ("path", "passages", "bytes", "precision")}
    write_facts(facts, Screen.of_stdout())
    return 0


def _add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", metavar="FILE", nargs="?", help="the passages; - or none: standard input"
    )
    parser.add_argument(
        "-o", "--output", metavar="STORE", required=True, help="the folder of the store"
    )
    parser.add_argument(
        "--add", action="store_true", help="to the store that is there, if there is one"
    )
    parser.add_argument(
        "--precision",
        choices=("int8", "4bit", "2bit"),
        help="of the states: fewer bits are smaller and less exact (default: 2bit)",
    )
    parser.add_argument(
        "--no-texts",
        dest="texts",
        action="store_false",
        help="keep ids alone: hits then have no text and no metadata",
    )
    flags.add(parser, [flags.PROGRESS])
    flags.add(parser, flags.READING, "reading FILE")
    flags.add(parser, [flags.MODEL_NAME, *MODEL], "the model")


COMMAND = Command(
    name="encode",
    help="read passages once, into a store that rank takes as its FILE",
    description=DESCRIPTION,
    examples=EXAMPLES,
    add_flags=_add_flags,
    run=run,
)
