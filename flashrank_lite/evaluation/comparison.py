"""Models against the first stage and against each other, on the same queries.

A mean over some dozen queries says little by itself, so each difference comes with an interval: a
paired bootstrap over queries (Efron and Tibshirani, An introduction to the bootstrap, 1993; for
retrieval: Sakai, "Evaluating evaluation metrics based on the bootstrap", SIGIR 2006).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flashrank_lite.errors import InvalidInput
from flashrank_lite.evaluation.judged import SEED, JudgedData, JudgedQuery
from flashrank_lite.evaluation.measures import missing_in_top, parse_measures, per_query

if TYPE_CHECKING:
    from flashrank_lite.call import Progress
    from flashrank_lite.ranker import Ranker

Floats = NDArray[np.float64]

SAMPLES = 10_000
_SAME = 1e-9  # values of a measure that differ by less are a tie
_AT_ONCE = 2_000_000  # draws that are in memory at the same time
_NAMES = {"given": "first stage", "bm25": "BM25", "shuffled": "random order"}


@dataclass(frozen=True)
class System:
    """What ordered the candidates, and how well.

    Attributes:
        name: of the first stage or of the model.
        orders: for each query the places of its candidates, best first.
        values: by measure, for each query: float64, (q,).
        unjudged: candidates among the first ten of all queries that nobody has judged.
        milliseconds: for each query, (q,); None for the first stage, which was there before.
        tied: queries in which candidates got the same score; they keep the first stage's order.
        truncated: passages that were cut to the model's length.
        info: what `Ranker.info` says.
    """

    name: str
    orders: tuple[NDArray[np.int64], ...]
    values: dict[str, Floats]
    unjudged: int
    milliseconds: Floats | None = None
    tied: int = 0
    truncated: int = 0
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def median_milliseconds(self) -> float | None:
        """What a query takes; None for the first stage."""
        return None if self.milliseconds is None else float(np.median(self.milliseconds))


@dataclass(frozen=True)
class Difference:
    """How much better the second of two systems is by one measure.

    Attributes:
        measure: its name.
        first: the name of one system.
        second: the name of the other.
        mean: of second minus first.
        low: of the 95 % interval of that mean; None with fewer than two queries.
        high: of that interval.
        wins: queries for which the second is better.
        ties: for which they are equal.
        losses: for which the first is better.
    """

    measure: str
    first: str
    second: str
    mean: float
    low: float | None
    high: float | None
    wins: int
    ties: int
    losses: int

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class Comparison:
    """All of it.

    Attributes:
        data: the data, the queries without a positive left out.
        measures: names, the leading one first.
        systems: the first stage, then the models.
        differences: of each model to the first stage, and of each two models; by measure.
        without_positive: queries that were left out since nothing is relevant for them.
        judged_only: whether unjudged candidates were taken out.
    """

    data: JudgedData
    measures: tuple[str, ...]
    systems: tuple[System, ...]
    differences: tuple[Difference, ...]
    without_positive: int
    judged_only: bool

    def to_dict(self) -> dict[str, Any]:
        """JSON-clean, with the value of each query."""
        queries = self.data.queries
        return {
            "data": self.data.name,
            "order": self.data.order,
            "queries": len(queries),
            "candidates": sum(len(query.passages) for query in queries),
            "unjudged": sum(query.unjudged for query in queries),
            "without_positive": self.without_positive,
            "judged_only": self.judged_only,
            "notes": list(self.data.notes),
            "systems": [
                {
                    "name": system.name,
                    "means": {name: float(row.mean()) for name, row in system.values.items()},
                    "milliseconds": _percentiles(system.milliseconds),
                    "unjudged_in_top_10": system.unjudged,
                    "tied_queries": system.tied,
                    "truncated": system.truncated,
                    "per_query": {
                        name: dict(zip((one.id for one in queries), row.tolist(), strict=True))
                        for name, row in system.values.items()
                    },
                    "info": system.info,
                }
                for system in self.systems
            ],
            "differences": [
                {**vars(difference), "clear": difference.clear} for difference in self.differences
            ],
        }


def compare(
    data: JudgedData,
    rankers: Sequence[tuple[str, Ranker]],
    measures: Sequence[str],
    *,
    judged_only: bool = False,
    report: Progress | None = None,
) -> Comparison:
    """Rank each query's candidates with each model, in turns, and compare.

    Args:
        data: what `read_data` gave.
        rankers: models, each with a name of its own.
        measures: names of measures; the first leads.
        judged_only: whether unjudged candidates are taken out of every order.
        report: is told of pairs done and pairs in all.

    Raises:
        InvalidInput: no query has a positive, or a measure is unknown.
        MissingExtra: ir-measures is not installed.
    """
    parsed = parse_measures(measures)
    queries = tuple(query for query in data.queries if query.has_positive)
    if not queries:
        raise InvalidInput(f"{data.name}: nothing is judged relevant, so no order is a better one")
    kept = JudgedData(data.name, queries, data.order, data.notes)
    first = tuple(np.arange(len(query.passages)) for query in queries)
    systems = [_system(_NAMES[data.order], queries, first, parsed, judged_only)]
    for name, runs in zip(
        [name for name, _ in rankers], _rank(queries, rankers, report), strict=True
    ):
        systems.append(
            _system(
                name,
                queries,
                tuple(run.order for run in runs),
                parsed,
                judged_only,
                milliseconds=np.array([run.milliseconds for run in runs]),
                tied=sum(run.tied for run in runs),
                truncated=sum(run.truncated for run in runs),
                info=dict(rankers)[name].info(),
            )
        )
    names = tuple(systems[0].values)
    pairs = [(a, b) for place, a in enumerate(systems) for b in systems[place + 1 :]]
    return Comparison(
        kept,
        names,
        tuple(systems),
        tuple(difference(name, a, b) for a, b in pairs for name in names),
        len(data.queries) - len(queries),
        judged_only,
    )


def difference(measure: str, first: System, second: System) -> Difference:
    """The difference of two systems by one measure."""
    deltas = second.values[measure] - first.values[measure]
    low, high = bootstrap(deltas) or (None, None)
    wins, losses = int((deltas > _SAME).sum()), int((deltas < -_SAME).sum())
    return Difference(
        measure,
        first.name,
        second.name,
        float(deltas.mean()),
        low,
        high,
        wins,
        len(deltas) - wins - losses,
        losses,
    )


def bootstrap(
    deltas: Floats, samples: int = SAMPLES, seed: int = SEED
) -> tuple[float, float] | None:
    """The 95 % interval of a mean, by drawing queries with replacement.

    Args:
        deltas: a difference for each query, (q,).
        samples: how often to draw q of them.
        seed: the same seed gives the same interval.

    Returns:
        The 2.5th and the 97.5th percentile of the means; None with fewer than two queries.
    """
    count = len(deltas)
    if count < 2:
        return None
    random = np.random.default_rng(seed)
    means = np.empty(samples)
    step = max(1, _AT_ONCE // count)
    for begin in range(0, samples, step):
        end = min(begin + step, samples)
        means[begin:end] = deltas[random.integers(0, count, (end - begin, count))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


@dataclass(frozen=True)
class _Run:
    order: NDArray[np.int64]
    milliseconds: float
    tied: bool
    truncated: int


def _rank(
    queries: Sequence[JudgedQuery],
    rankers: Sequence[tuple[str, Ranker]],
    report: Progress | None,
) -> list[list[_Run]]:
    """The runs of each model. They take turns, so that other load on the machine falls on all."""
    runs: list[list[_Run]] = [[] for _ in rankers]
    total = len(rankers) * sum(len(query.passages) for query in queries)
    done = 0
    longest = max(queries, key=lambda query: len(query.passages))
    for _, ranker in rankers:
        ranker.rank(longest.query, list(longest.passages[:10]))  # warms up
    for query in queries:
        for place, (_, ranker) in enumerate(rankers):
            runs[place].append(_run(ranker, query))
            done += len(query.passages)
            if report is not None:
                report(done, total)
    return runs


def _run(ranker: Ranker, query: JudgedQuery) -> _Run:
    passages = list(query.passages)
    begun = time.perf_counter()
    hits = ranker.rank(query.query, passages) if passages else []
    milliseconds = 1000 * (time.perf_counter() - begun)
    order = np.array([hit.index for hit in hits], np.int64)
    scores = {(hit.score, hit.logit) for hit in hits}
    return _Run(
        order, milliseconds, len(scores) < len(hits), sum(bool(hit.truncated) for hit in hits)
    )


def _system(
    name: str,
    queries: Sequence[JudgedQuery],
    orders: tuple[NDArray[np.int64], ...],
    measures: Sequence[Any],
    judged_only: bool,
    **rest: Any,
) -> System:
    values = per_query(measures, queries, orders, judged_only)
    return System(name, orders, values, missing_in_top(queries, orders), **rest)


def _percentiles(milliseconds: Floats | None) -> dict[str, float] | None:
    if milliseconds is None:
        return None
    median, p95 = np.percentile(milliseconds, [50, 95])
    return {"mean": float(milliseconds.mean()), "median": float(median), "p95": float(p95)}
