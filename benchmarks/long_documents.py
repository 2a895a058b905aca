"""Long documents: nDCG@10 of truncation, and of windows by size, stride and aggregate.

    python -m benchmarks.long_documents --pages NAME=FILE --joined NAME=FILE --as-is NAME=FILE

`--pages`: sections whose ids are PAGE#SECTION are joined to their page, in the corpus's order.
`--joined`: texts of the corpus in a seeded order are joined to documents of 1,000 to 4,000 words.
`--as-is`: the candidates themselves. A document's label for a query is the best of its passages',
its place in the first stage that of its first one. Windows are split by the product's own code;
the bundled model reads them apart (`late_states.py`), so each is encoded once for all queries.
`--timed N` measures the product instead: one query over N documents of each set. `--model FOLDER`
compares truncation and windows as the product does them with another model: a cross-encoder reads
each document anew for each query, so take few `--queries`.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.late_states import PASSAGE_TOKENS, LateStates, Query
from flashrank_lite.evaluation import ndcg
from flashrank_lite.opening import open_scorer
from flashrank_lite.options import ModelOptions
from flashrank_lite.scorer import Candidates
from flashrank_lite.strategies import Windows
from flashrank_lite.strategies.splitting import split

SHORTEST, LONGEST = 1000, 4000  # words of a joined document
# Size and stride in tokens of the windows after the beginning, which is read at once.
CONFIGURATIONS = ("496x372", "256x192", "256x128", "128x96")
CAPPED = (256, 192)
CAPS = (8, 16, 32, 64)  # windows of a document
BEST = 3
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Collection:
    """Documents, and for each query its candidates: their numbers and labels."""

    texts: list[str]
    queries: list[str]
    candidates: list[list[int]]
    labels: list[list[float]]


def main() -> None:
    """Print a table a collection, and the product's time and memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    for kind in ("pages", "joined", "as-is"):
        parser.add_argument(f"--{kind}", nargs="*", default=[], metavar="NAME=FILE")
    parser.add_argument("--queries", type=int, default=60, help="a seeded sample of so many")
    parser.add_argument("--documents", type=int, help="of a joined collection at most")
    parser.add_argument("--windows", nargs="+", default=CONFIGURATIONS, metavar="SIZExSTRIDE")
    parser.add_argument("--timed", type=int, default=0, help="time one query over so many")
    parser.add_argument("--model", help="folder of another model")
    args = parser.parse_args()
    states = None if args.timed or args.model else LateStates()
    for kind in ("pages", "joined", "as_is"):
        for argument in getattr(args, kind):
            name, file = argument.split("=", 1)
            collection = _read(Path(file), kind, args.documents, args.queries)
            name = f"{name}, {kind.replace('_', ' ')}"
            if args.timed:
                _time(name, collection, args.timed, args.model)
            elif states is None:
                _compare(name, collection, args.model)
            else:
                _report(name, collection, states, args.windows)


def _read(file: Path, kind: str, documents: int | None, queries: int) -> Collection:
    rows = [json.loads(line) for line in file.open(encoding="utf-8")]
    corpus: dict[str, str] = {}
    for path in sorted(file.parent.glob("corpus.*.jsonl")):
        for line in path.open(encoding="utf-8"):
            entry = json.loads(line)
            corpus[entry["id"]] = entry["text"]
    for row in rows:
        corpus |= {entry["id"]: entry["text"] for entry in row["candidates"] if "text" in entry}
    groups = list(_groups(corpus, kind))[:documents]
    of = {name: number for number, group in enumerate(groups) for name in group}
    asked = []
    for row in rows:
        labels: dict[int, float] = {}
        for entry in row["candidates"]:
            if entry["id"] in of:
                number = of[entry["id"]]
                labels[number] = max(labels.get(number, 0.0), float(entry["label"]))
        if any(labels.values()):
            asked.append((row["query"], labels))
    asked = random.Random(0).sample(asked, min(queries, len(asked)))
    used = sorted({number for _, labels in asked for number in labels})
    place = {number: new for new, number in enumerate(used)}
    return Collection(
        ["\n\n".join(corpus[name] for name in groups[number]) for number in used],
        [query for query, _ in asked],
        [[place[number] for number in labels] for _, labels in asked],
        [list(labels.values()) for _, labels in asked],
    )


def _groups(corpus: dict[str, str], kind: str) -> Iterator[list[str]]:
    """Ids of the passages of each document."""
    if kind == "as_is":
        yield from ([name] for name in corpus)
    elif kind == "pages":
        pages: dict[str, list[str]] = {}
        for name in corpus:
            pages.setdefault(name.partition("#")[0], []).append(name)
        yield from pages.values()
    else:
        chance = random.Random(0)
        names = chance.sample(sorted(corpus), len(corpus))
        group: list[str] = []
        words, wanted = 0, chance.randint(SHORTEST, LONGEST)
        for name in names:
            group.append(name)
            words += len(corpus[name].split())
            if words >= wanted:
                yield group
                group, words, wanted = [], 0, chance.randint(SHORTEST, LONGEST)


