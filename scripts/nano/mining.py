"""Batches for the ranking stage: neighbouring queries, candidates mined by the teacher's cosine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nano.data import Corpus, Row
from nano.teacher import TeacherStates

NEIGHBOURS = 100  # candidates of a query are drawn from the teacher's best passages
QUERIES_PER_CLUSTER = 6  # queries about one subject: each one's candidates are hard for the others
CLUSTERS = 4
MINED_PER_QUERY = 4


@dataclass(frozen=True)
class Batch:
    """Queries and passages (indices of texts) with what is known of their pairs."""

    queries: list[int]
    passages: list[int]  # shortest first
    allowed: Tensor  # (queries, passages): False where a passage of the same group is no negative
    positives: Tensor  # (queries, passages): 1 spread over the labelled passages
    label_weight: Tensor  # (queries, 1): share of the hard label in the target


class Candidates:
    """Draws the batches; batch `step` is the same in every run of one seed."""

    def __init__(self, corpus: Corpus, teacher: TeacherStates, *, seed: int) -> None:
        self.corpus = corpus
        self.seed = seed
        self.rows = corpus.rows
        passages = corpus.passages
        vectors = _mean_vectors(teacher, passages)
        queries = _mean_vectors(teacher, [row.query for row in self.rows])
        self.passages = np.array(passages)
        self.held_out = _nearest(
            _mean_vectors(teacher, [row.query for row in corpus.dev]), vectors, NEIGHBOURS
        )
        self.mined = _nearest(queries, vectors, NEIGHBOURS)
        self.alike = _nearest(queries, queries, 4 * QUERIES_PER_CLUSTER)

    def batch(self, step: int, device: torch.device) -> Batch:
        """The batch of training step `step`."""
        rng = np.random.default_rng([self.seed, step])
        chosen: dict[int, None] = {}
        for seed_row in rng.integers(len(self.rows), size=CLUSTERS):
            near = rng.permutation(self.alike[seed_row])[: QUERIES_PER_CLUSTER - 1]
            for row in (seed_row, *near):
                chosen[int(row)] = None
        rows = [self.rows[i] for i in chosen]
        passages: dict[int, None] = {}
        for number, row in zip(chosen, rows, strict=True):
            own = [row.positives[int(rng.integers(len(row.positives)))], *self._negatives(row, rng)]
            # Drawn evenly over the logarithm of the rank: as many from 1-10 as from 10-100.
            depth = self.mined.shape[1]
            ranks = np.exp(rng.uniform(0, np.log(depth), MINED_PER_QUERY)).astype(int) - 1
            mined = self.passages[self.mined[number, np.clip(ranks, 0, depth - 1)]]
            passages.update(dict.fromkeys([*own, *map(int, mined)]))
        ordered = sorted(passages, key=lambda i: len(self.corpus.tokens(i)))
        return self._label(rows, ordered, device)

    def hard_negatives(self, held_out_row: int, count: int) -> list[int]:
        """The teacher's best `count` passages that do not answer a held-out row."""
        known = set(self.corpus.dev[held_out_row].positives)
        found = self.passages[self.held_out[held_out_row]]
        return [int(i) for i in found if int(i) not in known][:count]

    def _negatives(self, row: Row, rng: np.random.Generator) -> list[int]:
        if not row.negatives:
            return []
        return [int(i) for i in rng.permutation(np.array(row.negatives))[:2]]

    def _label(self, rows: list[Row], passages: list[int], device: torch.device) -> Batch:
        allowed = np.ones((len(rows), len(passages)), bool)
        positives = np.zeros((len(rows), len(passages)), np.float32)
        weights = np.zeros((len(rows), 1), np.float32)
        for r, row in enumerate(rows):
            known = set(row.positives)
            for p, passage in enumerate(passages):
                if passage in known:
                    positives[r, p] = 1
                elif row.weight > 0 and row.group in self.corpus.groups.get(passage, ()):
                    allowed[r, p] = False
            positives[r] /= positives[r].sum()
            weights[r] = row.weight
        return Batch(
            [row.query for row in rows],
            passages,
            torch.from_numpy(allowed).to(device),
            torch.from_numpy(positives).to(device),
            torch.from_numpy(weights).to(device),
        )


def _mean_vectors(teacher: TeacherStates, texts: list[int]) -> np.ndarray:
    out = np.zeros((len(texts), teacher.states.shape[1]), np.float32)
    for r, i in enumerate(texts):
        out[r] = teacher.of(i).astype(np.float32).mean(0)
    return out / np.linalg.norm(out, axis=1, keepdims=True).clip(1e-6)


def _nearest(queries: np.ndarray, vectors: np.ndarray, k: int) -> np.ndarray:
    k = min(k, len(vectors))
    best = np.zeros((len(queries), k), np.int32)
    for start in range(0, len(queries), 512):
        scores = torch.from_numpy(queries[start : start + 512]) @ torch.from_numpy(vectors).T
        best[start : start + 512] = scores.topk(k, dim=1).indices.numpy()
    return best
