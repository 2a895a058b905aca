"""torch checkpoint → model folder → Ranker, compared with torch itself."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from export_support import (
    QUERIES,
    passages,
    require_export,
    save_bert,
    save_tokenizer,
    texts,
    torch_logits,
)

from flashrank_lite import Ranker
from flashrank_lite.errors import InvalidInput, InvalidModel, ModelNotFound
from flashrank_lite.models.verification import verify

require_export()

import torch  # noqa: E402

from flashrank_lite.evaluation import kendall_tau  # noqa: E402
from flashrank_lite.export import export_folder, read_checkpoint  # noqa: E402
from flashrank_lite.export.folder import feeds_of  # noqa: E402

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    return save_bert(folder), folder


@pytest.fixture(scope="module")
def exported(bert, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported")
    figures = export_folder(read_checkpoint(bert[1]), out, texts())
    return out, figures


@pytest.fixture(scope="module")
def accurate(bert, tmp_path_factory):
    out = tmp_path_factory.mktemp("accurate")
    export_folder(read_checkpoint(bert[1]), out, texts(), int8="accurate")
    return out


def test_fp32_scores_are_those_of_torch(bert, exported, tmp_path):
    model, folder = bert
    only_fp32 = tmp_path / "fp32"
    export_folder(read_checkpoint(folder), only_fp32, texts(), precisions=["fp32"])
    with Ranker(only_fp32, activation="raw", long="truncate") as ranker:
        for number, query in enumerate(QUERIES):
            found = passages(100 + number)
            expected = [x[0] for x in torch_logits(model, folder, query, found, 160)]
            np.testing.assert_allclose(ranker.score(query, found), expected, atol=1e-4)
            assert np.ptp(expected) > 0.05  # else equal scores would prove nothing


def test_int8_keeps_the_order_of_fp32(bert, exported):
    model, folder = bert
    with Ranker(exported[0], activation="raw", long="truncate") as ranker:
        assert ranker.info()["precision"] == "int8"
        taus = []
        for number, query in enumerate(QUERIES):
            found = passages(200 + number, 20)
            expected = [x[0] for x in torch_logits(model, folder, query, found, 160)]
            taus.append(kendall_tau(expected, ranker.score(query, found)))
    assert np.mean(taus) > 0.8


def test_accurate_int8_keeps_more_of_the_order_and_scores_no_passage_by_its_neighbours(
    exported, accurate
):
    def error(folder):  # the mean: the largest of a few hundred is a matter of chance
        found = [passages(500 + number, 60) for number, _ in enumerate(QUERIES)]
        pairs = list(zip(QUERIES, found, strict=True))
        plain = Ranker(folder, file="model.onnx", activation="raw")
        with plain as fp32, Ranker(folder, activation="raw") as int8:
            return np.mean([np.abs(int8.score(*p) - fp32.score(*p)) for p in pairs])

    assert error(accurate) < 0.95 * error(exported[0])
    found = passages(7, 30)
    with Ranker(accurate) as ranker:
        assert ranker.info()["precision"] == "int8"
        together = ranker.score(QUERIES[0], found)
        alone = [ranker.score(QUERIES[0], [p])[0] for p in found]
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_int8_scores_do_not_depend_on_neighbours(exported):
    found = passages(7, 30)
    with Ranker(exported[0]) as ranker:
        together = ranker.score(QUERIES[0], found)
        alone = [ranker.score(QUERIES[0], [p])[0] for p in found]
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_a_large_model_is_compared_on_shorter_texts_and_its_manifest_says_so(
    bert, exported, tmp_path, monkeypatch
):
    from flashrank_lite.export import fidelity

    monkeypatch.setattr(fidelity, "CHECKED_WORK", 1.0)  # as if this one were large
    monkeypatch.setattr(fidelity, "SHORTEST_CHECKED", 48)
    export_folder(read_checkpoint(bert[1]), tmp_path, texts(), precisions=["fp32"])
    compared = []
    for folder in (exported[0], tmp_path):
        stated = json.loads((folder / "reranker.json").read_text())
        assert stated["max_length"] == 160  # what it takes is another matter
        compared += [v["fidelity"]["fp32_vs_torch_longest_tokens"] for v in stated["variants"]]
    assert compared == [160, 160, 48]


class Changing(torch.nn.Module):
    """A cross-encoder that is another one once it has been traced."""

    def __init__(self, module, after):
        super().__init__()
        self.module, self.after = module, after

    def forward(self, *tensors):
        logits = self.module(*tensors)
        return logits if torch.onnx.is_in_onnx_export() else self.after(logits)


class Mixing(torch.nn.Module):
    """A cross-encoder whose logits depend on the other rows of the batch."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, *tensors):
        logits = self.module(*tensors)
        return logits + logits.max()


