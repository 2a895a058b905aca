"""Prompt templates: the ids of the reference recipes, whatever is long or in the text."""

import json
import time

import numpy as np
import pytest
from conftest import PASSAGES, QUERY, toy_graph
from export_families import CHAT_TOKENS, questions
from prompt_support import BODY, PARTS, ids, manifest, tokenizer_file
from tokenizers import Tokenizer

from flashrank_lite import InvalidInput, InvalidModel, Ranker
from flashrank_lite.encoding.collate import pad
from flashrank_lite.encoding.prompts import open_encoder
from flashrank_lite.encoding.template import Template

__all__ = ["tokenizer_file"]  # the fixture

OPEN = Template(("Query: {query}\nDocument: {passage}s. Relevant?",))  # a word that goes on


@pytest.mark.parametrize("length", [100, 140, 400])
def test_a_body_is_tokenised_as_one_text_and_cut_at_its_end(tokenizer_file, length):
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    prefix, suffix = ids(tokenizer, BODY.segments[0]), ids(tokenizer, BODY.segments[2])
    encoder = open_encoder(tokenizer_file, length, BODY)
    query, passages = "comb jellies", [text for _, texts in questions() for text in texts]
    (chunk,) = encoder.chunks([(query, passage) for passage in passages])
    room = length - len(prefix) - len(suffix)
    cut = []
    for passage, pair in zip(passages, chunk, strict=True):
        text = f"<Instruct>: {BODY.instruction}\n<Query>: {query}\n<Document>: {passage}"
        body = ids(tokenizer, text)
        assert pair.ids.tolist() == prefix + body[:room] + suffix
        assert pair.truncated == (len(body) > room)
        cut.append(pair.truncated)
    assert any(cut) == (length < 400)


def test_parts_are_tokenised_one_by_one_and_only_the_passage_is_cut(tokenizer_file):
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    encoder = open_encoder(tokenizer_file, 60, PARTS)
    query, passages = questions()[0][0][:20], questions()[0][1]
    (chunk,) = encoder.chunks([(query, passage) for passage in passages])
    head = [
        CHAT_TOKENS.index("<|im_start|>"),
        *ids(tokenizer, f"A: {query}"),
        *ids(tokenizer, "\n"),
    ]
    tail = ids(tokenizer, "\n") + ids(tokenizer, "Why?")
    room = 60 - len(head) - len(tail)
    for passage, pair in zip(passages, chunk, strict=True):
        body = ids(tokenizer, f"B: {passage}")
        assert pair.ids.tolist() == head + body[:room] + tail


@pytest.mark.parametrize("length", [50, 60, 70, 400])
def test_text_behind_the_passage_is_tokenised_with_it_and_never_cut(tokenizer_file, length):
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    encoder = open_encoder(tokenizer_file, length, OPEN)
    query = "comb jellies"
    passages = [text for _, texts in questions() for text in texts] + ["", " ".join(PASSAGES)]
    (chunk,) = encoder.chunks([(query, passage) for passage in passages])
    apart = 0
    for passage, pair in zip(passages, chunk, strict=True):
        wholes = [  # of the passage's beginnings, the longest one that fits
            ids(tokenizer, f"Query: {query}\nDocument: {passage[:end]}s. Relevant?")
            for end in range(len(passage), -1, -1)
        ]
        whole = ids(tokenizer, f"Query: {query}\nDocument: {passage}s. Relevant?")
        assert pair.truncated == (len(whole) > length)
        assert pair.ids.tolist() in wholes
        assert length - 3 <= len(pair.ids) <= length or not pair.truncated
        cut_in_two = ids(tokenizer, f"Query: {query}\nDocument: {passage}")
        apart += whole != cut_in_two + ids(tokenizer, "s. Relevant?")
    assert apart > 5  # else this way could not be told from tokenising the two apart


def test_a_megabyte_before_text_that_follows_is_cut_in_no_time(tokenizer_file):
    encoder = open_encoder(tokenizer_file, 60, OPEN)
    started = time.perf_counter()
    ((pair,),) = encoder.chunks([("comb jellies", "an adult flea lives " * 200_000)])
    assert pair.truncated
    assert time.perf_counter() - started < 30  # 0.01 s; all of it tokenised takes several


