import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashrank_lite.runtime.plan import BATCH_TOKENS, batches, lane_budget, suits_lanes

LENGTHS = st.lists(st.integers(1, 600), max_size=200)
LANES = st.integers(1, 64)


@given(LENGTHS, st.integers(1, 2000))
def test_every_row_is_in_exactly_one_batch(lengths: list[int], budget: int) -> None:
    rows = [row for batch in batches(lengths, budget) for row in batch]
    assert sorted(rows) == list(range(len(lengths)))


@given(LENGTHS, st.integers(1, 2000))
def test_a_batch_keeps_to_the_budget_unless_it_is_one_row(lengths: list[int], budget: int) -> None:
    for batch in batches(lengths, budget):
        padded = len(batch) * max(lengths[row] for row in batch)
        assert padded <= budget or len(batch) == 1


@given(LENGTHS, st.integers(1, 2000))
def test_longer_rows_come_first_and_equal_ones_in_order(lengths: list[int], budget: int) -> None:
    rows = [row for batch in batches(lengths, budget) for row in batch]
    assert rows == sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))


def test_a_budget_of_zero_puts_every_row_alone() -> None:
    assert list(batches([3, 9, 5], 0)) == [[1], [2], [0]]


def test_short_rows_share_a_batch_and_no_rows_make_none() -> None:
    assert list(batches([100] * 6, 512)) == [[0, 1, 2, 3, 4], [5]]
    assert list(batches([], 512)) == []


@pytest.mark.parametrize("lengths", [[33 + i * 227 // 99 for i in range(100)]])
def test_padding_is_under_a_tenth_of_the_text_by_default(lengths: list[int]) -> None:
    padded = sum(
        len(batch) * max(lengths[row] for row in batch) for batch in batches(lengths, BATCH_TOKENS)
    )
    assert padded < 1.1 * sum(lengths)
    assert len(lengths) * max(lengths) > 1.5 * sum(lengths)  # what one batch would cost


@given(LENGTHS, st.integers(1, 20_000), LANES)
def test_lanes_together_keep_to_the_budget_but_for_single_rows(
    lengths: list[int], budget: int, lanes: int
) -> None:
    found = list(batches(lengths, lane_budget(lengths, budget, lanes)))
    padded = [len(rows) * max(lengths[row] for row in rows) for rows in found if len(rows) > 1]
    assert sum(sorted(padded)[-lanes:]) <= budget  # whichever of them run at the same time
    assert sorted(row for rows in found for row in rows) == list(range(len(lengths)))


@given(st.integers(1, 600), st.integers(1, 500), st.integers(1, 20_000), st.integers(2, 64))
def test_every_lane_has_several_batches_where_there_are_rows_for_it(
    length: int, rows: int, budget: int, lanes: int
) -> None:
    lengths = [length] * rows
    found = list(batches(lengths, lane_budget(lengths, budget, lanes)))
    full = rows // max(1, 128 // length)  # a batch of less than 128 tokens is mostly overhead
    assert len(found) >= min(full, 4 * lanes)


def test_short_rows_share_a_batch_rather_than_fill_more_of_them() -> None:
    assert list(batches([40] * 10, lane_budget([40] * 10, 512, 2))) == [
        [0, 1, 2],
        [3, 4, 5],
        [6, 7, 8],
        [9],
    ]


@given(LENGTHS, LANES)
def test_a_budget_of_nothing_is_every_row_alone_on_any_lanes(
    lengths: list[int], lanes: int
) -> None:
    assert lane_budget(lengths, 0, lanes) == 0
    assert list(batches([], lane_budget([], 512, lanes))) == []


@given(LENGTHS, st.integers(2, 64))
def test_rows_suit_lanes_unless_a_long_one_outlasts_the_others(
    lengths: list[int], lanes: int
) -> None:
    assert suits_lanes([400] * lanes, lanes)
    assert not suits_lanes([400], lanes)
    longest, others = max(lengths, default=1), sum(lengths)
    assert suits_lanes([*lengths, *[longest] * lanes], lanes)  # more of the same fill the lanes
    dwarfing = 2 * others * lanes + 600
    assert not suits_lanes([*lengths, dwarfing], lanes)


def test_few_rows_on_many_lanes_are_one_batch_on_all_threads() -> None:
    assert not suits_lanes([400, 400, 400], 16)
    assert suits_lanes([400, 400, 400, 400], 16)
    assert suits_lanes([400, 40], 1)
    assert suits_lanes([], 4)


def test_short_rows_never_wake_all_threads() -> None:
    assert suits_lanes([300], 16)
    assert suits_lanes([300, 20], 2)