@pytest.mark.parametrize("after", [lambda x: x + 0.01, lambda x: x * float("nan")])
def test_a_graph_that_differs_from_torch_is_not_written(bert, tmp_path, after):
    source = read_checkpoint(bert[1])
    other = replace(source, module=Changing(source.module, after))
    with pytest.raises(InvalidModel, match="differs from torch"):
        export_folder(other, tmp_path / "out", texts(), precisions=["fp32"])
    assert not (tmp_path / "out").exists()


def test_a_graph_that_mixes_rows_is_not_written(bert, tmp_path):
    source = read_checkpoint(bert[1])
    with pytest.raises(InvalidModel, match=r"differs from torch|neighbours"):
        export_folder(replace(source, module=Mixing(source.module)), tmp_path / "out", texts())
    assert not (tmp_path / "out").exists()


def test_an_export_replaces_the_graphs_of_an_earlier_one(bert, tmp_path):
    (tmp_path / "model_int8.onnx").write_bytes(b"of an earlier export")
    export_folder(read_checkpoint(bert[1]), tmp_path, texts(), precisions=["fp32"])
    assert sorted(p.name for p in tmp_path.glob("*.onnx")) == ["model.onnx"]
    assert "_name_or_path" not in json.loads((tmp_path / "config.json").read_text())


def test_the_manifest_vouches_for_the_files_and_states_the_figures(exported):
    out, figures = exported
    manifest = json.loads((out / "reranker.json").read_text())
    assert sorted(verify(out)) == ["config.json", "model.onnx", "model_int8.onnx", "tokenizer.json"]
    assert {v["precision"]: v["fidelity"] for v in manifest["variants"]} == figures
    assert set(figures["int8"]) - set(figures["fp32"]) == {
        "int8_vs_fp32_kendall_tau",
        "int8_vs_fp32_max_abs_logit",
    }


