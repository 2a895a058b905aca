"""Ids, types and truncation against the tokenizers library itself, and against transformers."""

import json
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
from conftest import PASSAGES, QUERY
from export_support import require_export
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from flashrank_lite import InvalidInput, InvalidModel
from flashrank_lite.encoding.collate import SEPARATE_INPUTS, pad
from flashrank_lite.encoding.pairs import PairEncoder
from flashrank_lite.models.packages import bundled_folder

BUNDLED = bundled_folder() / "tokenizer.json"
LENGTH = 48
new_folder: Callable[[], Path]  # what is built is built once, and for all tests of this file
FRAMES = {"bert": 3, "roberta": 4, "unigram": 4}

# words, punctuation, white space of all kinds, several scripts, marks, emoji, controls, specials
ODD = st.sampled_from(
    [
        "a",
        "the",
        "flea",
        "fleas'",
        "don't",
        "##",
        "[SEP]",
        "[MASK]",
        "<mask>",
        "</s>",
        "\x00",
        "\x07",
        "\t",
        "\n",
        "\r",
        "\xa0",
        "\u2028",
        "\u200b",
        "\ufeff",
        "ß",
        "İ",
        "ﬁ",
        "é",
        "é",
        "́",
        "Ⅷ",
        "２",
        "狗",
        "跳蚤",
        "ノミ",
        "が",
        "ガ",
        "한국어",
        "가",
        "עברית",
        "العربية",
        "हिन्दी",
        "ไทย",
        "😀",
        "👩\u200d👩\u200d👧",
        "🇩🇪",
        "🏽",
        "𠀀",
        "�",
        "…",
        "—",
        "''",
        '"',
        "1234567890",
        "3.14",
        "a@b.c",
        "__",
        "-",
        "$",
        "∑",
    ]
)
TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
    st.lists(ODD, max_size=40).map(" ".join),
    st.lists(ODD, max_size=40).map("".join),
    st.lists(st.sampled_from(" ".join(PASSAGES).split()), max_size=90).map(" ".join),
)
SURROGATES = st.text(st.sampled_from("ab \ud800\udc00\udfff😀狗"), max_size=40)
THOROUGH = settings(
    max_examples=400,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture(scope="module", autouse=True)
def _folders(tmp_path_factory: pytest.TempPathFactory) -> None:
    global new_folder
    new_folder = partial(tmp_path_factory.mktemp, "tokenizer")


@cache
def tokenizer_file(kind: str) -> Path:
    """The bundled tokenizer, or a RoBERTa-like or Unigram one trained here on a few sentences."""
    if kind == "bert":
        return BUNDLED
    specials = ["<s>", "<pad>", "</s>", "<unk>", AddedToken("<mask>", lstrip=True)]
    if kind == "roberta":
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        trainer: Any = trainers.BpeTrainer(
            vocab_size=600,
            special_tokens=specials,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        made.train_from_iterator(PASSAGES * 3, trainer)
        made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    else:
        made = Tokenizer(models.Unigram())
        made.normalizer = normalizers.Sequence(
            [normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(" {2,}", " ")]
        )
        made.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=300, special_tokens=specials, unk_token="<unk>", show_progress=False
        )
        made.train_from_iterator(PASSAGES * 3, trainer)
        made.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>",
            pair="<s> $A </s> </s> $B </s>",
            special_tokens=[("<s>", 0), ("</s>", 2)],
        )
    folder = new_folder()
    made.enable_truncation(7)  # both must be reset by whoever reads the file
    made.enable_padding(length=99)
    made.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


@cache
def encoder(kind: str, length: int = LENGTH) -> PairEncoder:
    return PairEncoder(tokenizer_file(kind), length)


@cache
def reference(kind: str) -> Tokenizer:
    made = Tokenizer.from_file(str(tokenizer_file(kind)))
    made.no_truncation()
    made.no_padding()
    return made


def encoded(kind: str, query: str, passage: str, length: int = LENGTH) -> Any:
    ours = encoder(kind, length)
    return ours.pair(ours.query(query), ours.passage(passage))


