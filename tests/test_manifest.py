import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import toy_graph

from flashrank_lite import ChecksumMismatch, InvalidModel, Ranker
from flashrank_lite.models import config as hf
from flashrank_lite.models import manifest as manifest_module
from flashrank_lite.models.manifest import read_manifest, verify
from flashrank_lite.models.sources import bundled_folder


def facts(file: Path) -> dict[str, Any]:
    content = file.read_bytes()
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def folder_with(folder: Path, **changes: Any) -> Path:
    """A folder of stand-in files with a right manifest, but for `changes` (None removes a key)."""
    folder.mkdir(exist_ok=True)
    (folder / "model.onnx").write_bytes(b"a graph")
    (folder / "tokenizer.json").write_text("{}")
    manifest = {
        "format": 1,
        "name": "toy",
        "head": {"type": "logit"},
        "activation": "raw",
        "max_length": 128,
        "languages": ["en", "de"],
        "license": "mit",
        "variants": [
            {
                "file": "model.onnx",
                "precision": "fp32",
                "batch_invariant": True,
                **facts(folder / "model.onnx"),
            },
            {"file": "not-there.onnx", "precision": "fp16", "size": 1, "sha256": "0"},
        ],
        "files": {"tokenizer.json": facts(folder / "tokenizer.json")},
    } | changes
    kept = {key: value for key, value in manifest.items() if value is not None}
    (folder / "reranker.json").write_text(json.dumps(kept))
    return folder


def hf_folder(folder: Path, config: dict[str, Any] | None, *graphs: str, **tokenizer: Any) -> Path:
    folder.mkdir(exist_ok=True)
    for graph in graphs or ("model.onnx",):
        (folder / graph).parent.mkdir(exist_ok=True)
        (folder / graph).touch()
    (folder / "tokenizer.json").write_text("{}")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    if tokenizer:
        (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    return folder


def test_the_bundled_model_is_what_its_manifest_says() -> None:
    manifest = read_manifest(bundled_folder())
    assert verify(bundled_folder())[:1] == [manifest.variant.file]
    assert {"tokenizer.json", "config.json"} <= set(verify(bundled_folder()))
    assert manifest.license
    assert manifest.languages


def documented(*keys: str) -> set[str]:
    """Of `keys`, those that the description of the format explains."""
    text = (manifest_module.__doc__ or "").split("Format 1", 1)[1]
    lines = [line.strip() for line in text.splitlines()]
    starts = [re.match(r"[\w, ]+(?=:)|\w+", line) for line in lines]
    words = {word for start in starts if start for word in re.findall(r"\w+", start[0])}
    return words & {*keys}


def test_every_key_that_is_read_or_written_is_documented() -> None:
    written = (Path(manifest_module.__file__).parents[1] / "export" / "folder.py").read_text()
    write = written.split("def _write(")[1].split("def _replace(")[0]
    keys = {*re.findall(r'"(\w+)":', write)} - {"type"}
    assert {"variants", "file", "requires", "inputs", "padding_side", "template"} <= keys
    bundled = json.loads((bundled_folder() / "reranker.json").read_text())
    keys |= bundled.keys() | {key for variant in bundled["variants"] for key in variant}
    read = Path(manifest_module.__file__).read_text()
    keys |= {*re.findall(r'(?:data|entry), "(\w+)"', read)}
    keys |= {*re.findall(r'(?:data|entry)\.get\("(\w+)"', read)}
    assert keys - documented(*keys) == set()


def test_a_manifest_is_read(tmp_path: Path) -> None:
    manifest = read_manifest(folder_with(tmp_path / "m", head={"type": "two_class", "relevant": 0}))
    assert (manifest.name, manifest.head, manifest.relevant) == ("toy", "two_class", 0)
    assert (manifest.activation, manifest.max_length, manifest.length_limit) == ("raw", 128, 128)
    assert (manifest.languages, manifest.license) == (("en", "de"), "mit")
    assert [variant.file for variant in manifest.variants] == ["model.onnx", "not-there.onnx"]
    assert manifest.variant.precision == "fp32"
    assert manifest.variant.batch_invariant is True


def test_config_json_beside_a_manifest_lifts_the_length_limit(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "m")
    (folder / "config.json").write_text('{"max_position_embeddings": 512}')
    assert read_manifest(folder).max_length == 128
    assert read_manifest(folder).length_limit == 512


@pytest.mark.parametrize(
    "key", ["format", "name", "head", "activation", "max_length", "variants", "files"]
)
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    with pytest.raises(InvalidModel, match=f"reranker.json lacks the key '{key}'"):
        read_manifest(folder_with(tmp_path / "m", **{key: None}))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format": 2}, "format 2.*upgrade flashrank-lite"),
        ({"format": 0}, "format 0.*export the model again"),
        ({"format": "1"}, "'1' for 'format'.*of type int"),
        ({"head": {"type": "listwise"}}, "'listwise' for 'type'.*'logit' or 'two_class'"),
        ({"head": {}}, "lacks the key 'type'"),
        ({"head": {"type": "two_class", "relevant": 2}}, "2 for 'relevant'.*0 or 1"),
        ({"activation": "softmax"}, "'softmax' for 'activation'"),
        ({"max_length": "512"}, "of type int"),
        ({"max_length": True}, "of type int"),
        ({"variants": []}, "no variants"),
        ({"variants": ["model.onnx"]}, "lacks the key 'file'"),
        ({"variants": [{"file": "../model.onnx"}]}, "does not lie in its folder"),
        ({"variants": [{"file": "/etc/passwd"}]}, "does not lie in its folder"),
        ({"variants": [{"file": "gone.onnx"}]}, "gone.onnx is missing"),
        ({"files": {"gone.txt": {"size": 1}}}, "gone.txt is missing"),
        ({"files": {"tokenizer.json": {"size": "2"}}}, "'2' for 'size'"),
    ],
)
def test_a_wrong_value_is_named(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidModel, match=says):
        read_manifest(folder_with(tmp_path / "m", **changes))


