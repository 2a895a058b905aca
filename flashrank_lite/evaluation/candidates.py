"""Labelled candidate lists: what a first stage returned for a query, and what was relevant."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flashrank_lite.errors import InvalidInput

_LIST = (
    'a candidate list, {"query": ..., "candidates": [{"id": .., "text": .., "label": ..}]} with '
    "each text in the line or under its id in a corpus.*.jsonl beside the file"
)
_CORPUS = 'a text of a corpus, {"id": ..., "text": ...}'


@dataclass(frozen=True)
class CandidateList:
    """One query with its candidates in first-stage order.

    `ideal` holds the query's positive grades, those the first stage missed included;
    `None` means that `labels` holds them all.
    """

    query: str
    texts: tuple[str, ...]
    labels: tuple[float, ...]
    ideal: tuple[float, ...] | None = None


def read_candidate_lists(path: str | Path) -> list[CandidateList]:
    """Read candidate lists from JSONL: `{query, ideal?, candidates: [{id, text?, label}]}`.

    A candidate without `text` is looked up by its `id` in the `corpus.*.jsonl` files
    (`{id, text}`) that lie in the same folder.

    Raises:
        InvalidInput: a line is not of that form, or a candidate's text is nowhere to be found.
    """
    source = Path(path)
    corpus: dict[str, str] | None = None
    lists = []
    for place, line in _lines(source):
        with _explained(place, _LIST):
            row = json.loads(line)
            lacking = any("text" not in candidate for candidate in row["candidates"])
        if lacking and corpus is None:
            corpus = read_corpus(source.parent)
        with _explained(place, _LIST):
            lists.append(_read_list(row, corpus or {}))
    return lists


def read_corpus(folder: Path) -> dict[str, str]:
    """The texts of a folder's `corpus.*.jsonl` files, by their ids."""
    texts: dict[str, str] = {}
    for path in sorted(folder.glob("corpus.*.jsonl")):
        for place, line in _lines(path):
            with _explained(place, _CORPUS):
                row = json.loads(line)
                texts[row["id"]] = row["text"]
    return texts


def _read_list(row: dict[str, Any], corpus: Mapping[str, str]) -> CandidateList:
    candidates = row["candidates"]
    return CandidateList(
        row["query"],
        tuple(c["text"] if "text" in c else corpus[c["id"]] for c in candidates),
        tuple(float(c["label"]) for c in candidates),
        tuple(map(float, row["ideal"])) if row.get("ideal") else None,
    )


def _lines(file: Path) -> Iterator[tuple[str, str]]:
    """The lines that are not blank, each with its place, as in `file.jsonl:3`."""
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield f"{file}:{number}", line


@contextmanager
def _explained(place: str, form: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"{place}: not {form} ({type(error).__name__}: {error})") from error
