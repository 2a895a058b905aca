"""Repositories that cannot be used, and the files that it takes to run one that can."""

from functools import partial

import pytest
from hub_support import LoopbackHub, hub, rank
from toy_models import external_data, model_files, pad_to_lfs, with_manifest

from flashrank_lite import ChecksumMismatch, InvalidModel, Ranker
from flashrank_lite.models.resolve import resolve

__all__ = ["hub"]  # the fixture


def test_a_repository_without_onnx_says_how_to_export_it(hub: LoopbackHub) -> None:
    files = model_files()
    del files["onnx/model.onnx"]
    hub.add("org/name", files | {"model.safetensors": pad_to_lfs("weights")})
    with pytest.raises(InvalidModel, match=r"`flashrank-lite export org/name OUT`"):
        Ranker("org/name")
    assert hub.bodies("org/name") == []


def test_a_repository_without_a_fast_tokenizer_says_so(hub: LoopbackHub) -> None:
    files = model_files()
    del files["tokenizer.json"]
    hub.add("org/name", files)
    with pytest.raises(InvalidModel, match=r"no tokenizer\.json.*`flashrank-lite export org/name"):
        Ranker("org/name")


def test_a_decoder_without_a_manifest_is_refused_before_its_graph_is_downloaded(
    hub: LoopbackHub,
) -> None:
    hub.add("org/name", model_files(model_type="qwen3"))
    for load in (Ranker, partial(resolve, refresh=True)):
        hub.log.clear()
        with pytest.raises(InvalidModel, match=r"org/name is a decoder \(qwen3\).*prompt.*export"):
            load("org/name")
        assert not [path for _, path, _ in hub.log if ".onnx" in path or "tokenizer.json" in path]
    hub.add("org/name", with_manifest(model_files("model.onnx", model_type="qwen3"), "model.onnx"))
    resolve("org/name", refresh=True)
    assert rank("org/name")["graph"] == "model.onnx"


def test_a_repository_that_says_nothing_of_itself_is_refused_before_its_graph_is_downloaded(
    hub: LoopbackHub,
) -> None:
    files = model_files()
    del files["config.json"]
    hub.add("org/name", files)
    with pytest.raises(InvalidModel, match=r"neither reranker\.json nor config\.json"):
        Ranker("org/name")
    assert hub.bodies("org/name") == []


def test_a_missing_file_of_weights_is_said(hub: LoopbackHub) -> None:
    files = external_data(model_files())
    del files["onnx/model.onnx_data"]
    hub.add("org/name", files)
    with pytest.raises(InvalidModel, match="keeps its weights in another file that is missing"):
        Ranker("org/name")


def test_an_empty_graph_that_should_have_weights_beside_it_is_refused(hub: LoopbackHub) -> None:
    files = external_data(model_files())
    hub.add("org/name", {**files, "onnx/model.onnx": b""})
    with pytest.raises(InvalidModel, match=r"onnxruntime .* cannot load .*model\.onnx"):
        Ranker("org/name")


def test_a_manifest_that_names_what_is_not_there_is_refused(hub: LoopbackHub) -> None:
    files = with_manifest(model_files("model.onnx"), "model.onnx")
    hub.add("org/name", {n: c for n, c in files.items() if n != "model.onnx"})
    hub.add("org/other", {n: c for n, c in files.items() if n != "config.json"})
    with pytest.raises(
        InvalidModel, match=r"lacks the graphs that its reranker\.json lists \(model"
    ):
        Ranker("org/name")
    with pytest.raises(InvalidModel, match=r"lacks config\.json, which its reranker\.json names"):
        Ranker("org/other")


def test_a_manifest_of_a_newer_format_is_refused(hub: LoopbackHub) -> None:
    files = with_manifest(model_files("model.onnx"), "model.onnx", format=2)
    hub.add("org/name", files)
    with pytest.raises(InvalidModel, match=r"format 2.*upgrade flashrank-lite"):
        Ranker("org/name")


def test_a_manifest_with_a_wrong_size_is_refused(hub: LoopbackHub) -> None:
    files = with_manifest(model_files("model.onnx"), "model.onnx")
    hub.add("org/name", files | {"model.onnx": files["model.onnx"] + b" "})
    with pytest.raises(ChecksumMismatch, match=r"reranker\.json states"):
        Ranker("org/name")


def test_a_manifest_with_a_wrong_sha256_is_refused(hub: LoopbackHub) -> None:
    files = with_manifest(model_files("model.onnx"), "model.onnx")
    other = files["config.json"].replace(b"64", b"46")
    hub.add("org/name", files | {"config.json": other})
    with pytest.raises(ChecksumMismatch, match=r"config\.json has sha256 .*reranker\.json states"):
        Ranker("org/name")


def test_files_that_lie_outside_the_repository_are_passed_over(hub: LoopbackHub) -> None:
    hub.add("org/name", model_files() | {"../../evil.onnx": b"x", "/evil.onnx": b"x"})
    assert rank("org/name")["graph_reason"] == "the only graph there is"
