"""Long passages in windows: over a small scorer of the tests' own, and over the bundled model."""

import json
import re
from contextlib import closing
from typing import Any

import numpy as np
import pytest
from conftest import PASSAGES, QUERY, ROOT
from hypothesis import given
from hypothesis import strategies as st
from scorers import SharedWords, SharedWordsInWindows
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from flashrank_lite import InvalidInput, Ranker
from flashrank_lite.cross_encoder import CrossEncoder
from flashrank_lite.models.packages import bundled_folder
from flashrank_lite.scorer import Candidates, Scores
from flashrank_lite.strategies import Windows
from flashrank_lite.strategies.splitting import split

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
    """What is read of a text: its beginning, then its windows; and the scores."""
    scorer = Recording(room)
    (scores,) = Windows(scorer, **{"size": None, **options}).score([Candidates("flea", [text])])
    whole, *windows = scorer.windows_of(0)
    assert whole == text  # as without windows: the scorer reads as much of it as it can
    spans = scorer.token_spans(text)
    return [text[: spans[room - 1, 1]] if len(spans) > room else text, *windows], scores


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


def test_passages_that_fit_are_read_once_and_as_they_came() -> None:
    scorer = Recording(room=30)
    lists = [FLEAS, Candidates("dogs", [" two\n", "", "dogs"])]
    without = SharedWords(room=30).score(lists)
    for scores, plain in zip(Windows(scorer, size=3).score(lists), without, strict=True):
        np.testing.assert_array_equal(scores.logits, plain.logits)
    assert scorer.asked == [lists]


FIRST = "w w w w w w w w "  # what is read at once


def test_windows_end_with_a_sentence_in_their_last_quarter() -> None:
    text = FIRST + "one two three four five six seven. Eight nine ten eleven twelve."
    _, *windows = read(text, stride=8)[0]
    assert windows == ["one two three four five six seven.", "Eight nine ten eleven twelve."]


def test_a_sentence_that_ends_early_cuts_nothing() -> None:
    text = FIRST + "one two. three four five six seven eight nine ten"
    assert read(text, stride=8)[0][1] == "one two. three four five six seven eight"


def test_a_line_that_ends_is_a_sentence_that_ends() -> None:
    text = FIRST + "one two three four five six seven\neight nine ten"
    assert read(text, stride=8)[0][1] == "one two three four five six seven"


def test_windows_start_with_a_sentence_that_starts_a_little_later() -> None:
    text = "a b c d e f. g h i j k l m n o p"
    # five tokens shared would begin with d; the next sentence begins three later, one too many
    assert read(text, size=8, stride=3)[0][1].startswith("d e f. g")
    assert read(text, size=8, stride=4)[0][1].startswith("g h i")


def test_what_the_model_reads_at_once_is_no_smaller_for_small_windows() -> None:
    text = "a b c d e f g h i j k l m n o"
    windows, _ = read(text, room=8, size=4, stride=3)
    assert windows == ["a b c d e f g h", "h i j k", "k l m n", "n o"]


@pytest.mark.parametrize(("aggregate", "expected"), [("max", 1.0), ("first", 0.25), ("mean", 0.75)])
def test_a_passage_is_scored_by_its_windows(aggregate: Any, expected: float) -> None:
    # four times four words: 1, 4, 2 and 0 of them asked for
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
    sizes = [sum(len(one.texts) for one in lists) for lists in scorer.asked]
    assert sizes[0] == 200
    assert max(sizes[1:]) <= 1024
    assert len(sizes) > 10
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


# With tokenizers of every kind

ENGLISH = [
    passage["text"]
    for line in (ROOT / "examples" / "questions.jsonl").read_text("utf-8").splitlines()
    for passage in json.loads(line)["passages"]
]
JAPANESE = "ノミの寿命は環境によって数週間から一年以上になります。"


def byte_pairs(trim: bool) -> Tokenizer:
    """Several tokens to a character outside ASCII; with the blank before a word, unless trimmed."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=trim)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=trim)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        ENGLISH,
        trainers.BpeTrainer(vocab_size=1000, initial_alphabet=alphabet, show_progress=False),
    )
    return tokenizer


def unigrams(pre_tokenizer: Any) -> Tokenizer:
    """As SentencePiece: a blank is a character of the word after it, and one stands before all."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizer
    trainer = trainers.UnigramTrainer(
        vocab_size=1000, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False
    )
    tokenizer.train_from_iterator([*ENGLISH, *JAPANESE], trainer)
    return tokenizer


def whole_words() -> Tokenizer:
    """The bundled model's WordPiece."""
    tokenizer = Tokenizer.from_file(str(bundled_folder() / "tokenizer.json"))
    tokenizer.no_truncation()
    return tokenizer


METASPACE = pre_tokenizers.Metaspace()
BY_WORD = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), METASPACE])
TOKENIZERS = {
    "bytes": lambda: byte_pairs(trim=True),
    "bytes with blanks": lambda: byte_pairs(trim=False),
    "unigrams": lambda: unigrams(METASPACE),
    "unigrams by word": lambda: unigrams(BY_WORD),
    "word pieces": whole_words,
}


@pytest.fixture(scope="module", params=TOKENIZERS)
def token_spans(request: pytest.FixtureRequest) -> Any:
    tokenizer = TOKENIZERS[request.param]()

    def spans(text: str) -> Any:
        found = tokenizer.encode(text, add_special_tokens=False).offsets
        return np.array(found, np.int32).reshape(-1, 2)

    return spans


