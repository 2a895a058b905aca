"""What a score means: the share of passages that are relevant, by the score that they got.

    python -m benchmarks.reliability --lists NAME=FILE[:COUNT] ... [--model FOLDER]

Relevant is a grade of 1 and more; of 2 and more where grades go to 3, as TREC counts them.
Candidates that nobody judged count as not relevant, so shares are lower bounds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.lists import NAMED, read_sets
from benchmarks.pair_logits import BUNDLED, CACHE, pair_logits
from flashrank_lite.calibration import brier, fit, reliability
from flashrank_lite.evaluation import CandidateList
from flashrank_lite.logits import activate

Flags = NDArray[np.bool_]


def main() -> None:
    """Print the reliability of the sigmoid, and what a calibration makes of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lists", nargs="+", required=True, metavar=NAMED)
    parser.add_argument("--model", default=BUNDLED, help="a model folder; none: bundled")
    parser.add_argument("--cache", type=Path, default=CACHE, help="the logits of earlier runs")
    args = parser.parse_args()
    bounds = [f"{place / 10:.1f}-{(place + 1) / 10:.1f}" for place in range(10)]
    print(f"| set | {' | '.join(bounds)} |\n|---|{'---:|' * 10}")
    fits = []
    for name, lists in read_sets(args.lists).items():
        each = pair_logits(args.model, lists, args.cache)
        logits, labels = np.concatenate(each), np.concatenate([relevant(one) for one in lists])
        queries = np.repeat(np.arange(len(lists)), [len(one.labels) for one in lists]).tolist()
        scores = activate(logits, "sigmoid")
        found = {row.low: row for row in reliability(scores, labels)}
        cells = [
            f"{found[low].relevant:.2f} ({found[low].pairs})" if low in found else ""
            for low in (place / 10 for place in range(10))
        ]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
        platt = fit(logits, labels, queries, "platt")
        isotonic = fit(logits, labels, queries, "isotonic")
        constant = brier(np.full(len(labels), labels.mean()), labels)
        fits.append(
            f"| {name} | {len(lists)} | {len(labels)} | {labels.mean():.3f} | {constant:.3f} "
            f"| {platt.brier_before:.3f} | {platt.brier:.3f} | {isotonic.brier:.3f} "
            f"| {at_score(platt, 0.5)} |"
        )
    print(
        "\n| set | queries | pairs | relevant | Brier: their share | sigmoid | Platt | isotonic "
        f"| sigmoid where Platt says 0.5 |\n|---|{'---:|' * 8}\n" + "\n".join(fits)
    )


def relevant(one: CandidateList) -> Flags:
    """Which candidates of a list are relevant."""
    labels = np.array(one.labels)
    least = 2 if max([*(one.ideal or ()), *one.labels]) >= 3 else 1
    return labels >= least


def at_score(calibration: object, score: float) -> str:
    """The sigmoid of the logit that a calibration by Platt gives a score."""
    curve = calibration.curve  # type: ignore[attr-defined]
    logit = (np.log(score / (1 - score)) - curve.intercept) / curve.slope
    return f"{activate(np.array([logit], np.float32), 'sigmoid')[0]:.3f}"


if __name__ == "__main__":
    main()
