"""Candidates of every query, mined and scored by the teachers once, and kept.

A round deals all queries into groups of neighbours, because what answers one is a hard negative for
the next, and a passage that is read serves all of them. Each group gets a pool of passages: its
labelled ones, some of each query's nearest by the teachers' vectors, and a few at random. Every
query is scored with the whole pool, so a ranking step needs no teacher. The next round deals anew.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nano.data import Corpus, Row
from nano.ensemble import CHANNELS, Ensemble
from nano.teacher import MEAN, STATES, Teacher

logger = logging.getLogger(__name__)

NEIGHBOURS = 100  # candidates of a query are drawn from the teachers' best passages
GROUP = 8  # queries of a group
ALIKE = 64  # nearest queries that a group is filled up from
MINED_PER_QUERY = 8
RANDOM_PER_GROUP = 8
SCORERS = 8  # groups are put together side by side while a GPU compares them
DEV = "dev"


@dataclass(frozen=True)
class Group:
    """Neighbouring queries (numbers of rows), a pool of passages (indices of texts), and the
    teachers' scores, fp16, (channels, queries, passages)."""

    rows: np.ndarray
    pool: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class Batch:
    """Some queries and passages of a group, with what is known of their pairs."""

    queries: list[int]
    passages: list[int]  # shortest first
    scores: Tensor  # (channels, queries, passages)
    allowed: Tensor  # (queries, passages): False where a passage of the same group is no negative
    positives: Tensor  # (queries, passages): 1 spread over the labelled passages
    label_weight: Tensor  # (queries, 1): share of the hard label in the target


