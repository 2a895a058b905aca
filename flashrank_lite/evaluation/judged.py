"""Queries with candidates and judgments: what every reader gives, and `eval` and calibration take.

A judgment is a grade: 0 for not relevant, 1 and more for relevant, below 0 as if there were none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from flashrank_lite.errors import InvalidInput
from flashrank_lite.passages import Passage

Order = Literal["given", "bm25", "shuffled"]

SEED = 0


@dataclass(frozen=True)
class JudgedQuery:
    """A query, what the first stage found for it, and what was judged.

    Attributes:
        id: of the query.
        query: its text.
        passages: the candidates in first-stage order; each has an id, a str, of its own.
        judgments: grades by passage id, those of passages that are no candidates included.
    """

    id: str
    query: str
    passages: tuple[Passage, ...]
    judgments: Mapping[str, int]

    @property
    def has_positive(self) -> bool:
        """Whether anything is relevant: without that no order is better than another."""
        return any(grade > 0 for grade in self.judgments.values())

    @property
    def unjudged(self) -> int:
        """How many candidates nobody has judged."""
        return sum(not self.is_judged(passage) for passage in self.passages)

    def is_judged(self, passage: Passage) -> bool:
        """Whether a candidate has a grade."""
        return self.judgments.get(str(passage.id), -1) >= 0


@dataclass(frozen=True)
class JudgedData:
    """A data set as read.

    Attributes:
        name: what to call it.
        queries: its queries.
        order: what the candidates' order is: the first stage that the data brings, BM25, or none
            ("shuffled", where the data's own order would tell the answer).
        notes: what the reader left out or made up, a line each.
    """

    name: str
    queries: tuple[JudgedQuery, ...]
    order: Order = "given"
    notes: tuple[str, ...] = ()

    def first(self, count: int) -> JudgedData:
        """The same with the first candidates of each query alone."""
        queries = [replace(query, passages=query.passages[:count]) for query in self.queries]
        return replace(self, queries=tuple(queries))

    def by_bm25(self) -> JudgedData:
        """The same with each query's candidates in the order of BM25 over them.

        Raises:
            MissingExtra: bm25s is not installed.
        """
        from flashrank_lite.strategies.lexical import bm25_scores

        queries = []
        for query in self.queries:
            if not query.passages:
                queries.append(query)
                continue
            scores = bm25_scores(query.query, [passage.text for passage in query.passages])
            order = np.argsort(-scores, kind="stable").tolist()
            passages = tuple(
                replace(query.passages[place], first_stage=float(scores[place])) for place in order
            )
            queries.append(replace(query, passages=passages))
        return replace(self, queries=tuple(queries), order="bm25")


def labelled_lists(
    data: JudgedData, least: int = 1
) -> tuple[list[str], list[list[Passage]], list[list[int]]]:
    """The judged candidates, as `Ranker.calibrate` takes them.

    Args:
        data: what `read_data` gave.
        least: the lowest grade that counts as relevant.

    Returns:
        The queries, for each its judged candidates, and for each of these 1 or 0. Candidates that
        nobody has judged are left out, and so is a query without any other.
    """
    queries, lists, labels = [], [], []
    for query in data.queries:
        judged = [passage for passage in query.passages if query.is_judged(passage)]
        if judged:
            queries.append(query.query)
            lists.append(judged)
            grades = [query.judgments[str(passage.id)] for passage in judged]
            labels.append([int(grade >= least) for grade in grades])
    return queries, lists, labels


def named(passages: Iterable[Passage]) -> tuple[tuple[Passage, ...], int]:
    """Candidates with an id each, their place where they have none, and how many were left out.

    Of several with the same id the first stays.
    """
    kept: dict[str, Passage] = {}
    repeated = 0
    for place, passage in enumerate(passages, 1):
        name = str(place) if passage.id is None else str(passage.id)
        if name in kept:
            repeated += 1
        else:
            # a hit that is ranked again would come back with its first index
            kept[name] = replace(passage, id=name, index=None)
    return tuple(kept.values()), repeated


def shuffled(items: Sequence[Any], query: int) -> list[Any]:
    """The items of a query in an order that says nothing, the same on every machine."""
    order = np.random.default_rng([SEED, query]).permutation(len(items))
    return [items[place] for place in order]


def grade(value: Any, place: str) -> int:
    """A grade as a whole number.

    Raises:
        InvalidInput: it is none.
    """
    try:
        number = float(value)
        if number != int(number):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise InvalidInput(
            f"{place}: {value!r:.40} is not a grade: a whole number, 0 for not relevant"
        ) from None
    return int(number)
