"""The Python blocks of docs/integrations.md run as they stand, on a query and its passages."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from integration_support import ROOT, guide_blocks, questions, require

from flashrank_lite import Ranker


def run(section: str) -> dict[str, Any]:
    query, passages = questions()[0]
    names: dict[str, Any] = {"query": query, "passages": passages, "__name__": "guide"}
    for block in guide_blocks(section):
        exec(block, names)
    return names


def best(ranker: Ranker) -> list[str]:
    query, passages = questions()[0]
    return [hit.text for hit in ranker.rank(query, passages, 3)]


@pytest.mark.parametrize(
    ("section", "packages"),
    [
        ("LangChain", ["langchain_core", "langchain_classic"]),
        ("LlamaIndex", ["llama_index.core"]),
        ("Haystack", ["haystack"]),
    ],
)
def test_the_guides_code_prints_the_best_passages(
    section: str, packages: list[str], ranker: Ranker, capsys: pytest.CaptureFixture[str]
) -> None:
    require(*packages)
    run(section)
    printed = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert [text[:60] for text in best(ranker)] == [line[-60:] for line in printed[-3:]]


def test_the_guides_workflow_reranks(ranker: Ranker) -> None:
    require("llama_index.core")
    names = run("LlamaIndex")

    async def answer() -> Any:
        return await names["Search"](timeout=60).run(query=names["query"])

    assert [node.text for node in asyncio.run(answer())] == best(ranker)


def test_the_guides_dspy_program_reranks(ranker: Ranker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else it is downloaded
    pytest.importorskip("dspy", reason="needs dspy, which is too heavy for the gate")
    names = run("DSPy")
    assert names["Search"]()(question=names["query"]).passages == best(ranker)


def test_the_guides_stand_in_is_what_flashrank_means(run_python: Callable[..., str]) -> None:
    (block,) = guide_blocks("Moving from another reranker")
    printed = run_python(f"{block}\nimport flashrank\nprint(flashrank.__name__)")
    assert printed == "flashrank_lite.integrations.flashrank\n"


def test_every_section_with_code_is_run_by_a_test() -> None:
    """Ray's and Spark's code is run in their own tests, beside a running Ray and Spark."""
    text = (ROOT / "docs" / "integrations.md").read_text(encoding="utf-8")
    sections = [part.partition("\n")[0] for part in text.split("\n## ")[1:] if "```python" in part]
    here = ["Moving from another reranker", "LangChain", "LlamaIndex", "Haystack", "DSPy"]
    assert sections == [*here, "Ray Data", "Spark"]


MISSING = """
import sys
for name in list(sys.modules):
    assert name.partition(".")[0] not in {packages!r}
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {packages!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
from flashrank_lite import MissingExtra
try:
    {code}
except MissingExtra as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("extra", "packages", "code"),
    [
        ("langchain", ["langchain_core"], "import flashrank_lite.integrations.langchain"),
        ("llama-index", ["llama_index"], "import flashrank_lite.integrations.llama_index"),
        ("haystack", ["haystack"], "import flashrank_lite.integrations.haystack"),
        ("ray", ["ray"], "from flashrank_lite.integrations.ray import ScorePairs; ScorePairs()"),
        (
            "spark",
            ["pyspark"],
            "from flashrank_lite.integrations.spark import ScorePairs; ScorePairs()",
        ),
        (
            "spark",
            ["pandas"],
            "from flashrank_lite.integrations.spark import RankLists; RankLists()",
        ),
    ],
)
def test_a_missing_package_is_an_error_that_names_the_extra(
    extra: str, packages: list[str], code: str, run_python: Callable[..., str]
) -> None:
    if extra == "spark" and packages == ["pandas"]:
        require("pyspark.sql")
    printed = run_python(MISSING.format(packages=set(packages), code=code))
    assert f'pip install "flashrank-lite[{extra}]"' in printed


DROP_INS = """
import sys
from flashrank_lite.integrations import (
    fastembed, flagembedding, flashrank, rerankers, sentence_transformers
)
peers = {"fastembed", "FlagEmbedding", "flashrank", "rerankers", "sentence_transformers", "torch"}
print(sorted(peers & set(sys.modules)))
"""


def test_drop_ins_need_no_peer(run_python: Callable[..., str]) -> None:
    assert run_python(DROP_INS) == "[]\n"