def _report(
    name: str, collection: Collection, states: LateStates, configurations: Sequence[str]
) -> None:
    print(f"{_headline(name, collection)}\n\n| | nDCG@10 | tokens read |\n|---|---:|---:|")
    queries = [states.query(query) for query in collection.queries]
    order = [-np.arange(len(candidates)) for candidates in collection.candidates]
    _row("first stage", _mean(collection, order), 0)
    for number, configuration in enumerate(configurations):
        size, stride = map(int, configuration.split("x"))
        windows = [
            list(split(text, PASSAGE_TOKENS, size, stride, _spans(states)))
            for text in collection.texts
        ]
        read = _tokens(states, collection.texts, windows)
        logits, late = _score(collection.texts, windows, queries, states)
        if number == 0:
            first = [of_text[:1] for of_text in windows]
            truncated = [of_text[0] for of_text in logits]
            _row(
                f"truncated at {PASSAGE_TOKENS}",
                _documents(collection, truncated),
                _tokens(states, collection.texts, first),
            )
        aggregates = {
            "max": [of_text.max(axis=0) for of_text in logits],
            f"mean of best {BEST}": [
                np.sort(of_text, axis=0)[-BEST:].mean(axis=0) for of_text in logits
            ],
            "one MaxSim over all windows": late,
        }
        for aggregate, values in aggregates.items():
            _row(f"{size} by {stride}, {aggregate}", _documents(collection, values), read)
        if (size, stride) == CAPPED:
            for cap in CAPS:
                values = [of_text[:cap].max(axis=0) for of_text in logits]
                part = [of_text[:cap] for of_text in windows]
                _row(
                    f"{size} by {stride}, max of the first {cap}",
                    _documents(collection, values),
                    _tokens(states, collection.texts, part),
                )


def _headline(name: str, collection: Collection) -> str:
    words = [len(text.split()) for text in collection.texts]
    quartiles = ", ".join(f"{value:.0f}" for value in np.percentile(words, [0, 25, 50, 75, 100]))
    return (
        f"\n{name}: {len(collection.queries)} queries, {len(words)} documents "
        f"(words, quartiles: {quartiles}), {np.mean([len(c) for c in collection.candidates]):.0f} "
        "candidates a query"
    )


def _spans(states: LateStates) -> Any:
    def spans(text: str) -> NDArray[np.int32]:
        found = states.tokenizer.encode(text, add_special_tokens=False).offsets
        return np.array(found, np.int32).reshape(-1, 2)

    return spans


def _tokens(
    states: LateStates, texts: Sequence[str], windows: Sequence[Sequence[tuple[int, int]]]
) -> int:
    return sum(
        len(states.tokenizer.encode(text[start:end], add_special_tokens=False).ids)
        for text, spans in zip(texts, windows, strict=True)
        for start, end in spans
    )


def _score(
    texts: Sequence[str],
    windows: Sequence[Sequence[tuple[int, int]]],
    queries: Sequence[Query],
    states: LateStates,
) -> tuple[list[Floats], list[Floats]]:
    """Of each document the logits of its windows, (windows, queries), and of one MaxSim over all.

    The latter takes each word's best match in any window, and the cosine of the best window.
    """
    logits, late = [], []
    for text, spans in zip(texts, windows, strict=True):
        features = [
            states.features(queries, passage)
            for passage in states.passages([text[start:end] for start, end in spans])
        ]
        logits.append(np.stack([states.combine(queries, *feature) for feature in features]))
        best, exact, cosine = (np.stack(part).max(axis=0) for part in zip(*features, strict=True))
        late.append(states.combine(queries, best, exact, cosine))
    return logits, late


def _documents(collection: Collection, values: Sequence[Floats]) -> float:
    """nDCG@10, given the logit of each document for each query."""
    table = np.stack(values)
    return _mean(
        collection,
        [table[found, query] for query, found in enumerate(collection.candidates)],
    )


def _mean(collection: Collection, scores: Sequence[NDArray[Any]]) -> float:
    return float(
        np.mean([ndcg(s, labels) for s, labels in zip(scores, collection.labels, strict=True)])
    )


def _row(name: str, quality: float, tokens: int) -> None:
    print(f"| {name} | {quality:.3f} | {tokens:,} |", flush=True)


def _compare(name: str, collection: Collection, folder: str) -> None:
    """nDCG@10 of a model's truncation and of its windows, through the product."""
    print(f"{_headline(name, collection)}\n\n| | nDCG@10 |\n|---|---:|")
    model = open_scorer(folder, ModelOptions())
    candidates = [
        Candidates(query, [collection.texts[number] for number in found])
        for query, found in zip(collection.queries, collection.candidates, strict=True)
    ]
    scorers = {"truncate": model, "windows": Windows(model)}
    for row, scorer in scorers.items():
        scores = [scorer.score([one])[0].logits for one in candidates]
        print(f"| {row} | {_mean(collection, scores):.3f} |", flush=True)


def _time(name: str, collection: Collection, count: int, folder: str | None) -> None:
    """Processor time of the product over a few documents, and what memory it takes more."""
    found = collection.candidates[0][:count]
    texts = [collection.texts[number] for number in found]
    candidates = [Candidates(collection.queries[0], texts)]
    model = open_scorer(folder, ModelOptions())
    model.score(candidates)
    print(
        f"\n{name}: one query over {len(texts)} documents of "
        f"{sum(len(text.split()) for text in texts):,} words:\n\n"
        "| | processor ms | peak memory grew by MB |\n|---|---:|---:|"
    )
    scorers = {"truncate": model, "windows": Windows(model)}
    for name, scorer in scorers.items():
        before, start = _peak(), time.process_time()
        scorer.score(candidates)
        spent = (time.process_time() - start) * 1000
        print(f"| {name} | {spent:.0f} | {_peak() - before:.1f} |", flush=True)


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
