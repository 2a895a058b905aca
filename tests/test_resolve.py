import os
from collections.abc import Callable
from pathlib import Path

import pytest

from flashrank_lite import InvalidInput, ModelNotFound
from flashrank_lite.models.resolve import find, resolve


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Hub that nobody may ask."""

    def asked(*_: object, **__: object) -> None:
        pytest.fail("the Hub was asked")

    monkeypatch.setattr("flashrank_lite.models.client.Client.commit", asked)
    monkeypatch.setattr("flashrank_lite.models.client.Client.download", asked)


def test_no_model_is_the_bundled_one() -> None:
    assert (resolve().folder / "reranker.json").is_file()
    assert resolve("nano") == resolve()
    assert resolve().source == "bundled"


def test_a_folder_is_found_by_str_path_and_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("model", tmp_path / "model", str(tmp_path / "model"), "~/model"):
        found = find(name)
        assert (found.folder, found.source) == (tmp_path / "model", "folder")


def test_what_is_not_found_is_said_with_the_place_that_was_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelNotFound, match="no-such-model") as raised:
        resolve("no-such-model")
    assert str(tmp_path / "no-such-model") in str(raised.value)


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("bge-reranker-bas", "bge-reranker-base"),
        ("ms-marco-minilm-l12", "ms-marco-MiniLM-L-12-v2"),
        ("TinyBERT-L-2-v2", "ms-marco-TinyBERT-L-2-v2"),
        ("jina-reranker-v2", "jina-reranker-v2-base-multilingual"),
        ("nanno", "nano"),
    ],
)
def test_the_nearest_names_are_suggested(wrong: str, near: str) -> None:
    with pytest.raises(ModelNotFound, match="Did you mean") as raised:
        resolve(wrong)
    assert near in str(raised.value)


@pytest.mark.parametrize("wrong", ["~nobody_x/y", "x" * 300, "./" + "x/" * 3000, "a\0b", "./a\0b"])
def test_what_cannot_even_be_looked_for_is_not_found(
    wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for model in (wrong, Path(wrong)):
        with pytest.raises(ModelNotFound, match="no model"):
            resolve(model)


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps the folder that a process is in")
def test_a_name_is_looked_up_in_a_folder_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(ModelNotFound, match=r"no model 'nanno'.*Did you mean nano"):
        resolve("nanno")


PATHS = [
    "./gone",
    "../gone",
    "~/gone",
    "/gone",
    "/org/name",
    "a/b/c",
    "org/",
    "org/..",
    "../../etc/passwd",
    "..\\gone",
    "C:\\gone",
    "C:gone",
]
NAMES = [
    "org/..name",
    "org--name/x",
    "org/na--me",
    "org/.name",
    "-org/name",
    "org/na me",
    "örg/name",
]


@pytest.mark.parametrize("wrong", [*PATHS, Path("org/name")])
def test_what_looks_like_a_path_is_never_asked_of_the_hub(
    wrong: str | Path, no_hub: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelNotFound):
        resolve(wrong)


@pytest.mark.parametrize("wrong", NAMES)
def test_what_is_no_repository_name_is_never_asked_of_the_hub(wrong: str, no_hub: None) -> None:
    with pytest.raises(ModelNotFound, match="org/name"):
        resolve(wrong)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("../org/name", "tried the folder .*, which does not exist. Pass a folder with"),
        ("org/../name", "tried the folder .*, which does not exist. Pass a folder with"),
        ("/org/name", "tried the folder .*/org/name, which does not exist. Pass a folder with"),
        ("org/na..me", "a repository on the Hub is called org/name.*`flashrank-lite models list`"),
    ],
)
def test_dots_or_an_absolute_path_for_a_repository_are_refused_with_what_to_pass(
    wrong: str, says: str, no_hub: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(ModelNotFound, match=says):
        resolve(wrong)


@pytest.mark.parametrize("revision", ["../../refs", "/etc", "a//b", "", "a b", "main/"])
def test_what_is_no_revision_is_never_asked_of_the_hub(revision: str, no_hub: None) -> None:
    with pytest.raises(InvalidInput, match="a branch, a tag or a commit"):
        resolve("org/name", revision=revision)


@pytest.mark.parametrize("name", ["bge-reranker-base", "org/name"])
def test_a_folder_that_exists_wins_over_a_name(
    name: str, no_hub: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert find(name).folder == tmp_path / name


def test_a_revision_of_what_is_not_on_the_hub_is_refused(tmp_path: Path) -> None:
    for model in (None, tmp_path):
        with pytest.raises(InvalidInput, match=r"revision='v1' .*leave it out"):
            resolve(model, revision="v1")


BUNDLED = """
import sys
from flashrank_lite import Ranker
assert Ranker().info()["source"] == "bundled"
print(*(name for name in sys.modules if name.startswith("flashrank_lite.models.")))
"""


def test_the_bundled_model_imports_nothing_of_the_catalog_and_the_hub(
    run_python: Callable[..., str],
) -> None:
    loaded = set(run_python(BUNDLED).split())
    assert "flashrank_lite.models.resolve" in loaded
    assert not {f"flashrank_lite.models.{part}" for part in ("catalog", "client", "hub")} & loaded


def test_a_file_is_refused_with_the_folder_as_advice(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").touch()
    with pytest.raises(ModelNotFound, match="pass the folder it lies in"):
        resolve(tmp_path / "model.onnx")


@pytest.mark.parametrize("wrong", [5, "", b"model", ["model"]])
def test_what_is_no_path_is_refused(wrong: object) -> None:
    with pytest.raises(InvalidInput, match="a name, or the path of a folder"):
        resolve(wrong)  # type: ignore[arg-type]
