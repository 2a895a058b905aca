# ruff: noqa: E402  # imports follow the skip
"""Spark on a real local pyspark: pairs and lists through mapInPandas."""

import os
import runpy
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from integration_support import ROOT, guide_blocks, questions, require

from flashrank_lite import InvalidInput, Ranker

require("pyspark.sql", "pandas", "pyarrow")
if shutil.which("java") is None and os.environ.get("FLASHRANK_LITE_REQUIRE_INTEGRATIONS") != "1":
    pytest.skip("needs Java", allow_module_level=True)

from pyspark.sql import SparkSession

from flashrank_lite.integrations.spark import RankLists, ScorePairs


@pytest.fixture(scope="module")
def spark() -> Iterator[SparkSession]:
    os.environ["PYSPARK_PYTHON"] = sys.executable
    session = (
        SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.memory", "512m")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.sql.shuffle.partitions", "2")
        .getOrCreate()
    )
    yield session
    session.stop()


def rows_of(count: int) -> list[tuple[int, str, str]]:
    pairs = [(query, text) for query, texts in questions() for text in texts]
    return [(n, query, text) for n, (query, text) in enumerate(pairs[:count])]


def test_the_guides_code_gives_pairs_the_rankers_scores(
    spark: SparkSession, ranker: Ranker
) -> None:
    rows: list[Any] = [*rows_of(40), (40, "a query", None), (41, None, "a text")]
    frame = spark.createDataFrame(rows, "n int, query string, text string").repartition(4)
    (block,) = guide_blocks("Spark")
    names = {"pairs": frame}
    exec(block, names)
    scored = names["scored"]
    assert scored.dtypes == [*frame.dtypes, ("score", "float")]
    found = {row.n: row.score for row in scored.collect()}
    expected = ranker.score_pairs([(query, text) for _, query, text in rows[:40]])
    assert [found[n] for n in range(40)] == pytest.approx(expected.tolist(), abs=1e-5)
    assert (found[40], found[41]) == (None, None)


def test_a_worker_opens_the_model_once_with_the_cpus_of_a_task(spark: SparkSession) -> None:
    import pandas as pd

    class Telling(ScorePairs):
        def __call__(self, frames: Any) -> Any:
            from flashrank_lite.integrations import spark as module

            for frame in super().__call__(frames):
                ranker = module._ranker(self._found_by)
                told = (os.getpid(), id(ranker), ranker.info()["threads"])
                yield pd.DataFrame([told], columns=["process", "ranker", "threads"])
                assert len(frame)

    frame = spark.createDataFrame(rows_of(40), "n int, query string, text string").repartition(8)
    told = frame.mapInPandas(Telling(), "process long, ranker long, threads int").collect()
    assert {row.threads for row in told} == {1}
    assert len({(row.process, row.ranker) for row in told}) == len({row.process for row in told})


def test_lists_keep_their_type(spark: SparkSession, ranker: Ranker) -> None:
    kind = "query string, passages array<struct<id:int,text:string>>"
    given = [(query, list(enumerate(texts[:5]))) for query, texts in questions()[:2]]
    frame = spark.createDataFrame([*given, ("a query", None), ("a query", [])], kind)
    rank = RankLists(top_k=2)
    ranked = frame.mapInPandas(rank, rank.schema(frame.schema))
    assert ranked.dtypes == [*frame.dtypes, ("scores", "array<float>")]
    rows = ranked.collect()
    for query, passages in given:
        hits = ranker.rank(query, [text for _, text in passages], 2)
        (row,) = [row for row in rows if row.query == query]
        assert [tuple(passage) for passage in row.passages] == [passages[h.index] for h in hits]
        assert row.scores == pytest.approx([hit.score for hit in hits], abs=1e-5)
    others = [(row.passages, row.scores) for row in rows if row.query == "a query"]
    assert others in ([([], []), (None, None)], [(None, None), ([], [])])


def test_the_example_scores_parquet(spark: SparkSession, tmp_path: Path, ranker: Ranker) -> None:
    rows = rows_of(12)
    source, target = str(tmp_path / "pairs.parquet"), str(tmp_path / "scored")
    spark.createDataFrame(rows, "n int, query string, text string").write.parquet(source)
    runpy.run_path(str(ROOT / "examples" / "score_with_spark.py"))["main"]([source, target])
    found = {row.n: row.score for row in spark.read.parquet(target).collect()}
    expected = ranker.score_pairs([(query, text) for _, query, text in rows])
    assert [found[n] for n in range(12)] == pytest.approx(expected.tolist(), abs=1e-5)


def test_a_missing_column_is_named_before_the_job_starts(spark: SparkSession) -> None:
    schema = spark.createDataFrame([("a", "b")], "query string, body string").schema
    with pytest.raises(InvalidInput, match="no column 'text': the columns are 'query', 'body'"):
        ScorePairs().schema(schema)
    with pytest.raises(InvalidInput, match="no column 'passages'"):
        RankLists().schema(schema)