@pytest.mark.parametrize("content", ["{", "[]", "\udcff"])
def test_a_manifest_that_is_no_json_object_is_refused(tmp_path: Path, content: str) -> None:
    folder = folder_with(tmp_path / "m")
    (folder / "reranker.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(InvalidModel, match=r"reranker\.json"):
        read_manifest(folder)


def test_a_file_of_another_size_is_refused_at_once(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "m")
    (folder / "model.onnx").write_bytes(b"a grap")
    with pytest.raises(ChecksumMismatch, match=r"6 bytes.*says 7.*again"):
        read_manifest(folder)


def test_a_changed_file_of_the_same_size_is_found_by_verify(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "m")
    assert verify(folder) == ["model.onnx", "tokenizer.json"]
    (folder / "model.onnx").write_bytes(b"a grapj")
    read_manifest(folder)
    with pytest.raises(ChecksumMismatch, match=r"sha256.*damaged"):
        verify(folder)


def test_verify_does_not_ask_which_graph_would_be_run(tmp_path: Path) -> None:
    assert verify(hf_folder(tmp_path / "odd", {}, "a.onnx", "b.onnx")) == []
    folder = folder_with(tmp_path / "m")
    variant = {"file": "model.onnx", **facts(folder / "model.onnx"), "requires": ["no_such_set"]}
    folder_with(folder, variants=[variant])
    with pytest.raises(InvalidModel, match="no graph for this processor"):
        read_manifest(folder)
    assert verify(folder) == ["model.onnx", "tokenizer.json"]


@pytest.mark.parametrize("gone", ["model.onnx", "tokenizer.json"])
def test_verify_says_that_a_file_is_gone(tmp_path: Path, gone: str) -> None:
    folder = folder_with(tmp_path / "m")
    (folder / gone).unlink()
    with pytest.raises(InvalidModel, match=r"is missing"):
        verify(folder)


def test_a_folder_that_says_nothing_of_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match=r"neither reranker\.json nor config\.json"):
        read_manifest(hf_folder(tmp_path / "m", None))


def test_a_missing_tokenizer_is_said(tmp_path: Path) -> None:
    folder = hf_folder(tmp_path / "m", {})
    (folder / "tokenizer.json").unlink()
    with pytest.raises(InvalidModel, match=r"no tokenizer\.json.*save_pretrained"):
        read_manifest(folder)


@pytest.mark.parametrize(
    ("config", "tokenizer", "lengths"),
    [
        ({"max_position_embeddings": 512}, {}, (512, 512)),
        ({"max_position_embeddings": 512}, {"model_max_length": 256}, (256, 512)),
        ({"max_position_embeddings": 512}, {"model_max_length": 1e30}, (512, 512)),
        ({"max_position_embeddings": 512}, {"model_max_length": 10**30}, (512, 512)),
        ({}, {"model_max_length": 384}, (384, None)),
        ({}, {}, (512, None)),
        ({"max_position_embeddings": -1}, {"model_max_length": None}, (512, None)),
        (
            {"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1},
            {},
            (512, 512),
        ),
        (
            {"model_type": "xlm-roberta", "max_position_embeddings": 514, "pad_token_id": 1},
            {"model_max_length": 514},
            (512, 512),
        ),
        ({"model_type": "camembert", "max_position_embeddings": 514}, {}, (512, 512)),
        (
            {"model_type": "mpnet", "max_position_embeddings": 514, "pad_token_id": 1},
            {},
            (512, 512),
        ),
    ],
)
def test_lengths_come_from_the_position_table_and_the_tokenizer(
    tmp_path: Path,
    config: dict[str, Any],
    tokenizer: dict[str, Any],
    lengths: tuple[int, int | None],
) -> None:
    manifest = read_manifest(hf_folder(tmp_path / "m", config, **tokenizer))
    assert (manifest.max_length, manifest.length_limit) == lengths


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        (["model.onnx", "model_int8.onnx"], "model_int8.onnx"),
        (["model_quantized.onnx", "model.onnx"], "model.onnx"),
        (["onnx/model.onnx", "onnx/model_quantized.onnx"], "onnx/model.onnx"),
        (["onnx/model_int8.onnx", "model.onnx"], "model.onnx"),
        (["model_quantized.onnx"], "model_quantized.onnx"),
        (["onnx/model_O2.onnx"], "onnx/model_O2.onnx"),
        (["reranker.onnx"], "reranker.onnx"),
    ],
)
def test_without_a_manifest_the_graph_is_chosen_in_the_documented_order(
    tmp_path: Path, files: list[str], chosen: str
) -> None:
    assert read_manifest(hf_folder(tmp_path / "m", {}, *files)).variant.file == chosen


