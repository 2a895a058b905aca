"""What the teachers together say of a query's passages.

nDCG@10 of each, untrained, texts cut at 256 tokens:

| | TREC DL 2019 | WikiQA | SciFact | Cranfield | Claude docs |
|---|---|---|---|---|---|
| all-MiniLM-L6-v2, MaxSim | .655 | .789 | .703 | .540 | .719 |
| e5-small-v2, cosine of means | .697 | .840 | .693 | .513 | .687 |
| bge-small-en-v1.5, MaxSim | .702 | .815 | .723 | .555 | .729 |
| e5 cosine + bge MaxSim, each standardised within the list | .707 | .827 | .729 | .551 | .735 |
| all three, cosine and MaxSim of each | .700 | .829 | .725 | .570 | .753 |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nano.data import Corpus, pad_rows
from nano.model import CLS, SEP, UNK
from nano.teacher import MEAN, STATES, Teacher

# By channel: its weight in the mean of the standardised scores
WEIGHTS = {"bge_maxsim": 1.0, "bge_cosine": 0.3, "e5_cosine": 1.0, "minilm": 0.6}
CHANNELS = tuple(WEIGHTS)
TEMPERATURE = 0.35  # of standardised scores


@dataclass(frozen=True)
class Ensemble:
    """The teachers by name: `minilm`, and `bge` and `e5` where they are at hand."""

    corpus: Corpus
    teachers: Mapping[str, Teacher]
    idf: Tensor
    device: torch.device

    def scores(self, queries: Sequence[int], passages: Sequence[int]) -> np.ndarray:
        """Each teacher's scores, fp32, (channels, queries, passages); NaN where one is missing."""
        out = torch.full((len(CHANNELS), len(queries), len(passages)), torch.nan)
        for name, teacher in self.teachers.items():
            if MEAN in teacher.store.columns:
                a, b = (self._vectors(teacher, rows) for rows in (queries, passages))
                out[CHANNELS.index(f"{name}_cosine")] = (a @ b.T).cpu()
                continue
            a, b = self._texts(teacher, queries), self._texts(teacher, passages)
            if name == "minilm":
                out[CHANNELS.index(name)] = _minilm(a, b, self.idf).cpu()
                continue
            out[CHANNELS.index(f"{name}_maxsim")] = _maxsim(a, b, a.mask).cpu()
            out[CHANNELS.index(f"{name}_cosine")] = (a.means @ b.means.T).cpu()
        return out.numpy()

    def _vectors(self, teacher: Teacher, rows: Sequence[int]) -> Tensor:
        vectors = np.concatenate([teacher.of(i, MEAN) for i in rows]).astype(np.float32)
        return F.normalize(torch.from_numpy(vectors).to(self.device), dim=-1)

    def _texts(self, teacher: Teacher, rows: Sequence[int]) -> _Texts:
        ids, mask = pad_rows([teacher.ids(i) for i in rows])
        states, _ = pad_rows([teacher.of(i, STATES) for i in rows])
        given = (torch.from_numpy(one).to(self.device) for one in (ids, mask, states))
        return _Texts(*given)


def target(scores: Tensor, allowed: Tensor) -> Tensor:
    """The teachers' distribution over each query's passages, (queries, passages).

    Args:
        scores: (channels, queries, passages), as `Ensemble.scores` gives them.
        allowed: (queries, passages), False where a passage is no candidate.
    """
    kept = allowed.unsqueeze(0)
    count = kept.sum(-1, keepdim=True).clamp(min=1)
    known = scores.nan_to_num(0.0)
    mean = (known * kept).sum(-1, keepdim=True) / count
    spread = ((known - mean).square() * kept).sum(-1, keepdim=True) / count
    standard = (known - mean) / spread.sqrt().clamp(min=1e-4)
    weights = torch.tensor([WEIGHTS[name] for name in CHANNELS], device=scores.device)
    weights = weights * ~scores[:, 0, 0].isnan()
    mixed = torch.einsum("c,cqp->qp", weights / weights.sum(), standard)
    return (mixed / TEMPERATURE).masked_fill(~allowed, -1e4).softmax(-1)


def inverse_document_frequency(corpus: Corpus, vocabulary: int) -> Tensor:
    """BM25's idf of every token over the training passages, shape (vocabulary,)."""
    passages = corpus.passages
    counts = np.zeros(vocabulary)
    for index in passages:
        counts[np.unique(corpus.tokens(index))] += 1
    return torch.from_numpy(np.log1p((len(passages) - counts + 0.5) / (counts + 0.5))).float()


class _Texts:
    """Texts of one side: token ids and mask, (n, tokens), and states, (n, tokens, hidden)."""

    def __init__(self, ids: Tensor, mask: Tensor, states: Tensor) -> None:
        self.ids, self.mask = ids, mask.bool()
        self.unit = F.normalize(states, dim=-1)
        self.means = F.normalize((states * mask.unsqueeze(-1)).sum(1), dim=-1)


def _best(queries: _Texts, passages: _Texts) -> Tensor:
    """Each query token's best match, (queries, passages, tokens)."""
    real = passages.mask[None, :, None, :]
    products = torch.einsum("aih,bjh->abij", queries.unit, passages.unit)
    return products.masked_fill(~real, -1.0).amax(-1)


def _maxsim(queries: _Texts, passages: _Texts, words: Tensor) -> Tensor:
    return (_best(queries, passages) * _shares(words.float()).unsqueeze(1)).sum(-1)


def _minilm(queries: _Texts, passages: _Texts, idf: Tensor) -> Tensor:
    """MaxSim of the query's words, plain and weighted by `idf`, the cosine of the mean states, and
    the idf-weighted share of words that stand in the passage as they are."""
    best = _best(queries, passages)
    equal = queries.ids[:, None, :, None] == passages.ids[None, :, None, :]
    found = (equal & passages.mask[None, :, None, :]).any(-1).to(best.dtype)
    words = queries.mask
    for special in (UNK, CLS, SEP):
        words = words & (queries.ids != special)
    plain = _shares(words.to(best.dtype)).unsqueeze(1)
    weighted = _shares(words * idf[queries.ids]).unsqueeze(1)
    maxsim = (best * plain).sum(-1) + 0.25 * (best * weighted).sum(-1)
    return maxsim + 0.5 * queries.means @ passages.means.T + 0.1 * (found * weighted).sum(-1)


def _shares(weights: Tensor) -> Tensor:
    return weights / weights.sum(-1, keepdim=True).clamp(min=1e-6)