class Lists:
    """The groups of every round; a round is made when it is first asked for.

    Args:
        corpus: the texts.
        ensemble: scores what is not kept yet.
        folder: where rounds are kept.
        seed: of what is drawn.
    """

    def __init__(self, corpus: Corpus, ensemble: Ensemble, folder: Path, *, seed: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.corpus, self._ensemble, self._folder, self._seed = corpus, ensemble, folder, seed
        digest = hashlib.sha256(corpus.ids.tobytes())
        digest.update(repr([row.query for row in (*corpus.rows, *corpus.dev)]).encode())
        self._name = f"{digest.hexdigest()[:12]}-{'-'.join(ensemble.teachers)}-{seed}"
        self._passages = np.array(corpus.passages)
        self._near: dict[bool, tuple[np.ndarray, np.ndarray]] = {}
        self._rounds: dict[int | str, list[Group]] = {}

    def dev(self) -> list[Group]:
        """Groups of the held-out rows; their `rows` count `Corpus.dev`."""
        return self._round(DEV)

    def group(self, place: int) -> Group:
        """The group at `place` of an endless run of rounds."""
        count = -(-len(self.corpus.rows) // GROUP)
        number, place = divmod(place, count)
        groups = self._round(number)
        for old in [key for key in self._rounds if key not in (DEV, number)]:
            del self._rounds[old]
        return groups[place]

    def prepare(self, rounds: int) -> None:
        """Make the held-out groups and so many rounds, where they are not kept yet."""
        for number in (DEV, *range(rounds)):
            self._round(number)

    def batch(
        self,
        group: Group,
        size: int,
        rng: np.random.Generator,
        device: torch.device,
        *,
        dev: bool = False,
    ) -> Batch:
        """The group with at most `size` of its passages: the labelled ones, others at random."""
        rows = [(self.corpus.dev if dev else self.corpus.rows)[i] for i in group.rows]
        labelled = {i for row in rows for i in row.positives}
        pool = rng.permutation(len(group.pool))
        first = sorted(pool, key=lambda place: group.pool[place] not in labelled)[:size]
        places = sorted(first, key=lambda place: len(self.corpus.tokens(group.pool[place])))
        passages = [int(group.pool[place]) for place in places]
        scores = torch.from_numpy(group.scores[:, :, places].astype(np.float32))
        allowed, positives, weights = _labels(self.corpus, rows, passages)
        on_device = (one.to(device) for one in (scores, allowed, positives, weights))
        return Batch([row.query for row in rows], passages, *on_device)

    def _round(self, number: int | str) -> list[Group]:
        if number not in self._rounds:
            file = self._folder / f"{self._name}-{number}.npz"
            if not file.exists():
                _save(file, list(self._make(number)))
            self._rounds[number] = _load(file)
        return self._rounds[number]

    def _make(self, number: int | str) -> Iterator[Group]:
        dev = number == DEV
        rows = self.corpus.dev if dev else self.corpus.rows
        rng = np.random.default_rng([self._seed, 0 if dev else int(number) + 1])
        start = time.monotonic()
        mined, alike = self._neighbours(rows, dev=dev)
        logger.info("lists %s: mined, %.0f s", number, time.monotonic() - start)
        drawn = [
            (chosen, self._pool([rows[i] for i in chosen], mined[chosen], rng))
            for chosen in _deal(alike, rng)
        ]
        workers = 1 if self._ensemble.device.type == "cpu" else SCORERS
        with ThreadPoolExecutor(workers) as threads:
            scores = threads.map(
                lambda one: self._ensemble.scores([rows[i].query for i in one[0]], one[1]), drawn
            )
            for place, ((chosen, pool), found) in enumerate(zip(drawn, scores, strict=True)):
                yield Group(np.array(chosen), np.array(pool), found.astype(np.float16))
                if place % 200 == 0:
                    done, took = (place + 1) * GROUP, time.monotonic() - start
                    logger.info("lists %s: %d of %d queries, %.0f s", number, done, len(rows), took)

    def _pool(self, rows: Sequence[Row], mined: np.ndarray, rng: np.random.Generator) -> list[int]:
        """Passages for a group: labelled ones, some of each query's nearest, a few at random."""
        pool: dict[int, None] = {}
        for row, near in zip(rows, mined, strict=True):
            negatives = rng.permutation(np.array(row.negatives, int))[:2]
            # Drawn evenly over the logarithm of the rank: as many from 1-10 as from 10-100.
            ranks = np.exp(rng.uniform(0, np.log(len(near)), MINED_PER_QUERY)).astype(int) - 1
            found = self._passages[near[ranks.clip(0, len(near) - 1)]]
            pool.update(dict.fromkeys(map(int, (*row.positives, *negatives, *found))))
        few = min(RANDOM_PER_GROUP, len(self._passages))
        pool.update(dict.fromkeys(map(int, rng.choice(self._passages, few, replace=False))))
        return list(pool)

    def _neighbours(self, rows: Sequence[Row], *, dev: bool) -> tuple[np.ndarray, np.ndarray]:
        """Of each row the nearest passages and the nearest rows."""
        if dev not in self._near:
            queries = self._mining_vectors([row.query for row in rows])
            device = self._ensemble.device
            self._near[dev] = (
                _nearest(queries, self._passage_vectors, NEIGHBOURS, device),
                _nearest(queries, queries, ALIKE, device),
            )
        return self._near[dev]

    @cached_property
    def _centres(self) -> list[np.ndarray]:
        teachers = self._ensemble.teachers.values()
        return [_means(teacher, self._passages).mean(0) for teacher in teachers]

    @cached_property
    def _passage_vectors(self) -> np.ndarray:
        return self._mining_vectors(self._passages.tolist())

    def _mining_vectors(self, texts: Sequence[int]) -> np.ndarray:
        """The teachers' mean vectors side by side, each less what all passages have in common."""
        parts = []
        for teacher, centre in zip(self._ensemble.teachers.values(), self._centres, strict=True):
            vectors = torch.from_numpy(_means(teacher, texts) - centre)
            parts.append(F.normalize(vectors, dim=-1))
        return torch.cat(parts, 1).numpy()


def _deal(alike: np.ndarray, rng: np.random.Generator) -> Iterator[list[int]]:
    """Every query once, in groups of `GROUP` neighbours as far as there are any left."""
    free = np.ones(len(alike), bool)
    left: list[int] = []
    for first in rng.permutation(len(alike)):
        if not free[first]:
            continue
        near = [int(i) for i in alike[first] if free[i] and i != first][: GROUP - 1]
        if len(near) < GROUP - 1:
            left.append(int(first))
            free[first] = False
            continue
        chosen = [int(first), *near]
        free[chosen] = False
        yield chosen
    for start in range(0, len(left), GROUP):
        yield left[start : start + GROUP]


def _labels(
    corpus: Corpus, rows: Sequence[Row], passages: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    allowed = torch.ones(len(rows), len(passages), dtype=torch.bool)
    positives = torch.zeros(len(rows), len(passages))
    weights = torch.zeros(len(rows), 1)
    for r, row in enumerate(rows):
        known = set(row.positives)
        for p, passage in enumerate(passages):
            if passage in known:
                positives[r, p] = 1
            elif row.weight > 0 and row.group in corpus.groups.get(passage, ()):
                allowed[r, p] = False
        if positives[r].any():
            positives[r] /= positives[r].sum()
            weights[r] = row.weight
    return allowed, positives, weights


def _means(teacher: Teacher, texts: Sequence[int] | np.ndarray) -> np.ndarray:
    name = MEAN if MEAN in teacher.store.columns else STATES
    out = np.stack([teacher.of(int(i), name).mean(0, dtype=np.float32) for i in texts])
    return out / np.linalg.norm(out, axis=1, keepdims=True).clip(1e-6)


def _nearest(queries: np.ndarray, vectors: np.ndarray, k: int, device: torch.device) -> np.ndarray:
    k = min(k, len(vectors))
    best = np.zeros((len(queries), k), np.int32)
    columns = torch.from_numpy(vectors).to(device).T
    for start in range(0, len(queries), 512):
        scores = torch.from_numpy(queries[start : start + 512]).to(device) @ columns
        best[start : start + 512] = scores.topk(k, dim=1).indices.cpu().numpy()
    return best


def _save(file: Path, groups: Sequence[Group]) -> None:
    partial = file.with_suffix(".partial.npz")
    np.savez(
        partial,
        rows=np.concatenate([group.rows for group in groups]),
        row_counts=[len(group.rows) for group in groups],
        pools=np.concatenate([group.pool for group in groups]),
        pool_counts=[len(group.pool) for group in groups],
        scores=np.concatenate([group.scores.ravel() for group in groups]),
    )
    partial.replace(file)


def _load(file: Path) -> list[Group]:
    with np.load(file) as kept:
        arrays = {name: kept[name] for name in kept.files}
    groups, row, passage, score = [], 0, 0, 0
    for rows, pool in zip(arrays["row_counts"], arrays["pool_counts"], strict=True):
        size = len(CHANNELS) * int(rows) * int(pool)
        scores = arrays["scores"][score : score + size].reshape(len(CHANNELS), rows, pool)
        groups.append(
            Group(
                arrays["rows"][row : row + rows], arrays["pools"][passage : passage + pool], scores
            )
        )
        row, passage, score = row + rows, passage + pool, score + size
    return groups
