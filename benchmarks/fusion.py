"""nDCG@10 of the first stage, the model, and blends of both by kind and weight.

    python -m benchmarks.fusion --lists NAME=FILE ... [--model FOLDER]

Weights are chosen by leaving one set out: for each set the weight that is best on the others.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from benchmarks.lists import NAMED, read_sets
from benchmarks.pair_logits import BUNDLED, CACHE, pair_logits
from flashrank_lite.evaluation import CandidateList, mean_ndcg
from flashrank_lite.strategies.fusion import Kind, from_order, fuse
from flashrank_lite.strategies.lexical import bm25_scores

WEIGHTS = (0.5, 0.6, 0.7, 0.8, 0.9)
Floats = NDArray[np.float32]


def main() -> None:
    """Print one table a first stage: its order alone, and BM25 over the list."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lists", nargs="+", required=True, metavar=NAMED)
    parser.add_argument("--model", default=BUNDLED, help="a model folder; none: bundled")
    parser.add_argument("--cache", type=Path, default=CACHE, help="the logits of earlier runs")
    args = parser.parse_args()
    sets = read_sets(args.lists)
    model = {name: pair_logits(args.model, lists, args.cache) for name, lists in sets.items()}
    counts = ", ".join(f"{name} {len(lists)}" for name, lists in sets.items())
    print(f"Lists: {counts}.\n")
    stages = {
        "order": {n: [from_order(len(one.texts)) for one in lists] for n, lists in sets.items()},
        "bm25": {
            n: [bm25_scores(one.query, one.texts) for one in lists] for n, lists in sets.items()
        },
    }
    for stage, first in stages.items():
        print(f"First stage: {stage}\n\n| | {' | '.join(sets)} | mean |")
        print("|---|" + "---:|" * (len(sets) + 1))
        _row("first stage", _quality(sets, first))
        _row("model", _quality(sets, model))
        for kind in get_args(Kind):
            rows = {
                weight: _quality(sets, _fused(model, first, kind, weight)) for weight in WEIGHTS
            }
            for weight, row in rows.items():
                _row(f"{kind} {weight}", row)
            _row(f"{kind}, weight of the other sets", _left_out(rows))
        print()


def _fused(
    model: dict[str, list[Floats]], first: dict[str, list[Floats]], kind: Kind, weight: float
) -> dict[str, list[Floats]]:
    return {
        name: [fuse(m, f, kind, weight) for m, f in zip(model[name], first[name], strict=True)]
        for name in model
    }


def _quality(
    sets: dict[str, list[CandidateList]], scores: dict[str, list[Floats]]
) -> NDArray[np.float64]:
    return np.array([mean_ndcg(lists, scores[name]) for name, lists in sets.items()])


def _left_out(rows: dict[float, NDArray[np.float64]]) -> NDArray[np.float64]:
    """For each set its quality at the weight that is best on the mean of the others."""
    table = np.array(list(rows.values()))
    chosen = [
        int(np.argmax(np.delete(table, column, axis=1).mean(axis=1)))
        for column in range(table.shape[1])
    ]
    return table[chosen, range(table.shape[1])]


def _row(name: str, values: NDArray[np.float64]) -> None:
    cells = [f"{value:.3f}" for value in [*values, float(values.mean())]]
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
