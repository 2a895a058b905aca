"""Time to rank 1, 10 and 100 real passages: model folders side by side, runs interleaved."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.texts import example_query, web_passages
from flashrank_lite import Ranker

COUNTS = (1, 10, 100)


def main() -> None:
    """Print each model's median milliseconds, and the first one's as a share of the others'."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--model", nargs="*", default=[], help="model folders beside the bundled one"
    )
    parser.add_argument(
        "--six-layers",
        type=Path,
        metavar="BACKBONE",
        help="add all-MiniLM-L6-v2 "
        "as a cross-encoder with a random head, exported in one run (int8)",
    )
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folders: dict[str, str | None] = {"bundled": None, **{m: m for m in args.model}}
        if args.six_layers:
            folders["six layers"] = str(_six_layers(args.six_layers, Path(scratch)))
        rankers = {name: Ranker(folder, threads=args.threads) for name, folder in folders.items()}
        print(f"{next(iter(rankers.values())).info()['threads']} threads, {args.rounds} rounds")
        others = list(rankers)[1:]
        print("| passages |", " | ".join([*rankers, *(f"time / {name}" for name in others)]), "|")
        print("|---|" + "---|" * (len(rankers) + len(others)))
        for count in COUNTS:
            medians = _medians(rankers, web_passages(count), args.rounds)
            cells = [f"{value:.1f} ms" for value in medians]
            cells += [f"{medians[0] / median:.2f}" for median in medians[1:]]
            print(f"| {count} |", " | ".join(cells), "|", flush=True)


def _medians(rankers: dict[str, Ranker], passages: list[str], rounds: int) -> list[float]:
    query = example_query()
    times: dict[str, list[float]] = {name: [] for name in rankers}
    for number in range(rounds + 1):
        for name, ranker in rankers.items():
            start = time.perf_counter()
            ranker.score(query, passages)
            if number:  # the first round warms up
                times[name].append(1000 * (time.perf_counter() - start))
    return [statistics.median(values) for values in times.values()]


def _six_layers(backbone: Path, scratch: Path) -> Path:
    """The backbone with a classification head: speed does not depend on the head's values."""
    import shutil

    import torch
    from transformers import AutoModelForSequenceClassification

    from flashrank_lite.export import export_folder, read_checkpoint

    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(backbone, num_labels=1)
    model.save_pretrained(scratch / "checkpoint")
    shutil.copy(backbone / "tokenizer.json", scratch / "checkpoint")
    passages = web_passages(60)
    texts = [(example_query(), passages[start : start + 20]) for start in (0, 20, 40)]
    source = read_checkpoint(scratch / "checkpoint")
    export_folder(source, scratch / "six-layers", texts, precisions=["int8"])
    return scratch / "six-layers"


if __name__ == "__main__":
    main()
