"""nDCG@10 of the first stage, an embedding model's cosine, and rerankers on labelled lists."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from flashrank_lite import Ranker
from flashrank_lite.evaluation import CandidateList, mean_ndcg, read_candidate_lists

Scorer = Callable[[CandidateList], Sequence[float]]
COSINE_TOKENS = 256  # what all-MiniLM-L6-v2 is used with


def main() -> None:
    """Print one row a system, one column a set, and the mean over the sets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lists", nargs="+", required=True, metavar="NAME=FILE")
    parser.add_argument("--model", nargs="*", default=[None], help="model folders; none: bundled")
    parser.add_argument("--cosine", type=Path, help="folder of an embedding model (mean pooling)")
    args = parser.parse_args()
    sets = {
        name: read_candidate_lists(file) for name, file in (e.split("=", 1) for e in args.lists)
    }
    systems: dict[str, Scorer] = {"first stage": lambda c: -np.arange(len(c.texts))}
    if args.cosine:
        systems[f"{args.cosine.name} cosine"] = _cosine(args.cosine)
    for model in args.model:
        ranker = Ranker(model)
        info = ranker.info()
        systems[f"{model or 'bundled'} {info['precision']}"] = _reranked(ranker)
    print("| nDCG@10 |", " | ".join(sets), "| mean |")
    print("|---|" + "---|" * (len(sets) + 1))
    for name, scorer in systems.items():
        values = [mean_ndcg(lists, map(scorer, lists)) for lists in sets.values()]
        cells = [f"{value:.4f}" for value in [*values, float(np.mean(values))]]
        print(f"| {name} |", " | ".join(cells), "|", flush=True)


def _reranked(ranker: Ranker) -> Scorer:
    return lambda c: ranker.score(c.query, c.texts)


def _cosine(folder: Path) -> Scorer:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu")
    model.max_seq_length = COSINE_TOKENS
    known: dict[str, np.ndarray] = {}

    def score(c: CandidateList) -> np.ndarray:
        new = list(dict.fromkeys(t for t in (c.query, *c.texts) if t not in known))
        if new:
            known.update(zip(new, model.encode(new, normalize_embeddings=True), strict=True))
        return np.stack([known[t] for t in c.texts]) @ known[c.query]

    return score


if __name__ == "__main__":
    main()
