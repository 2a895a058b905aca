"""Graphs that one file cannot hold: the whole way of an export, with the limit set low."""

import json
import os
import shutil

import export_families as families
import numpy as np
import pytest
from export_families import pooled, questions
from export_support import require_export
from folder_support import documented, manifest_keys
from hub_support import TOKEN, hub

from flashrank_lite import ChecksumMismatch, InvalidModel, Ranker
from flashrank_lite.cli import main
from flashrank_lite.models.verification import verify

require_export()

import onnx  # noqa: E402
from onnx import TensorProto, numpy_helper  # noqa: E402

from flashrank_lite.export import export_folder, read_checkpoint  # noqa: E402
from flashrank_lite.export.graph import weights  # noqa: E402
from flashrank_lite.export.hub import push  # noqa: E402

__all__ = ["hub"]  # the fixture

LIMIT = 50_000  # bytes: both graphs of these models have more
MAKERS = {"Qwen3-Reranker-tiny": families.qwen3, "xlm-roberta": families.xlm_roberta}
GRAPHS = ["model.onnx", "model_int8.onnx"]


@pytest.fixture(scope="module", params=MAKERS)
def exported(request, tmp_path_factory):
    """A checkpoint's export in one file a graph, and in two."""
    folder = tmp_path_factory.mktemp("large") / request.param
    MAKERS[request.param](folder / "checkpoint")
    if request.param.startswith("Qwen3"):
        (folder / "checkpoint").rename(folder / request.param)
        checkpoint = folder / request.param
    else:
        checkpoint = folder / "checkpoint"
    figures = export_folder(read_checkpoint(checkpoint), folder / "one", pooled())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "LARGEST_FILE", LIMIT)
        again = export_folder(read_checkpoint(checkpoint), folder / "two", pooled())
    assert again == figures
    return folder


def test_weights_beyond_the_limit_lie_beside_the_graph_and_only_those(exported):
    one, two = ({file.name for file in (exported / n).iterdir()} for n in ("one", "two"))
    assert two - one == {"model.onnx_data", "model_int8.onnx_data"}
    assert one <= two
    for name in GRAPHS:
        kept = onnx.load(str(exported / "two" / name), load_external_data=False).graph.initializer
        inside = [t for t in kept if t.data_location != TensorProto.EXTERNAL]
        assert sum(len(tensor.raw_data) for tensor in inside) < LIMIT
        (beside,) = {e.value for t in kept for e in t.external_data if e.key == "location"}
        assert beside == f"{name}_data"


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_in_two_files_holds_and_scores_what_it_does_in_one(exported, name):
    one, two = (onnx.load(str(exported / n / name)).graph for n in ("one", "two"))
    assert [node.op_type for node in one.node] == [node.op_type for node in two.node]
    for a, b in zip(one.initializer, two.initializer, strict=True):
        np.testing.assert_array_equal(numpy_helper.to_array(a), numpy_helper.to_array(b))
    query, passages = questions()[0]
    scores = []
    for folder in ("one", "two"):
        with Ranker(exported / folder, file=name, activation="raw") as ranker:
            scores.append(ranker.score(query, passages).tolist())
    assert scores[0] == scores[1]
    assert np.ptp(scores[0]) > 0.05


def test_weights_that_fit_one_file_stay_in_it(exported, tmp_path, monkeypatch):
    """As int8 does of 0.6 B parameters, and fp32 does not."""
    sizes = [(exported / "one" / name).stat().st_size for name in GRAPHS]
    monkeypatch.setattr(weights, "LARGEST_FILE", sum(sizes) // 2)
    checkpoint = next(path.parent for path in exported.glob("*/model.safetensors"))
    export_folder(read_checkpoint(checkpoint), tmp_path / "out", pooled())
    assert {f.name for f in (tmp_path / "out").glob("*.onnx*")} == {*GRAPHS, "model.onnx_data"}
    monkeypatch.undo()
    with Ranker(tmp_path / "out") as ranker, Ranker(exported / "one") as whole:
        query, passages = questions()[1]
        assert ranker.score(query, passages).tolist() == whole.score(query, passages).tolist()
    export_folder(read_checkpoint(checkpoint), tmp_path / "out", pooled(), precisions=["int8"])
    assert {f.name for f in (tmp_path / "out").glob("*.onnx*")} == {"model_int8.onnx"}


def test_the_manifest_vouches_for_the_weights(exported):
    manifest = json.loads((exported / "two" / "reranker.json").read_text())
    data = {name: facts for v in manifest["variants"] for name, facts in v["data"].items()}
    assert {n: f["size"] for n, f in data.items()} == {
        f.name: f.stat().st_size for f in (exported / "two").glob("*_data")
    }
    assert {*GRAPHS, *data} < {*verify(exported / "two")}
    assert "`model.onnx`, `model.onnx_data`" in (exported / "two" / "README.md").read_text()


def test_every_key_that_is_written_is_documented(exported):
    keys = manifest_keys(exported / "two")
    prompted = "Qwen" in exported.name
    assert keys >= {"inputs", "padding_side", "data"} | ({"template"} if prompted else set())
    assert keys - documented(*keys) == set()


@pytest.mark.parametrize("damage", ["cut", "gone", "other"])
def test_weights_that_are_not_whole_are_said_with_what_to_do(exported, tmp_path, damage):
    folder = tmp_path / "m"
    shutil.copytree(exported / "two", folder)
    data = folder / "model_int8.onnx_data"
    if damage == "cut":
        os.truncate(data, 5000)
    elif damage == "gone":
        data.unlink()
    else:
        data.write_bytes(bytes(data.stat().st_size))
    kind = InvalidModel if damage == "gone" else ChecksumMismatch
    with pytest.raises(kind, match=r"model_int8\.onnx_data.*export the model again"):
        verify(folder)
    if damage == "other":
        return  # a load compares sizes alone
    with pytest.raises(kind, match=r"model_int8\.onnx_data.*export the model again"):
        Ranker(folder)
    with Ranker(folder, file="model.onnx") as ranker:  # the other graph is whole
        assert len(ranker.score("what are fleas", ["an insect"])) == 1


def test_a_folder_goes_to_the_hub_and_comes_back_with_its_weights(
    exported, hub, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    push(exported / "two", "me/large")
    files = hub.uploads["me/large"]
    assert files == {file.name: file.read_bytes() for file in (exported / "two").iterdir()}
    hub.add("me/large", files)
    assert main(["models", "pull", "me/large", "--to", str(tmp_path / "m")]) == 0
    graphs = {file.name for file in (tmp_path / "m").glob("*.onnx*")}
    assert graphs == {"model_int8.onnx", "model_int8.onnx_data"}  # of the one that is run
    query, passages = questions()[0]
    with Ranker(tmp_path / "m") as pulled, Ranker(exported / "two") as made:
        assert pulled.score(query, passages).tolist() == made.score(query, passages).tolist()
    hub.add("me/lacking", {n: f for n, f in files.items() if n != "model_int8.onnx_data"})
    with pytest.raises(InvalidModel, match=r"lacks model_int8\.onnx_data"):
        Ranker("me/lacking")
    hub.add("me/mixed", {**files, "model_int8.onnx_data": files["model_int8.onnx_data"] + b"x"})
    with pytest.raises(ChecksumMismatch, match=r"but reranker\.json states"):
        Ranker("me/mixed")
