"""Lengths in, a plan out: which rows share a batch, and how batches share the threads.

Padding costs as much as text, and on a CPU a big batch is no faster per token than a small one, so
small batches of nearly equal lengths are both the quickest and the leanest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

# MiniLM-L6, 2 cores, 100 passages of 33 to 260 tokens: one padded batch 3,945 ms; sorted under 512
# tokens 840 ms.
BATCH_TOKENS = 512
# Batches for each worker, at the least, so that none waits long for the last one. Ten passages on
# two workers: 40 ms with 4 or 8, 46 with 2, 53 with 1.
BATCHES_A_WORKER = 4
# A run of less than this is mostly overhead: ten passages of 30 tokens on two workers, each alone
# and in batches of 128 tokens: 15.0 and 10.5 ms (bundled model), 19.7 and 16.7 (MiniLM-L6 int8).
LEAST_TOKENS = 128
# Rows of at least this many tokens gain from all threads. MiniLM-L6 int8 on one and on two cores,
# after a pause: 5.5 and 5.4 ms for 64 tokens, 21.5 and 21.6 for 256, 38 and 25 for 384, 58 and 34
# for 512.
LONG_ROW_TOKENS = 320


@dataclass(frozen=True, slots=True)
class Plan:
    """How rows are run.

    Attributes:
        batches: rows of each batch, the longest first, which minimises the time of all.
        workers: batches that run at the same time, a thread each.
        all_threads: a batch that runs alone may have all threads.
    """

    batches: tuple[tuple[int, ...], ...]
    workers: int
    all_threads: bool


def plan(
    lengths: Sequence[int], *, budget: int = BATCH_TOKENS, workers: int = 1, alone: bool = False
) -> Plan:
    """Decide how rows of these lengths are run.

    Args:
        lengths: tokens of each row.
        budget: padded tokens of all batches that run at the same time; a row that exceeds it is a
            batch of its own.
        workers: batches that may run at the same time.
        alone: every row is a batch of its own.

    Returns:
        Each row in one batch; sorted by length, so that a batch's rows are nearly equal.
    """
    if workers == 1 or not _gains_from_workers(lengths, workers):
        return Plan(_batches(lengths, 0 if alone else budget), 1, True)
    # On a single thread a batch is no faster per token than a row alone, so small ones cost nothing
    # (MiniLM-L6 int8, 100 passages: 857 ms in batches of 128 tokens, 873 in batches of 512).
    share = max(LEAST_TOKENS, sum(lengths) // (workers * BATCHES_A_WORKER))
    batches = _batches(lengths, 0 if alone else min(budget // workers, share))
    return Plan(batches, min(workers, len(batches)), False)


def _gains_from_workers(lengths: Sequence[int], workers: int) -> bool:
    """Whether rows of these lengths are quicker side by side than one after the other.

    Side by side they take as long as the longest row at least. One after the other, each on all
    threads, a long one is up to 1.7 times as fast on two cores as on one; more cores are taken to
    scale with the root of their number. A short one wins nothing.
    """
    longest = max(lengths, default=0)
    return longest < LONG_ROW_TOKENS or longest * sqrt(workers) <= sum(lengths)


def _batches(lengths: Sequence[int], budget: int) -> tuple[tuple[int, ...], ...]:
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    batches = []
    start = 0
    while start < len(order):
        longest = max(1, lengths[order[start]])
        rows = max(1, budget // longest)
        batches.append(tuple(order[start : start + rows]))
        start += rows
    return tuple(batches)
