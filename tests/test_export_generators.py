"""Rerankers that answer in words, against the recipes as their authors run them."""

import json

import export_families as families
import numpy as np
import pytest
from export_families import pooled, questions
from export_support import require_export

from flashrank_lite import InvalidModel, Ranker

require_export()

import torch  # noqa: E402
from transformers import AutoTokenizer  # noqa: E402

from flashrank_lite.evaluation import kendall_tau  # noqa: E402
from flashrank_lite.export import export_folder, read_checkpoint  # noqa: E402
from flashrank_lite.export.checkpoints.recipes import read_recipe  # noqa: E402

QWEN3_PREFIX = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and "
    'the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n"
)
QWEN3_SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
MXBAI_TASK = (
    "You are a search relevance expert who evaluates how well documents match search queries. For "
    "each query-document pair, carefully analyze the semantic relationship between them, then "
    "provide your binary relevance judgment (0 for not relevant, 1 for relevant).\nRelevance:"
)
BGE_PROMPT = (
    "Given a query A and a passage B, determine whether the passage contains an answer to the "
    "query by providing a prediction of either 'Yes' or 'No'."
)


def qwen3(ids, query, passage):
    """The model card of Qwen3-Reranker."""
    body = f"<Instruct>: {INSTRUCTION}\n<Query>: {query}\n<Document>: {passage}"
    prefix, suffix = ids(QWEN3_PREFIX), ids(QWEN3_SUFFIX)
    return prefix + ids(body)[: 1024 - len(prefix) - len(suffix)] + suffix


def mxbai(ids, query, passage):
    """mxbai_rerank_v2.py."""
    prefix = (
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant."
        "<|im_end|>\n<|im_start|>user\n"
    )
    pair = ids(f"query: {query}") + ids("\n") + ids(f"document: {passage}")
    tail = ids("\n") + ids(MXBAI_TASK) + ids("<|im_end|>\n<|im_start|>assistant\n")
    return ids(prefix) + pair + tail


def bge(ids, query, passage):
    """The model card of bge-reranker-v2-gemma."""
    pair = [2, *ids(f"A: {query}"), *ids("\n"), *ids(f"B: {passage}")]
    return pair + ids("\n") + ids(BGE_PROMPT)


def mono_t5(ids, query, passage):
    """pygaggle's MonoT5, on texts that are not truncated."""
    return [*ids(f"Query: {query} Document: {passage} Relevant:"), 1]


def rank_t5(ids, query, passage):
    return [*ids(f"Query: {query} Document: {passage}"), 1]


CASES = {
    "Qwen3-Reranker-tiny": (families.qwen3, qwen3, "yes", "no"),
    "mxbai-rerank-tiny-v2": (families.qwen2, mxbai, "1", "0"),
    "bge-reranker-v2-gemma-tiny": (families.gemma, bge, "Yes", None),
    "bge-reranker-capped": (families.gemma2, bge, "Yes", "a"),
    "monot5-tiny": (families.t5_generator, mono_t5, "true", "false"),
    "RankT5-tiny": (families.t5_generator, rank_t5, "<extra_id_10>", None),
}


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory):
    make, *_ = CASES[request.param]
    folder = tmp_path_factory.mktemp("family") / request.param
    model = make(folder)
    recipe = None
    if make is families.gemma2:  # no family that we know: its prompt comes from a file
        recipe = read_recipe(template_file(folder))
    source = read_checkpoint(folder, recipe=recipe)
    export_folder(source, folder / "fp32", questions(), precisions=["fp32"])
    export_folder(source, folder / "int8", pooled(), precisions=["int8"])
    return request.param, model, folder


def template_file(folder):
    file = folder / "template.json"
    segments = ["<bos>", "A: {query}", "\n", "B: {passage}", "\n", "{instruction}"]
    stated = {"segments": segments, "instruction": BGE_PROMPT, "yes": "Yes", "no": "a"}
    file.write_text(json.dumps(stated))
    return file


