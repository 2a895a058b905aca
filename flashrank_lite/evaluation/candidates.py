"""Labelled candidate lists: what a first stage returned for a query, and what was relevant."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from flashrank_lite.errors import InvalidInput


@dataclass(frozen=True)
class CandidateList:
    """One query with its candidates in first-stage order.

    ``ideal`` holds the query's positive grades, those the first stage missed included;
    ``None`` means that ``labels`` holds them all.
    """

    query: str
    texts: tuple[str, ...]
    labels: tuple[float, ...]
    ideal: tuple[float, ...] | None = None


def read_candidate_lists(path: str | Path) -> list[CandidateList]:
    """Read candidate lists from JSONL: ``{query, ideal?, candidates: [{id, text?, label}]}``.

    A candidate without ``text`` is looked up by its ``id`` in the ``corpus.*.jsonl`` files
    (``{id, text}``) that lie in the same folder.

    Raises:
        InvalidInput: a line is not of that form, or a candidate's text is nowhere to be found.
    """
    source = Path(path)
    corpus: dict[str, str] | None = None
    lists = []
    with source.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                query, candidates = row["query"], row["candidates"]
                if corpus is None and any("text" not in c for c in candidates):
                    corpus = _read_corpus(source.parent)
                lists.append(
                    CandidateList(
                        query,
                        tuple(
                            c["text"] if "text" in c else (corpus or {})[c["id"]]
                            for c in candidates
                        ),
                        tuple(float(c["label"]) for c in candidates),
                        tuple(map(float, row["ideal"])) if row.get("ideal") else None,
                    )
                )
            except InvalidInput:
                raise
            except (ValueError, KeyError, TypeError) as error:
                raise InvalidInput(
                    f"{source}:{number}: not a candidate list ({type(error).__name__}: {error}); "
                    'expected {"query": ..., "candidates": [{"id": .., "text": .., "label": ..}]} '
                    "with each text in the line or under its id in a corpus.*.jsonl beside the file"
                ) from error
    return lists


def _read_corpus(folder: Path) -> dict[str, str]:
    texts: dict[str, str] = {}
    for path in sorted(folder.glob("corpus.*.jsonl")):
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    row = json.loads(line)
                    texts[row["id"]] = row["text"]
                except (ValueError, KeyError, TypeError) as error:
                    raise InvalidInput(
                        f'{path}:{number}: not of the form {{"id": ..., "text": ...}} '
                        f"({type(error).__name__}: {error})"
                    ) from error
    return texts
