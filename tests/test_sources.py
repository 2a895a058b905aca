from pathlib import Path

import pytest

from flashrank_lite import InvalidInput, ModelNotFound
from flashrank_lite.models import sources


def test_no_model_is_the_bundled_one() -> None:
    assert (sources.locate() / "reranker.json").is_file()


def test_a_folder_is_found_by_str_path_and_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("model", tmp_path / "model", str(tmp_path / "model"), "~/model"):
        assert sources.locate(name) == tmp_path / "model"


def test_what_is_not_found_is_said_with_the_place_that_was_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelNotFound, match="no-such-model") as raised:
        sources.locate("no-such-model")
    assert str(tmp_path / "no-such-model") in str(raised.value)


def test_a_file_is_refused_with_the_folder_as_advice(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").touch()
    with pytest.raises(ModelNotFound, match="pass the folder it lies in"):
        sources.locate(tmp_path / "model.onnx")


@pytest.mark.parametrize("wrong", [5, "", b"model", ["model"]])
def test_what_is_no_path_is_refused(wrong: object) -> None:
    with pytest.raises(InvalidInput, match="path of a folder"):
        sources.locate(wrong)  # type: ignore[arg-type]


def test_a_broken_installation_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sources, "bundled_folder", lambda: tmp_path / "gone")
    with pytest.raises(ModelNotFound, match="install the package again"):
        sources.locate()