def expected(kind: str, query: str, passage: str, length: int) -> tuple[list[int], list[int], bool]:
    """What encode(query, passage) gives, the query cut to its share and the passage to the rest."""
    whole = reference(kind).encode(query, passage)
    rows = list(zip(whole.ids, whole.type_ids, whole.sequence_ids, strict=True))
    room = length - FRAMES[kind]
    queries = sum(owner == 0 for *_, owner in rows)
    kept_query = min(queries, room * 3 // 4)
    left = {0: kept_query, 1: room - kept_query}
    kept = []
    for number, kind_of_text, owner in rows:
        if owner is not None:
            left[owner] -= 1
            if left[owner] < 0:
                continue
        kept.append((number, kind_of_text))
    return [n for n, _ in kept], [t for _, t in kept], min(left.values()) < 0


@pytest.mark.parametrize("kind", ["bert", "roberta", "unigram"])
@THOROUGH
@given(query=TEXTS, passages=st.lists(TEXTS, min_size=1, max_size=4))
@example(query="", passages=["", " ", "\x00"])
@example(query=QUERY * 20, passages=PASSAGES)
def test_ids_types_and_truncation_are_those_of_a_joined_encoding(
    kind: str, query: str, passages: list[str]
) -> None:
    for passage in passages:
        pair = encoded(kind, query, passage)
        ids, types, truncated = expected(kind, query, passage, LENGTH)
        assert pair.ids.tolist() == ids
        assert pair.types.tolist() == types
        assert pair.truncated == truncated


@cache
def transformers_tokenizer() -> Any:
    require_export()
    import transformers

    file = json.loads(BUNDLED.read_text(encoding="utf-8"))
    vocabulary = file["model"]["vocab"]
    folder = new_folder()
    lines = sorted(vocabulary, key=vocabulary.__getitem__)
    (folder / "vocab.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "config.json").write_text('{"model_type": "bert"}')
    return transformers.BertTokenizer.from_pretrained(
        folder, do_lower_case=file["normalizer"]["lowercase"], model_max_length=LENGTH
    )


@THOROUGH
@given(query=TEXTS, passages=st.lists(TEXTS, min_size=1, max_size=10))
def test_a_pair_is_what_transformers_makes_of_it(query: str, passages: list[str]) -> None:
    theirs = transformers_tokenizer()
    ours = encoder("bert")
    pieces = ours.query(query)
    if pieces.cut or len(pieces.ids) >= (LENGTH - 3) * 3 // 4:
        query, pieces = QUERY, ours.query(QUERY)  # only_second cannot cut a query
    for passage in passages:
        wanted = theirs([(query, passage)], truncation="only_second", max_length=LENGTH)
        pair = ours.pair(pieces, ours.passage(passage))
        assert pair.ids.tolist() == wanted["input_ids"][0]
        assert pair.types.tolist() == wanted["token_type_ids"][0]


@pytest.mark.parametrize("kind", ["bert", "roberta", "unigram"])
@pytest.mark.parametrize(
    "text",
    [
        " ".join(PASSAGES * 10),
        "word " * 5000,
        "x" * 20_000,
        ("y" * 3000 + " ") * 5,
        "跳蚤狗" * 5000,
        "\n".join(PASSAGES * 10),
        "a_b-c.d " * 3000,
        " " * 20_000 + "end",
        "e\u0301 " * 5000,
        "[MASK] <mask> </s> " * 1000,
        "\x00" * 20_000,
    ],
    ids=lambda text: repr(text[:12]),
)
def test_reading_only_the_start_of_a_long_text_changes_no_token(kind: str, text: str) -> None:
    for length in (8, 33):
        pair = encoded(kind, QUERY, text, length)
        ids, types, truncated = expected(kind, QUERY, text, length)
        assert (pair.ids.tolist(), pair.types.tolist()) == (ids, types)
        assert pair.truncated == truncated


@THOROUGH
@given(words=st.lists(ODD, min_size=20, max_size=40), glue=st.sampled_from(["", " ", "  "]))
def test_the_start_of_odd_long_texts_is_read_right(words: list[str], glue: str) -> None:
    text = glue.join(words) * 20
    for kind in FRAMES:
        pair = encoded(kind, "a", text, 10)
        assert (pair.ids.tolist(), pair.types.tolist(), pair.truncated) == expected(
            kind, "a", text, 10
        )


def test_a_megabyte_is_read_in_milliseconds() -> None:
    text = " ".join(PASSAGES[:8] * 2000)[:1_000_000]
    ours = encoder("bert", 512)
    started = time.perf_counter()
    assert ours.passage(text).cut
    clipped = time.perf_counter() - started
    started = time.perf_counter()
    reference("bert").encode(text)
    assert clipped < (time.perf_counter() - started) / 5


@given(query=SURROGATES, passage=SURROGATES)
def test_lone_surrogates_are_read_as_the_replacement_character(query: str, passage: str) -> None:
    def readable(text: str) -> str:
        return "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)

    ours, theirs = (
        encoded("bert", query, passage),
        encoded("bert", readable(query), readable(passage)),
    )
    assert ours.ids.tolist() == theirs.ids.tolist()


def test_a_query_is_kept_whole_and_the_passage_gives_way() -> None:
    query = " ".join(["flea"] * 30)
    pair = encoded("bert", query, " ".join(PASSAGES))
    flea = reference("bert").encode("flea", add_special_tokens=False).ids
    assert pair.ids.tolist()[1 : 1 + 30 * len(flea)] == flea * 30
    assert len(pair.ids) == LENGTH
    assert pair.truncated


def test_a_long_query_leaves_a_quarter_to_the_passage() -> None:
    pair = encoded("bert", "flea " * 500, "dog " * 500)
    room = LENGTH - 3
    assert pair.types.tolist() == [0] * (1 + room * 3 // 4 + 1) + [1] * (room - room * 3 // 4 + 1)
    assert pair.truncated


@pytest.mark.parametrize(("extra", "truncated"), [(0, False), (1, True)])
def test_truncation_is_told_at_the_very_token(extra: int, truncated: bool) -> None:
    word = "dog"
    assert len(reference("bert").encode(word, add_special_tokens=False).ids) == 1
    room = LENGTH - 3 - len(encoder("bert").query(QUERY).ids)
    assert encoded("bert", QUERY, " ".join([word] * (room + extra))).truncated is truncated


def test_rows_are_padded_on_the_right_and_masked() -> None:
    pairs = [encoded("bert", "a", passage) for passage in ("dog", "a dog sleeps")]
    feeds = pad(pairs, 9)
    short, long = (len(pair.ids) for pair in pairs)
    assert feeds["input_ids"].shape == (2, long)
    assert feeds["input_ids"][0].tolist() == [*pairs[0].ids.tolist(), *[9] * (long - short)]
    assert feeds["attention_mask"].sum(axis=1).tolist() == [short, long]
    assert feeds["attention_mask"][0].tolist() == [1] * short + [0] * (long - short)
    assert feeds["token_type_ids"][0].tolist()[:short] == pairs[0].types.tolist()
    assert {array.dtype.name for array in feeds.values()} == {"int64"}


def test_separate_rows_hold_one_query_where_all_share_it() -> None:
    pairs = [encoded("bert", "a", passage) for passage in ("dog", "a dog sleeps")]
    feeds = pad(pairs, 9, SEPARATE_INPUTS)
    assert tuple(feeds) == SEPARATE_INPUTS
    query = feeds["query_input_ids"][0].tolist()
    assert feeds["query_input_ids"].shape == (1, len(query))
    for row, pair in enumerate(pairs):
        real = feeds["passage_attention_mask"][row].astype(bool)
        passage = feeds["passage_input_ids"][row]
        assert [*query, *passage[real].tolist()] == pair.ids.tolist()
        assert (passage[~real] == 9).all()
    types = pairs[1].types.tolist()
    assert pairs[1].passage_start == len(query) == types.index(1)


def test_separate_rows_hold_every_query_where_they_differ() -> None:
    pairs = [encoded("bert", query, "dog") for query in ("a", "a dog", "a")]
    feeds = pad(pairs, 9, SEPARATE_INPUTS)
    lengths = [pair.passage_start for pair in pairs]
    assert feeds["query_attention_mask"].sum(1).tolist() == lengths
    for row, pair in enumerate(pairs):
        found = feeds["query_input_ids"][row, : lengths[row]]
        assert found.tolist() == pair.ids[: lengths[row]].tolist()


@pytest.mark.parametrize(("kind", "least"), [("bert", 5), ("roberta", 6)])
def test_a_length_without_room_is_refused_with_the_least_that_works(kind: str, least: int) -> None:
    with pytest.raises(InvalidInput, match=f"use {least} or more"):
        PairEncoder(tokenizer_file(kind), least - 1)
    pair = encoded(kind, "dog", "dog", least)
    assert len(pair.ids) <= least


def test_a_tokenizer_that_joins_backwards_or_cannot_be_read_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "tokenizer.json"
    broken.write_text("{")
    with pytest.raises(InvalidModel, match=r"tokenizer\.json is not a tokenizer"):
        PairEncoder(broken, 64)
    backwards = Tokenizer(models.WordLevel({"a": 0}))
    backwards.post_processor = processors.TemplateProcessing(
        single="$A", pair="$B $A", special_tokens=[]
    )
    backwards.save(str(broken))
    with pytest.raises(InvalidModel, match="does not join a query"):
        PairEncoder(broken, 64)


def test_many_pairs_come_in_chunks_and_in_order() -> None:
    ours = encoder("bert")
    pairs = [(f"query {n % 7}", f"passage {n}") for n in range(2500)]
    chunks = list(ours.chunks(iter(pairs)))
    assert max(len(chunk) for chunk in chunks) < len(pairs) / 2
    rows = [pair for chunk in chunks for pair in chunk]
    assert len(rows) == len(pairs)
    for at in (0, 1023, 1024, 2499):
        assert rows[at].ids.tolist() == encoded("bert", *pairs[at]).ids.tolist()
