"""The training text: public sets of queries and passages, read into one list of texts and rows.

Every set is a folder below `--data`; a missing folder is skipped, with a warning. The public
sources and licences are in `flashrank_lite/models/nano/README.md`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from nano import web

logger = logging.getLogger(__name__)

PASSAGE_TOKENS = 128  # most web passages are shorter; cost grows with length
LONG_PASSAGE_TOKENS = 400  # of one passage in LONG_PASSAGE_EVERY: longer ones stay in range
LONG_PASSAGE_EVERY = 8
QUERY_TOKENS = 48
HEADINGS_PER_SOURCE = 1000  # breadth over depth: no one manual dominates
NEGATIVES = 6  # labelled ones kept of a row: lists of one batch repeat the corpus
DEV_SHARE = 8  # one row in so many is held out, of every source
DEV_PER_SOURCE = 16  # and no more than so many, however few of them are read
SPAN_EVERY = 4  # passages, of which one gives a query of its own words


@dataclass(frozen=True)
class Example:
    """A query as a set has it; `weight`: the hard label's share of the target."""

    query: str
    positives: list[str]
    negatives: list[str]
    group: str
    weight: float
    source: str


@dataclass(frozen=True)
class Row:
    """One training query, by indices into `Corpus.texts`; unlabelled ones have no positives."""

    query: int
    positives: tuple[int, ...]
    negatives: tuple[int, ...]  # labelled negatives, where the set has them
    group: str  # passages of one group are no negatives for each other
    weight: float
    source: str


@dataclass(frozen=True)
class Size:
    """How much is read; None: all there is. What a larger size reads holds a smaller one's."""

    rows: int | None = None  # labelled
    dev: int = DEV_PER_SOURCE  # held-out ones of a source
    web_queries: int | None = None
    web_passages: int | None = None


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

    def add_row(self, example: Example, *, dev: bool = False) -> None:
        """Add one query with its labelled passages."""
        found = tuple(self.add(p, query=False) for p in example.positives)
        for index in found:
            self.groups[index].add(example.group)
        row = Row(
            self.add(example.query, query=True),
            found,
            tuple(self.add(n, query=False) for n in example.negatives),
            example.group,
            example.weight,
            example.source,
        )
        (self.dev if dev else self.rows).append(row)

    def tokens(self, index: int) -> np.ndarray:
        """Token ids of text `index`, `[CLS] ... [SEP]`."""
        return self.ids[self.offsets[index] : self.offsets[index + 1]]

    @property
    def passages(self) -> list[int]:
        """Indices of the texts that are passages."""
        return [i for i, query in enumerate(self.is_query) if not query]


def load_corpus(
    data: Path, tokenizer: Tokenizer, *, seed: int, limit: int | None = None, size: Size = Size()
) -> Corpus:
    """Read every set below `data` and tokenise it.

    Args:
        data: folder of the sets.
        tokenizer: the backbone's tokenizer, without padding and truncation.
        seed: for the order of the rows.
        limit: rows per set at the most (for a smoke test).
        size: rows in all at the most.
    """
    corpus = Corpus()
    examples: list[Example] = []
    for name, reader in _READERS.items():
        folder = data / name
        if not folder.is_dir():
            logger.warning("no %s: left out", folder)
            continue
        found = sorted(reader(folder), key=lambda one: _order(one.query))[:limit]
        logger.info("%s: %d rows", name, len(found))
        examples.extend(found)
    if not examples:
        raise SystemExit(f"no training set found below {data}")
    _add_rows(corpus, examples, size)
    if (data / "web").is_dir() and (size.web_queries, size.web_passages) != (0, 0):
        _add_web(corpus, data / "web", size, limit)
    _add_spans(corpus)
    random.Random(seed).shuffle(corpus.rows)
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


def _read_mixed(folder: Path) -> Iterator[Example]:
    taken: dict[str, int] = defaultdict(int)
    for row in sorted(_jsonl(folder / "pairs.jsonl"), key=lambda row: _order(row["query"])):
        heading = row["kind"] == "heading"
        if heading:
            taken[row["source"]] += 1
            if taken[row["source"]] > HEADINGS_PER_SOURCE:
                continue
        yield Example(
            row["query"],
            [row["passage"]],
            [],
            f"mixed:{row['group']}",
            0.2 if heading else 0.45,
            row["source"],
        )


def _read_candidates(folder: Path) -> Iterator[Example]:
    """Sets stored as candidate lists: only labelled candidates of the list itself are negatives."""
    corpus = {}
    for path in sorted(folder.glob("corpus.*.jsonl")):
        corpus.update({row["id"]: row["text"] for row in _jsonl(path)})
    for path in sorted(folder.glob("rerank.*.jsonl")):
        for row in _jsonl(path):
            positives, negatives = [], []
            for candidate in row["candidates"]:
                text = candidate["text"] if "text" in candidate else corpus[candidate["id"]]
                (positives if candidate["label"] > 0 else negatives).append(text)
            if positives:
                group = f"{folder.name}:{row['qid']}"
                few = negatives[:NEGATIVES]
                yield Example(row["query"], positives[:3], few, group, 0.45, folder.name)


def _read_medquad(folder: Path) -> Iterator[Example]:
    rows = sorted(_jsonl(folder / "pairs.jsonl"), key=lambda row: _order(row["query"]))
    for row in rows[:3000]:
        group = f"medquad:{row['passage'][:64]}"
        yield Example(row["query"], [row["passage"]], [], group, 0.2, "medquad")