def reference(name, model, folder, query, passages):
    """Logits of the whole model, prompt by prompt, without padding."""
    _, prompt, yes, no = CASES[name]
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def ids(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    found = []
    for passage in passages:
        inputs = {"input_ids": torch.tensor([prompt(ids, query, passage)])}
        if "T5" in name or "t5" in name:
            inputs["decoder_input_ids"] = torch.tensor([[0]])
        with torch.inference_mode():
            logits = model(**inputs).logits[0, -1]
        found.append(float(logits[ids(yes)[0]] - (logits[ids(no)[0]] if no else 0)))
    return np.array(found)


def test_fp32_scores_are_those_of_the_recipe(case):
    name, model, folder = case
    with Ranker(folder / "fp32", activation="raw", long="truncate") as ranker:
        for query, passages in questions()[:3]:
            expected = reference(name, model, folder, query, passages)
            assert np.ptp(expected) > 0.1
            np.testing.assert_allclose(ranker.score(query, passages), expected, atol=2e-4)


def test_int8_keeps_the_order_and_scores_no_passage_by_its_neighbours(case):
    name, model, folder = case
    taus = []
    with Ranker(folder / "int8", activation="raw", long="truncate") as ranker:
        for query, passages in questions():
            together = ranker.score(query, passages)
            alone = [ranker.score(query, [passage])[0] for passage in passages]
            np.testing.assert_allclose(together, alone, atol=1e-4)
            taus.append(kendall_tau(reference(name, model, folder, query, passages), together))
    assert np.mean(taus) > 0.8


def test_the_vocabulary_head_is_not_in_the_graph(case):
    import onnx

    _, model, folder = case
    graph = onnx.load(str(folder / "fp32" / "model.onnx")).graph
    rows = model.config.vocab_size
    tables = [tuple(t.dims) for t in graph.initializer if rows in t.dims]
    assert len(tables) == 1, tables  # the embeddings alone
    (output,) = graph.output
    assert output.type.tensor_type.shape.dim[1].dim_value == 1


def test_a_padding_side_is_kept_and_a_prompt_too_long_is_cut_in_the_passage(case):
    _, _, folder = case
    stated = json.loads((folder / "fp32" / "reranker.json").read_text())
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    assert stated["padding_side"] == tokenizer.get("padding_side", "right")
    with Ranker(folder / "fp32", long="truncate") as ranker:
        (hit,) = ranker.rank("what are fleas", [" ".join(["an adult flea lives long"] * 300)])
    assert hit.truncated


def test_a_classifier_on_a_decoder_is_asked_like_its_family(tmp_path):
    folder = tmp_path / "Qwen3-Reranker-seq-cls"
    model = families.qwen3_classifier(folder)
    export_folder(read_checkpoint(folder), tmp_path / "out", questions(), precisions=["fp32"])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    query, passages = questions()[2]
    expected = []
    for passage in passages:
        ids = qwen3(lambda t: tokenizer(t, add_special_tokens=False)["input_ids"], query, passage)
        with torch.inference_mode():
            expected.append(model(input_ids=torch.tensor([ids])).logits[0, 0].item())
    with Ranker(tmp_path / "out", activation="raw", long="truncate") as ranker:
        np.testing.assert_allclose(ranker.score(query, passages), expected, atol=2e-4)


def test_a_decoder_of_no_known_family_needs_a_template(tmp_path):
    folder = tmp_path / "somebody-elses"
    families.qwen2(folder)
    with pytest.raises(InvalidModel, match="--template"):
        read_checkpoint(folder)


@pytest.mark.parametrize("answers", [{"yes": ""}, {"yes": "Yes", "no": 3}, {}])
def test_a_template_file_without_answers_is_refused(tmp_path, answers):
    file = tmp_path / "t.json"
    file.write_text(json.dumps({"segments": ["{query} {passage}"], **answers}))
    with pytest.raises(InvalidModel, match="answers"):
        read_recipe(file)
