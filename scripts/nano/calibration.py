"""Fit the scale of the logits: sigmoid(logit) 0.5 where relevant and not are equally likely."""

from __future__ import annotations

import numpy as np
import torch

from nano.data import Corpus, Row, pad_rows
from nano.mining import Candidates
from nano.model import NanoRanker

NEGATIVES = 20  # of a held-out question, half of them hard: enough for two numbers
NEWTON_STEPS = 25
RIDGE = 1e-3  # keeps a separable sample from an infinite slope


def calibrate(model: NanoRanker, corpus: Corpus, candidates: Candidates) -> dict[str, float]:
    """Fit slope and offset on the held-out rows and fold them into the head (Platt, 1999).

    Each held-out question is scored with its answer, passages of other questions and the teacher's
    nearest ones. Relevant pairs and the others have equal total weight. The order of scores does
    not change.

    Returns:
        slope, offset, and the MRR@10 of the held-out questions over those passages.
    """
    if not corpus.dev:
        raise SystemExit("calibration needs held-out rows: the set nq_oracle must be below --data")
    logits, labels, reciprocal = [], [], []
    for number, row in enumerate(corpus.dev):
        hard = candidates.hard_negatives(number, NEGATIVES // 2)
        others = [i for i in row.negatives if i not in hard][: NEGATIVES // 2]
        passages = [*row.positives, *hard, *others]
        scores = pair_logits(model, corpus, row, passages)
        relevant = np.arange(len(passages)) < len(row.positives)
        rank = 1 + int((scores[~relevant] >= scores[relevant].max()).sum())
        reciprocal.append(1 / rank if rank <= 10 else 0.0)
        logits.append(scores)
        labels.append(relevant)
    slope, offset = _fit(np.concatenate(logits), np.concatenate(labels))
    head = model.head
    with torch.no_grad():
        head.linear.weight.mul_(slope)
        head.linear.bias.mul_(slope).add_(offset)
    return {"slope": slope, "offset": offset, "dev_mrr@10": float(np.mean(reciprocal))}


def pair_logits(model: NanoRanker, corpus: Corpus, row: Row, passages: list[int]) -> np.ndarray:
    """Logits of a row's query with `passages`, through the pair input that ships."""
    query = pad_rows([corpus.tokens(row.query)])
    texts = pad_rows([corpus.tokens(p)[1:] for p in passages])
    with torch.inference_mode():
        return model(*map(torch.from_numpy, (*query, *texts)))[:, 0].numpy()


def _fit(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    x = np.stack([logits, np.ones_like(logits)], 1).astype(np.float64)
    weights = np.where(labels, 0.5 / labels.sum(), 0.5 / (~labels).sum()) * len(labels)
    beta = np.zeros(2)
    for _ in range(NEWTON_STEPS):
        p = 1 / (1 + np.exp(-np.clip(x @ beta, -30, 30)))
        gradient = x.T @ (weights * (p - labels)) + RIDGE * beta
        hessian = (x * (weights * p * (1 - p))[:, None]).T @ x + RIDGE * np.eye(2)
        beta -= np.linalg.solve(hessian, gradient)
    if beta[0] <= 0:
        raise SystemExit("calibration: higher logits are not more relevant: training has failed")
    return float(beta[0]), float(beta[1])
