"""The training text: public (query, passage) sets, read into one list of texts and rows over it.

Every set is a folder below `--data`; a missing folder is skipped, with a warning. The public
sources and licences are in `flashrank_lite/models/nano/README.md`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

logger = logging.getLogger(__name__)

PASSAGE_TOKENS = 128  # most web passages are shorter; cost grows with length
LONG_PASSAGE_TOKENS = (
    256  # for one passage in LONG_PASSAGE_EVERY, so that longer ones stay in range
)
LONG_PASSAGE_EVERY = 8
QUERY_TOKENS = 48
HEADINGS_PER_SOURCE = 1000  # breadth over depth: no one manual dominates
DEV_QUERIES = 200


@dataclass(frozen=True)
class Row:
    """One training query, by indices into `Corpus.texts`; `weight`: the hard label's share."""

    query: int
    positives: tuple[int, ...]
    negatives: tuple[int, ...]  # labelled negatives, where the set has them
    group: str  # passages of one group are no negatives for each other
    weight: float


@dataclass
class Corpus:
    """All texts once, tokenised, with the rows over them."""

    texts: list[str] = field(default_factory=list)
    is_query: list[bool] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    dev: list[Row] = field(default_factory=list)
    groups: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    ids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    offsets: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))
    _index: dict[tuple[str, bool], int] = field(default_factory=dict)

    def add(self, text: str, *, query: bool) -> int:
        """Index of `text`, added when it is new."""
        key = (text, query)
        if key not in self._index:
            self._index[key] = len(self.texts)
            self.texts.append(text)
            self.is_query.append(query)
        return self._index[key]

    def add_row(
        self,
        query: str,
        positives: list[str],
        negatives: list[str],
        group: str,
        weight: float,
        *,
        dev: bool = False,
    ) -> None:
        """Add one query with its labelled passages."""
        found = tuple(self.add(p, query=False) for p in positives)
        for index in found:
            self.groups[index].add(group)
        row = Row(
            self.add(query, query=True),
            found,
            tuple(self.add(n, query=False) for n in negatives),
            group,
            weight,
        )
        (self.dev if dev else self.rows).append(row)

    def tokens(self, index: int) -> np.ndarray:
        """Token ids of text `index`, `[CLS] ... [SEP]`."""
        return self.ids[self.offsets[index] : self.offsets[index + 1]]

    @property
    def passages(self) -> list[int]:
        """Indices of the texts that are passages."""
        return [i for i, query in enumerate(self.is_query) if not query]


def load_corpus(data: Path, tokenizer: Tokenizer, *, seed: int, limit: int | None = None) -> Corpus:
    """Read every set below `data` and tokenise it.

    Args:
        data: folder of the sets.
        tokenizer: the backbone's tokenizer, without padding and truncation.
        seed: for the samples that are drawn.
        limit: rows per set at the most (for a smoke test).
    """
    rng = random.Random(seed)
    corpus = Corpus()
    for name, reader in _READERS.items():
        folder = data / name
        if not folder.is_dir():
            logger.warning("no %s: left out", folder)
            continue
        before = len(corpus.rows)
        for number, row in enumerate(reader(folder, rng)):
            if limit is not None and number >= limit:
                break
            corpus.add_row(*row[:5], dev=row[5])
        logger.info("%s: %d rows", name, len(corpus.rows) - before)
    if not corpus.rows:
        raise SystemExit(f"no training set found below {data}")
    _add_spans(corpus, rng)
    rng.shuffle(corpus.rows)
    _tokenise(corpus, tokenizer)
    return corpus


