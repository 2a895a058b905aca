"""Cascades and early pruning, over scorers of the tests' own."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scorers import Given, SharedWordsInWindows

from flashrank_lite.errors import InvalidInput
from flashrank_lite.scorer import Candidates
from flashrank_lite.strategies import Cascade, EarlyPruning, Fusion

LOGITS = st.lists(
    st.tuples(st.integers(-5, 5), st.integers(-5, 5), st.integers(-5, 5)), max_size=12
)


def candidates(count: int) -> Candidates:
    return Candidates("q", [f"passage {number}" for number in range(count)])


def given_by(logits: list[tuple[int, ...]], column: int) -> Given:
    return Given({f"passage {n}": float(row[column]) for n, row in enumerate(logits)})


@given(logits=LOGITS, keep=st.integers(1, 14))
def test_the_strong_scorer_orders_what_the_cheap_one_leaves_and_nothing_else(
    logits: list[tuple[int, ...]], keep: int
) -> None:
    cheap, strong = given_by(logits, 0), given_by(logits, 1)
    (scores,) = Cascade([cheap, strong], keep=[keep]).score([candidates(len(logits))])
    by_cheap = sorted(range(len(logits)), key=lambda n: -logits[n][0])
    kept, below = sorted(by_cheap[:keep]), by_cheap[keep:]
    expected = [*sorted(kept, key=lambda n: -logits[n][1]), *below]
    assert scores.order().tolist() == expected
    assert [list(one.texts) for one in strong.asked[0]] == [[f"passage {n}" for n in kept]]
    for number, row in enumerate(logits):
        assert scores.stages[number] == (number in kept)
        assert scores.logits[number] == row[1 if number in kept else 0]


@given(logits=LOGITS)
def test_three_scorers_each_read_less(logits: list[tuple[int, ...]]) -> None:
    scorers = [given_by(logits, column) for column in range(3)]
    whole = candidates(len(logits))
    (scores,) = Cascade(scorers, keep=[5, 2]).score([whole])
    # the same, as a cascade of a cascade
    (nested,) = Cascade([scorers[0], Cascade(scorers[1:], keep=[2])], keep=[5]).score([whole])
    (other,) = Cascade([Cascade(scorers[:2], keep=[5]), scorers[2]], keep=[2]).score([whole])
    for one in (nested, other):
        np.testing.assert_array_equal(one.order(), scores.order())
        np.testing.assert_array_equal(one.logits, scores.logits)
    assert np.bincount(scores.stages, minlength=3).tolist() == [
        max(0, len(logits) - 5),
        max(0, min(5, len(logits)) - 2),
        min(2, len(logits)),
    ]


def test_lists_are_cut_each_by_itself() -> None:
    logits = [(n, -n, 0) for n in range(6)]
    cheap, strong = given_by(logits, 0), given_by(logits, 1)
    short, empty = candidates(2), candidates(0)
    scored = Cascade([cheap, strong], keep=[3]).score([candidates(6), empty, short])
    assert [one.order().tolist() for one in scored] == [[3, 4, 5, 2, 1, 0], [], [0, 1]]
    assert len(strong.asked) == 1  # all lists in one call, so that they share batches


def test_a_blend_of_the_cheap_scorer_orders_below_the_cut() -> None:
    logits = [(0, 9, 0), (1, 8, 0), (2, 7, 0), (3, 6, 0)]
    whole = Candidates("q", candidates(4).texts, np.array([4, 3, 2, 1], np.float32))
    blend = Fusion(given_by(logits, 0), "linear", weight=0.0)  # the first stage's order alone
    (scores,) = Cascade([blend, given_by(logits, 1)], keep=[2]).score([whole])
    assert scores.order().tolist() == [0, 1, 2, 3]
    assert np.isnan(scores.fused).tolist() == [True, True, False, False]


def test_an_instruction_goes_to_the_scorers_that_take_one() -> None:
    logits = [(0, 1, 0)]
    told = Given({"passage 0": 0.0}, instruction="default")
    plain = given_by(logits, 0)
    Cascade([plain, told], keep=[1]).score([candidates(1)], instruction="look for fleas")
    assert plain.instructions == [None]
    assert told.instructions == ["look for fleas"]
    within = Cascade([plain, Cascade([plain, told], keep=[1])], keep=[1])
    within.score([candidates(1)], instruction="look for ticks")
    assert told.instructions[-1] == "look for ticks"


def test_the_stack_is_in_info_and_closes() -> None:
    cheap, strong = Given({}, name="cheap"), Given({}, name="strong")
    cascade = Cascade([cheap, strong], keep=[np.int64(7).item()])
    info = cascade.info()
    assert info["model"] == "cheap"
    assert [(one["keep"], one["model"]) for one in info["then"]] == [(7, "strong")]
    cascade.close()
    assert cheap.closed
    assert strong.closed


@pytest.mark.parametrize(
    ("scorers", "keep", "said"),
    [
        (1, [], "two scorers"),
        (2, [], "two scorers"),
        (3, [5], "two scorers"),
        (2, [0], "keep"),
        (2, [None], "keep"),
        (3, [5, 6], "grows"),
    ],
)
def test_arguments_that_make_no_cascade_are_named(scorers: int, keep: list, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        Cascade([Given({})] * scorers, keep)


# Early pruning: the scorer gives the share of asked words among the words it reads


@pytest.fixture
def passages() -> Candidates:
    rest = ["flea word", "word word"]
    texts = [f"{'flea ' * n}{'word ' * (12 - n)}" + rest[n % 2] for n in range(12)]
    return Candidates("flea", [*texts, "flea", "word"])


def test_with_a_wide_margin_nothing_is_pruned(passages: Candidates) -> None:
    scorer = SharedWordsInWindows(room=100)
    (whole,) = scorer.score([passages])
    (scores,) = EarlyPruning(scorer, top_k=3, tokens=12, margin=10).score([passages])
    np.testing.assert_array_equal(scores.logits, whole.logits)
    np.testing.assert_array_equal(scores.order(), whole.order())
    assert not scores.truncated.any()


@pytest.mark.parametrize("top_k", [1, 3, 5])
def test_the_best_are_those_of_the_scorer_where_the_bound_holds(
    passages: Candidates, top_k: int
) -> None:
    scorer = SharedWordsInWindows(room=100)
    (whole,) = scorer.score([passages])
    beginning = SharedWordsInWindows(room=12).score([passages])[0]
    margin = 2 * float(np.abs(whole.logits - beginning.logits).max())
    scorer.asked.clear()
    (scores,) = EarlyPruning(scorer, top_k, tokens=12, margin=margin).score([passages])
    np.testing.assert_array_equal(scores.order()[:top_k], whole.order()[:top_k])
    read_whole = scorer.asked[-1][0].texts
    assert 0 < len(read_whole) < len(passages.texts)
    assert "flea" not in read_whole  # it fits into its beginning: once is enough
    pruned = scores.stages == 0
    assert pruned.any()
    np.testing.assert_array_equal(scores.logits[pruned], beginning.logits[pruned])


def test_what_only_its_beginning_was_read_of_counts_as_truncated(passages: Candidates) -> None:
    scorer = SharedWordsInWindows(room=100)
    (scores,) = EarlyPruning(scorer, top_k=1, tokens=12, margin=0).score([passages])
    long = np.array([len(text.split()) > 12 for text in passages.texts])
    np.testing.assert_array_equal(scores.truncated, long & (scores.stages == 0))


def test_a_list_of_at_most_top_k_is_read_whole(passages: Candidates) -> None:
    scorer = SharedWordsInWindows(room=100)
    few = Candidates("flea", passages.texts[:3])
    (scores,) = EarlyPruning(scorer, top_k=3, tokens=12, margin=0).score([few])
    np.testing.assert_array_equal(scores.logits, scorer.score([few])[0].logits)


@pytest.mark.parametrize("options", [{"top_k": 0}, {"tokens": 0}, {"margin": -1.0}])
def test_arguments_out_of_range_are_named(options: dict[str, float]) -> None:
    with pytest.raises(InvalidInput, match=next(iter(options))):
        EarlyPruning(SharedWordsInWindows(), **options)
