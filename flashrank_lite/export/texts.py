"""Real text to calibrate and to check a model with: a file of the user's, or what ships with us."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from flashrank_lite.errors import InvalidInput
from flashrank_lite.export.fidelity import Texts

BUNDLED = Path(__file__).parent / "sample_texts" / "texts.jsonl"


def bundled_texts() -> Texts:
    """Queries with candidate passages, most of them English (sample_texts/README.md)."""
    return read_texts(BUNDLED)


def read_texts(file: Path) -> Texts:
    """Queries with their passages, from JSONL: `{"query": ..., "passages": [...]}`.

    A passage is a text or an object with `text`; `candidates` may stand for `passages`.

    Raises:
        InvalidInput: a line is not of that form, or no query has a passage.
    """
    lists = []
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    lists.append(_read(json.loads(line)))
                except (ValueError, KeyError, TypeError) as error:
                    raise InvalidInput(
                        f"{file}:{number}: not a query with passages ({type(error).__name__}: "
                        f'{error}); expected {{"query": "...", "passages": ["...", ...]}}'
                    ) from error
    found = [(query, passages) for query, passages in lists if passages]
    if not found:
        raise InvalidInput(f"{file} holds no query with passages: give real text to calibrate on")
    return found


def _read(row: Any) -> tuple[str, list[str]]:
    passages = row["passages"] if "passages" in row else row["candidates"]
    texts = [passage if isinstance(passage, str) else passage["text"] for passage in passages]
    if not all(isinstance(text, str) for text in (row["query"], *texts)):
        raise TypeError("query and passages must be texts")
    return row["query"], texts
