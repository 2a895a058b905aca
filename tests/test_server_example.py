"""`examples/search_engine.py`: a search engine's answer, reranked in process or by a server."""

import subprocess
import sys

import pytest
from conftest import ROOT
from server_support import serving

SCRIPT = ROOT / "examples" / "search_engine.py"


def run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "engine",
    [("sqlite",), ("opensearch", "--saved", str(ROOT / "examples" / "opensearch.json"))],
    ids=["sqlite", "opensearch"],
)
def test_the_answer_comes_up(engine):
    lines = run(*engine).splitlines()
    assert "as found" in lines[0]
    assert "The history of agriculture records" in lines[1]
    assert "reranked in" in lines[-1]


def test_a_server_gives_the_same_order():
    with serving() as server:
        assert (
            run("sqlite", "--rerank", server.url).splitlines()[:6]
            == (run("sqlite").splitlines()[:6])
        )


def test_the_table_of_latencies_has_metaranks_three_rows():
    rows = [line.split() for line in run("latency").splitlines()[1:]]
    assert [row[0] for row in rows] == ["1", "10", "100"]
    assert all(float(row[1]) > 0 for row in rows)
