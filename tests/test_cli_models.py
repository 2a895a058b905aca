"""flashrank-lite models: list, info, pull and verify, with the loopback Hub."""

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import PASSAGES, QUERY
from folder_support import hf_folder
from hub_support import LoopbackHub, hub
from toy_models import external_data, model_files, with_manifest

from flashrank_lite import InvalidModel, Ranker
from flashrank_lite.cli import main
from flashrank_lite.models import catalog
from flashrank_lite.models.resolve import resolve

__all__ = ["hub"]  # the fixture

Answer = Callable[..., Any]


@pytest.fixture
def answer(capsys: pytest.CaptureFixture[str]) -> Answer:
    """What `flashrank-lite models ARGUMENTS` writes, as JSON; it must succeed."""

    def call(*arguments: object) -> Any:
        assert main(["models", *map(str, arguments)]) == 0
        return json.loads(capsys.readouterr().out)

    return call


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The one line of error of `flashrank-lite models ARGUMENTS`."""

    def call(status: int, *arguments: object) -> str:
        assert main(["models", *map(str, arguments)]) == status
        out, err = capsys.readouterr()
        assert out == ""
        line = err.splitlines()[-1]  # the client's progress bars may stand above it
        assert line.startswith("flashrank-lite: error: ")
        return line

    return call


def zipped(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return content.getvalue()


def test_list_shows_the_catalog_and_what_is_on_disk(hub: LoopbackHub, answer: Answer) -> None:
    rows = answer("list")
    assert [row["name"] for row in rows] == [entry.name for entry in catalog.entries()]
    assert [row["name"] for row in rows if row["on_disk"]] == ["nano"]
    hub.add("BAAI/bge-reranker-base", model_files())
    hub.log.clear()
    answer("pull", "bge-reranker-base")
    hub.log.clear()
    on_disk = [row["name"] for row in answer("list") if row["on_disk"]]
    assert on_disk == ["nano", "bge-reranker-base"]
    assert hub.log == []


def test_list_is_a_table_where_it_is_asked_for(
    hub: LoopbackHub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "list", "--format", "table"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["name", "languages", "size"]
    assert len(lines) == 1 + len(catalog.entries())
    assert lines[1].split()[:3] == ["nano", "en", "small"]
    assert lines[1].endswith("yes")


def test_list_is_sorted_by_what_is_asked_for(hub: LoopbackHub, answer: Answer) -> None:
    names = [row["name"].lower() for row in answer("list", "--sort", "name")]
    assert names == sorted(names)
    sizes = [row["size"] for row in answer("list", "--sort", "size")]
    assert list(dict.fromkeys(sizes)) == ["tiny", "small", "medium", "large"]
    assert answer("list", "--sort", "on-disk")[0]["name"] == "nano"
    figures = [row.get("figure") for row in answer("list", "--sort", "figure")]
    known = [figure for figure in figures if figure is not None]
    assert figures[: len(known)] == known
    same = [figure["value"] for figure in known if figure["data"] == "TREC DL 2019"]
    assert same == sorted(same, reverse=True)
    tokens = [row.get("max_length") for row in answer("list", "--sort", "max-length")]
    assert [n for n in tokens if n] == sorted(n for n in tokens if n)


def test_info_knows_the_catalog_a_download_and_a_folder_and_asks_nobody(
    hub: LoopbackHub, answer: Answer, tmp_path: Path
) -> None:
    known = answer("info", "bge-reranker-base")
    assert (known["repository"], known["on_disk"]) == ("BAAI/bge-reranker-base", False)
    hub.add("org/name", model_files())
    answer("pull", "org/name", "--to", tmp_path / "m")
    hub.log.clear()
    downloaded = answer("info", "org/name")
    assert downloaded["on_disk"] is True
    assert set(downloaded["files"]) == {"onnx/model.onnx", "tokenizer.json", "config.json"}
    assert answer("info", tmp_path / "m")["graph"] == "onnx/model.onnx"
    assert answer("info", "nano")["license"] == "apache-2.0"
    assert hub.log == []


def test_pull_brings_a_model_up_to_date(hub: LoopbackHub, answer: Answer) -> None:
    hub.add("org/name", model_files())
    (old,) = answer("pull", "org/name")
    hub.add("org/name", model_files(max_position_embeddings=48))
    with Ranker("org/name") as before:
        assert before.info()["revision"] == old["revision"]
    (new,) = answer("pull", "org/name")
    assert new["revision"] != old["revision"]
    with Ranker("org/name") as after:
        assert (after.info()["revision"], after.info()["max_length"]) == (new["revision"], 48)


def test_pull_mends_a_file_that_was_damaged(
    hub: LoopbackHub, answer: Answer, refusal: Callable[..., str]
) -> None:
    hub.add("org/name", model_files())
    (row,) = answer("pull", "org/name")
    assert answer("verify", "org/name")["verified_files"] == [
        "config.json",
        "onnx/model.onnx",
        "tokenizer.json",
    ]
    tokenizer = Path(row["path"], "tokenizer.json")
    tokenizer.write_bytes(tokenizer.read_bytes().replace(b"lives", b"livez"))
    assert "has sha256" in refusal(1, "verify", "org/name")
    answer("pull", "org/name")
    answer("verify", "org/name")


def test_pull_to_makes_a_plain_folder_that_loads_without_cache_and_hub(
    hub: LoopbackHub, answer: Answer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = external_data(model_files("onnx/model.onnx", "onnx/model_fp16.onnx"))
    hub.add("org/name", files | {"README.md": b"#"})
    (row,) = answer("pull", "org/name", "--to", tmp_path / "layer" / "model")
    folder = tmp_path / "layer" / "model"
    with Ranker("org/name") as ranker:
        expected = ranker.score(QUERY, PASSAGES).tolist()
    hub.close()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    paths = [path for path in folder.rglob("*") if not path.is_dir()]
    assert {path.relative_to(folder).as_posix() for path in paths} == {
        "config.json",
        "download.json",
        "onnx/model.onnx",
        "onnx/model.onnx_data",
        "tokenizer.json",
    }
    assert not any(path.is_symlink() for path in folder.rglob("*"))
    with Ranker(folder) as ranker:
        assert ranker.score(QUERY, PASSAGES).tolist() == expected
        assert ranker.info()["source"] == "folder"
    verified = answer("verify", folder)["verified_files"]
    assert len(verified) == 4
    assert json.loads((folder / "download.json").read_text())["commit"] == row["revision"]


def test_pull_to_replaces_what_it_made_and_nothing_else(
    hub: LoopbackHub, answer: Answer, refusal: Callable[..., str], tmp_path: Path
) -> None:
    hub.add("org/name", model_files("onnx/model.onnx", "onnx/model_O3.onnx"))
    answer("pull", "org/name", "--to", tmp_path / "m", "--file", "onnx/model_O3.onnx")
    answer("pull", "org/name", "--to", tmp_path / "m", "--file", "onnx/model.onnx")
    assert [path.name for path in (tmp_path / "m").rglob("*.onnx")] == ["model.onnx"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("Dear")
    assert "not what an earlier pull made" in refusal(
        1, "pull", "org/name", "--to", tmp_path / "mine"
    )
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]
    (tmp_path / "file").touch()
    assert "not what an earlier" in refusal(1, "pull", "org/name", "--to", tmp_path / "file")
    assert "cannot be written" in refusal(1, "pull", "org/name", "--to", tmp_path / "file" / "m")


def test_several_models_go_into_folders_of_their_own(
    hub: LoopbackHub, answer: Answer, tmp_path: Path
) -> None:
    hub.add("org/one", model_files())
    hub.add("org/two", with_manifest(model_files("model.onnx"), "model.onnx"))
    rows = answer("pull", "org/one", "org/two", "--to", tmp_path)
    assert [Path(row["path"]) for row in rows] == [tmp_path / "one", tmp_path / "two"]
    for name in ("one", "two"):
        with Ranker(tmp_path / name) as ranker:
            assert len(ranker.rank(QUERY, PASSAGES)) == len(PASSAGES)


def test_two_models_that_would_share_a_folder_are_refused_before_any_is_pulled(
    hub: LoopbackHub, refusal: Callable[..., str], tmp_path: Path
) -> None:
    for name in ("one/model", "two/Model", "one/other"):
        hub.add(name, model_files())
    for names in (("one/model", "one/other", "two/Model"), ("one/model", "one/model")):
        line = refusal(1, "pull", *names, "--to", tmp_path / "d")
        assert f"{names[0]} and {names[-1]} would both be written" in line
    assert hub.log == []
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("command", ["info", "verify"])
def test_what_the_hub_cannot_have_is_not_advised_to_be_pulled(
    hub: LoopbackHub, refusal: Callable[..., str], command: str
) -> None:
    for name in ("./nope", "~nobody_x/y", "x" * 300, "a/b/c", "no-such-name"):
        line = refusal(1, command, name)
        assert "no model" in line
        assert "models pull" not in line
    assert hub.log == []


@pytest.mark.parametrize("command", ["info", "verify"])
def test_a_revision_is_not_passed_over(
    hub: LoopbackHub, answer: Answer, refusal: Callable[..., str], tmp_path: Path, command: str
) -> None:
    hub.add("org/name", model_files())
    answer("pull", "org/name", "--to", tmp_path / "m")
    for name in ("nano", tmp_path / "m"):
        assert "revision='x'" in refusal(1, command, name, "--revision", "x")
    line = refusal(1, command, "org/name", "--revision", "x")
    assert "org/name is not on this disk at x" in line
    assert "`flashrank-lite models pull org/name --revision x`" in line


def test_what_cannot_be_pulled_or_verified_is_said(
    hub: LoopbackHub, refusal: Callable[..., str], tmp_path: Path
) -> None:
    hf_folder(tmp_path / "m", {})
    assert "nothing to download" in refusal(1, "pull", "nano")
    assert "there is no download" in refusal(1, "pull", tmp_path / "m", "--to", tmp_path / "n")
    assert "models pull org/gone" in refusal(1, "verify", "org/gone")
    assert "Did you mean bge-reranker-base" in refusal(1, "info", "bge-reranker-bas")
    assert "does not exist, or it is private" in refusal(1, "pull", "org/gone")
    assert "list, info, pull or verify" in refusal(2)
    assert "NAME" in refusal(2, "pull")


def test_a_folder_of_which_nothing_is_known_cannot_be_verified(
    toy_folder: Callable[..., Path], refusal: Callable[..., str]
) -> None:
    from conftest import toy_graph

    assert "nothing says what the files" in refusal(1, "verify", toy_folder(toy_graph()))


def test_rank_and_info_take_a_name_and_a_file(
    hub: LoopbackHub, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    hub.add("org/name", model_files("onnx/model.onnx", "onnx/model_O3.onnx"))
    (tmp_path / "passages.txt").write_text("\n".join(PASSAGES))
    choice = ["--model", "org/name", "--file", "onnx/model_O3.onnx"]
    assert main(["rank", QUERY, str(tmp_path / "passages.txt"), *choice]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(PASSAGES)
    assert main(["info", *choice]) == 0
    info = json.loads(capsys.readouterr().out)
    assert info["graph"] == "onnx/model_O3.onnx"
    assert "onnx/model_O3.onnx" in info["verified_files"]


def test_info_takes_one_of_several_graphs_with_odd_names(
    toy_folder: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    from conftest import toy_graph

    toy_folder(toy_graph(), graph_name="a.onnx")
    folder = toy_folder(toy_graph(), graph_name="b.onnx")
    assert main(["info", "--model", str(folder), "--file", "b.onnx"]) == 0
    assert json.loads(capsys.readouterr().out)["graph"] == "b.onnx"


# FlashRank's zip files

FLASHRANK = "prithivida/flashrank"
NAME = "ms-marco-MultiBERT-L-12"


def archive(**more: bytes) -> dict[str, bytes]:
    files = model_files("flashrank-MultiBERT-L12_Q.onnx", num_labels=1)
    inside = {f"{NAME}/{name}": content for name, content in files.items()}
    return {f"{NAME}.zip": zipped({**inside, f"__MACOSX/{NAME}/._x.onnx": b"x", **more})}


def test_a_model_of_flashrank_is_unpacked_once_and_ranks(
    hub: LoopbackHub, answer: Answer, tmp_path: Path
) -> None:
    hub.add(FLASHRANK, archive() | {"rank-T5-flan.zip": b"not asked for"})
    with Ranker(NAME) as ranker:
        assert len(ranker.rank(QUERY, PASSAGES)) == len(PASSAGES)
        info = ranker.info()
    assert (info["model"], info["repository"]) == (NAME, FLASHRANK)
    assert info["graph"] == "flashrank-MultiBERT-L12_Q.onnx"
    assert hub.bodies(FLASHRANK) == [f"{NAME}.zip"]
    hub.log.clear()
    with Ranker(NAME) as again:
        assert again.info() == info
    assert hub.log == []
    assert len(answer("verify", NAME)["verified_files"]) == 3
    assert [r["name"] for r in answer("list") if r["on_disk"]] == ["nano", NAME]
    answer("pull", NAME, "--to", tmp_path / "m")
    with Ranker(tmp_path / "m") as plain:
        assert plain.info()["graph"] == info["graph"]


def test_a_zip_file_that_reaches_outside_of_itself_is_refused(hub: LoopbackHub) -> None:
    hub.add(FLASHRANK, archive(**{"../../evil.txt": b"x"}))
    with pytest.raises(InvalidModel, match=r"'\.\./\.\./evil\.txt', which lies outside"):
        Ranker(NAME)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"PK\3\4 rubbish", "no zip file that can be read"),
        (zipped({"a/readme.txt": b"x"}), r"no \*\.onnx file"),
    ],
)
def test_a_zip_file_that_is_none_or_holds_no_model_is_refused(
    hub: LoopbackHub, content: bytes, says: str
) -> None:
    hub.add(FLASHRANK, {f"{NAME}.zip": content})
    with pytest.raises(InvalidModel, match=says):
        Ranker(NAME)


def test_a_file_of_an_unpacked_model_that_was_cut_short_is_seen(hub: LoopbackHub) -> None:
    hub.add(FLASHRANK, archive())
    os.truncate(resolve(NAME).folder / "flashrank-MultiBERT-L12_Q.onnx", 9)
    with pytest.raises(InvalidModel, match="9 bytes, but the record of its download states"):
        Ranker(NAME)


GRAPH = "flashrank-MultiBERT-L12_Q.onnx"


def damage(folder: Path) -> None:
    content = (folder / GRAPH).read_bytes()
    (folder / GRAPH).write_bytes(b"\0" * len(content))


@pytest.mark.parametrize(
    "harm",
    [
        damage,
        lambda folder: os.truncate(folder / GRAPH, 9),
        lambda folder: (folder / "tokenizer.json").unlink(),
        lambda folder: (folder / "download.json").unlink(),
        lambda folder: (folder / "download.json").write_text("{"),
    ],
    ids=["changed", "cut short", "gone", "no record", "damaged record"],
)
def test_pull_mends_an_unpacked_model(
    hub: LoopbackHub, answer: Answer, harm: Callable[[Path], object]
) -> None:
    hub.add(FLASHRANK, archive())
    folder = resolve(NAME).folder
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    harm(folder)
    answer("pull", NAME)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert len(answer("verify", NAME)["verified_files"]) == 3
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()].count(folder.name) == 1
    assert not list(folder.parent.glob(".unpacking-*"))


def test_a_model_whose_record_was_lost_is_unpacked_again_when_it_is_loaded(
    hub: LoopbackHub,
) -> None:
    hub.add(FLASHRANK, archive())
    (resolve(NAME).folder / "download.json").unlink()
    with Ranker(NAME) as ranker:
        assert len(ranker.rank(QUERY, PASSAGES)) == len(PASSAGES)


def test_pull_leaves_an_unpacked_model_alone_that_is_whole(
    hub: LoopbackHub, answer: Answer
) -> None:
    hub.add(FLASHRANK, archive())
    graph = resolve(NAME).folder / GRAPH
    before = graph.stat()
    answer("pull", NAME)
    assert (graph.stat().st_ino, graph.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
