"""nDCG@10 against time: a cheap model, a strong one, the one before the other, and early pruning.

    python -m benchmarks.cascades --lists NAME=FILE ... --strong FOLDER

Quality comes from logits that are kept on disk, put through the product's own `Cascade`; time is
processor time of the product over whole lists, so that a busy machine changes it little.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from benchmarks.late_states import FOLDER, PASSAGE_TOKENS
from benchmarks.lists import NAMED, read_sets
from benchmarks.pair_logits import BUNDLED, CACHE, pair_logits
from flashrank_lite.evaluation import CandidateList, mean_ndcg
from flashrank_lite.opening import open_scorer
from flashrank_lite.options import ModelOptions
from flashrank_lite.scorer import Candidates, Scorer, Scores
from flashrank_lite.strategies import Cascade, EarlyPruning

KEEP = (10, 25, 50)
MARGINS = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0)
BEGINNING = 64
TOP = 10
ROUNDS = 3
Floats = NDArray[np.float32]


class Recorded:
    """A scorer that says what a model said before."""

    def __init__(self, lists: Sequence[CandidateList], logits: Sequence[Floats]) -> None:
        self._logits = {
            (one.query, text): logit
            for one, values in zip(lists, logits, strict=True)
            for text, logit in zip(one.texts, values, strict=True)
        }

    def score(self, lists: Sequence[Candidates], *, instruction: str | None = None) -> list[Scores]:
        """The recorded logits."""
        return [
            Scores(
                np.array([self._logits[one.query, text] for text in one.texts], np.float32),
                np.zeros(len(one.texts), np.bool_),
            )
            for one in lists
        ]

    def info(self) -> dict[str, Any]:
        """Nothing to say."""
        return {}

    def close(self) -> None:
        """Nothing to free."""


def main() -> None:
    """Print the cascades, their processor time, and early pruning."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lists", nargs="+", required=True, metavar=NAMED)
    parser.add_argument("--strong", required=True, help="folder of the strong model")
    parser.add_argument("--timed", type=int, default=3, help="lists of the first set to time")
    parser.add_argument("--cache", type=Path, default=CACHE, help="the logits of earlier runs")
    args = parser.parse_args()
    sets = read_sets(args.lists)
    times = _times(next(iter(sets.values()))[: args.timed], args.strong)
    cheap = {name: pair_logits(BUNDLED, lists, args.cache) for name, lists in sets.items()}
    strong = {name: pair_logits(args.strong, lists, args.cache) for name, lists in sets.items()}
    print("Lists:", ", ".join(f"{name} {len(lists)}" for name, lists in sets.items()), "\n")
    print(f"| | {' | '.join(sets)} | mean | processor ms a list |")
    print("|---|" + "---:|" * (len(sets) + 2))
    order = {name: [-np.arange(len(one.texts)) for one in lists] for name, lists in sets.items()}
    rows: dict[str, dict[str, list[Any]]] = {"first stage": order, "cheap": cheap}
    for keep in KEEP:
        rows[f"keep {keep}"] = {
            name: _ranks(
                Cascade([Recorded(lists, cheap[name]), Recorded(lists, strong[name])], keep=[keep]),
                lists,
            )
            for name, lists in sets.items()
        }
    rows["strong"] = strong
    for row, scores in rows.items():
        values = [mean_ndcg(lists, scores[name]) for name, lists in sets.items()]
        cells = [f"{value:.3f}" for value in [*values, float(np.mean(values))]]
        print(f"| {row} | {' | '.join(cells)} | {times.get(row, 0):.0f} |", flush=True)
    print()
    for name, lists in sets.items():
        _early_pruning(name, lists, cheap[name], args.cache)
    _time_pruning(sets, args.timed)


def _ranks(scorer: Scorer, lists: Sequence[CandidateList]) -> list[NDArray[np.intp]]:
    """Scores that sort as the scorer does."""
    ranks = []
    for scores in scorer.score([Candidates(one.query, one.texts) for one in lists]):
        rank = np.empty(len(scores.logits), np.intp)
        rank[scores.order()] = -np.arange(len(rank))
        ranks.append(rank)
    return ranks


