"""CUR: of a query score few texts of a fixed collection, and estimate the rest. An experiment.

    python -m benchmarks.cur --lists FILE [--items N] [--queries N]

Yadav et al., "Efficient Nearest Neighbor Search for Cross-Encoder Models using Matrix
Factorization" (EMNLP 2022): logits of some anchor queries over all texts are known beforehand; of a
new query the anchor texts are scored, and what the anchor queries' logits make of these estimates
all others. Half of a query's budget goes to anchors, half to score the best estimates again.
Beside it, at equal cost: BM25 over the collection, and the model over its best.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.late_states import LateStates
from flashrank_lite.evaluation import ndcg
from flashrank_lite.strategies.lexical import bm25_scores

BUDGETS = (20, 50, 100, 200)
ANCHOR_QUERIES = 0.6  # of the queries; the others are the test
TEXTS_AT_ONCE = 64
Floats = NDArray[np.float64]


def main() -> None:
    """Print nDCG@10 against the pairs scored of a query."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lists", required=True, type=Path, help="with corpus.*.jsonl beside it")
    parser.add_argument("--items", type=int, help="a seeded sample of the texts")
    parser.add_argument("--queries", type=int, help="a seeded sample of the queries")
    args = parser.parse_args()
    chance = random.Random(0)
    texts, queries, labels = _read(args.lists, args.items, args.queries, chance)
    logits = _matrix(queries, texts)
    cut = int(len(queries) * ANCHOR_QUERIES)
    known, tested = logits[:cut], range(cut, len(queries))
    first = {query: bm25_scores(queries[query], texts) for query in tested}
    print(
        f"{len(texts)} texts, {cut} anchor queries ({cut * len(texts):,} pairs beforehand), "
        f"{len(tested)} test queries\n\n"
        "| pairs scored of a query | share | BM25, then the model | CUR |\n|---:|---:|---:|---:|"
    )
    _row(0, len(texts), _mean(labels, first), None)
    for budget in BUDGETS:
        anchors = chance.sample(range(len(texts)), budget // 2)
        inverse = np.linalg.pinv(known[:, anchors], rcond=1e-2) @ known
        cascade, estimated = {}, {}
        for query in tested:
            cascade[query] = _rescored(first[query], logits[query], budget)
            estimate = logits[query, anchors] @ inverse
            estimate[anchors] = -np.inf  # they are scored already
            best = np.argsort(-estimate, kind="stable")[: budget - len(anchors)]
            scored = np.concatenate([anchors, best]).astype(int)
            final = np.where(np.isfinite(estimate), estimate, 0.0) - 1e3
            final[scored] = logits[query, scored]
            estimated[query] = final
        _row(budget, len(texts), _mean(labels, cascade), _mean(labels, estimated))
    _row(len(texts), len(texts), _mean(labels, {query: logits[query] for query in tested}), None)


def _read(
    file: Path, items: int | None, wanted: int | None, chance: random.Random
) -> tuple[list[str], list[str], list[Floats]]:
    """The texts, the queries that have a positive among them, and the label of each text."""
    corpus: dict[str, str] = {}
    for path in sorted(file.parent.glob("corpus.*.jsonl")):
        for line in path.open(encoding="utf-8"):
            entry = json.loads(line)
            corpus[entry["id"]] = entry["text"]
    names = chance.sample(sorted(corpus), min(items or len(corpus), len(corpus)))
    place = {name: number for number, name in enumerate(names)}
    queries, labels = [], []
    rows = [json.loads(line) for line in file.open(encoding="utf-8")]
    for row in chance.sample(rows, len(rows)):
        of_query = np.zeros(len(names))
        for entry in row["candidates"]:
            if entry["id"] in place:
                of_query[place[entry["id"]]] = entry["label"]
        if of_query.any():
            queries.append(row["query"])
            labels.append(of_query)
    return [corpus[name] for name in names], queries[:wanted], labels[:wanted]


def _matrix(queries: list[str], texts: list[str]) -> Floats:
    states = LateStates()
    encoded = [states.query(query) for query in queries]
    columns = []
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        for passage in states.passages(texts[start : start + TEXTS_AT_ONCE]):
            columns.append(states.combine(encoded, *states.features(encoded, passage)))
    return np.stack(columns, axis=1).astype(np.float64)


def _rescored(first: NDArray[Any], logits: Floats, budget: int) -> Floats:
    """The model's logits for the best of the first stage, whose order the others keep."""
    scores = first.astype(np.float64) - 1e3
    best = np.argsort(-first, kind="stable")[:budget]
    scores[best] = logits[best]
    return scores


def _mean(labels: list[Floats], scores: dict[int, Any]) -> float:
    return float(np.mean([ndcg(values, labels[query]) for query, values in scores.items()]))


def _row(pairs: int, total: int, cascade: float, cur: float | None) -> None:
    estimated = "" if cur is None else f"{cur:.3f}"
    print(f"| {pairs} | {pairs / total:.0%} | {cascade:.3f} | {estimated} |", flush=True)


if __name__ == "__main__":
    main()
