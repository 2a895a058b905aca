"""Files are compared with what a manifest says they are."""

from pathlib import Path

import pytest
from folder_support import facts, folder_with, hf_folder

from flashrank_lite import ChecksumMismatch, InvalidModel
from flashrank_lite.models.folder import open_folder
from flashrank_lite.models.verification import verify


def test_a_changed_file_of_the_same_size_is_found_by_verify(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "m")
    assert verify(folder) == ["model.onnx", "tokenizer.json"]
    (folder / "model.onnx").write_bytes(b"a grapj")
    open_folder(folder)
    with pytest.raises(ChecksumMismatch, match=r"sha256.*damaged"):
        verify(folder)


def test_verify_does_not_ask_which_graph_would_be_run(tmp_path: Path) -> None:
    assert verify(hf_folder(tmp_path / "odd", {}, "a.onnx", "b.onnx")) == []
    folder = folder_with(tmp_path / "m")
    variant = {"file": "model.onnx", **facts(folder / "model.onnx"), "requires": ["no_such_set"]}
    folder_with(folder, variants=[variant])
    with pytest.raises(InvalidModel, match="no graph for this processor"):
        open_folder(folder)
    assert verify(folder) == ["model.onnx", "tokenizer.json"]


@pytest.mark.parametrize("gone", ["model.onnx", "tokenizer.json"])
def test_verify_says_that_a_file_is_gone(tmp_path: Path, gone: str) -> None:
    folder = folder_with(tmp_path / "m")
    (folder / gone).unlink()
    with pytest.raises(InvalidModel, match=r"is missing"):
        verify(folder)