def _times(lists: Sequence[CandidateList], folder: str) -> dict[str, float]:
    """Processor milliseconds a list: the median of some rounds over all."""
    cheap, strong = (open_scorer(model, ModelOptions()) for model in (None, folder))
    scorers: dict[str, Scorer] = {"cheap": cheap, "strong": strong}
    scorers |= {f"keep {keep}": Cascade([cheap, strong], keep=[keep]) for keep in KEEP}
    return _timed(scorers, lists)


def _timed(scorers: dict[str, Scorer], lists: Sequence[CandidateList]) -> dict[str, float]:
    candidates = [Candidates(one.query, one.texts) for one in lists]
    spent: dict[str, list[float]] = {name: [] for name in scorers}
    for _ in range(ROUNDS):
        for name, scorer in scorers.items():
            start = time.process_time()
            scorer.score(candidates)
            spent[name].append((time.process_time() - start) * 1000 / len(lists))
    return {name: float(np.median(values)) for name, values in spent.items()}


def _early_pruning(
    name: str, lists: Sequence[CandidateList], whole: Sequence[Floats], cache: Path
) -> None:
    """What the beginning of a passage says of the whole, and what a margin leaves."""
    tokenizer = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    tokenizer.no_truncation()

    def offsets(text: str) -> list[tuple[int, int]]:
        return tokenizer.encode(text, add_special_tokens=False).offsets

    def beginning(text: str) -> str:
        found = offsets(text)
        return text[: found[BEGINNING - 1][1]] if len(found) > BEGINNING else text

    lengths = {text: min(len(offsets(text)), PASSAGE_TOKENS) for one in lists for text in one.texts}
    cut = {text: beginning(text) for text in lengths}
    short = pair_logits(
        BUNDLED, [replace(one, texts=tuple(cut[t] for t in one.texts)) for one in lists], cache
    )
    moved = np.concatenate([np.abs(a - b) for a, b in zip(short, whole, strict=True)])
    quantiles = ", ".join(f"{q:.0%} {np.quantile(moved, q):.2f}" for q in (0.5, 0.9, 0.99, 1))
    print(f"{name}: |whole - first {BEGINNING} tokens|, logits: {quantiles}\n")
    print(f"| margin | nDCG@10 | of the whole's first {TOP} | tokens read |\n|---|---:|---:|---:|")
    for margin in MARGINS:
        scores, shared, read, total = [], [], 0, 0
        for one, first, full in zip(lists, short, whole, strict=True):
            sizes = np.array([lengths[text] for text in one.texts])
            last = np.sort(first)[-min(TOP, len(first))]
            kept = first >= last - margin
            scores.append(np.where(kept, full, -1e3 + first))
            best = np.argsort(-full, kind="stable")[:TOP]
            found = np.argsort(-scores[-1], kind="stable")[:TOP]
            shared.append(len(set(best) & set(found)) / len(best))
            read += int(np.minimum(sizes, BEGINNING).sum())
            read += int(sizes[kept & (sizes > BEGINNING)].sum())
            total += int(sizes.sum())
        quality = mean_ndcg(lists, scores)
        print(f"| {margin} | {quality:.3f} | {np.mean(shared):.3f} | {read / total:.0%} |")
    print(f"| whole | {mean_ndcg(lists, whole):.3f} | 1 | 100% |\n", flush=True)


def _time_pruning(sets: dict[str, list[CandidateList]], count: int) -> None:
    print("| processor ms a list | whole | early pruning |\n|---|---:|---:|")
    model = open_scorer(None, ModelOptions())
    for name, lists in sets.items():
        spent = _timed({"whole": model, "pruned": EarlyPruning(model, TOP)}, lists[:count])
        print(f"| {name} | {spent['whole']:.0f} | {spent['pruned']:.0f} |", flush=True)


if __name__ == "__main__":
    main()
