# ruff: noqa: E402  # imports follow the skip
"""Ray Data on a real local Ray: actors, Parquet and JSONL, and one that is killed."""

import json
import os
import runpy
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from integration_support import ROOT, guide_blocks, questions, require

from flashrank_lite import InvalidInput, Ranker

require("ray.data", "pyarrow", "pandas")
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  # else 15: starved where it is busy

import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
import ray
import ray.data

from flashrank_lite.integrations.ray import RankLists, ScorePairs

CPUS = 4  # as Ray counts them: actors must not take all, or files are never read
START_TRIES = 4


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    folder = tempfile.mkdtemp(prefix="ray-")  # sockets lie there: their paths have to be short
    for tries_left in range(START_TRIES)[::-1]:
        try:
            ray.init(
                num_cpus=CPUS,
                include_dashboard=False,
                object_store_memory=100_000_000,
                log_to_driver=False,
                _temp_dir=folder,
            )
            break
        except Exception:  # Ray gives itself 30 seconds, which a busy machine exceeds
            ray.shutdown()
            if not tries_left:
                raise
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Parquet file of (n, query, text), in row groups, so that actors share it."""
    rows = [(query, text) for query, texts in questions() for text in texts]
    table = pa.table(
        {
            "n": list(range(len(rows))),
            "query": [query for query, _ in rows],
            "text": [text for _, text in rows],
        }
    )
    file = tmp_path_factory.mktemp("pairs") / "pairs.parquet"
    pa.parquet.write_table(table, file, row_group_size=20)
    return file


def by_number(folder: Path) -> dict[int, float]:
    """Scores of what was written; a row that is there twice fails."""
    rows = pa.dataset.dataset(folder, format="parquet").to_table().to_pylist()
    found = {row["n"]: row["score"] for row in rows}
    assert len(found) == len(rows)
    return found


def expected(ranker: Ranker, file: Path) -> dict[int, Any]:
    rows = pa.parquet.read_table(file).to_pylist()
    scores = ranker.score_pairs([(row["query"], row["text"]) for row in rows])
    return {
        row["n"]: pytest.approx(float(s), abs=1e-5) for row, s in zip(rows, scores, strict=True)
    }


@pytest.mark.usefixtures("local_ray")
def test_actors_open_the_model_once_and_use_the_cpus_that_they_have(pairs: Path) -> None:
    class Telling(ScorePairs):
        def __call__(self, batch: Any) -> Any:
            scored = super().__call__(batch)
            count = len(scored["n"])
            threads = self._ranker.info()["threads"]
            return {
                **scored,
                "process": np.full(count, os.getpid()),
                "ranker": np.full(count, id(self._ranker)),
                "threads": np.full(count, threads),
            }

    for actors, cpus in ((2, 1), (1, 2)):
        rows = (
            ray.data.read_parquet(str(pairs))
            .map_batches(
                Telling,
                compute=ray.data.ActorPoolStrategy(size=actors),
                num_cpus=cpus,
                batch_size=10,
            )
            .take_all()
        )
        assert {row["threads"] for row in rows} == {cpus}
        assert len({row["process"] for row in rows}) <= actors
        assert len({(row["process"], row["ranker"]) for row in rows}) <= actors


@pytest.mark.usefixtures("local_ray")
def test_a_killed_actor_loses_and_repeats_nothing(
    pairs: Path, tmp_path: Path, ranker: Ranker
) -> None:
    mark, out = tmp_path / "killed", tmp_path / "out"

    class KilledOnce(ScorePairs):
        def __call__(self, batch: Any) -> Any:
            scored = super().__call__(batch)
            if 45 in batch["n"].tolist() and not mark.exists():
                mark.write_text(str(os.getpid()))
                os.kill(os.getpid(), signal.SIGKILL)
            return scored

    ray.data.read_parquet(str(pairs)).map_batches(
        KilledOnce, compute=ray.data.ActorPoolStrategy(size=2), num_cpus=1, batch_size=10
    ).write_parquet(str(out))
    assert int(mark.read_text()) != os.getpid()
    assert by_number(out) == expected(ranker, pairs)


@pytest.mark.usefixtures("local_ray")
def test_the_example_ranks_jsonl_and_parquet(tmp_path: Path, pairs: Path, ranker: Ranker) -> None:
    main = runpy.run_path(str(ROOT / "examples" / "rank_with_ray.py"))["main"]
    source = ROOT / "examples" / "questions.jsonl"
    main([str(source), str(tmp_path / "lists"), "--to", "jsonl", "--top-k", "3", "--actors", "1"])
    lines = [line for f in (tmp_path / "lists").iterdir() for line in f.read_text().splitlines()]
    found = {row["query"]: row for row in map(json.loads, lines)}
    given = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    assert found.keys() == {row["query"] for row in given}
    for row in given:
        hits = ranker.rank(row["query"], row["passages"], 3)
        assert found[row["query"]]["passages"] == [row["passages"][hit.index] for hit in hits]
        assert found[row["query"]]["scores"] == pytest.approx([h.score for h in hits], abs=1e-5)

    main([str(pairs), str(tmp_path / "pairs"), "--actors", "2", "--batch-size", "10"])
    assert by_number(tmp_path / "pairs") == expected(ranker, pairs)


@pytest.mark.usefixtures("local_ray")
def test_the_guides_code_scores_pairs(tmp_path: Path, pairs: Path, ranker: Ranker) -> None:
    (block,) = guide_blocks("Ray Data")
    exec(block, {"source": str(pairs), "target": str(tmp_path / "out")})
    assert by_number(tmp_path / "out") == expected(ranker, pairs)


@pytest.mark.parametrize("batch_format", ["numpy", "pandas", "pyarrow"])
def test_a_batch_comes_back_as_it_was_with_scores(batch_format: str, ranker: Ranker) -> None:
    query, texts = questions()[0]
    table = pa.table({"q": [query] * 3 + [None], "t": [*texts[:2], None, texts[3]]})
    batch = {
        "numpy": {name: np.array(table[name].to_pylist(), object) for name in table.column_names},
        "pandas": table.to_pandas(),
        "pyarrow": table,
    }[batch_format]
    scored = ScorePairs(query="q", text="t", score="s")(batch)
    assert type(scored) is type(batch)
    scores = np.asarray(scored["s"])
    assert scores.dtype == np.float32
    assert batch_format != "pyarrow" or scored["s"].null_count == 2
    np.testing.assert_allclose(scores[:2], ranker.score(query, texts[:2]), atol=1e-6)
    assert np.isnan(scores[2:]).all()
    assert "s" not in batch
    assert ScorePairs(query="q", text="t", score="t")(batch)["t"][0] is not None


def test_lists_keep_their_type_and_null_stays_null(ranker: Ranker) -> None:
    query, texts = questions()[0]
    passages = [{"id": n, "text": text} for n, text in enumerate(texts[:4])]
    table = pa.table({"query": [query, query, query], "passages": [passages, None, []]})
    ranked = RankLists(top_k=2)(table)
    assert ranked.schema.field("passages") == table.schema.field("passages")
    hits = ranker.rank(query, texts[:4], 2)
    assert ranked["passages"].to_pylist() == [[passages[hit.index] for hit in hits], None, []]
    assert ranked["scores"].to_pylist()[1:] == [None, []]
    assert ranked["scores"][0].as_py() == pytest.approx([hit.score for hit in hits], abs=1e-6)


def test_wrong_columns_and_formats_are_named() -> None:
    with pytest.raises(InvalidInput, match="no column 'text': the columns are 'query', 'body'"):
        ScorePairs()(pd.DataFrame({"query": ["a"], "body": ["b"]}))
    with pytest.raises(InvalidInput, match="batch_format='pyarrow'"):
        RankLists()({"query": np.array(["a"]), "passages": np.array(["b"])})
    with pytest.raises(InvalidInput, match="text"):
        ScorePairs()({"query": np.array(["a"], object), "text": np.array([7], object)})
