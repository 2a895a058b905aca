"""Models against the first stage: values as trec_eval's, intervals, counts, command and page."""

import json
import math
import os
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flashrank_lite import InvalidInput, MissingExtra, Ranker
from flashrank_lite.cli import main
from flashrank_lite.evaluation import DataFiles, JudgedData, JudgedQuery, ndcg, read_data
from flashrank_lite.passages import Passage

if os.environ.get("FLASHRANK_LITE_REQUIRE_EXPORT") != "1":  # the gate skips nothing
    pytest.importorskip("ir_measures")

from flashrank_lite.evaluation.comparison import bootstrap, compare
from flashrank_lite.evaluation.measures import parse_measures, per_query
from flashrank_lite.evaluation.remarks import remarks
from flashrank_lite.evaluation.report import html_report
from flashrank_lite.scorer import Scores

ROOT = Path(__file__).parents[1]
QUESTIONS = ROOT / "examples" / "questions.jsonl"
QRELS = ROOT / "examples" / "questions.qrels"
MEASURES = ("nDCG@10", "RR@10", "R@10", "AP", "P@3")


class ByLength:
    """Scores by length, longest first; in steps, so that some are equal."""

    def __init__(self, step=1):
        self.step = step

    def score(self, lists, *, instruction=None):
        return [
            Scores(
                np.array([len(text) // self.step for text in one.texts], np.float32),
                np.zeros(len(one.texts), bool),
            )
            for one in lists
        ]

    def info(self):
        return {"model": "by length"}

    def close(self):
        pass


@pytest.fixture(scope="module")
def questions():
    return read_data(DataFiles(str(QUESTIONS), qrels=str(QRELS)))


@pytest.fixture(scope="module")
def compared(questions):
    with Ranker() as nano, Ranker(scorer=ByLength(500)) as length:
        return compare(questions, [("nano", nano), ("length", length)], MEASURES)


def query(judgments, count=4, name="q"):
    passages = tuple(Passage(f"text {place}", f"d{place}") for place in range(count))
    return JudgedQuery(name, "a query", passages, judgments)


def values(measures, one, order, **options):
    found = per_query(parse_measures(measures), [one], [np.array(order)], **options)
    return [float(row[0]) for row in found.values()]


def test_values_are_trec_evals_on_a_real_ranking(compared):
    pytrec_eval = pytest.importorskip("pytrec_eval")
    names = {"nDCG@10": "ndcg_cut_10", "AP": "map", "R@10": "recall_10", "P@3": "P_3"}
    for system in compared.systems:
        qrels = {one.id: dict(one.judgments) for one in compared.data.queries}
        run = {
            one.id: {one.passages[place].id: -float(rank) for rank, place in enumerate(order)}
            for one, order in zip(compared.data.queries, system.orders, strict=True)
        }
        theirs = pytrec_eval.RelevanceEvaluator(qrels, set(names.values())).evaluate(run)
        for ours, name in names.items():
            expected = [theirs[one.id][name] for one in compared.data.queries]
            assert system.values[ours].tolist() == pytest.approx(expected, abs=1e-9)


def test_ndcg_is_that_of_numpy_and_reciprocal_rank_stops_at_its_cut(compared):
    for system in compared.systems:
        for number, (one, order) in enumerate(
            zip(compared.data.queries, system.orders, strict=True)
        ):
            labels = [one.judgments[one.passages[place].id] for place in order]
            expected = ndcg(-np.arange(len(order)), labels)
            assert system.values["nDCG@10"][number] == pytest.approx(expected)
            first = next(rank for rank, label in enumerate(labels, 1) if label)
            assert system.values["RR@10"][number] == pytest.approx(1 / first if first <= 10 else 0)


def test_graded_labels_are_linear_gains_and_missed_positives_count():
    one = query({"d0": 1, "d1": 3, "elsewhere": 2})
    found, recall = values(["nDCG@10", "R@10"], one, [0, 1, 2, 3])
    ideal = 3 + 2 / math.log2(3) + 1 / 2
    assert found == pytest.approx((1 + 3 / math.log2(3)) / ideal)
    assert recall == pytest.approx(2 / 3)


def test_unjudged_candidates_count_as_not_relevant_unless_they_are_taken_out():
    one = query({"d0": 0, "d2": 1, "d3": -1})
    assert one.unjudged == 2
    assert values(["RR@10"], one, [1, 3, 0, 2]) == [pytest.approx(1 / 4)]
    assert values(["RR@10"], one, [1, 3, 0, 2], judged_only=True) == [pytest.approx(1 / 2)]


def test_the_bundled_model_helps_on_the_example_questions(compared):
    first, nano, _ = compared.systems
    assert first.name == "first stage"
    assert [order.tolist() for order in first.orders] == [list(range(15))] * 6
    one = compared.differences[0]
    assert (one.measure, one.first, one.second) == ("nDCG@10", "first stage", "nano")
    assert one.mean == pytest.approx(
        float((nano.values["nDCG@10"] - first.values["nDCG@10"]).mean())
    )
    assert one.wins + one.ties + one.losses == 6
    assert one.wins > one.losses
    assert one.low > 0
    assert one.clear
    assert nano.milliseconds.shape == (6,)
    assert (nano.milliseconds > 0).all()


def test_every_two_systems_are_compared_by_every_measure(compared):
    pairs = {(one.first, one.second) for one in compared.differences}
    assert pairs == {("first stage", "nano"), ("first stage", "length"), ("nano", "length")}
    assert len(compared.differences) == 3 * len(MEASURES)


def test_equal_scores_keep_the_first_stage_and_are_counted(compared):
    length = compared.systems[2]
    assert length.tied == 6
    for one, order in zip(compared.data.queries, length.orders, strict=True):
        steps = [(-(len(one.passages[place].text) // 500), place) for place in order.tolist()]
        assert steps == sorted(steps)
    assert "length: queries with equal scores, which keep the order before: 6" in remarks(compared)


def test_queries_without_a_positive_are_left_out_and_counted(questions):
    nothing = [query({"d0": 0}, name="none"), query({}, name="unknown")]
    data = replace(questions, queries=(*questions.queries[:1], *nothing))
    with Ranker(scorer=ByLength()) as length:
        found = compare(data, [("length", length)], ["nDCG@10"])
        assert found.without_positive == 2
        assert [one.id for one in found.data.queries] == ["1"]
        assert found.differences[0].low is None  # one query has no interval
        assert "left out, since nothing is relevant for them: 2 queries" in remarks(found)
        with pytest.raises(InvalidInput, match="nothing is judged relevant"):
            compare(JudgedData("none", tuple(nothing)), [("length", length)], ["nDCG@10"])


def test_a_query_for_which_the_first_stage_found_nothing_counts_as_zero():
    data = JudgedData("set", (query({"d0": 1}), query({"d9": 1}, count=0, name="empty")))
    with Ranker(scorer=ByLength()) as length:
        found = compare(data, [("length", length)], ["RR@10"])
    assert found.systems[0].values["RR@10"].tolist() == [1.0, 0.0]
    assert "queries without candidates, which count as 0: 1" in remarks(found)


def test_the_interval_is_that_of_the_mean_and_the_same_for_the_same_seed():
    deltas = np.random.default_rng(3).normal(0.1, 0.3, 400)
    low, high = bootstrap(deltas)
    assert (low, high) == bootstrap(deltas)
    assert (low, high) != bootstrap(deltas, seed=1)
    error = 1.96 * deltas.std() / math.sqrt(400)
    assert low == pytest.approx(deltas.mean() - error, abs=0.004)
    assert high == pytest.approx(deltas.mean() + error, abs=0.004)
    assert bootstrap(np.array([0.5])) is None
    assert bootstrap(np.full(7, 0.25)) == (0.25, 0.25)


@pytest.mark.parametrize("name", ["nDGC@10", "nDCG@", "", "alpha_nDCG@10"])
def test_what_is_no_measure_is_refused(name):
    with pytest.raises(InvalidInput, match=r"measure|computed"):
        parse_measures([name])


def test_without_ir_measures_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ir_measures", None)
    with pytest.raises(MissingExtra, match=r"flashrank-lite\[eval\]"):
        parse_measures(["nDCG@10"])


def test_the_report_is_one_page_that_needs_nothing_else(compared):
    page = html_report(compared)
    assert not re.search(r"<script|<link|src=|url\(|@import|https?://", page)
    assert "prefers-color-scheme: dark" in page
    assert page.count("<svg") == 1
    for system in compared.systems[1:]:
        assert f"first stage → {system.name}" in page
    assert "nano → length" in page
    won = re.search(r"Won most</h3>\n<details open><summary><span class=query>([^<]+)", page)
    gains = compared.systems[1].values["nDCG@10"] - compared.systems[0].values["nDCG@10"]
    assert won[1] == compared.data.queries[int(gains.argmax())].query


def test_texts_in_the_report_are_escaped():
    passages = tuple(Passage(f"<b>{place} & more", f"d{place}") for place in range(3))
    one = JudgedQuery("q", "<script>alert(1)</script>", passages, {"d2": 1})
    with Ranker(scorer=ByLength()) as length:
        page = html_report(compare(JudgedData("<i>", (one,)), [("<u>", length)], ["RR@10"]))
    assert not re.search(r"<script|<b>|<i>|<u>", page)


def run(*words):
    return main(["eval", str(QUESTIONS), "--qrels", str(QRELS), *words])


def test_the_command_writes_a_table_and_a_report(tmp_path, capsys):
    out = tmp_path / "report.html"
    assert run("--measures", "nDCG@10", "RR@10", "--top", "5", "--out", str(out)) == 0
    shown = capsys.readouterr().out
    head, first, nano = (line.split() for line in shown.splitlines()[:3])
    assert head == ["nDCG@10", "RR@10", "ms", "a", "query"]
    assert first[:2] == ["first", "stage"]
    assert nano[0] == "nano"
    assert float(nano[1]) >= float(first[2])
    assert "nano - first stage" in shown
    assert "6 queries, 30 candidates in the first stage's order" in shown
    assert out.read_text("utf-8").startswith("<!doctype html>")


def test_the_command_writes_json_with_the_value_of_each_query(capsys):
    assert run("--format", "json", "--top", "4", "--judged-only") == 0
    found = json.loads(capsys.readouterr().out)
    assert [system["name"] for system in found["systems"]] == ["first stage", "nano"]
    for system in found["systems"]:
        for name, rows in system["per_query"].items():
            assert set(rows) == {"1", "2", "3", "4", "5", "6"}
            assert system["means"][name] == pytest.approx(np.mean(list(rows.values())))
    assert found["judged_only"] is True
    assert {one["measure"] for one in found["differences"]} == {"nDCG@10", "RR@10", "R@10"}


def test_the_baseline_may_be_bm25_and_a_fusion_blends_with_it(capsys):
    pytest.importorskip("bm25s")
    words = ("--first-stage", "bm25", "--top", "6", "--format", "json", "--measures", "AP")
    assert run(*words) == 0
    plain = json.loads(capsys.readouterr().out)["systems"]
    assert plain[0]["name"] == "BM25"
    assert run(*words, "--fusion", "linear", "--weight", "0") == 0  # all first stage
    blended = json.loads(capsys.readouterr().out)["systems"]
    assert blended[1]["per_query"] == plain[0]["per_query"] == blended[0]["per_query"]
    assert plain[1]["per_query"] != blended[1]["per_query"]


def test_settings_of_one_model_are_for_it_alone_and_win_over_those_for_all(capsys):
    blended = "nano:fusion=linear,weight=0"  # all first stage
    models = ("--model", "nano", "--model", blended, "--weight", "1", "--top", "6")
    assert run(*models, "--format", "json", "--measures", "AP", "--fusion", "linear") == 0
    first, alone, same = json.loads(capsys.readouterr().out)["systems"]
    assert [alone["name"], same["name"]] == ["nano", blended]
    assert same["per_query"] == first["per_query"] != alone["per_query"]


@pytest.mark.parametrize(
    ("words", "message", "status"),
    [
        (["eval"], "give DATA, or --run", 2),
        (["eval", "{data}", "--model", "nano", "--model", "nano"], "the same --model twice", 2),
        (["eval", "{data}", "--fusion", "rrf"], "add --first-stage bm25", 2),
        (["eval", "{data}", "--model", "nano:fusion=rrf"], "add --first-stage bm25", 2),
        (["eval", "{data}", "--model", "nano:long=no"], "--model nano:long=no: argument", 2),
        (["eval", "{data}", "--model", "nano:nope=1"], "unrecognized arguments: --nope=1", 2),
        (["eval", "{data}", "--measures", "nope"], "'nope' is not a measure", 1),
        (["eval", "{data}", "--out", "{data}/a.html"], "there is no such folder", 2),
        (["eval", "{data}.gone"], "No such file", 1),
        (["eval", str(QUESTIONS)], 'no labels: give each passage a "label"', 1),
    ],
)
def test_what_cannot_be_measured_is_said(words, message, status, tmp_path, capsys):
    data = tmp_path / "a.jsonl"
    data.write_text('{"query": "a", "positive": ["b"], "negative": ["c"]}\n', encoding="utf-8")
    assert main([word.format(data=data) for word in words]) == status
    assert message in capsys.readouterr().err
