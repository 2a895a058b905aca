import json
import re
import runpy
from pathlib import Path

import pytest

from flashrank_lite import InvalidModel, Ranker
from flashrank_lite.models import catalog
from flashrank_lite.models.resolve import is_repository

ROOT = Path(__file__).parents[1]

# The names that the peers' own documentation uses
FLASHRANK = [
    "ms-marco-TinyBERT-L-2-v2",
    "ms-marco-MiniLM-L-12-v2",
    "ms-marco-MultiBERT-L-12",
    "rank-T5-flan",
    "ce-esci-MiniLM-L12-v2",
    "miniReranker_arabic_v1",
]
FASTEMBED = [
    "Xenova/ms-marco-MiniLM-L-6-v2",
    "Xenova/ms-marco-MiniLM-L-12-v2",
    "BAAI/bge-reranker-base",
    "jinaai/jina-reranker-v1-tiny-en",
    "jinaai/jina-reranker-v1-turbo-en",
    "jinaai/jina-reranker-v2-base-multilingual",
]
OTHERS = ["metarank/ce-msmarco-MiniLM-L6-v2", "BAAI/bge-reranker-v2-m3", "BAAI/bge-reranker-large"]
OTHERS += [f"ms-marco-MiniLM-L-{layers}-v2" for layers in (2, 4, 6, 12)]
OTHERS += [f"cross-encoder/ms-marco-MiniLM-L{layers}-v2" for layers in (2, 4, 6, 12)]
OTHERS += [f"mxbai-rerank-{size}-v1" for size in ("xsmall", "base", "large")]
OTHERS += [
    f"japanese-reranker-cross-encoder-{size}-v1" for size in ("xsmall", "small", "base", "large")
]
OTHERS += ["japanese-reranker-tiny-v2", "japanese-reranker-xsmall-v2", "Qwen3-Reranker-0.6B"]
OTHERS += ["japanese-bge-reranker-v2-m3-v1", "gte-reranker-modernbert-base"]


@pytest.mark.parametrize("name", [*FLASHRANK, *FASTEMBED, *OTHERS])
def test_the_names_of_the_peers_are_known_in_any_case(name: str) -> None:
    found = catalog.find(name)
    assert found is not None
    assert found is catalog.find(name.upper())
    assert found.repository is not None
    assert is_repository(found.repository)
    if "/" in name and not name.startswith("cross-encoder/ms-marco-MiniLM-L-"):
        assert found.repository == name


def test_no_name_means_two_models() -> None:
    names = [name.lower() for entry in catalog.entries() for name in {entry.name, *entry.aliases}]
    assert len(names) == len(set(names))


def test_every_entry_says_what_it_can_and_figures_have_a_source() -> None:
    for entry in catalog.entries():
        assert entry.size in catalog.SIZES
        assert json.loads(json.dumps(entry.to_dict()))["name"] == entry.name
        assert all(re.fullmatch(r"[a-z]{2}|multilingual", code) for code in entry.languages)
        if entry.figure is not None:
            assert 0 < entry.figure.value < 1
            source = entry.figure.source
            assert source.startswith("https://") or (ROOT / source).is_file()


def test_what_is_not_known_is_not_found() -> None:
    assert catalog.find("no-such-model") is None
    # the repository of several archives is none of them
    assert catalog.find("prithivida/flashrank") is None


def test_the_table_of_the_docs_is_the_catalog() -> None:
    page = (ROOT / "docs" / "models.md").read_text("utf-8")
    script = runpy.run_path(str(ROOT / "scripts" / "catalog_table.py"))
    assert script["table"]() in page, "run scripts/catalog_table.py"


def test_the_models_that_people_name_today_say_what_opens_them() -> None:
    named = [f"ettin-reranker-{size}-v1" for size in ("17m", "32m", "68m", "150m", "400m", "1b")]
    named += [f"Qwen3-Reranker-{size}" for size in ("0.6B", "4B", "8B")]
    named += ["granite-embedding-reranker-english-r2", "bge-reranker-v2-gemma"]
    named += ["mxbai-rerank-base-v2", "mxbai-rerank-large-v2"]
    for name in named:
        found = catalog.find(name)
        assert found is not None
        assert found.opens == "export", name
        assert found.license == "apache-2.0", name
        assert found.max_length is not None, name
        found.check_opens()
    colbert = ["answerai-colbert-small-v1", "colbertv2.0", "GTE-ModernColBERT-v1"]
    for name in [*colbert, "mxbai-edge-colbert-v0-17m", "mxbai-edge-colbert-v0-32m"]:
        found = catalog.find(name)
        assert found is not None
        assert found.opens == "export", name


@pytest.mark.parametrize("name", ["jina-reranker-v3", "jinaai/jina-reranker-v3"])
def test_a_model_that_cannot_work_says_why_and_nothing_is_downloaded(name: str) -> None:
    with pytest.raises(InvalidModel, match="jina-reranker-v3 cannot be opened: it reads up to 64"):
        Ranker(name)
    with pytest.raises(InvalidModel, match="jina-colbert-v2 cannot be opened: its backbone"):
        Ranker("jina-colbert-v2")


def test_what_opens_a_model_and_how_long_it_takes_are_stated_alike() -> None:
    for entry in catalog.entries():
        assert entry.opens in ("bundled", "ready", "export", "not yet", "never", None)
        assert (entry.why is not None) == (entry.opens in ("not yet", "never"))
        assert entry.milliseconds is None or entry.shape is not None
        stated = entry.to_dict()
        assert stated.get("megabytes") == entry.megabytes
        if entry.parameters is not None:
            assert entry.megabytes == round(4 * entry.parameters)


def test_models_of_one_shape_take_the_same_time_and_deeper_ones_longer() -> None:
    def milliseconds(name: str) -> int:
        found = catalog.find(name)
        assert found is not None
        assert found.milliseconds is not None
        return found.milliseconds

    times = [milliseconds(f"ms-marco-{name}-v2") for name in ("TinyBERT-L-2", "MiniLM-L-6")]
    assert times[0] < milliseconds("nano") < times[1] < milliseconds("ms-marco-MiniLM-L-12-v2")
    assert milliseconds("mmarco-mMiniLMv2-L12-H384-v1") == milliseconds("ms-marco-MiniLM-L-12-v2")
