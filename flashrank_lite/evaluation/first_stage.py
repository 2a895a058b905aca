"""What is ranked of a collection: what a run found, or else what BM25 finds among all passages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from flashrank_lite.errors import InvalidInput, MissingExtra
from flashrank_lite.evaluation.collection import Collection
from flashrank_lite.passages import Passage
from flashrank_lite.reading.questions import read_run

RunLine = tuple[str, str, str, float]  # where it stands, query, passage, score


def judged_lines(run: str, collection: Collection) -> list[RunLine]:
    """The lines of a TREC run whose queries are judged.

    Raises:
        OSError: the run cannot be read.
        InvalidInput: a line of it is no result.
    """
    return [line for line in read_run(run) if line[1] in collection.qrels]


def of_run(lines: Iterable[RunLine], collection: Collection) -> dict[str, list[Passage]]:
    """The passages of each query in lines of a run, the best first.

    Raises:
        InvalidInput: a line names a passage that is not in the corpus.
    """
    found: dict[str, list[Passage]] = {}
    for place, query, passage, score in lines:
        if passage not in collection.passages:
            raise InvalidInput(f"{place}: passage {passage!r} is not in the corpus")
        if passage not in collection.excluded.get(query, ()):
            listed = found.setdefault(query, [])
            listed.append(replace(collection.passages[passage], first_stage=score))
    for listed in found.values():
        listed.sort(key=lambda one: -(one.first_stage or 0.0))
    return found


def of_bm25(
    wanted: Sequence[str], collection: Collection, candidates: int
) -> dict[str, list[Passage]]:
    """The passages of each query that share a word with it, `candidates` at most, the best first.

    Raises:
        MissingExtra: bm25s is not installed.
    """
    try:
        import bm25s
    except ImportError as error:
        raise MissingExtra(
            "a collection without a run needs BM25 to find candidates: give --run, or install "
            "bm25s",
            "bm25",
        ) from error
    passages = list(collection.passages.values())
    words = bm25s.tokenize([one.text for one in passages], stopwords=None, show_progress=False)
    index = bm25s.BM25()
    index.index(words, show_progress=False)
    asked = bm25s.tokenize(
        [collection.queries[name] for name in wanted],
        stopwords=None,
        show_progress=False,
        return_ids=False,
    )
    found = {}
    for name, query in zip(wanted, asked, strict=True):
        excluded = collection.excluded.get(name, frozenset())
        known = [word for word in query if word in words.vocab]
        if not known:
            continue
        count = min(candidates + len(excluded), len(passages))
        places, scores = index.retrieve([known], k=count, show_progress=False)
        found[name] = [
            replace(passages[place], first_stage=float(score))
            for place, score in zip(places[0].tolist(), scores[0].tolist(), strict=True)
            if score > 0 and passages[place].id not in excluded
        ][:candidates]
    return found