def _read_tldr(folder: Path) -> Iterator[Example]:
    rows = sorted(_jsonl(folder / "pairs.jsonl"), key=lambda row: _order(row["query"]))
    for row in rows[:1500]:
        text = f"{row['desc']} {row['passage']}"
        yield Example(row["query"], [text], [], f"tldr:{row['cmd']}", 0.2, "tldr")


def _read_pubmedqa(folder: Path) -> Iterator[Example]:
    for key, row in json.loads((folder / "ori_pqal.json").read_text(encoding="utf-8")).items():
        text = " ".join(row["CONTEXTS"])
        yield Example(row["QUESTION"], [text], [], f"pubmedqa:{key}", 0.3, "pubmedqa")


def _read_web_pairs(folder: Path) -> Iterator[Example]:
    for row in web.read(folder, "pairs"):
        group = f"web:{row['group']}"
        yield Example(row["query"], [row["passage"]], [], group, 0.45, row["source"])


_READERS = {
    "mixed": _read_mixed,
    "nq_oracle": _read_candidates,
    "xquad": _read_candidates,
    "selqa": _read_candidates,
    "scifact": _read_candidates,
    "medquad": _read_medquad,
    "pubmedqa": _read_pubmedqa,
    "tldr": _read_tldr,
    "web": _read_web_pairs,
}
# Of the labelled rows, where not all are read
_SHARES = {"nq_oracle": 8.0, "boolq": 6.0, "selqa": 3.0, "squad_dev": 4.0, "scifact": 3.0}


def _add_rows(corpus: Corpus, examples: Sequence[Example], size: Size) -> None:
    dev, train = _held_out(examples, size.dev)
    for one in dev:
        corpus.add_row(one, dev=True)
    for one in web.deal(train, size.rows, lambda e: e.source, lambda e: _order(e.query), _SHARES):
        corpus.add_row(one)


def _held_out(examples: Iterable[Example], read: int) -> tuple[list[Example], list[Example]]:
    """Of each source the first few, of which `read` are used, and the rows to train on."""
    of: dict[str, list[Example]] = defaultdict(list)
    for one in examples:
        of[one.source].append(one)
    dev, train = [], []
    for found in of.values():
        found.sort(key=lambda one: _order(one.query))
        few = min(DEV_PER_SOURCE, max(len(found) // DEV_SHARE, int(len(found) > 1)))
        dev.extend(found[: min(few, read)])
        queries = {one.query for one in found[:few]}
        train.extend(one for one in found if one.query not in queries)
    return dev, train


def _add_web(corpus: Corpus, folder: Path, size: Size, limit: int | None) -> None:
    """Queries without labels, and passages without queries."""
    known = {corpus.texts[row.query] for row in (*corpus.rows, *corpus.dev)}
    examples = [
        Example(row["query"], [], [], "", 0.0, row["source"])
        for row in web.read(folder, "queries")
        if row["query"] not in known
    ]
    dev, train = _held_out(examples, size.dev)
    count = limit if size.web_queries is None else size.web_queries
    chosen = web.deal(train, count, lambda e: e.source, lambda e: _order(e.query), web.SHARES)
    for one in dev[:limit]:
        corpus.add_row(one, dev=True)
    for one in chosen:
        corpus.add_row(one)
    passages = list(web.read(folder, "passages"))
    wanted = range(len(passages))
    count = limit if size.web_passages is None else size.web_passages
    if count is not None and count < len(passages):
        queries = [one.query for one in chosen]
        wanted = web.found_lexically(queries, [row["text"] for row in passages], count)
    for number in wanted:
        index = corpus.add(passages[number]["text"], query=False)
        corpus.groups[index].add(f"web:{passages[number]['group']}")
    logger.info("web: %d queries, %d passages", len(chosen), len(wanted))


def _add_spans(corpus: Corpus) -> None:
    """Add keyword-like queries: a run of 3 to 10 words of some passages, no hard label."""
    for index in corpus.passages:
        words = corpus.texts[index].split()
        rng = random.Random(_order(corpus.texts[index]))  # the same in every choice of texts
        if len(words) < 20 or rng.randrange(SPAN_EVERY):
            continue
        length = rng.randint(3, 10)
        start = rng.randrange(len(words) - length)
        query = corpus.add(" ".join(words[start : start + length]), query=True)
        corpus.rows.append(Row(query, (index,), (), f"span:{index}", 0.0, "span"))


def _tokenise(corpus: Corpus, tokenizer: Tokenizer) -> None:
    encoded = []
    for text, query in zip(corpus.texts, corpus.is_query, strict=True):
        long = _order(text) % LONG_PASSAGE_EVERY == 0
        limit = QUERY_TOKENS if query else LONG_PASSAGE_TOKENS if long else PASSAGE_TOKENS
        ids = tokenizer.encode(text[: 12 * limit]).ids
        encoded.append(
            np.array(ids if len(ids) <= limit else [*ids[: limit - 1], ids[-1]], np.int32)
        )
    corpus.ids = np.concatenate(encoded)
    corpus.offsets = np.concatenate([[0], np.cumsum([len(e) for e in encoded])]).astype(np.int64)


def _order(text: str) -> int:
    """A text's place in an order that has nothing to do with the text."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "replace")).digest()[:8], "big")


def _jsonl(path: Path) -> Iterator[dict]:  # type: ignore[type-arg]
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
