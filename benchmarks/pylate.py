"""Exported ColBERT checkpoints against PyLate, which they were made with or can be opened in.

PyLate pins an older sentence-transformers than the exporter takes, so there are two environments:

    python -m benchmarks.pylate score CHECKPOINT scores.json      # in PyLate's
    flashrank-lite export CHECKPOINT OUT
    python -m benchmarks.pylate compare OUT scores.json           # in ours

`score` writes PyLate's scores of the texts that ship with the exporter and of odd ones; `compare`
prints how far ours are from them, and Kendall's tau of the order.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

TEXTS = Path(__file__).parents[1] / "flashrank_lite" / "export" / "sample_texts" / "texts.jsonl"
LISTS, PASSAGES = 12, 12
ODD = ["", ".", "a", "Fleas, fleas; fleas! (100 days)", "word " * 400, "Crème brûlée 海は青い"]

Scored = list[tuple[str, list[str], list[float]]]  # query, its passages, their scores


def main() -> None:
    """Write scores, or compare with them."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("score", "compare"):
        command = commands.add_parser(name)
        command.add_argument("folder")
        command.add_argument("scores", type=Path)
    args = parser.parse_args()
    if args.command == "score":
        args.scores.write_text(json.dumps(_score(args.folder)), encoding="utf-8")
    else:
        _compare(Path(args.folder), json.loads(args.scores.read_text(encoding="utf-8")))


def _score(folder: str) -> Scored:
    from pylate import models

    model = models.ColBERT(folder, device="cpu")

    def states(texts: list[str], is_query: bool) -> Any:
        return [  # one at a time, as batches are padded
            model.encode([text], is_query=is_query, convert_to_tensor=True)[0] for text in texts
        ]

    scored: Scored = []
    for query, texts in _texts():
        (asked,) = states([query], True)
        found = [float((asked @ read.T).max(1).values.sum()) for read in states(texts, False)]
        scored.append((query, texts, found))
    return scored


def _texts() -> list[tuple[str, list[str]]]:
    lists = []
    with TEXTS.open(encoding="utf-8") as lines:
        for row in (json.loads(line) for line, _ in zip(lines, range(LISTS), strict=False)):
            lists.append((row["query"], [one["text"] for one in row["passages"][:PASSAGES]]))
    query, texts = lists[0]
    return [*lists, ("how long, really: does a flea live?", ODD), (f"{query} " * 12, texts)]


def _compare(folder: Path, scored: Scored) -> None:
    import numpy as np

    from flashrank_lite import Ranker
    from flashrank_lite.evaluation import kendall_tau

    print("| graph | largest difference of a score | range of the scores | Kendall's tau |")
    print("|---|---|---|---|")
    for file in sorted(folder.glob("*.onnx")):
        with Ranker(folder, file=file.name, long="truncate") as ranker:
            ours = [ranker.score(query, texts) for query, texts, _ in scored]
        theirs = [np.array(scores, np.float32) for _, _, scores in scored]
        apart = max(float(np.abs(a - b).max()) for a, b in zip(ours, theirs, strict=True))
        tau = np.mean([kendall_tau(a, b) for a, b in zip(ours, theirs, strict=True)])
        span = float(np.ptp(np.concatenate(theirs)))
        print(f"| {file.name} | {apart:.2g} | {span:.2g} | {tau:.4f} |")


if __name__ == "__main__":
    main()
