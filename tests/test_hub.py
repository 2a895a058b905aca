"""Models on the Hub: the real huggingface_hub client, against a Hub on the loopback interface."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT
from hub_support import TOKEN, LoopbackHub, hub, rank
from toy_models import external_data, model_files, pad_to_lfs, with_manifest

from flashrank_lite import (
    AccessDenied,
    CacheNotWritable,
    ChecksumMismatch,
    DownloadFailed,
    InvalidModel,
    ModelNotFound,
    Ranker,
)
from flashrank_lite.models.graphs import choose_graph
from flashrank_lite.models.resolve import resolve

__all__ = ["hub"]  # the fixture

NEEDED = {"tokenizer.json", "config.json", "onnx/model.onnx"}


# What is downloaded, and when


def test_a_repository_is_downloaded_and_ranks_and_only_what_is_needed_comes(
    hub: LoopbackHub,
) -> None:
    files = model_files("onnx/model.onnx", "onnx/model_fp16.onnx")
    files |= {name: pad_to_lfs(name) for name in ("pytorch_model.bin", "train.py", "README.md")}
    commit = next(iter(hub.add("org/name", files).commits))
    info = rank("org/name")
    assert (info["source"], info["repository"], info["revision"]) == ("hub", "org/name", commit)
    assert (info["model"], info["graph"]) == ("org/name", "onnx/model.onnx")
    assert "best of 2 graphs" in info["graph_reason"]
    assert json.loads(json.dumps(info)) == info
    assert set(hub.bodies("org/name")) == NEEDED
    assert {p.name for p in Path(info["path"]).rglob("*") if p.is_file()} == {
        Path(name).name for name in NEEDED
    }


def test_what_is_there_is_loaded_without_asking_anybody(hub: LoopbackHub) -> None:
    hub.add("org/name", model_files())
    first = rank("org/name")
    hub.log.clear()
    assert rank("org/name") == first
    assert rank("org/name", revision=first["revision"]) == first
    assert hub.log == []


def test_a_new_commit_is_taken_when_it_is_asked_for_and_not_before(hub: LoopbackHub) -> None:
    hub.add("org/name", model_files())
    old = rank("org/name")["revision"]
    hub.add("org/name", model_files(max_position_embeddings=48))
    assert rank("org/name")["revision"] == old
    new = resolve("org/name", refresh=True).revision
    assert new not in (None, old)
    assert (rank("org/name")["revision"], rank("org/name")["max_length"]) == (new, 48)
    assert rank("org/name", revision=old)["max_length"] == 64


def test_a_revision_is_a_tag_or_a_commit(hub: LoopbackHub) -> None:
    repository = hub.add("org/name", model_files())
    old = next(iter(repository.commits))
    hub.add("org/name", model_files(max_position_embeddings=48))
    repository.tags["refs/pr/1"] = old
    assert rank("org/name", revision="refs/pr/1")["revision"] == old
    assert rank("org/name", revision=old)["max_length"] == 64
    assert rank("org/name")["max_length"] == 48


def test_a_file_that_is_asked_for_is_taken(hub: LoopbackHub) -> None:
    hub.add("org/name", model_files("onnx/model.onnx", "onnx/model_O3.onnx"))
    info = rank("org/name", file="onnx/model_O3.onnx")
    assert (info["graph"], info["graph_reason"]) == ("onnx/model_O3.onnx", "asked for")
    assert "onnx/model.onnx" not in hub.bodies("org/name")
    with pytest.raises(InvalidModel, match=r"no file 'no\.onnx': pass as file= onnx/model\.onnx"):
        Ranker("org/name", file="no.onnx")


def test_the_graph_is_the_one_that_suits_this_processor(hub: LoopbackHub) -> None:
    names = ["avx512_vnni", "arm64"]
    graphs = ["onnx/model.onnx", *(f"onnx/model_qint8_{name}.onnx" for name in names)]
    hub.add("org/name", model_files(*graphs))
    assert rank("org/name")["graph"] == choose_graph((), graphs, "").file


def test_a_name_of_the_catalog_is_its_repository(hub: LoopbackHub) -> None:
    hub.add("BAAI/bge-reranker-base", model_files())
    hub.add("cross-encoder/ms-marco-MiniLM-L12-v2", model_files())
    info = rank("bge-reranker-base")
    assert (info["model"], info["repository"]) == ("bge-reranker-base", "BAAI/bge-reranker-base")
    assert rank("MS-MARCO-MiniLM-L-12-v2")["repository"].startswith("cross-encoder/")
    assert rank("BAAI/bge-reranker-base")["model"] == "bge-reranker-base"


def test_a_manifest_in_the_repository_says_what_is_needed(hub: LoopbackHub) -> None:
    files = with_manifest(model_files("model_int8.onnx", "model.onnx"), "model_int8.onnx")
    hub.add("org/name", files | {"model.bin": pad_to_lfs("x")})
    assert rank("org/name")["graph"] == "model_int8.onnx"
    assert set(hub.bodies("org/name")) == {
        "reranker.json",
        "tokenizer.json",
        "config.json",
        "model_int8.onnx",
    }


def test_weights_in_a_file_beside_the_graph_come_with_it(hub: LoopbackHub) -> None:
    files = external_data(model_files())
    hub.add("org/name", files | {"onnx/other.onnx_data": pad_to_lfs("other")})
    rank("org/name")
    assert set(hub.bodies("org/name")) == NEEDED | {"onnx/model.onnx_data"}
    del hub.repositories["org/name"].commits
    assert rank("org/name")["graph"] == "onnx/model.onnx"


def test_a_ranker_goes_to_another_process_as_the_commit_and_without_its_token(
    hub: LoopbackHub,
) -> None:
    hub.add("org/name", model_files(), private=True)
    with Ranker("org/name", token=TOKEN) as made:
        sent = pickle.dumps(made)
        assert TOKEN.encode() not in sent
        with pickle.loads(sent) as again:
            assert again.info() == made.info()


# The cache


def test_a_file_of_the_cache_that_was_cut_short_is_seen_and_pulled_anew(hub: LoopbackHub) -> None:
    hub.add("org/name", model_files())
    graph = Path(rank("org/name")["path"]) / "onnx/model.onnx"
    os.truncate(graph, 50)
    with pytest.raises(ChecksumMismatch, match="50 bytes, but the record of its download states"):
        Ranker("org/name")
    resolve("org/name", refresh=True)
    assert rank("org/name")["source"] == "hub"


def test_offline_the_cache_is_used_and_what_is_not_in_it_is_said(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("org/name", model_files("onnx/model.onnx", "onnx/model_O3.onnx"))
    rank("org/name")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub.log.clear()
    assert rank("org/name")["source"] == "hub"
    for arguments in ({"model": "org/other"}, {"model": "org/name", "file": "onnx/model_O3.onnx"}):
        with pytest.raises(DownloadFailed, match=r"HF_HUB_OFFLINE is set.*models pull org/"):
            Ranker(**arguments)
    assert hub.log == []


def test_offline_what_another_program_downloaded_is_used(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import hf_hub_download

    commit, files = next(iter(hub.add("org/name", model_files()).commits.items()))
    for name in files:
        hf_hub_download("org/name", name, endpoint=hub.url)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    info = rank("org/name")
    assert (info["source"], info["revision"]) == ("hub", commit)


def test_a_model_stays_at_its_commit_when_another_program_downloads_a_newer_one(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import hf_hub_download

    hub.add("org/name", model_files("onnx/model.onnx", "onnx/model_O3.onnx"))
    old = rank("org/name", file="onnx/model.onnx")["revision"]
    newer = model_files("onnx/model.onnx", "onnx/model_O3.onnx", max_position_embeddings=48)
    hub.add("org/name", newer)
    for name in newer:
        hf_hub_download("org/name", name, endpoint=hub.url)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert rank("org/name", file="onnx/model.onnx")["revision"] == old
    with pytest.raises(DownloadFailed, match="HF_HUB_OFFLINE is set"):
        Ranker("org/name", file="onnx/model_O3.onnx")


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_firewalls_page_does_not_hide_a_model_that_is_in_the_cache(
    hub: LoopbackHub, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    from huggingface_hub import hf_hub_download

    for name in next(iter(hub.add("org/name", model_files()).commits.values())):
        hf_hub_download("org/name", name, endpoint=hub.url)
    hub.fail("/", status=status)
    with caplog.at_level("WARNING", "flashrank_lite"):
        assert rank("org/name")["source"] == "hub"
    assert f"answered {status} without the Hub's error code" in caplog.text
    with pytest.raises(DownloadFailed, match=r"a firewall or proxy.*models pull org/other --to"):
        Ranker("org/other")
    with pytest.raises(DownloadFailed, match="a firewall or proxy"):
        resolve("org/name", refresh=True)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [(404, "RepoNotFound", ModelNotFound), (403, "GatedRepo", AccessDenied)],
)
def test_what_the_hub_itself_refuses_is_not_taken_from_the_cache(
    hub: LoopbackHub, status: int, code: str, kind: type[Exception]
) -> None:
    from huggingface_hub import hf_hub_download

    for name in next(iter(hub.add("org/name", model_files()).commits.values())):
        hf_hub_download("org/name", name, endpoint=hub.url)
    hub.fail("/", status=status, headers={"X-Error-Code": code})
    with pytest.raises(kind):
        Ranker("org/name")


READ_ONLY = pytest.param(
    "/sys/hub",  # for everybody, root included
    marks=pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a Linux file system"),
)


@pytest.mark.parametrize("place", ["{here}/file/hub", READ_ONLY])
def test_a_cache_that_cannot_be_written_names_the_variable(
    place: str, hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("org/name", model_files())
    (tmp_path / "file").touch()
    cache = place.format(here=tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", cache)
    with pytest.raises(CacheNotWritable, match=r"set HF_HOME to a folder.*models pull NAME --to"):
        Ranker("org/name")


def test_a_cache_that_is_not_there_is_made(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("org/name", model_files())
    cache = tmp_path / "not" / "there"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    assert Path(rank("org/name")["path"]).is_relative_to(cache)


# Processes

LOAD = "import sys; from flashrank_lite import Ranker; print(Ranker(sys.argv[1]).info()['path'])"


def load(hub: LoopbackHub, home: Path, name: str, code: str = LOAD) -> "subprocess.Popen[str]":
    """A process of its own that loads a model, with the client set by the environment alone."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "PYTHONPATH": str(ROOT),
    }
    return subprocess.Popen(
        [sys.executable, "-c", code, name],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


AUDIT = """
import os, sys
touched = []

def watch(event, arguments):
    if event == "open":
        writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
        if arguments[2] & writes and arguments[0] != os.devnull:
            touched.append((event, arguments[0]))
    elif event.startswith("socket.") or event in ("os.mkdir", "os.remove", "os.rename"):
        touched.append((event, arguments))

sys.addaudithook(watch)
sys.dont_write_bytecode = True
from flashrank_lite import Ranker
assert Ranker(sys.argv[1]).info()["source"] == "hub"
assert "huggingface_hub.hf_api" not in sys.modules
print(touched)
"""


def test_what_is_in_the_cache_is_loaded_without_writing_or_calling_anyone(
    hub: LoopbackHub, tmp_path: Path
) -> None:
    hub.add("org/name", model_files())
    first = load(hub, tmp_path / "home", "org/name")
    assert first.wait(200) == 0
    first.communicate()
    again = load(hub, tmp_path / "home", "org/name", AUDIT)
    out, errors = again.communicate(timeout=200)
    assert (again.returncode, out.strip()) == (0, "[]"), errors


COUNT = """
import json, os, sys
from collections import Counter
read = Counter()

def watch(event, arguments):
    if event == "open" and str(arguments[0]).endswith(".json"):
        read[os.path.basename(arguments[0])] += 1

sys.addaudithook(watch)
from flashrank_lite import Ranker
Ranker(sys.argv[1]).close()
print(json.dumps(read))
"""


def test_what_is_in_the_cache_is_described_by_files_that_are_read_once(
    hub: LoopbackHub, tmp_path: Path
) -> None:
    hub.add("org/name", with_manifest(model_files("model.onnx"), "model.onnx"))
    for code in (LOAD, COUNT):
        process = load(hub, tmp_path / "home", "org/name", code)
        out, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors
    read = json.loads(out)
    assert (read["reranker.json"], read["config.json"]) == (1, 1)


def test_two_processes_that_start_at_once_download_once(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.add("org/name", model_files())
    hub.fail("tokenizer.json", wait=1, method="GET")
    both = [load(hub, tmp_path / "home", "org/name") for _ in range(2)]
    answers = [process.communicate(timeout=200) for process in both]
    assert [process.returncode for process in both] == [0, 0], answers
    assert answers[0][0] == answers[1][0]
    assert sorted(hub.bodies("org/name")) == sorted(NEEDED)


@pytest.mark.parametrize(
    ("file", "how"),
    [
        ("onnx/model.onnx", {}),  # before its first byte
        ("tokenizer.json", {"hold": 300}),  # in the midst of it
    ],
)
def test_a_killed_download_leaves_nothing_that_is_taken_for_whole(
    hub: LoopbackHub, tmp_path: Path, file: str, how: dict[str, int]
) -> None:
    hub.add("org/name", model_files())
    hub.fail(file, wait=60, method="GET", times=1, **how)
    killed = load(hub, tmp_path / "home", "org/name")
    deadline = time.monotonic() + 200
    while not any("/lfs/" in path and s == 200 for _, path, s in hub.log):
        assert time.monotonic() < deadline
        assert killed.poll() is None, killed.communicate()
        time.sleep(0.05)
    time.sleep(0.5)
    killed.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
    killed.communicate()
    assert list((tmp_path / "home").rglob(f"snapshots/*/{file}")) == []
    again = load(hub, tmp_path / "home", "org/name")
    out, errors = again.communicate(timeout=200)
    assert again.returncode == 0, errors
    assert (Path(out.strip()) / "onnx/model.onnx").is_file()