def test_no_graph_or_several_unknown_ones_are_said(tmp_path: Path) -> None:
    folder = hf_folder(tmp_path / "m", {}, "a.onnx", "b.onnx")
    with pytest.raises(InvalidModel, match=r"several graphs \(a\.onnx, b\.onnx\)"):
        read_manifest(folder)
    for file in folder.glob("*.onnx"):
        file.unlink()
    with pytest.raises(InvalidModel, match=r"no \*\.onnx file"):
        read_manifest(folder)


@pytest.mark.parametrize(
    ("config", "activation"),
    [
        ({}, "sigmoid"),
        ({"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}, "raw"),
        (
            {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}},
            "raw",
        ),
        (
            {
                "sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"},
                "sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity",
            },
            "sigmoid",
        ),
    ],
)
def test_the_activation_is_the_one_that_sentence_transformers_would_take(
    config: dict[str, Any], activation: str
) -> None:
    assert hf.activation(config) == activation


@pytest.mark.parametrize(
    "kind", ["gemma", "gemma2", "gemma3_text", "llama", "mistral", "phi3", "qwen2", "qwen3"]
)
def test_a_decoder_is_not_asked_without_the_prompt_that_only_a_manifest_states(
    tmp_path: Path, kind: str
) -> None:
    folder = hf_folder(tmp_path / "m", {"model_type": kind})
    with pytest.raises(InvalidModel, match=rf"{kind}.*prompt.*`flashrank-lite export MODEL OUT`"):
        read_manifest(folder)
    folder_with(folder)
    assert read_manifest(folder).name == "toy"


@pytest.mark.parametrize(
    ("labels", "relevant"),
    [
        (None, 1),
        ({"0": "LABEL_0", "1": "LABEL_1"}, 1),
        ({"0": "irrelevant", "1": "relevant"}, 1),
        ({"0": "Relevant", "1": "not_relevant"}, 0),
        ({"0": "yes", "1": "no"}, 0),
    ],
)
def test_the_relevant_class_is_found_by_its_label(labels: Any, relevant: int) -> None:
    assert hf.relevant_class({"id2label": labels}) == relevant


@pytest.mark.parametrize(
    ("config", "tokenizer", "padding"),
    [
        ({"pad_token_id": 7}, {"pad_token": "<pad>"}, 7),
        ({"pad_token_id": None}, {"pad_token": "<pad>"}, "<pad>"),
        ({}, {"pad_token": {"content": "<pad>"}}, "<pad>"),
        ({}, {}, "[PAD]"),
    ],
)
def test_padding_is_the_configs_or_else_the_tokenizers(
    config: dict[str, Any], tokenizer: dict[str, Any], padding: int | str
) -> None:
    assert hf.padding(config, tokenizer) == padding


def test_a_two_class_folder_without_a_manifest_ranks_by_its_relevant_label(
    toy_folder: Callable[..., Path],
) -> None:
    steps = [
        ("Mul", ["input_ids", "attention_mask"], ["shown"], {}),
        ("Cast", ["shown"], ["floats"], {"to": 1}),
        ("ReduceSum", ["floats", "last"], ["sum"], {"keepdims": 1}),
        ("Div", ["sum", "thousand"], ["one"], {}),
        ("Neg", ["one"], ["other"], {}),
        ("Concat", ["one", "other"], ["logits"], {"axis": 1}),
    ]
    graph = toy_graph(steps, output_shape=("batch", 2))
    passages = ["Butter melts at about 32", "eggs"]
    folder = toy_folder(graph, {"id2label": {"0": "relevant", "1": "irrelevant"}})
    first = Ranker(folder).score("fleas", passages)
    assert Ranker(folder).info()["head"] == "two_class"
    (folder / "config.json").write_text('{"max_position_embeddings": 64}')
    second = Ranker(folder).score("fleas", passages)
    assert first[0] > first[1] > 0.5
    assert (first + second).tolist() == pytest.approx([1, 1])


def test_a_graph_that_is_no_relevance_head_is_refused(toy_folder: Callable[..., Path]) -> None:
    steps = [
        ("Cast", ["input_ids"], ["floats"], {"to": 1}),
        ("Unsqueeze", ["floats", "minus"], ["last_hidden_state"], {}),
    ]
    graph = toy_graph(
        steps,
        inputs={"input_ids": "INT64"},
        output="last_hidden_state",
        output_shape=("batch", "sequence", 1),
        constants={"minus": np.array([2], np.int64)},
    )
    with pytest.raises(InvalidModel, match=r"last_hidden_state \(\?, \?, 1\).*cross-encoder"):
        Ranker(toy_folder(graph))
