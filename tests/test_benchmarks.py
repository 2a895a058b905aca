"""The benchmark harness: its texts, its workers, what it makes of their answers. No timings."""

import json
import os
import signal
import statistics
import sys
from pathlib import Path

import pytest

from flashrank_lite import Ranker
from flashrank_lite.encoding.pairs import PairEncoder
from flashrank_lite.models.packages import bundled_folder

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))  # the harness is not part of the package

from benchmarks import cells, extras  # noqa: E402
from benchmarks.engines import ENGINES, NANO, OURS, RATIOS, REFERENCE, Engine  # noqa: E402
from benchmarks.environments import Environments  # noqa: E402
from benchmarks.measure import Bench, compare  # noqa: E402
from benchmarks.processes import Worker, WorkerFailed  # noqa: E402
from benchmarks.report import KEPT, ratios, report, write_report  # noqa: E402
from benchmarks.results import Results  # noqa: E402
from benchmarks.texts import LENGTHS, example_query, passages  # noqa: E402

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the harness pins processes to cores as Linux does"
)


@pytest.fixture
def bench(tmp_path):
    """A bench whose engines all run in this interpreter's environment."""
    names = {engine.environment: Path(sys.executable) for engine in ENGINES}
    core = min(os.sched_getaffinity(0))
    return Bench(Environments(tmp_path, names), lambda _: tmp_path, [core], 2, 60, lambda _: True)


def nano(name=NANO, kind="flashrank_lite"):
    return Engine(name, "flashrank-lite", kind, "")


@pytest.fixture(autouse=True)
def our_package_in_the_worker(monkeypatch, tmp_path):
    """Workers are isolated from PYTHONPATH; here they test the package of this checkout."""
    shim = tmp_path / "worker.py"
    script = ROOT / "benchmarks" / "worker.py"
    shim.write_text(
        f"import runpy, sys; sys.path.insert(0, {str(ROOT)!r}); "
        f"runpy.run_path({str(script)!r}, run_name='__main__')",
        encoding="utf-8",
    )
    monkeypatch.setattr("benchmarks.processes.WORKER", shim)


# Texts


@pytest.mark.parametrize(("kind", "mean"), [("short", 30), ("mixed", 90), ("long", 495)])
def test_texts_have_the_lengths_that_are_stated(kind, mean):
    encoder = PairEncoder(bundled_folder() / "tokenizer.json", 512)
    texts = passages(kind, 40)
    assert len({*texts}) == 40
    query = encoder.query(example_query())
    pairs = [encoder.pair(query, encoder.passage(text)) for text in texts]
    lengths = [len(encoder.passage(text).ids) for text in texts]
    assert not any(pair.truncated for pair in pairs)
    assert statistics.mean(lengths) == pytest.approx(mean, rel=0.05)
    assert max(lengths) <= max(LENGTHS[kind]) + 3  # a cut word may fall into other pieces
    assert min(lengths) >= min(LENGTHS[kind]) - 3


# Workers


def test_a_worker_gives_the_scores_of_the_library_and_counts_its_costs(bench):
    texts = passages("short", 5)
    worker, loaded = bench.start(nano(), "none", 1)
    with worker:
        assert loaded["started"] >= worker.begun
        assert worker.ask("texts", query=example_query(), passages=texts) == {"count": 5}
        answer = worker.ask("score")
        together = worker.ask("score", callers=3)
        peak = worker.ask("memory")["peak_mb"]
    with Ranker() as ranker:
        assert answer["scores"] == pytest.approx(ranker.score(example_query(), texts), abs=1e-4)
    assert answer["ms"] > 0
    assert answer["cpu_s"] > 0
    assert together["scores"] == pytest.approx(answer["scores"], abs=1e-4)
    assert together["callers_differ"] <= 1e-4
    assert peak > 20


def test_a_worker_has_the_cores_that_it_was_given_and_no_more(bench):
    worker, _ = bench.start(nano(), "none", 1)
    with worker:
        assert os.sched_getaffinity(worker.pid) == {*bench.cores}


def test_the_profile_of_a_worker_names_the_products(bench, tmp_path):
    worker, _ = bench.start(nano(), "none", 1, profile=str(tmp_path))
    with worker:
        worker.ask("texts", query=example_query(), passages=passages("short", 2))
        worker.ask("score")
        spent = worker.ask("profile")["operators_ms"]
    assert any("MatMul" in name for name in spent)
    assert min(spent.values()) >= 0


def test_an_engine_that_raises_says_why_and_its_worker_lives_on(bench):
    with pytest.raises(WorkerFailed, match="ModelNotFound"):
        bench.start(Engine("x", "flashrank-lite", "flashrank_lite", "nowhere"), "none", 1)
    with Worker(Path(sys.executable), bench.cores) as worker:
        with pytest.raises(WorkerFailed, match="KeyError"):
            worker.ask("load", kind="no such kind", model="", cores=1)
        assert worker.ask("memory")["peak_mb"] > 0


def test_a_worker_that_dies_is_reported_and_not_waited_for(bench):
    with Worker(Path(sys.executable), bench.cores) as worker:
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(WorkerFailed, match="killed"):
            worker.ask("memory")


def test_one_engine_that_fails_does_not_stop_the_others(bench):
    engines = (nano(), nano("broken", "no such kind"))
    found = bench.cell(cells.Cell("none", "short", 2, 1, 1, engines))
    good, bad = found
    assert len(good["ms"]) == 2
    assert "failed" not in good
    assert bad["ms"] == []
    assert "KeyError" in bad["failed"]


