"""How faithful an exported graph is: to torch, to fp32, and to itself in other company."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from flashrank_lite.encoding import PairEncoder, pad
from flashrank_lite.errors import InvalidModel
from flashrank_lite.evaluation import CandidateList, kendall_tau, mean_ndcg
from flashrank_lite.export.torch_graph import run_torch
from flashrank_lite.ranker import Ranker

TORCH_TOLERANCE = 1e-3  # logits, fp32 graph against the torch module
ALONE_TOLERANCE = 1e-4  # scores, a passage alone against the same passage in a full batch
LEAST_TAU = 0.8  # int8 against fp32; nano has 0.945 on lists of random passages
LENGTHS = (1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 509)  # words of the passages tried

Texts = Sequence[tuple[str, Sequence[str]]]  # (query, its candidates)


def against_torch(
    module: torch.nn.Module,
    inputs: tuple[str, ...],
    relevant: int,
    fp32: Ranker,
    encoder: PairEncoder,
    texts: Texts,
) -> float:
    """Largest absolute difference of logits, over passages of one word to the maximum length.

    torch reads every pair alone and unpadded, the graph reads them as the runtime batches them.

    Args:
        module: the torch module.
        inputs: names of its inputs.
        relevant: of two classes, the index of the relevant one.
        fp32: a ranker on the fp32 graph, with raw scores.
        encoder: tokenises pairs as ``fp32`` does.
        texts: real (query, passages) lists to make pairs of.

    Raises:
        InvalidModel: the difference is larger than ``TORCH_TOLERANCE``.
    """
    differences = []
    for query, passages in _every_length(texts):
        pairs = [encoder.pair(encoder.query(query), encoder.passage(p)) for p in passages]
        alone = [run_torch(module, pad([pair], 0, inputs), inputs) for pair in pairs]
        logits = np.concatenate(alone)
        expected = logits[:, 0]
        if logits.shape[1] == 2:
            expected = logits[:, relevant] - logits[:, 1 - relevant]
        found = fp32.score_pairs([(query, p) for p in passages])
        differences.append(np.abs(found - expected).max())
    worst = float(np.max(differences))
    if not worst <= TORCH_TOLERANCE:  # NaN is not faithful either
        raise InvalidModel(
            f"the fp32 graph differs from torch by {worst:.2g} (more than {TORCH_TOLERANCE:g}): "
            "the export is not faithful, so nothing was written"
        )
    return worst


def against_fp32(fp32: Ranker, int8: Ranker, texts: Texts) -> dict[str, float]:
    """Kendall's tau (mean over candidate lists) and largest difference of logits.

    Raises:
        InvalidModel: tau is below ``LEAST_TAU``.
    """
    taus, differences = [], []
    for query, passages in texts:
        a, b = fp32.score(query, passages), int8.score(query, passages)
        taus.append(kendall_tau(a, b))
        differences.append(np.abs(a - b).max())
    tau = float(np.mean(taus))
    if not tau >= LEAST_TAU:
        raise InvalidModel(
            f"int8 orders passages unlike fp32 (Kendall's tau {tau:.2f}, less than {LEAST_TAU}): "
            "calibrate on text like that of use, or export fp32 alone"
        )
    return {"kendall_tau": tau, "max_abs_logit": float(np.max(differences))}


def alone_against_batch(ranker: Ranker, texts: Texts) -> float:
    """Largest difference of sigmoid scores between a passage alone and in its list.

    Raises:
        InvalidModel: it is larger than ``ALONE_TOLERANCE``.
    """
    differences = []
    for query, passages in texts:
        together = _sigmoid(ranker.score(query, passages))
        alone = _sigmoid(np.concatenate([ranker.score(query, [p]) for p in passages]))
        differences.append(np.abs(together - alone).max())
    worst = float(np.max(differences))
    if not worst <= ALONE_TOLERANCE:
        raise InvalidModel(
            f"a passage's score changes by {worst:.2g} with its neighbours (more than "
            f"{ALONE_TOLERANCE:g}): the graph mixes rows of a batch, so nothing was written"
        )
    return worst


def quality(ranker: Ranker, lists: Sequence[CandidateList]) -> float:
    """nDCG@10 on labelled candidate lists."""
    return mean_ndcg(lists, [ranker.score(c.query, c.texts) for c in lists])


def table(figures: Mapping[str, float]) -> str:
    """The figures as lines of text."""
    width = max(map(len, figures))
    return "\n".join(f"{name:<{width}}  {value:.3g}" for name, value in figures.items())


def _every_length(texts: Texts) -> Iterator[tuple[str, list[str]]]:
    words = " ".join(p for _, passages in texts for p in passages).split()
    for number, (query, _) in enumerate(texts[: len(LENGTHS)]):
        few = LENGTHS[number % len(LENGTHS)]
        offset = (97 * number) % max(1, len(words) - few)
        passage = " ".join(words[offset : offset + few])
        yield query, [passage]
        yield query, [passage, *(" ".join(words[:n]) for n in LENGTHS[::4])]


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-logits.astype(np.float64)))
