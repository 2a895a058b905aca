"""Which of several graphs a processor gets, and what it is told about it."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from toy_models import model_files, with_manifest

from flashrank_lite import InvalidModel, Ranker
from flashrank_lite.models.folder import open_folder
from flashrank_lite.models.graphs import GraphChoice, choose_graph

ALL = [f"onnx/model_{name}.onnx" for name in ("O1", "O2", "O3", "O4")]
ALL += [f"onnx/model_qint8_{name}.onnx" for name in ("arm64", "avx512", "avx512_vnni")]
ALL += ["onnx/model.onnx", "onnx/model_quint8_avx2.onnx"]
XENOVA = [
    f"onnx/model{name}.onnx" for name in ("", "_fp16", "_int8", "_q4", "_quantized", "_uint8")
]


def choose(files: list[str], has: set[str]) -> GraphChoice:
    return choose_graph((), files, "here", processor=lambda: frozenset(has))


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize(
    ("files", "has", "chosen"),
    [
        (ALL, {"avx2", "avx512f", "avx512_vnni"}, "onnx/model_qint8_avx512_vnni.onnx"),
        (ALL, {"avx2", "avx_vnni"}, "onnx/model_qint8_avx512_vnni.onnx"),
        (ALL, {"avx2", "avx512f"}, "onnx/model_O2.onnx"),
        (ALL, {"avx2"}, "onnx/model_O2.onnx"),
        (ALL, {"dotprod"}, "onnx/model_qint8_arm64.onnx"),
        (ALL, {"i8mm", "dotprod"}, "onnx/model_qint8_arm64.onnx"),
        (ALL, set(), "onnx/model_O2.onnx"),
        (XENOVA, {"avx512_vnni"}, "onnx/model.onnx"),
        (["onnx/model_quantized.onnx", "onnx/model_fp16.onnx"], set(), "onnx/model_quantized.onnx"),
        (["onnx/model_fp16.onnx", "onnx/model_q4.onnx"], set(), "onnx/model_q4.onnx"),
        (["model.onnx", "onnx/model_qint8_avx512.onnx"], {"avx2"}, "model.onnx"),
        (["flashrank-MiniLM-L-12-v2_Q.onnx"], set(), "flashrank-MiniLM-L-12-v2_Q.onnx"),
        (["README.md", "other/model.onnx", "model.onnx", "x.onnx"], set(), "model.onnx"),
    ],
)
def test_the_best_graph_that_the_processor_runs_correctly_is_chosen(
    files: list[str], has: set[str], chosen: str
) -> None:
    assert choose(files, has).file == chosen


def test_the_reason_says_what_the_processor_has_or_lacks() -> None:
    with_vnni = choose(ALL, {"avx2", "avx512_vnni"})
    assert with_vnni.reason == (
        "int8, the best of 9 graphs that this processor runs correctly: it has avx512_vnni"
    )
    without = choose(ALL, {"avx2"}).reason
    assert "model_qint8_avx512_vnni.onnx needs avx512_vnni or avx_vnni" in without


def test_graphs_for_other_processors_alone_are_run_and_it_is_said() -> None:
    files = ["onnx/model_qint8_arm64.onnx", "onnx/model_qint8_avx512.onnx"]
    found = choose(files, {"avx2"})
    assert found.file == "onnx/model_qint8_avx512.onnx"
    assert "lacks: it runs slower, but exactly" in found.reason


def test_the_processor_is_not_asked_where_there_is_no_choice() -> None:
    def asked() -> frozenset[str]:
        raise AssertionError("asked")

    only = choose_graph((), ["model.onnx"], "here", processor=asked)
    assert only.reason == "the only graph there is"
    assert choose_graph((), XENOVA, "here", processor=asked).file == "onnx/model.onnx"


VNNI = {"file": "model_int8.onnx", "precision": "int8", "requires": ["avx512_vnni", "avx_vnni"]}
ARM = {"file": "model_arm.onnx", "precision": "int8", "requires": ["dotprod"]}
PLAIN = {"file": "model.onnx", "precision": "fp32"}


@pytest.mark.parametrize(
    ("variants", "has", "chosen"),
    [
        ([VNNI, ARM, PLAIN], {"avx_vnni"}, "model_int8.onnx"),
        ([VNNI, ARM, PLAIN], {"dotprod"}, "model_arm.onnx"),
        ([VNNI, ARM, PLAIN], {"avx2"}, "model.onnx"),
        ([PLAIN, VNNI], {"avx_vnni"}, "model.onnx"),
    ],
)
def test_a_variant_of_a_manifest_is_for_processors_that_have_what_it_requires(
    tmp_path: Path, variants: list[Any], has: set[str], chosen: str
) -> None:
    names = ("model_int8.onnx", "model_arm.onnx", "model.onnx")
    files = with_manifest(model_files(*names), variants=variants)
    graph = open_folder(write(tmp_path / "m", files), processor=lambda: frozenset(has)).graph
    assert graph.file == chosen
    assert "this processor" in graph.reason


def test_a_manifest_without_a_variant_for_this_processor_says_what_is_missing(
    tmp_path: Path,
) -> None:
    files = with_manifest(model_files("model_int8.onnx", "model_arm.onnx"), variants=[VNNI, ARM])
    folder = write(tmp_path / "m", files)
    with pytest.raises(
        InvalidModel, match=r"no graph for this processor.*needs avx512_vnni or avx"
    ):
        open_folder(folder, processor=lambda: frozenset({"avx2"}))
    asked = open_folder(folder, "model_arm.onnx", processor=lambda: frozenset({"avx2"})).graph
    assert (asked.precision, asked.reason) == ("int8", "asked for")


def test_a_preferred_variant_that_is_not_in_the_folder_is_passed_over_and_named(
    tmp_path: Path,
) -> None:
    files = with_manifest(model_files("model.onnx"), variants=[{"file": "gone.onnx"}, PLAIN])
    graph = open_folder(write(tmp_path / "m", files)).graph
    assert graph.file == "model.onnx"
    assert "gone.onnx, preferred to it, is not there" in graph.reason


@pytest.mark.parametrize("wrong", ["avx2", [1], {"avx2": True}])
def test_requirements_that_are_no_list_of_names_are_refused(tmp_path: Path, wrong: Any) -> None:
    files = with_manifest(model_files("model.onnx"), variants=[{**PLAIN, "requires": wrong}])
    with pytest.raises(InvalidModel, match="'requires': it must be a list of names"):
        open_folder(write(tmp_path / "m", files))


def test_a_choice_that_was_made_is_kept_with_its_reason(tmp_path: Path) -> None:
    files = with_manifest(model_files("model_int8.onnx", "model.onnx"), variants=[VNNI, PLAIN])
    folder = write(tmp_path / "m", files)
    made = open_folder(folder, processor=lambda: frozenset({"avx_vnni"})).graph
    assert (made.file, made.precision) == ("model_int8.onnx", "int8")
    sent = pickle.loads(pickle.dumps(made))
    kept = open_folder(folder, sent, processor=lambda: frozenset({"avx2"})).graph
    assert kept == made
    with Ranker(folder, file=sent) as ranker:
        assert ranker.info()["graph_reason"] == made.reason
    (folder / "model_int8.onnx").unlink()
    with pytest.raises(InvalidModel, match=r"no file 'model_int8\.onnx': pass as file= model\."):
        open_folder(folder, sent)


def test_a_graph_of_a_folder_can_be_asked_for(tmp_path: Path) -> None:
    folder = write(tmp_path / "m", model_files("onnx/model.onnx", "onnx/model_O3.onnx"))
    with Ranker(folder, file="onnx/model_O3.onnx") as ranker:
        info = ranker.info()
    assert (info["graph"], info["graph_reason"]) == ("onnx/model_O3.onnx", "asked for")
    for wrong in ("model.onnx", "../m/onnx/model.onnx", str(folder / "onnx/model.onnx"), ""):
        with pytest.raises(InvalidModel, match=r"pass as file= onnx/model\.onnx, onnx/model_O3"):
            Ranker(folder, file=wrong)


def test_the_bundled_model_says_why_its_graph() -> None:
    with Ranker() as ranker:
        info = ranker.info()
    assert info["graph_reason"]
    assert (info["source"], info["repository"], info["revision"]) == ("bundled", None, None)


def test_a_folder_that_flashrank_downloaded_ranks_as_it_is(tmp_path: Path) -> None:
    files = model_files("flashrank-MiniLM-L-12-v2_Q.onnx", _name_or_path="x", num_labels=1)
    settings = {"model_max_length": 48, "pad_token": "[PAD]"}
    files["tokenizer_config.json"] = json.dumps(settings).encode()
    files["special_tokens_map.json"] = json.dumps({"pad_token": "[PAD]"}).encode()
    with Ranker(write(tmp_path / "ms-marco-MiniLM-L-12-v2", files)) as ranker:
        info = ranker.info()
        assert len(ranker.rank("fleas", ["eggs", "dogs"])) == 2
    assert (info["model"], info["precision"]) == ("ms-marco-MiniLM-L-12-v2", "int8")
    assert (info["max_length"], info["graph"]) == (48, "flashrank-MiniLM-L-12-v2_Q.onnx")
