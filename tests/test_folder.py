"""Model folders: what stands in for a manifest, which graph is run, what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import toy_graph
from folder_support import folder_with, hf_folder

from flashrank_lite import ChecksumMismatch, InvalidModel, Ranker
from flashrank_lite.models.folder import open_folder


def test_a_file_of_another_size_is_refused_at_once(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "m")
    (folder / "model.onnx").write_bytes(b"a grap")
    with pytest.raises(ChecksumMismatch, match=r"6 bytes.*states 7.*again"):
        open_folder(folder)


def test_a_folder_that_says_nothing_of_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match=r"neither reranker\.json nor config\.json"):
        open_folder(hf_folder(tmp_path / "m", None))


def test_an_empty_graph_beside_large_files_is_refused(
    toy_folder: Callable[..., Path],
) -> None:
    folder = toy_folder(toy_graph())
    (folder / "model.onnx").write_bytes(b"")
    with (folder / "model.safetensors").open("wb") as large:
        large.truncate(160_000_000)
    with pytest.raises(InvalidModel, match=r"onnxruntime .* cannot load .*model\.onnx"):
        Ranker(folder)


def test_a_missing_tokenizer_is_said(tmp_path: Path) -> None:
    folder = hf_folder(tmp_path / "m", {})
    (folder / "tokenizer.json").unlink()
    with pytest.raises(InvalidModel, match=r"no tokenizer\.json.*save_pretrained"):
        open_folder(folder)


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
    manifest = open_folder(hf_folder(tmp_path / "m", config, **tokenizer)).manifest
    assert (manifest.max_length, manifest.length_limit) == lengths


@pytest.mark.parametrize(
    ("tokenizer", "told_apart"),
    [
        ({"model_input_names": ["input_ids", "attention_mask"]}, False),
        ({"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}, True),
        ({"tokenizer_class": "RobertaTokenizer"}, True),  # a class's default is not a statement
        ({"model_input_names": "input_ids"}, True),
        ({}, True),
    ],
)
def test_an_explicit_list_of_inputs_tells_whether_the_passage_has_a_type_of_its_own(
    tmp_path: Path, tokenizer: dict[str, Any], told_apart: bool
) -> None:
    folder = hf_folder(tmp_path / "m", {}, **tokenizer)
    assert open_folder(folder).manifest.token_types is told_apart
    folder_with(folder)  # the exporter compared its graph with types: only its manifest counts
    assert open_folder(folder).manifest.token_types is True
    folder_with(folder, token_types=False)
    assert open_folder(folder).manifest.token_types is False


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
    assert open_folder(hf_folder(tmp_path / "m", {}, *files)).graph.file == chosen


def test_no_graph_or_several_unknown_ones_are_said(tmp_path: Path) -> None:
    folder = hf_folder(tmp_path / "m", {}, "a.onnx", "b.onnx")
    with pytest.raises(InvalidModel, match=r"several graphs \(a\.onnx, b\.onnx\)"):
        open_folder(folder)
    for file in folder.glob("*.onnx"):
        file.unlink()
    with pytest.raises(InvalidModel, match=r"no \*\.onnx file"):
        open_folder(folder)


@pytest.mark.parametrize(
    "kind", ["gemma", "gemma2", "gemma3_text", "llama", "mistral", "phi3", "qwen2", "qwen3"]
)
def test_a_decoder_is_not_asked_without_the_prompt_that_only_a_manifest_states(
    tmp_path: Path, kind: str
) -> None:
    folder = hf_folder(tmp_path / "m", {"model_type": kind})
    with pytest.raises(InvalidModel, match=rf"{kind}.*prompt.*`flashrank-lite export MODEL OUT`"):
        open_folder(folder)
    folder_with(folder)
    assert open_folder(folder).manifest.name == "toy"


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


def test_a_folder_that_was_trained_without_token_types_is_scored_without_them(
    toy_folder: Callable[..., Path],
) -> None:
    steps = [
        ("Mul", ["token_type_ids", "attention_mask"], ["shown"], {}),
        ("Cast", ["shown"], ["floats"], {"to": 1}),
        ("ReduceSum", ["floats", "last"], ["logits"], {"keepdims": 1}),
    ]
    names = ("input_ids", "attention_mask", "token_type_ids")
    folder = toy_folder(toy_graph(steps, inputs=dict.fromkeys(names, "INT64")))
    with Ranker(folder, activation="raw") as ranker:
        assert ranker.score("fleas", ["Butter melts"]).tolist() == [3]  # two words, and [SEP]
    listed = '{"model_input_names": ["input_ids", "attention_mask"]}'
    (folder / "tokenizer_config.json").write_text(listed)
    with Ranker(folder, activation="raw") as ranker:
        assert ranker.score("fleas", ["Butter melts"]).tolist() == [0]
