"""A graph that reads a text as query or passage: rows, expansion, skipped tokens and the sum."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import PASSAGES, QUERY
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer

from flashrank_lite import InvalidInput, InvalidModel, Ranker
from flashrank_lite.models.packages import bundled_folder

WIDTH = 8
QUERY_MARKER, PASSAGE_MARKER, MASK = 1, 2, 103
CLS, SEP = 101, 102
COLBERT: dict[str, Any] = {
    "maxsim": 1.0,
    "width": WIDTH,
    "query": {
        "marker": QUERY_MARKER,
        "length": 16,
        "expansion": {"token": MASK, "length": 16, "attend": False},
    },
    "passage": {"marker": PASSAGE_MARKER, "skip": [1012, 1010]},  # the full stop and the comma
}
TABLE = np.random.default_rng(0).normal(size=(30522, WIDTH)).astype(np.float32)

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A folder whose graph looks up a state for each token, plus one for what is attended."""

    def made(late: dict[str, Any], pooled: bool = False) -> Path:
        folder = tmp_path / f"model{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        for name in ("tokenizer.json", "config.json"):
            shutil.copyfile(bundled_folder() / name, folder / name)
        nodes = [
            helper.make_node("Gather", ["table", "input_ids"], ["tokens"]),
            helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["mask", "last"], ["wide"]),
        ]
        if pooled:  # a mean over what is attended
            nodes += [
                helper.make_node("Mul", ["tokens", "wide"], ["real"]),
                helper.make_node("ReduceSum", ["real", "one"], ["states"], keepdims=1),
            ]
        else:
            nodes.append(helper.make_node("Add", ["tokens", "wide"], ["states"]))
        constants = {"table": TABLE, "last": np.array([2]), "one": np.array([1])}
        shape = ["batch", 1 if pooled else "sequence", WIDTH]
        graph = helper.make_graph(
            nodes,
            "toy",
            [
                helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"])
                for name in ("input_ids", "attention_mask")
            ],
            [helper.make_tensor_value_info("states", TensorProto.FLOAT, shape)],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        )
        opsets = [helper.make_opsetid("", 18)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), folder / "m.onnx")
        manifest = {
            "format": 1,
            "name": "toy",
            "head": {"type": "logit"},
            "activation": "raw",
            "max_length": 40,
            "variants": [{"file": "m.onnx", "batch_invariant": True}],
            "files": {},
            "late_interaction": late,
        }
        (folder / "reranker.json").write_text(json.dumps(manifest))
        return folder

    return made


def ids(text: str) -> list[int]:
    tokenizer = Tokenizer.from_file(str(bundled_folder() / "tokenizer.json"))
    found: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return found


def unit(rows: Any) -> Any:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def maxsim(query: str, passage: str, average: bool = False) -> float:
    """As ColBERT has it, written out."""
    asked = [CLS, QUERY_MARKER, *ids(query)[:13], SEP]
    attended = len(asked)
    asked += [MASK] * (16 - attended)
    bonus = (np.arange(16) < attended)[:, None]
    read = [CLS, PASSAGE_MARKER, *ids(passage)[:37], SEP]
    kept = [number for number in read if number not in (1012, 1010)]
    products = unit(TABLE[asked] + bonus) @ unit(TABLE[kept] + 1).T
    best = products.max(axis=1)
    return float(best.mean() if average else best.sum())


TEXTS = [*PASSAGES, "", ".", "Fleas, fleas; fleas.", "flea " * 60]
SHORT = [text for text in TEXTS if len(ids(text)) < 34]  # read whole, with a prompt, too


def test_a_score_is_the_sum_of_the_best_matches(make: Make) -> None:
    with Ranker(make(COLBERT), long="truncate") as ranker:
        for query in (QUERY, "", "flea " * 30):
            expected = [maxsim(query, text) for text in TEXTS]
            np.testing.assert_allclose(ranker.score(query, TEXTS), expected, rtol=1e-5)
        hits = ranker.rank("flea " * 30, ["flea"])
        assert hits[0].truncated  # the query was
        assert [hit.truncated for hit in ranker.rank(QUERY, ["flea", "flea " * 60])].count(
            True
        ) == 1


