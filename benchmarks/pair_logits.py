"""Logits of every (query, passage) of labelled lists, scored once and kept on disk.

Fusion, cascades and their like are arithmetic over the same logits: a first run takes minutes to an
hour, later ones seconds, and a run that was broken off goes on where it was.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.late_states import LateStates
from flashrank_lite import Ranker
from flashrank_lite.evaluation import CandidateList

CACHE = Path("build/benchmarks/pair_logits.sqlite")
BUNDLED = "bundled"
TEXTS_AT_ONCE = 64


def pair_logits(
    model: str, lists: Sequence[CandidateList], cache: Path = CACHE
) -> list[NDArray[np.float32]]:
    """One array of logits a list, in the order of its texts.

    Args:
        model: BUNDLED (read apart: passages cut at 496 tokens) or the path of a model folder.
        lists: what is scored.
        cache: the file that keeps the logits.
    """
    cache.parent.mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(cache) as known:
        known.execute("create table if not exists logits (pair blob primary key, logit real)")
        missing = [
            (one.query, text)
            for one in lists
            for text in one.texts
            if _known(known, model, one.query, text) is None
        ]
        if missing:
            (_score_bundled if model == BUNDLED else _score_folder)(known, model, missing)
        return [
            np.array([_known(known, model, one.query, text) for text in one.texts], np.float32)
            for one in lists
        ]


def _score_bundled(known: sqlite3.Connection, model: str, pairs: Sequence[tuple[str, str]]) -> None:
    states = LateStates()
    states.check(pairs[0][0], [text for query, text in pairs[:20] if query == pairs[0][0]])
    queries = {query: states.query(query) for query in dict.fromkeys(q for q, _ in pairs)}
    asked: dict[str, list[str]] = {}
    for query, text in pairs:
        asked.setdefault(text, []).append(query)
    texts = sorted(asked, key=len)
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        part = texts[start : start + TEXTS_AT_ONCE]
        for text, passage in zip(part, states.passages(part), strict=True):
            for query in asked[text]:
                _keep(known, model, query, text, states.logit(queries[query], passage))
        known.commit()


def _score_folder(known: sqlite3.Connection, model: str, pairs: Sequence[tuple[str, str]]) -> None:
    with Ranker(model, activation="raw") as ranker:
        for start in range(0, len(pairs), TEXTS_AT_ONCE):
            part = pairs[start : start + TEXTS_AT_ONCE]
            for (query, text), logit in zip(part, ranker.score_pairs(part), strict=True):
                _keep(known, model, query, text, float(logit))
            known.commit()


def _key(model: str, query: str, text: str) -> bytes:
    return hashlib.blake2b(f"{model}\0{query}\0{text}".encode(), digest_size=16).digest()


def _known(known: sqlite3.Connection, model: str, query: str, text: str) -> float | None:
    row = known.execute("select logit from logits where pair = ?", (_key(model, query, text),))
    found = row.fetchone()
    return None if found is None else float(found[0])


def _keep(known: sqlite3.Connection, model: str, query: str, text: str, logit: float) -> None:
    known.execute("insert or replace into logits values (?, ?)", (_key(model, query, text), logit))
