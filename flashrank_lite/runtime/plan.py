"""Lengths in, batches out: sorted by true token length, under a token budget.

Padding costs as much as text, and on a CPU a big batch is no faster per token than a small one, so
small batches of nearly equal lengths are both the quickest and the leanest.
"""

from collections.abc import Iterator, Sequence
from math import sqrt

# MiniLM-L6, 2 cores, 100 passages of 33 to 260 tokens: one padded batch 3,945 ms; sorted under 512
# tokens 840 ms.
BATCH_TOKENS = 512
# Batches for each lane, at the least, so that none waits long for the last one. Ten passages on two
# lanes: 40 ms with 4 or 8, 46 with 2, 53 with 1.
BATCHES_A_LANE = 4
# But a run of less than this is mostly overhead: ten passages of 30 tokens on two lanes, each alone
# and in batches of 128 tokens: 15.0 and 10.5 ms (bundled model), 19.7 and 16.7 (MiniLM-L6 int8).
LEAST_TOKENS = 128
# Of a row for which all threads are worth waking. MiniLM-L6 int8 on one and on two cores, after a
# pause: 5.5 and 5.4 ms for 64 tokens, 21.5 and 21.6 for 256, 38 and 25 for 384, 58 and 34 for 512.
WIDE_TOKENS = 320


def lane_budget(lengths: Sequence[int], budget: int, lanes: int) -> int:
    """Padded tokens of a batch where `lanes` batches are run at the same time.

    All lanes together keep to `budget`. On a single thread a batch is no faster per token than a
    row alone, so small ones cost nothing (MiniLM-L6 int8, 100 passages: 857 ms in batches of 128
    tokens, 873 in batches of 512).

    Args:
        lengths: tokens of each row.
        budget: padded tokens of all batches that are run at the same time.
        lanes: how many these are.
    """
    return min(budget // lanes, max(LEAST_TOKENS, sum(lengths) // (lanes * BATCHES_A_LANE)))


def suits_lanes(lengths: Sequence[int], lanes: int) -> bool:
    """Whether rows of these lengths are quicker side by side than one after the other.

    Side by side they take as long as the longest row at least. One after the other, each on all
    threads, a long one is up to 1.7 times as fast on two cores as on one; more cores are taken to
    scale with the root of their number. A short one wins nothing.
    """
    longest = max(lengths, default=0)
    return longest < WIDE_TOKENS or longest * sqrt(lanes) <= sum(lengths)


def batches(lengths: Sequence[int], budget: int = BATCH_TOKENS) -> Iterator[list[int]]:
    """Group rows so that rows x longest row stays within the budget.

    Args:
        lengths: tokens of each row.
        budget: padded tokens of a batch; a single row may exceed it, alone. 0 puts every row alone.

    Yields:
        Indices into `lengths`, longest rows first; together each index exactly once.
    """
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    start = 0
    while start < len(order):
        longest = max(1, lengths[order[start]])
        rows = max(1, budget // longest)
        yield order[start : start + rows]
        start += rows
