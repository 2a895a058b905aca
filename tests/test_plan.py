"""Which rows share a batch, and how batches share the threads."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashrank_lite.runtime.plan import plan

LENGTHS = st.lists(st.integers(1, 600), max_size=200)
BUDGETS = st.integers(1, 20_000)
WORKERS = st.integers(1, 64)


def padded(batch: tuple[int, ...], lengths: list[int]) -> int:
    return len(batch) * max(lengths[row] for row in batch)


@given(LENGTHS, BUDGETS, WORKERS, st.booleans())
def test_every_row_is_in_exactly_one_batch(
    lengths: list[int], budget: int, workers: int, alone: bool
) -> None:
    found = plan(lengths, budget=budget, workers=workers, alone=alone)
    assert sorted(row for batch in found.batches for row in batch) == list(range(len(lengths)))
    assert not alone or all(len(batch) == 1 for batch in found.batches)


@given(LENGTHS, BUDGETS, WORKERS)
def test_what_runs_at_the_same_time_keeps_to_the_budget_but_for_single_rows(
    lengths: list[int], budget: int, workers: int
) -> None:
    found = plan(lengths, budget=budget, workers=workers)
    sizes = sorted(padded(batch, lengths) for batch in found.batches if len(batch) > 1)
    assert sum(sizes[-found.workers :] if found.workers else []) <= budget


@given(LENGTHS, BUDGETS, WORKERS)
def test_longer_rows_come_first_and_equal_ones_in_order(
    lengths: list[int], budget: int, workers: int
) -> None:
    rows = [row for b in plan(lengths, budget=budget, workers=workers).batches for row in b]
    assert rows == sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))


def test_a_row_over_the_budget_is_a_batch_of_its_own() -> None:
    assert plan([3, 900, 5], budget=16).batches == ((1,), (2, 0))


def test_short_rows_share_a_batch_and_no_rows_make_none() -> None:
    assert plan([100] * 6, budget=512).batches == ((0, 1, 2, 3, 4), (5,))
    assert plan([], budget=512, workers=4).batches == ()


def test_padding_is_under_a_tenth_of_the_text_by_default() -> None:
    lengths = [33 + i * 227 // 99 for i in range(100)]
    total = sum(padded(batch, lengths) for batch in plan(lengths).batches)
    assert total < 1.1 * sum(lengths)
    assert len(lengths) * max(lengths) > 1.5 * sum(lengths)  # what one batch would cost


@given(st.integers(1, 319), st.integers(1, 500), BUDGETS, st.integers(2, 64))
def test_every_worker_has_several_batches_where_there_are_rows_for_it(
    length: int, rows: int, budget: int, workers: int
) -> None:
    found = plan([length] * rows, budget=budget, workers=workers)
    full = rows // max(1, 128 // length)  # a batch of less than 128 tokens is mostly overhead
    assert len(found.batches) >= min(full, 4 * workers)


def test_short_rows_share_a_batch_rather_than_make_more_of_them() -> None:
    found = plan([40] * 10, budget=512, workers=2)
    assert found.batches == ((0, 1, 2), (3, 4, 5), (6, 7, 8), (9,))


@pytest.mark.parametrize(
    ("lengths", "workers", "side_by_side"),
    [
        ([400, 400], 2, True),
        ([400], 2, False),  # one row, and all threads for it
        ([400, 40], 2, False),  # one is nearly all of the work
        ([400, 400, 400], 16, False),
        ([400, 400, 400, 400], 16, True),
        ([300], 16, True),  # short rows gain nothing from all threads
        ([300, 20], 2, True),
        ([400, 400], 1, False),
    ],
)
def test_batches_run_side_by_side_unless_a_long_row_outlasts_the_others(
    lengths: list[int], workers: int, side_by_side: bool
) -> None:
    found = plan(lengths, workers=workers)
    assert found.all_threads is not side_by_side
    assert found.workers == (min(workers, len(found.batches)) if side_by_side else 1)


@given(LENGTHS, st.integers(2, 64))
def test_more_of_the_same_fill_the_workers_and_one_dwarfing_row_takes_all_threads(
    lengths: list[int], workers: int
) -> None:
    longest = max(lengths, default=1)
    assert not plan([*lengths, *[longest] * workers], workers=workers).all_threads
    assert plan([*lengths, 2 * sum(lengths) * workers + 600], workers=workers).all_threads