@pytest.mark.parametrize("rounding", ["exported", "accurate"])
def test_two_products_of_int8_fit_into_16_bits(rounding, bert, request):
    """Processors without VNNI add them there."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    folder = request.getfixturevalue(rounding)
    folder = folder[0] if rounding == "exported" else folder
    model = onnx.load(str(folder / "model_int8.onnx"))
    products = [n for n in model.graph.node if n.op_type == "MatMulIntegerToFloat"]
    assert len(products) >= 2 * 6  # query, key, value, its output, up and down, in each layer
    constants = {t.name: t for t in model.graph.initializer}
    sources = sorted({node.input[0] for node in products})
    model.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.UINT8, None) for name in sources
    )
    session = onnxruntime.InferenceSession(model.SerializeToString())
    largest = dict.fromkeys(sources, 0)
    for feed in feeds_of(read_checkpoint(bert[1]), texts()):
        given = {entry.name: feed[entry.name] for entry in session.get_inputs()}
        for name, found in zip(sources, session.run(sources, given), strict=True):
            largest[name] = max(largest[name], int(found.max()))
    for node in products:
        weights = numpy_helper.to_array(constants[node.input[1]]).astype(int)
        assert 2 * largest[node.input[0]] * np.abs(weights).max() < 1 << 15


@pytest.mark.parametrize("relevant", [0, 1])
def test_two_classes_are_scored_by_the_relevant_one(tmp_path, relevant):
    names = {relevant: "relevant", 1 - relevant: "irrelevant"}
    model = save_bert(
        tmp_path / "m",
        labels=2,
        id2label=names,
        label2id={name: number for number, name in names.items()},
    )
    export_folder(read_checkpoint(tmp_path / "m"), tmp_path / "out", texts(), precisions=["fp32"])
    found = passages(5)
    logits = torch_logits(model, tmp_path / "m", QUERIES[0], found, 160)
    expected = [1 / (1 + np.exp(x[1 - relevant] - x[relevant])) for x in logits]
    with Ranker(tmp_path / "out", activation="sigmoid", long="truncate") as ranker:
        np.testing.assert_allclose(ranker.score(QUERIES[0], found), expected, atol=1e-4)


def test_a_model_without_token_types_is_exported_without_them(tmp_path):
    import torch
    from transformers import RobertaConfig, RobertaForSequenceClassification

    torch.manual_seed(0)
    folder = tmp_path / "roberta"
    config = RobertaConfig(
        vocab_size=save_tokenizer(folder, roberta=True),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=130,
        type_vocab_size=1,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        num_labels=1,
        initializer_range=0.15,
    )
    model = RobertaForSequenceClassification(config).eval()
    model.save_pretrained(folder)
    source = read_checkpoint(folder)
    assert source.max_length == 128  # positions start behind the padding id
    export_folder(source, tmp_path / "out", texts(), precisions=["fp32"])
    found = [*passages(3), " ".join(["ocean"] * 300)]
    expected = [x[0] for x in torch_logits(model, folder, QUERIES[1], found, 128)]
    with Ranker(tmp_path / "out", activation="raw", long="truncate") as ranker:
        np.testing.assert_allclose(ranker.score(QUERIES[1], found), expected, atol=1e-4)


def test_a_backbone_without_a_head_is_refused(tmp_path):
    from transformers import BertModel

    model = save_bert(tmp_path / "m")
    bare: BertModel = model.bert
    bare.save_pretrained(tmp_path / "m")
    with pytest.raises(InvalidModel, match="no trained relevance head"):
        read_checkpoint(tmp_path / "m")


def test_three_classes_are_refused(tmp_path):
    save_bert(tmp_path / "m", labels=3)
    with pytest.raises(InvalidModel, match="3 classes"):
        read_checkpoint(tmp_path / "m")


def test_a_missing_folder_and_a_missing_tokenizer_are_named(tmp_path):
    with pytest.raises(ModelNotFound, match="not a folder"):
        read_checkpoint(tmp_path / "nowhere")
    save_bert(tmp_path / "m")
    (tmp_path / "m" / "tokenizer.json").unlink()
    with pytest.raises(InvalidModel, match=r"no tokenizer\.json"):
        read_checkpoint(tmp_path / "m")


def test_no_texts_is_refused_before_anything_is_written(bert, tmp_path):
    with pytest.raises(InvalidInput, match="texts"):
        export_folder(read_checkpoint(bert[1]), tmp_path / "out", [])
    assert not (tmp_path / "out").exists()


def test_the_script_exports_and_reports(bert, tmp_path):
    lists = tmp_path / "lists.jsonl"
    rows = [
        {
            "query": query,
            "candidates": [
                {"id": str(i), "text": p, "label": int(i == 0)} for i, p in enumerate(found)
            ],
        }
        for query, found in texts()
    ]
    lists.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    command = [sys.executable, str(ROOT / "scripts" / "export_onnx.py")]
    texts_and_labels = ["--calibration", str(lists), "--evaluation", str(lists)]
    arguments = [str(bert[1]), str(tmp_path / "out"), *texts_and_labels, "--precision", "int8"]
    run = partial(
        subprocess.run,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    done = run([*command, *arguments])
    assert done.returncode == 0, done.stderr
    assert "ndcg@10_lists_fp32" in done.stderr
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "README.md",
        "config.json",
        "model_int8.onnx",
        "reranker.json",
        "tokenizer.json",
    ]
    shutil.rmtree(tmp_path / "out")
    arguments[0] = str(tmp_path / "nowhere")
    failed = run([*command, *arguments])
    assert failed.returncode == 1
    assert failed.stderr.count("\n") == 1
    assert "not a folder" in failed.stderr