def test_a_list_that_could_fill_the_memory_is_run_one_by_one(bench, monkeypatch):
    monkeypatch.setattr(cells, "HEAVY_TOKENS", 1)
    cell = cells.Cell("none", "short", 2, 1, 1, (nano(), nano("broken", "no such kind")))
    assert cell.heavy
    good, bad = bench.cell(cell)
    assert len(good["ms"]) == len(good["peak_mb"]) == 2  # a process each
    assert "KeyError" in bad["failed"]


def test_the_floor_is_under_the_whole(bench):
    bench.takes = lambda engine: engine.name == NANO
    [record] = extras.floor(bench, "none", 1)
    floor = record["products_ms"] + record["fused_attention_ms"]
    assert 0 < record["products_ms"] <= floor <= sum(record["operators_ms"].values())


def test_a_worker_under_limits_has_them_and_leaves_no_group_behind(bench):
    limit = extras.Limit(700)
    try:
        with extras.limited(limit) as (join, groups):
            assert all(group.exists() for group in groups)
            with Worker(Path(sys.executable), bench.cores, join) as worker:
                worker.ask("memory")
                here = Path(f"/proc/{worker.pid}/cgroup").read_text()
    except OSError as error:
        pytest.skip(f"control groups cannot be made here: {error}")
    assert all(f"/{group.name}" in here for group in groups)
    assert not any(group.exists() for group in groups)
    assert limit.cores == pytest.approx(0.396, abs=0.001)


def test_a_cold_start_is_split_into_parts_that_make_the_whole(bench):
    [record] = bench.cold("none", [nano()])
    for total, *parts in zip(
        record["total_ms"],
        *(record[f"{part}_ms"] for part in ("interpreter", "import", "load", "first")),
        strict=True,
    ):
        assert all(part > 0 for part in parts)
        assert sum(parts) <= total


# What is made of it


def test_wrong_scores_are_seen():
    engines = [engine for engine in ENGINES if engine.name in (REFERENCE, "fastembed, fp32", OURS)]
    ours = [0.9, 0.5, 0.1]
    scores = {REFERENCE: ours, "fastembed, fp32": [0.9, 0.1, 0.5], OURS: [0.88, 0.52, 0.1]}
    records = {engine.name: {} for engine in engines}
    compare(engines, scores, records)
    assert records["fastembed, fp32"]["agrees"] is False
    assert records["fastembed, fp32"]["same_order"] == pytest.approx(2 / 3)
    assert records[OURS]["same_order"] == 1
    assert "agrees" not in records[OURS]  # int8 may differ
    assert records[REFERENCE]["agrees"] is True


def test_every_ratio_compares_engines_that_exist():
    names = {engine.name for engine in ENGINES}
    assert {name for _, *pair in RATIOS for name in pair} <= names
    assert len(names) == len(ENGINES)


def test_cells_have_names_of_their_own_and_quick_is_flashrank_alone():
    for quick in (True, False):
        found = [cell.name for cell in cells.cells(quick, 2)]
        assert len({*found}) == len(found)
    kinds = {engine.kind for cell in cells.cells(True, 2) for engine in cell.engines}
    assert kinds == {"flashrank_lite", "flashrank"}


def test_ratios_are_taken_round_by_round():
    assert ratios([20, 90, 40], [10, 30, 10]) == (3, 2, 4)


def test_results_survive_an_interruption_and_are_taken_up_again(tmp_path):
    file = tmp_path / "results.json"
    Results(file).add("latency/a", [{"engine": "x", "ms": [1.0]}])
    again = Results(file, resume=True)
    assert again.has("latency/a")
    assert not again.has("latency/b")
    again.add("latency/b", [])
    assert json.loads(file.read_text())["cells"].keys() == {"latency/a", "latency/b"}
    anew = Results(file)
    assert not anew.has("latency/a")


def test_the_report_shows_medians_ratios_failures_and_wrong_scores(tmp_path):
    results = Results(tmp_path / "results.json")
    cell = next(cells.cells(True, 2)).name
    times = {"ms": [10.0, 30.0, 20.0], "cpu_s": [0.04], "peak_mb": [120.0]}
    results.add(
        cell,
        [
            {"engine": OURS, **times, "differs": 0.01, "same_order": 0.98},
            {
                "engine": "flashrank, fp32",
                **times,
                "ms": [50.0, 90.0, 60.0],
                "differs": 0.2,
                "agrees": False,
                "same_order": 0.5,
            },
            {"engine": "fastembed, fp32", "ms": [], "cpu_s": [], "peak_mb": [], "failed": "no pip"},
        ],
    )
    text = report(results.content)
    assert "| flashrank fp32 / our int8 |" in text
    assert "3.00 (3.00–5.00)" in text
    assert f"| {OURS} | 20.0 | 29.0 | 3 | 5000 | 0.04 | 120 | 98.0% of pairs in order |" in text
    assert "**WRONG** by 0.2" in text
    assert "failed: no pip" in text


def test_what_stands_below_the_report_stays(tmp_path):
    results = Results(tmp_path / "results.json")
    results.add(next(cells.cells(True, 2)).name, [{"engine": OURS, "ms": [], "failed": "no"}])
    out = tmp_path / "RESULTS.md"
    out.write_text(f"an old report\n\n{KEPT}\n\n## Long documents\n", encoding="utf-8")
    for _ in range(2):
        write_report(tmp_path / "results.json", out, environments=None, chart=False)
        text = out.read_text(encoding="utf-8")
        assert "an old report" not in text
        assert text.endswith(f"\n\n{KEPT}\n\n## Long documents\n")
        assert text.count(KEPT) == 1
