"""What the Hub may answer, and what it means: the real client, against a Hub on the loopback."""

from typing import Any

import pytest
from hub_support import TOKEN, LoopbackHub, hub, rank
from toy_models import model_files

from flashrank_lite import (
    AccessDenied,
    ChecksumMismatch,
    DownloadFailed,
    FlashRankLiteError,
    ModelNotFound,
    Ranker,
)

__all__ = ["hub"]  # the fixture


def test_a_private_repository_takes_a_token(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("org/name", model_files(), private=True)
    with pytest.raises(AccessDenied, match=r"does not exist, or it is private.*HF_TOKEN"):
        Ranker("org/name")
    with pytest.raises(AccessDenied, match=r"pass token= or set HF_TOKEN"):
        Ranker("org/name", token="hf_wrong")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert rank("org/name")["repository"] == "org/name"


def test_a_token_is_sent_when_it_is_passed(hub: LoopbackHub) -> None:
    hub.add("org/name", model_files(), private=True)
    assert rank("org/name", token=TOKEN)["repository"] == "org/name"


def test_a_gated_repository_says_where_its_terms_are(hub: LoopbackHub) -> None:
    hub.add("org/name", model_files(), gated=True)
    with pytest.raises(AccessDenied, match=r"is gated: accept its terms at http://.*/org/name"):
        Ranker("org/name")


def test_a_repository_or_revision_that_is_not_there_is_said(hub: LoopbackHub) -> None:
    hub.add("org/name", model_files())
    with pytest.raises(ModelNotFound, match="no model 'org/gone'"):
        Ranker("org/gone", token=TOKEN)
    with pytest.raises(AccessDenied, match="does not exist, or it is private"):
        Ranker("org/gone")
    with pytest.raises(ModelNotFound, match="org/name has no revision 'v9'"):
        Ranker("org/name", revision="v9")


@pytest.mark.parametrize(
    ("path", "how", "kind", "says"),
    [
        ("/api/", {"status": 500}, DownloadFailed, "it answered 500.*try again"),
        ("/api/", {"status": 503}, DownloadFailed, "it answered 503.*try again"),
        (
            "/api/",
            {"status": 403, "headers": {"X-Error-Message": "Forbidden"}},
            AccessDenied,
            r"denied \(403\).*token=",
        ),
        (
            "/api/",
            {"status": 429, "headers": {"Retry-After": "7"}},
            DownloadFailed,
            "too many requests.*in 7 seconds.*token",
        ),
        ("/lfs/", {"status": 500, "method": "GET"}, DownloadFailed, "it answered 500"),
        ("/lfs/", {"status": 404, "method": "GET"}, FlashRankLiteError, "tokenizer.json"),
    ],
)
def test_what_the_hub_answers_is_explained_and_a_later_try_succeeds(
    hub: LoopbackHub, path: str, how: dict[str, Any], kind: type[Exception], says: str
) -> None:
    hub.add("org/name", model_files())
    hub.fail(path, **how)
    with pytest.raises(kind, match=says):
        Ranker("org/name")
    hub.failures.clear()
    assert rank("org/name")["source"] == "hub"


def test_a_hub_that_is_slow_is_given_up(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_ETAG_TIMEOUT", 1)
    hub.add("org/name", model_files())
    hub.fail("/api/", wait=8)
    with pytest.raises(DownloadFailed, match=r"Timeout.*try again"):
        Ranker("org/name")


def test_a_file_that_comes_to_a_halt_is_gone_on_with(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 100)  # bytes kept at once
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 1)
    hub.add("org/name", model_files())
    hub.fail("tokenizer.json", method="GET", hold=300, wait=8, times=1)
    assert rank("org/name")["source"] == "hub"
    assert [s for _, path, s in hub.log if "tokenizer.json" in path and s == 206] == [206]


def test_a_hub_that_is_not_there_is_said(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DownloadFailed, match=r"could not be had from http://127\.0\.0\.1:9"):
        Ranker("org/name")


def test_a_file_that_is_cut_off_is_gone_on_with(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 100)  # bytes kept at once
    hub.add("org/name", model_files())
    hub.fail("tokenizer.json", method="GET", cut=300, times=1)
    assert rank("org/name")["source"] == "hub"
    assert [s for _, path, s in hub.log if "tokenizer.json" in path and s == 206] == [206]


def test_a_file_that_is_cut_off_again_and_again_is_given_up_and_nothing_is_kept(
    hub: LoopbackHub,
) -> None:
    hub.add("org/name", model_files())
    hub.fail("tokenizer.json", method="GET", cut=0)
    with pytest.raises(DownloadFailed, match=r"tokenizer\.json of org/name could not be had"):
        Ranker("org/name")
    hub.failures.clear()
    assert rank("org/name")["source"] == "hub"


def test_a_file_that_was_changed_on_the_way_is_refused(hub: LoopbackHub) -> None:
    files = model_files()
    hub.add("org/name", files)
    changed = files["tokenizer.json"].replace(b"lives", b"livez")
    hub.fail("tokenizer.json", method="GET", body=changed)
    with pytest.raises(ChecksumMismatch, match="another file than the Hub lists for org/name"):
        Ranker("org/name")
    hub.failures.clear()
    assert rank("org/name")["source"] == "hub"