@pytest.mark.parametrize("template", [BODY, PARTS])
def test_a_long_query_leaves_room_for_the_passage_and_keeps_the_prompt(tokenizer_file, template):
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    encoder = open_encoder(tokenizer_file, 120, template)
    query = " ".join(PASSAGES)
    (chunk,) = encoder.chunks([(query, "butter melts"), (query, "dogs sleep")])
    tail = ids(tokenizer, template.segments[-1].replace("{instruction}", template.instruction))
    for pair in chunk:
        assert len(pair.ids) <= 120
        assert pair.truncated
        assert pair.ids.tolist()[-len(tail) :] == tail
    assert chunk[0].ids.tolist() != chunk[1].ids.tolist()  # the passage is still there


def test_fields_in_a_text_are_text(tokenizer_file):
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    encoder = open_encoder(tokenizer_file, 200, PARTS)
    ((pair,),) = encoder.chunks([("{passage}", "{query} {instruction}")])
    text = tokenizer.decode(pair.ids.tolist(), skip_special_tokens=False)
    assert "A: {passage}\nB: {query} {instruction}\nWhy?" in text


@pytest.mark.parametrize(
    ("segments", "said"),
    [
        (["{query}"], "once each"),
        (["{query} {passage}", "{passage}"], "once each"),
        (["{passage}", "{query}"], "before"),
        ("{query} {passage}", "must be"),
        ([1], "must be"),
    ],
)
def test_a_template_that_cannot_work_is_refused(segments, said):
    with pytest.raises(InvalidModel, match=said):
        Template.read({"segments": segments})


def test_a_length_that_the_prompt_alone_fills_is_refused(tokenizer_file):
    with pytest.raises(InvalidInput, match="prompt alone has"):
        open_encoder(tokenizer_file, 20, BODY)


def test_rows_are_padded_on_the_left_where_the_manifest_says_so(tokenizer_file):
    encoder = open_encoder(tokenizer_file, 200, PARTS)
    (pairs,) = encoder.chunks([(QUERY, "a"), (QUERY, PASSAGES[0])])
    feeds = pad(pairs, 0, side="left")
    short = len(pairs[0].ids)
    assert feeds["attention_mask"][0].tolist() == [0] * (len(pairs[1].ids) - short) + [1] * short
    assert feeds["input_ids"][0, -short:].tolist() == pairs[0].ids.tolist()
    assert feeds["input_ids"][1].tolist() == pairs[1].ids.tolist()


def test_a_ranker_asks_in_the_words_of_its_manifest(tokenizer_file, toy_folder):
    # the toy graph's logit is the last id of a row: it sees on which side the padding stands
    last = [
        ("Gather", ["input_ids", "end"], ["column"], {"axis": 1}),
        ("Cast", ["column"], ["logits"], {"to": 1}),
    ]
    graph = toy_graph(last, constants={"end": np.array([-1], np.int64)})
    folder = toy_folder(
        graph,
        {"max_position_embeddings": 300},
        manifest(template=PARTS.to_json(), padding_side="left"),
    )
    (folder / "tokenizer.json").write_bytes(tokenizer_file.read_bytes())
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    with Ranker(folder) as ranker:
        scores = ranker.score(QUERY, PASSAGES)
    assert set(scores.tolist()) == {ids(tokenizer, "Why?")[-1]}  # never a padding token


@pytest.mark.parametrize(
    "changes", [{"template": {"segments": ["{query}"]}}, {"padding_side": "both"}]
)
def test_a_manifest_with_a_broken_template_or_side_is_refused(toy_folder, changes):
    with pytest.raises(InvalidModel, match=r"template|padding_side"):
        Ranker(toy_folder(toy_graph(), manifest=manifest(**changes)))


def test_a_template_survives_its_manifest():
    assert Template.read(json.loads(json.dumps(BODY.to_json()))) == BODY
