import json
import re
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("column", ["name", "license"])
def test_the_table_of_the_docs_is_the_catalog(column: str) -> None:
    lines = (ROOT / "docs" / "models.md").read_text("utf-8").splitlines()
    rows = [line for line in lines if line.startswith("| `")]
    cells = [[cell.strip(" `") for cell in row.strip("|").split("|")] for row in rows]
    place = {"name": 0, "license": 4}[column]
    table = {row[0]: row[place] for row in cells if len(row) == 6}
    assert table == {entry.name: getattr(entry, column) or "" for entry in catalog.entries()}