@pytest.mark.parametrize(
    "text",
    [
        " ".join(ENGLISH[:8]),
        JAPANESE * 30,
        JAPANESE[:-1] * 30,  # no end of a sentence, and no blank
        "😀🎉ü" * 150,
        f"{ENGLISH[0]} {JAPANESE}\n{ENGLISH[1]} 😀.\n\n{ENGLISH[2]}",
    ],
)
def test_windows_are_whole_and_small_enough_for_every_tokenizer(
    token_spans: Any, text: str
) -> None:
    size, stride = 48, 36
    (_, end), *windows = split(text, size, size, stride, token_spans)
    for start, stop in windows:
        assert len(token_spans(text[start:stop])) <= size
        assert not text[end:start].strip()  # nothing is left out
        end = stop
    assert end == len(text)
    assert len(windows) <= 1.6 * len(token_spans(text)) / stride


def test_windows_end_with_sentences_for_every_tokenizer(token_spans: Any) -> None:
    # sentences are shorter than a quarter of a window, so each window can end with one
    text = "".join(f"Sentence {number} is short. " for number in range(100))
    _, *windows, _ = split(text, 64, 64, 48, token_spans)
    assert len(windows) > 5
    for start, end in windows:
        assert text[start:end].startswith("Sentence")
        assert text[start:end].endswith("short.")


# With the bundled model

NOTICE = (
    "Residents are reminded that the courtyard is shared. {} The committee thanks everybody who "
    "helped to clear the cellar last month, and those who lent their tools and their afternoons. "
)
TOPICS = [
    "Bicycles belong in the racks by the east gate, not under the stairs or along the wall.",
    "The laundry room is open from seven in the morning until nine at night on every weekday.",
    "Music practice is welcome in the afternoon but has to end before eight in the evening.",
    "Parcels that the courier leaves in the hall are kept on the shelf above the letter boxes.",
    "Two of the lamps in the north stairwell will be replaced when the electrician comes back.",
    "Children may paint the low wall behind the sandpit, and the paint is in the caretaker's shed.",
    "The lift was inspected in spring and carries six people or four hundred and fifty kilograms.",
    "Please close the garden door behind you, because the neighbour's cat comes in and gets lost.",
]
ANSWER = (
    "The water will be turned off on Thursday between nine and eleven so that pipes can be changed."
)
QUESTION = "when will the water be shut off"
NOTICES = [
    "The water in the pond is tested twice a year; the last test found nothing unusual.",
    "The heating rests from the first of May on, and is switched on again in October.",
    "When the water meter is read, somebody has to be at home; the reader comes in June.",
    "Watering the plants on the landing is up to those who put them there.",
    " ".join([*(NOTICE.format(topic) for topic in TOPICS), *TOPICS, ANSWER]),
    "The office is closed on Thursday between nine and eleven.",
]


@pytest.mark.parametrize("long", [None, "windows"])
def test_a_notice_with_its_answer_in_the_last_line_ranks_first(ranker: Ranker, long: Any) -> None:
    assert 480 < len(NOTICES[4].split()) < 600
    best = ranker.rank(QUESTION, NOTICES, long=long)[0]
    assert best.index == 4
    assert not best.truncated
    start, end = best.span
    assert ANSWER in best.text[start:end]
    truncated = {hit.index: hit for hit in ranker.rank(QUESTION, NOTICES, long="truncate")}
    assert truncated[4].truncated
    assert truncated[4].logit < best.logit
    assert truncated[4].span is None


def test_scores_of_short_passages_are_those_without_windows_to_the_bit(ranker: Ranker) -> None:
    truncated = ranker.score(QUERY, PASSAGES, long="truncate")
    np.testing.assert_array_equal(ranker.score(QUERY, PASSAGES, long="windows"), truncated)
    for hit in ranker.rank(QUERY, PASSAGES):
        assert hit.span == (0, len(hit.text))


def test_windows_have_as_many_tokens_as_they_may_have(ranker: Ranker) -> None:
    with closing(CrossEncoder()) as model:
        text = NOTICES[4] + " ノミの寿命は環境によって数週間から一年以上になります。" * 40
        scorer = Recording(room=100)
        scorer.token_spans = model.token_spans
        Windows(scorer, size=60, stride=40).score([Candidates("q", [text])])
        _, *windows = scorer.windows_of(0)
        lengths = [len(model.token_spans(window)) for window in windows]
        assert max(lengths) <= 60
        assert min(lengths[:-1]) > 30
        assert len(lengths) > 20


def test_a_long_query_leaves_smaller_windows() -> None:
    with closing(CrossEncoder()) as model:
        (scores,) = Windows(model).score([Candidates("flea " * 370, [NOTICES[4]])])
        assert not scores.truncated.any()
        (scores,) = Windows(model).score([Candidates("flea " * 600, [NOTICES[4]])])
        assert scores.truncated.all()  # the query was


def test_the_span_covers_the_passage_that_was_cut_in_the_middle(ranker: Ranker) -> None:
    long = " ".join(TOPICS * 8)
    middle = long[: len(long) * 2 // 3] + ANSWER + long[len(long) * 2 // 3 :]
    hit = ranker.rank(QUESTION, [long, middle])[0]
    assert hit.index == 1
    start, end = hit.span
    assert "turned off on Thursday" in hit.text[start:end]
    assert end - start < len(middle) / 2
