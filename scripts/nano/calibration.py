"""Fit the scale of the logits: sigmoid(logit) 0.5 where relevant and not are equally likely."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import torch

from nano.lists import Lists
from nano.model import NanoRanker
from nano.stages import DEV_POOL, Reader

NEWTON_STEPS = 25
RIDGE = 1e-3  # keeps a separable sample from an infinite slope
BINS = 10  # of the expected calibration error


def calibrate(model: NanoRanker, reader: Reader, lists: Lists) -> dict[str, dict[str, float]]:
    """Fit slope and offset on the held-out rows of every source and fold them into the head.

    A held-out question is scored with its answer and the pool of its group: passages near to it and
    to its neighbours, and a few at random. Every source has the same weight, and within one the
    relevant pairs and the others have (Platt, 1999). The order of scores does not change.

    Returns:
        By source, and for all of them as `mean`: `ece`, the expected calibration error, and
        `over_half`, the share of answers with a score over 0.5, and `wrong_over_half`; as `fit`
        the slope and the offset.
    """
    pairs = _pairs(model, reader, lists)
    if not pairs:
        raise SystemExit("calibration needs held-out rows with labels below --data")
    logits, labels, weights = [], [], []
    for found, relevant in pairs.values():
        logits.append(found)
        labels.append(relevant)
        weights.append(_weights(relevant))
    slope, offset = _fit(*map(np.concatenate, (logits, labels, weights)))
    head = model.head
    with torch.no_grad():
        head.linear.weight.mul_(slope)
        head.linear.bias.mul_(slope).add_(offset)
    figures = {
        source: _figures(slope * found + offset, relevant)
        for source, (found, relevant) in pairs.items()
    }
    mean = {
        name: float(np.mean([one[name] for one in figures.values()]))
        for name in next(iter(figures.values()))
    }
    return {**figures, "mean": mean, "fit": {"slope": slope, "offset": offset}}


def _pairs(
    model: NanoRanker, reader: Reader, lists: Lists
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By source, the logits of its held-out pairs and whether they are relevant."""
    of: dict[str, list[tuple[np.ndarray, np.ndarray]]] = defaultdict(list)
    device = model.word.weight.device
    rng = np.random.default_rng(0)
    with torch.inference_mode():
        for group in lists.dev():
            batch = lists.batch(group, DEV_POOL, rng, device, dev=True)
            if not batch.positives.any():
                continue
            logits = reader.logits(batch.queries, batch.passages)
            for r, number in enumerate(group.rows):
                if not batch.positives[r].any():
                    continue
                asked = batch.allowed[r]
                of[lists.corpus.dev[int(number)].source].append(
                    (logits[r, asked].cpu().numpy(), (batch.positives[r, asked] > 0).cpu().numpy())
                )
    return {
        source: (np.concatenate([a for a, _ in found]), np.concatenate([b for _, b in found]))
        for source, found in sorted(of.items())
    }


def _weights(relevant: np.ndarray) -> np.ndarray:
    """Equal in all for the relevant pairs and the others, and 1 together."""
    weights: np.ndarray = np.where(relevant, 0.5 / relevant.sum(), 0.5 / (~relevant).sum())
    return weights


def _figures(logits: np.ndarray, relevant: np.ndarray) -> dict[str, float]:
    probability = 1 / (1 + np.exp(-logits))
    weights = _weights(relevant)
    bins = np.minimum((probability * BINS).astype(int), BINS - 1)
    error = sum(
        abs(float((weights * (probability - relevant))[bins == one].sum())) for one in range(BINS)
    )
    over = probability > 0.5
    return {
        "ece": error,
        "over_half": float(over[relevant].mean()),
        "wrong_over_half": float(over[~relevant].mean()),
    }


def _fit(logits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    x = np.stack([logits, np.ones_like(logits)], 1).astype(np.float64)
    weights = weights / weights.mean()
    beta = np.zeros(2)
    for _ in range(NEWTON_STEPS):
        p = 1 / (1 + np.exp(-np.clip(x @ beta, -30, 30)))
        gradient = x.T @ (weights * (p - labels)) + RIDGE * beta
        hessian = (x * (weights * p * (1 - p))[:, None]).T @ x + RIDGE * np.eye(2)
        beta -= np.linalg.solve(hessian, gradient)
    if beta[0] <= 0:
        raise SystemExit("calibration: higher logits are not more relevant: training has failed")
    return float(beta[0]), float(beta[1])