def test_best_matches_may_be_averaged(make: Make) -> None:
    with Ranker(make({**COLBERT, "average": True}), long="truncate") as ranker:
        expected = [maxsim(QUERY, text, average=True) for text in TEXTS]
        np.testing.assert_allclose(ranker.score(QUERY, TEXTS), expected, rtol=1e-5)


def test_an_embedding_is_the_one_state_of_a_text(make: Make, tmp_path: Path) -> None:
    late = {
        "maxsim": 1.0,
        "width": WIDTH,
        "query": {"prompt": "query: "},
        "passage": {"prompt": "passage: "},
    }

    def embedding(text: str) -> Any:
        return unit(TABLE[[CLS, *ids(text)[:38], SEP]].sum(axis=0))

    asked = embedding("query: " + QUERY)
    expected = [float(asked @ embedding("passage: " + text)) for text in TEXTS]
    with Ranker(make(late, pooled=True), long="truncate") as ranker:
        np.testing.assert_allclose(ranker.score(QUERY, TEXTS), expected, atol=1e-5)
        store = ranker.encode_passages(SHORT, tmp_path / "a.store", precision="int8")
        found = ranker.score(QUERY, store)
        short = [expected[TEXTS.index(text)] for text in SHORT]
        np.testing.assert_allclose(found, short, atol=0.02)
        again = ranker.score(QUERY, store.select([3, 1]))
        np.testing.assert_array_equal(again, found[[3, 1]])


def test_a_cache_and_a_store_keep_the_states_that_count(make: Make, tmp_path: Path) -> None:
    folder = make(COLBERT)
    with Ranker(folder, passage_cache="1MB") as cached, Ranker(folder) as ranker:
        store = ranker.encode_passages(SHORT, tmp_path / "a.store", precision="int8")
        expected = [maxsim(QUERY, text) for text in SHORT]
        stored, kept = ranker.score(QUERY, store), cached.score(QUERY, SHORT)
        np.testing.assert_allclose(stored, expected, atol=0.15)
        np.testing.assert_allclose(kept, stored, atol=1e-4)
        np.testing.assert_allclose(cached.score(QUERY, SHORT), kept, atol=1e-6)


def test_max_length_is_that_of_a_passage(make: Make) -> None:
    folder = make(COLBERT)
    text = "flea water " * 60
    with Ranker(folder, long="truncate", max_length=20) as short:
        shortened = " ".join(("flea water " * 60).split()[:17])
        expected = maxsim(QUERY, shortened)
        np.testing.assert_allclose(short.score(QUERY, [text]), [expected], rtol=1e-5)
        assert short.passage_reader().passage_room == 17
    with pytest.raises(InvalidInput, match="max_length=3 is too small: 3 of the tokens"):
        Ranker(folder, max_length=3)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"width": 4}, "states of 8 columns, and the manifest says 4"),
        ({"width": "wide"}, "'wide' for 'width': it must be a whole number"),
        ({"width": True}, "True for 'width': it must be a whole number"),
        ({"average": 1}, "1 for 'average': it must be true or false"),
        ({"query": []}, "for 'query': it must be an object"),
        ({"passage": {"skip": ["."]}}, "for 'skip': it must be a list of token ids"),
        ({"query": {"expansion": {"token": 1}}}, "None for 'length': it must be a whole number"),
        ({"query": {"prompt": 7}}, "7 for 'prompt': it must be a text"),
    ],
)
def test_a_manifest_that_cannot_be_followed_is_refused(
    make: Make, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidModel, match=said):
        Ranker(make({**COLBERT, **change}))


def test_states_without_a_word_of_how_they_are_read_are_refused(make: Make) -> None:
    with pytest.raises(InvalidModel, match="or its manifest no late_interaction that fits"):
        Ranker(make({"maxsim": 1.0}))


def test_a_store_of_passages_that_were_read_otherwise_is_refused(
    make: Make, tmp_path: Path
) -> None:
    with Ranker(make(COLBERT)) as ranker:
        store = ranker.encode_passages(SHORT, tmp_path / "a.store")
    with (
        Ranker(make({**COLBERT, "passage": {"prompt": "passage: "}})) as other,
        pytest.raises(InvalidInput, match="made with passage"),
    ):
        other.rank(QUERY, store)