def pad_rows(rows: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of ids, (tokens,), or states, (tokens, hidden), as one zero-padded array and its mask.

    Integers become int64, the rest float32; the mask is int64, of shape (rows, longest).
    """
    width = max(map(len, rows))
    kind = np.int64 if np.issubdtype(rows[0].dtype, np.integer) else np.float32
    out = np.zeros((len(rows), width, *rows[0].shape[1:]), kind)
    mask = np.zeros((len(rows), width), np.int64)
    for number, row in enumerate(rows):
        out[number, : len(row)], mask[number, : len(row)] = row, 1
    return out, mask


# One reader a set: yields (query, positives, negatives, group, weight of the label, dev).
_Fields = tuple[str, list[str], list[str], str, float, bool]


def _read_mixed(folder: Path, rng: random.Random) -> Iterator[_Fields]:
    rows = list(_jsonl(folder / "pairs.jsonl"))
    rng.shuffle(rows)
    taken: dict[str, int] = defaultdict(int)
    for row in rows:
        heading = row["kind"] == "heading"
        if heading:
            taken[row["source"]] += 1
            if taken[row["source"]] > HEADINGS_PER_SOURCE:
                continue
        yield (
            row["query"],
            [row["passage"]],
            [],
            f"mixed:{row['group']}",
            0.2 if heading else 0.45,
            False,
        )


def _read_candidates(folder: Path, rng: random.Random) -> Iterator[_Fields]:
    """Sets stored as candidate lists: only labelled candidates of the list itself are negatives."""
    corpus = {}
    for path in sorted(folder.glob("corpus.*.jsonl")):
        corpus.update({row["id"]: row["text"] for row in _jsonl(path)})
    for path in sorted(folder.glob("rerank.*.jsonl")):
        rows = list(_jsonl(path))
        rng.shuffle(rows)
        for number, row in enumerate(rows):
            positives, negatives = [], []
            for candidate in row["candidates"]:
                text = candidate["text"] if "text" in candidate else corpus[candidate["id"]]
                (positives if candidate["label"] > 0 else negatives).append(text)
            if positives:
                # In-batch lists repeat the corpus; a few of the first suffice.
                dev = folder.name == "nq_oracle" and number < DEV_QUERIES
                few = negatives[: 60 if dev else 12]
                yield row["query"], positives[:3], few, f"{folder.name}:{row['qid']}", 0.45, dev


def _read_medquad(folder: Path, rng: random.Random) -> Iterator[_Fields]:
    rows = list(_jsonl(folder / "pairs.jsonl"))
    for row in rng.sample(rows, min(3000, len(rows))):
        yield row["query"], [row["passage"]], [], f"medquad:{row['passage'][:64]}", 0.2, False


def _read_tldr(folder: Path, rng: random.Random) -> Iterator[_Fields]:
    rows = list(_jsonl(folder / "pairs.jsonl"))
    for row in rng.sample(rows, min(1500, len(rows))):
        yield (
            row["query"],
            [f"{row['desc']} {row['passage']}"],
            [],
            f"tldr:{row['cmd']}",
            0.2,
            False,
        )


def _read_pubmedqa(folder: Path, rng: random.Random) -> Iterator[_Fields]:
    for key, row in json.loads((folder / "ori_pqal.json").read_text(encoding="utf-8")).items():
        yield row["QUESTION"], [" ".join(row["CONTEXTS"])], [], f"pubmedqa:{key}", 0.3, False


_READERS = {
    "mixed": _read_mixed,
    "nq_oracle": _read_candidates,
    "xquad": _read_candidates,
    "selqa": _read_candidates,
    "scifact": _read_candidates,
    "medquad": _read_medquad,
    "pubmedqa": _read_pubmedqa,
    "tldr": _read_tldr,
}


def _add_spans(corpus: Corpus, rng: random.Random) -> None:
    """Add keyword-like queries: a run of 3 to 10 words from every second passage, no hard label."""
    for index in corpus.passages[::2]:
        words = corpus.texts[index].split()
        if len(words) < 20:
            continue
        length = rng.randint(3, 10)
        start = rng.randrange(len(words) - length)
        query = corpus.add(" ".join(words[start : start + length]), query=True)
        corpus.rows.append(Row(query, (index,), (), f"span:{index}", 0.0))


def _tokenise(corpus: Corpus, tokenizer: Tokenizer) -> None:
    encoded = []
    for text, query in zip(corpus.texts, corpus.is_query, strict=True):
        long = (
            int(hashlib.sha256(text.encode("utf-8", "replace")).hexdigest(), 16)
            % LONG_PASSAGE_EVERY
            == 0
        )
        limit = QUERY_TOKENS if query else LONG_PASSAGE_TOKENS if long else PASSAGE_TOKENS
        ids = tokenizer.encode(text[: 12 * limit]).ids
        encoded.append(
            np.array(ids if len(ids) <= limit else [*ids[: limit - 1], ids[-1]], np.int32)
        )
    corpus.ids = np.concatenate(encoded)
    corpus.offsets = np.concatenate([[0], np.cumsum([len(e) for e in encoded])]).astype(np.int64)


def _jsonl(path: Path) -> Iterator[dict]:  # type: ignore[type-arg]
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
