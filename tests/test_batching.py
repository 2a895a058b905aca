import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashrank_lite.batching import BATCH_TOKENS, batches

LENGTHS = st.lists(st.integers(1, 600), max_size=200)


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
