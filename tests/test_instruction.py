"""An instruction of the user's own: it stands in the prompt where the manifest's would."""

import asyncio
import json
import pickle

import numpy as np
import pytest
from conftest import PASSAGES, QUERY, toy_graph
from prompt_support import BODY, PARTS, ids, manifest, tokenizer_file
from tokenizers import Tokenizer

from flashrank_lite import InvalidInput, Ranker
from flashrank_lite.cli import main
from flashrank_lite.encoding.prompts import open_encoder
from flashrank_lite.encoding.template import Template

__all__ = ["tokenizer_file"]  # the fixture

OWN = "find what makes an insect's life longer"
FLEAS = PASSAGES[:3]


@pytest.fixture
def prompted(tokenizer_file, toy_folder):
    """Makes folders of models that are asked by a template; a logit is the sum of a row's ids."""

    def make(template):
        graph = toy_graph(constants={"thousand": np.array(1, np.float32)})
        changes = {"template": template.to_json(), "padding_side": "left"}
        folder = toy_folder(graph, {"max_position_embeddings": 300}, manifest(**changes))
        (folder / "tokenizer.json").write_bytes(tokenizer_file.read_bytes())
        return folder

    return make


@pytest.fixture
def expected(tokenizer_file):
    """The logits of passages as the ids say that a reference would tokenise the whole prompt."""
    tokenizer = Tokenizer.from_file(str(tokenizer_file))

    def logits(template, instruction, passages=FLEAS, query=QUERY):
        def fill(segment, passage):
            filled = segment.replace("{query}", query).replace("{passage}", passage)
            return filled.replace("{instruction}", instruction)

        return [
            float(sum(sum(ids(tokenizer, fill(part, passage))) for part in template.segments))
            for passage in passages
        ]

    return logits


@pytest.mark.parametrize("template", [BODY, PARTS])
def test_the_ids_are_those_of_the_prompt_with_the_instruction(tokenizer_file, template):
    encoder = open_encoder(tokenizer_file, 200, template)
    stated = open_encoder(tokenizer_file, 200, Template(template.segments, OWN))
    for pairs in ([(QUERY, passage) for passage in PASSAGES], [(" ".join(PASSAGES), "eggs")]):
        (asked,), (reference,) = encoder.with_instruction(OWN).chunks(pairs), stated.chunks(pairs)
        (default,) = encoder.chunks(pairs)
        assert [pair.ids.tolist() for pair in asked] == [pair.ids.tolist() for pair in reference]
        assert [pair.truncated for pair in asked] == [pair.truncated for pair in reference]
        assert [pair.ids.tolist() for pair in asked] != [pair.ids.tolist() for pair in default]


@pytest.mark.parametrize("template", [BODY, PARTS])
def test_every_way_to_ask_takes_an_instruction_for_the_call_alone(prompted, expected, template):
    own, stated = expected(template, OWN), expected(template, template.instruction)
    assert own != stated
    pairs = [(QUERY, passage) for passage in FLEAS]

    def in_order(hits):
        return [hit.logit for hit in sorted(hits, key=lambda hit: hit.index)]

    async def twins(ranker):
        assert in_order(await ranker.arank(QUERY, FLEAS, instruction=OWN)) == own
        assert (await ranker.ascore(QUERY, FLEAS, instruction=OWN)).tolist() == own
        assert (await ranker.ascore_pairs(pairs, instruction=OWN)).tolist() == own
        many = await ranker.arank_many([QUERY] * 2, [FLEAS] * 2, instruction=OWN)
        assert [in_order(hits) for hits in many] == [own, own]

    with Ranker(prompted(template)) as ranker:
        assert in_order(ranker.rank(QUERY, FLEAS, instruction=OWN)) == own
        assert ranker.score(QUERY, FLEAS, instruction=OWN).tolist() == own
        assert ranker.score_pairs(pairs, instruction=OWN).tolist() == own
        many = ranker.rank_many([QUERY] * 2, [FLEAS] * 2, instruction=OWN)
        assert [in_order(hits) for hits in many] == [own, own]
        asyncio.run(twins(ranker))
        assert ranker.score(QUERY, FLEAS).tolist() == stated
        assert ranker.info()["instruction"] == template.instruction


def test_a_rankers_own_instruction_is_its_default_and_goes_with_it(prompted, expected):
    with Ranker(prompted(BODY), instruction=OWN) as ranker:
        for made in (ranker, pickle.loads(pickle.dumps(ranker))):
            assert made.info()["instruction"] == OWN
            assert made.score(QUERY, FLEAS).tolist() == expected(BODY, OWN)
            other = made.score(QUERY, FLEAS, instruction="else").tolist()
            assert other == expected(BODY, "else")
            assert made.score(QUERY, FLEAS, instruction="").tolist() == expected(BODY, "")


@pytest.mark.parametrize("text", ["{query} {passage}", "odd \ud800", "words " * 20])
def test_an_instruction_is_any_text(prompted, text):
    with Ranker(prompted(PARTS)) as ranker:
        assert len(ranker.rank(QUERY, FLEAS, instruction=text)) == len(FLEAS)


def test_fields_in_an_instruction_are_text(prompted, expected):
    with Ranker(prompted(PARTS)) as ranker:
        scores = ranker.score(QUERY, FLEAS, instruction="{passage} {query}")
        assert scores.tolist() == expected(PARTS, "{passage} {query}")


def test_a_model_that_takes_no_instruction_refuses_one(ranker, prompted):
    says = "takes no instruction.*Leave instruction out"
    for ask in (ranker.rank, ranker.score):
        for passages in (FLEAS, []):
            with pytest.raises(InvalidInput, match=says):
                ask(QUERY, passages, instruction=OWN)
    with pytest.raises(InvalidInput, match=f"'nano' {says}"):
        Ranker(instruction=OWN)
    assert ranker.info()["instruction"] is None
    plain = prompted(Template(("Query: {query} Document: {passage}", "Relevant:")))
    with pytest.raises(InvalidInput, match=f"'prompted' {says}"):
        Ranker(plain, instruction=OWN)
    with Ranker(plain) as without:
        assert without.info()["instruction"] is None


@pytest.mark.parametrize("wrong", [5, b"find", ["find"]])
def test_an_instruction_that_is_no_str_is_refused(prompted, wrong):
    folder = prompted(PARTS)
    with pytest.raises(InvalidInput, match="instruction must be a str"):
        Ranker(folder, instruction=wrong)
    with Ranker(folder) as ranker, pytest.raises(InvalidInput, match="instruction must be a str"):
        ranker.rank(QUERY, FLEAS, instruction=wrong)


def test_an_instruction_that_leaves_no_room_is_refused(prompted):
    with Ranker(prompted(PARTS)) as ranker:
        with pytest.raises(InvalidInput, match=r"max_length=300 is too small.*a shorter instr"):
            ranker.rank(QUERY, FLEAS, instruction=OWN * 30)
        assert len(ranker.rank(QUERY, FLEAS)) == len(FLEAS)


def test_the_command_takes_an_instruction(prompted, expected, tmp_path, capsys):
    file = tmp_path / "fleas.jsonl"
    file.write_text("".join(json.dumps(text) + "\n" for text in FLEAS), encoding="utf-8")
    command = ["rank", QUERY, str(file), "--instruction", OWN, "--format", "json"]
    assert main([*command, "--model", str(prompted(BODY))]) == 0
    hits = sorted(json.loads(capsys.readouterr().out), key=lambda hit: hit["index"])
    assert [hit["logit"] for hit in hits] == expected(BODY, OWN)
    assert main(command) == 1
    assert "takes no instruction" in capsys.readouterr().err
