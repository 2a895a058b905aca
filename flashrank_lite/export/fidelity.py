"""How faithful an exported graph is: to torch, to fp32, and to itself in other company."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from flashrank_lite.encoding.collate import pad
from flashrank_lite.encoding.prompts import open_encoder
from flashrank_lite.errors import InvalidModel
from flashrank_lite.evaluation import CandidateList, kendall_tau, mean_ndcg
from flashrank_lite.export.source import Source
from flashrank_lite.export.torch_graph import run_torch
from flashrank_lite.ranker import Ranker

TORCH_TOLERANCE = 1e-3  # logits, fp32 graph against the torch module
ALONE_TOLERANCE = 1e-4  # scores, a passage alone against the same passage in a full batch
# Of the whole range of logits: a list that spans less is one that the model itself does not order
# (text in a language that it was not trained on).
LEAST_SPREAD = 0.1
LEAST_TAU = 0.8  # int8 against fp32; nano has 0.975 on lists of random passages
# Tokens times parameters of the longest texts compared: 2,048 tokens in a model of 0.6 B. For 8,192
# torch takes 4.3 GB for one matrix of its attention, and all lengths take an hour. Models of up to
# 0.15 B are compared on 8,192.
CHECKED_WORK = 1.25e12
SHORTEST_CHECKED = 512  # tokens, of larger models
BATCHES = (2, 3, 5)  # rows of the batches tried, beside single pairs

Texts = Sequence[tuple[str, Sequence[str]]]  # (query, its candidates)


def checked_length(source: Source) -> int:
    """Tokens of the longest texts to calibrate on and to compare: all it takes, if it is small."""
    parameters = sum(parameter.numel() for parameter in source.module.parameters())
    room = max(SHORTEST_CHECKED, int(CHECKED_WORK / max(1, parameters)))
    return min(source.max_length, room)


def against_torch(source: Source, fp32: Ranker, texts: Texts) -> float:
    """Largest absolute difference of logits, over passages of one word to the maximum length.

    torch reads every pair alone and unpadded, the graph reads them as the runtime batches them.

    Args:
        source: the torch module, and how its inputs are made.
        fp32: a ranker on the fp32 graph, with raw scores.
        texts: real (query, passages) lists to make pairs of.

    Raises:
        InvalidModel: the difference is larger than ``TORCH_TOLERANCE``.
    """
    relevant = (source.head or {}).get("relevant", 1)
    encoder = open_encoder(source.tokenizer, source.max_length, source.template)
    differences = []
    for query, passages in _every_length(texts, source.max_length):
        pairs = [(query, passage) for passage in passages]
        rows = [pair for chunk in encoder.chunks(pairs) for pair in chunk]
        feeds = (pad([row], source.padding, source.inputs) for row in rows)
        logits = np.concatenate([run_torch(source.module, feed, source.inputs) for feed in feeds])
        expected = logits[:, 0]
        if logits.shape[1] == 2:
            expected = logits[:, relevant] - logits[:, 1 - relevant]
        differences.append(np.abs(fp32.score_pairs(pairs) - expected).max())
    worst = float(np.max(differences))
    if not worst <= TORCH_TOLERANCE:  # NaN is not faithful either
        raise InvalidModel(
            f"the fp32 graph differs from torch by {worst:.2g} (more than {TORCH_TOLERANCE:g}): "
            "the export is not faithful, so nothing was written"
        )
    return worst


def against_fp32(fp32: Ranker, int8: Ranker, texts: Texts) -> dict[str, float]:
    """Kendall's tau (mean over the lists that fp32 orders) and largest difference of logits.

    Raises:
        InvalidModel: tau is below ``LEAST_TAU``.
    """
    exact = [fp32.score(query, passages) for query, passages in texts]
    rounded = [int8.score(query, passages) for query, passages in texts]
    spreads = np.array([np.ptp(scores) for scores in exact])
    ordered = spreads >= min(LEAST_SPREAD * np.ptp(np.concatenate(exact)), spreads.max())
    taus = np.array([kendall_tau(a, b) for a, b in zip(exact, rounded, strict=True)])
    tau = float(taus[ordered].mean())
    largest = max(float(np.abs(a - b).max()) for a, b in zip(exact, rounded, strict=True))
    if not tau >= LEAST_TAU:
        raise InvalidModel(
            f"int8 orders passages unlike fp32 (Kendall's tau {tau:.2f}, less than {LEAST_TAU}): "
            "calibrate on text like that of use, or export fp32 alone"
        )
    return {"kendall_tau": tau, "max_abs_logit": largest}


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


def table(figures: Mapping[str, Mapping[str, float]]) -> str:
    """The figures of each precision as a table of text, a column each."""
    names = list(dict.fromkeys(name for column in figures.values() for name in column))
    width = max(map(len, names))
    rows = [" " * width + "".join(f"  {precision:>10}" for precision in figures)]
    for name in names:
        cells = (column.get(name) for column in figures.values())
        shown = ("" if v is None else f"{v:.3g}" if v < 1000 else f"{v:.0f}" for v in cells)
        rows.append(f"{name:<{width}}" + "".join(f"  {cell:>10}" for cell in shown))
    return "\n".join(rows)


def _every_length(texts: Texts, max_length: int) -> Iterator[tuple[str, list[str]]]:
    """Passages of 1, 2, 3, 5, 8... words up to ``max_length``, alone and in uneven batches.

    A word is a token or more, so the longest ones fill the model and are truncated.
    """
    words = " ".join(passage for _, passages in texts for passage in passages).split()
    words *= 1 + max_length // len(words)
    lengths = [1, 2]
    while lengths[-1] < max_length:
        lengths.append(min(max_length, lengths[-1] + lengths[-2]))
    made = []
    for number, few in enumerate(lengths):
        offset = (97 * number) % (len(words) - few + 1)
        made.append(" ".join(words[offset : offset + few]))
        yield texts[number % len(texts)][0], [made[-1]]
    for number, rows in enumerate(BATCHES):
        yield texts[number % len(texts)][0], made[number :: len(BATCHES)][:rows]
        yield texts[number % len(texts)][0], made[-1 - number :: -len(BATCHES)][:rows]


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-logits.astype(np.float64)))
