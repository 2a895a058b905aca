"""Long passages in windows: over a small scorer of the tests' own, and over the bundled model."""

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scorers import SharedWords, SharedWordsInWindows

from flashrank_lite.errors import InvalidInput
from flashrank_lite.scorer import Candidates, Scores
from flashrank_lite.strategies import Windows

WORDS = st.sampled_from(["flea", "a", "Ende.", "war!", "why?", "x" * 30, 'so."'])
GAPS = st.sampled_from([" ", "  ", "\n", "\n\n", "\t"])
# each word has its number, so that a window lies in one place alone
TEXTS = st.lists(st.tuples(WORDS, GAPS), max_size=80).map(
    lambda parts: "".join(f"{number}{word}{gap}" for number, (word, gap) in enumerate(parts))
)
FLEAS = Candidates("fleas live", ["fleas live long", "dogs sleep " * 9 + "but fleas live on"])


class Recording(SharedWordsInWindows):
    """What was read, beside what is scored."""

    def windows_of(self, number: int) -> list[str]:
        return [text for lists in self.asked for text in lists[number].texts]


def read(text: str, room: int = 8, **options: Any) -> tuple[list[str], Scores]:
    scorer = Recording(room)
    (scores,) = Windows(scorer, **{"size": None, **options}).score([Candidates("flea", [text])])
    return scorer.windows_of(0), scores


@given(text=TEXTS, room=st.integers(1, 12), stride=st.integers(1, 12))
def test_windows_cover_the_passage_and_each_fits_the_model(
    text: str, room: int, stride: int
) -> None:
    windows, scores = read(text, room, size=room, stride=min(stride, room), max_windows=None)
    assert not scores.truncated.any()
    end = 0
    for window in windows:
        assert len(re.findall(r"\w+", window)) <= room
        start = text.index(window)
        # nothing between two windows but what is no token
        assert not re.search(r"\w", text[end:start])
        end = max(end, start + len(window))
    assert end == len(text)


@given(text=TEXTS, room=st.integers(1, 12))
def test_the_span_is_that_of_the_window_with_the_score(text: str, room: int) -> None:
    windows, scores = read(text, room, max_windows=None)
    (start, end), (logit,) = scores.spans[0], scores.logits
    assert 0 <= start <= end <= len(text)
    assert text[start:end] in windows
    alone = SharedWords(room).score([Candidates("flea", [text[start:end]])])[0]
    assert alone.logits[0] == logit


def test_words_in_the_last_line_are_found() -> None:
    plain = SharedWordsInWindows().score([FLEAS])[0]
    windowed = Windows(SharedWordsInWindows(), size=None).score([FLEAS])[0]
    assert plain.logits[1] == 0
    assert windowed.logits[1] > 0
    start, end = windowed.spans[1]
    assert FLEAS.texts[1][start:end].endswith("fleas live on")


def test_passages_that_fit_are_handed_on_as_they_came() -> None:
    scorer = Recording(room=30)
    lists = [FLEAS, Candidates("dogs", [" two\n", "", "dogs"])]
    without = SharedWords(room=30).score(lists)
    for scores, plain in zip(Windows(scorer, size=None).score(lists), without, strict=True):
        np.testing.assert_array_equal(scores.logits, plain.logits)
    assert [one.texts for one in scorer.asked[0]] == [one.texts for one in lists]
    assert len(scorer.asked) == 1


def test_windows_end_with_a_sentence_in_their_last_quarter() -> None:
    text = "one two three four five six seven. Eight nine ten eleven twelve."
    windows, _ = read(text, room=8, stride=8)
    assert windows == ["one two three four five six seven.", "Eight nine ten eleven twelve."]


def test_a_sentence_that_ends_early_cuts_nothing() -> None:
    text = "one two. three four five six seven eight nine ten"
    assert read(text, room=8, stride=8)[0][0] == "one two. three four five six seven eight"


def test_a_line_that_ends_is_a_sentence_that_ends() -> None:
    text = "one two three four five six seven\neight nine ten"
    assert read(text, room=8, stride=8)[0][0] == "one two three four five six seven"


@pytest.mark.parametrize(("aggregate", "expected"), [("max", 1.0), ("first", 0.25), ("mean", 0.75)])
def test_a_passage_is_scored_by_its_windows(aggregate: Any, expected: float) -> None:
    # windows of four words: 1, 4, 2 and 0 of them asked for
    text = "flea b c d flea flea flea flea flea b flea d e f g h"
    windows, scores = read(text, room=4, stride=4, aggregate=aggregate, best_k=2)
    assert scores.logits[0] == pytest.approx(expected)
    assert len(windows) == (1 if aggregate == "first" else 4)
    assert scores.truncated[0] == (aggregate == "first")


def test_what_lies_beyond_the_last_window_is_said() -> None:
    text = "word " * 100
    windows, scores = read(text, room=8, stride=8, max_windows=3)
    assert len(windows) == 3
    assert scores.truncated[0]
    windows, scores = read(text, room=8, stride=8, max_windows=13)
    assert not scores.truncated[0]


def test_a_long_list_is_handed_on_in_parts() -> None:
    scorer = Recording(room=4)
    texts = ["a b c d e f g h flea " * 60 for _ in range(100)]
    scores = Windows(scorer, size=None, max_windows=None).score([Candidates("flea", texts)] * 2)
    assert max(sum(len(one.texts) for one in lists) for lists in scorer.asked) <= 1024
    assert len(scorer.asked) > 10
    for one in scores:
        np.testing.assert_array_equal(one.logits, np.full(100, one.logits[0]))
        np.testing.assert_array_equal(one.spans, np.tile(one.spans[0], (100, 1)))


def test_of_a_long_text_little_is_tokenised_at_once() -> None:
    sizes = []

    class Measuring(SharedWordsInWindows):
        def token_spans(self, text: str) -> Any:
            sizes.append(len(text))
            return super().token_spans(text)

    text = "an adult flea lives for some hundred days. " * 20_000
    Windows(Measuring(room=100), size=None, max_windows=None).score([Candidates("flea", [text])])
    assert max(sizes) < 10_000
    assert sum(sizes) < 3 * len(text)


def test_a_text_without_words_is_one_window() -> None:
    for text in ("", " " * 100_000, "." * 100_000):
        windows, scores = read(text)
        assert windows == [text]
        np.testing.assert_array_equal(scores.spans, [[0, len(text)]])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": 0}, "size"),
        ({"stride": -1}, "stride"),
        ({"size": 10, "stride": 11}, "would not be read"),
        ({"aggregate": "median"}, "'max', 'first' or 'mean'"),
        ({"max_windows": 0}, "max_windows"),
        ({"best_k": None}, "best_k"),
    ],
)
def test_arguments_out_of_range_are_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        Windows(SharedWordsInWindows(), **options)


def test_a_scorer_that_cannot_split_texts_is_refused() -> None:
    with pytest.raises(InvalidInput, match="SharedWords cannot be asked for windows"):
        Windows(SharedWords())
