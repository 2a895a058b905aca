"""A pair whose query begins with a prompt: joined as any pair, and the prompt can be changed."""

import numpy as np
import pytest

from flashrank_lite.encoding.pairs import PairEncoder
from flashrank_lite.encoding.prompts import open_encoder
from flashrank_lite.encoding.template import Template
from flashrank_lite.errors import InvalidModel
from flashrank_lite.models.resolve import resolve

QUERY, PASSAGE = "how long do fleas live", "An adult flea lives for one hundred days or so."
PROMPTED = Template(("{instruction}{query}", "{passage}"), "web search: ", pair=True)


@pytest.fixture(scope="module")
def tokenizer():
    return resolve(None).folder / "tokenizer.json"


def one(encoder, query, passage):
    (pair,) = next(encoder.chunks([(query, passage)]))
    return pair


@pytest.mark.parametrize("length", [24, 128])
def test_it_is_the_pair_of_the_prompted_query(tokenizer, length):
    plain, encoder = PairEncoder(tokenizer, length), open_encoder(tokenizer, length, PROMPTED)
    for passage in (PASSAGE, PASSAGE * 9, ""):
        expected = one(plain, f"web search: {QUERY}", passage)
        found = one(encoder, QUERY, passage)
        np.testing.assert_array_equal(found.ids, expected.ids)
        np.testing.assert_array_equal(found.types, expected.types)
        assert found.truncated == expected.truncated
    other = encoder.with_instruction("legal: ")
    assert (encoder.instruction, other.instruction) == ("web search: ", "legal: ")
    expected = one(plain, f"legal: {QUERY}", PASSAGE)
    np.testing.assert_array_equal(one(other, QUERY, PASSAGE).ids, expected.ids)


def test_windows_are_given_the_room_that_the_prompt_leaves(tokenizer):
    plain, encoder = PairEncoder(tokenizer, 128), open_encoder(tokenizer, 128, PROMPTED)
    assert encoder.room(QUERY) == plain.room(f"web search: {QUERY}") < plain.room(QUERY)
    np.testing.assert_array_equal(encoder.token_spans(PASSAGE), plain.token_spans(PASSAGE))


def test_a_manifest_keeps_it():
    assert Template.read(PROMPTED.to_json()) == PROMPTED
    assert Template.read(Template(("{query}{passage}",)).to_json()).pair is False


@pytest.mark.parametrize(
    "segments", [("{query} {passage}", "."), ("{query}{passage}",), ("{query}", "{passage}", ".")]
)
def test_a_pair_has_one_segment_for_each_text(segments):
    with pytest.raises(InvalidModel, match="two segments"):
        Template(segments, pair=True)
