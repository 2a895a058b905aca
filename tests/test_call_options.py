"""What one call is told: which text, how many hits, from which score on, how it reports itself."""

import asyncio
import inspect
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import PASSAGES, QUERY, ROOT

from flashrank_lite import Calibration, Fields, InvalidInput, Ranker

ROWS = [
    {"name": f"n{index}", "doc": {"title": "On fleas", "body": text}}
    for index, text in enumerate(PASSAGES)
]


def judged() -> tuple[list[str], list[list[Any]], list[list[int]]]:
    """The examples' questions: the passages of a question answer it, those of others do not."""
    lines = (ROOT / "examples" / "questions.jsonl").read_text("utf-8").splitlines()
    questions = [json.loads(line) for line in lines]
    queries, lists, labels = [], [], []
    for place, question in enumerate(questions):
        other = questions[(place + 1) % len(questions)]["passages"][:5]
        queries.append(question["query"])
        lists.append(question["passages"][:3] + other)
        labels.append([1] * 3 + [0] * len(other))
    return queries, lists, labels


def test_text_is_named_for_a_ranker_or_for_a_call(ranker: Ranker) -> None:
    plain = ranker.rank(QUERY, PASSAGES, 3)
    for hits in (
        ranker.rank(QUERY, ROWS, 3, text="doc.body"),
        ranker.rank_many([QUERY], [ROWS], 3, text=lambda row: row["doc"]["body"])[0],
    ):
        assert [(hit.text, hit.logit) for hit in hits] == [(hit.text, hit.logit) for hit in plain]
        assert [hit.source for hit in hits] == [ROWS[hit.index] for hit in plain]
    with Ranker(text=["doc.title", "doc.body"]) as other:
        assert other.rank(QUERY, ROWS, 1)[0].text.startswith("On fleas\nAn adult flea")
        assert other.rank(QUERY, ROWS, 1, text="doc.body")[0].text == plain[0].text
        assert other.rank(QUERY, other.rank(QUERY, ROWS, 5), 1)[0].text.startswith("On fleas\n")
        assert pickle.loads(pickle.dumps(other)).rank(QUERY, ROWS, 1)[0].text[:8] == "On fleas"
    joined = Fields(("doc.title", "doc.body"), separator=": ")
    expected = ranker.score(QUERY, [f"On fleas: {text}" for text in PASSAGES])
    assert ranker.score(QUERY, ROWS, text=joined).tolist() == expected.tolist()
    pairs = [(QUERY, row) for row in ROWS]
    assert ranker.score_pairs(pairs, text=joined).tolist() == expected.tolist()


def test_a_frame_is_ranked_by_its_rows(ranker: Ranker) -> None:
    frame = pd.DataFrame({"text": PASSAGES, "page": range(len(PASSAGES))})
    hits = ranker.rank(QUERY, frame, 3)
    assert [hit.text for hit in hits] == [hit.text for hit in ranker.rank(QUERY, PASSAGES, 3)]
    assert all(frame["page"][hit.index] == hit.meta["page"] == hit.source["page"] for hit in hits)
    assert json.loads(json.dumps(hits[0].to_dict()))["meta"] == {"page": hits[0].index}
    assert "source" not in hits[0].to_dict()


def test_hits_ranked_again_keep_id_metadata_first_index_and_source(ranker: Ranker) -> None:
    rows = [{"text": text, "id": f"p{n}", "page": n} for n, text in enumerate(PASSAGES)]
    first = ranker.rank(QUERY, rows, 6)
    piped = [json.loads(json.dumps(hit.to_dict())) for hit in first]
    for again in (ranker.rank("great wall", first), ranker.rank("great wall", piped)):
        assert {hit.index for hit in again} == {hit.index for hit in first}
        for hit in again:
            assert (hit.id, hit.meta) == (f"p{hit.index}", {"page": hit.index})
            assert hit.text == PASSAGES[hit.index]
    assert all(hit.source is rows[hit.index] for hit in ranker.rank("great wall", first))


def test_activation_is_chosen_for_a_call(ranker: Ranker) -> None:
    raw = ranker.rank(QUERY, PASSAGES, activation="raw")
    assert [hit.score for hit in raw] == [hit.logit for hit in raw]
    logits = ranker.score(QUERY, PASSAGES, activation="raw")
    assert sorted(logits.tolist(), reverse=True) == [hit.logit for hit in raw]
    assert ranker.score_pairs([(QUERY, PASSAGES[0])], activation="raw")[0] == pytest.approx(
        logits[0], abs=1e-5
    )
    assert ranker.score(QUERY, PASSAGES).max() <= 1
    with pytest.raises(InvalidInput, match="activation must be"):
        ranker.rank(QUERY, PASSAGES, activation="softmax")  # type: ignore[arg-type]


def test_min_score_leaves_out_what_scores_lower(ranker: Ranker) -> None:
    hits = ranker.rank(QUERY, PASSAGES)
    threshold = hits[3].score
    assert ranker.rank(QUERY, PASSAGES, min_score=threshold) == hits[:4]
    assert ranker.rank(QUERY, PASSAGES, 2, min_score=np.float32(threshold)) == hits[:2]
    assert ranker.rank(QUERY, PASSAGES, min_score=2) == []
    lists = ranker.rank_many([QUERY, QUERY], [PASSAGES, PASSAGES[:1]], min_score=hits[0].score)
    assert lists == [[hits[0]], ranker.rank(QUERY, PASSAGES[:1], min_score=hits[0].score)]
    logit = hits[2].logit
    assert len(ranker.rank(QUERY, PASSAGES, min_score=logit, activation="raw")) == 3


@pytest.mark.parametrize("wrong", ["0.5", True, float("nan"), [0.5]])
def test_a_min_score_that_is_no_number_is_refused(ranker: Ranker, wrong: Any) -> None:
    with pytest.raises(InvalidInput, match="min_score must be a number or None"):
        ranker.rank(QUERY, PASSAGES, min_score=wrong)


@pytest.mark.parametrize("top_k", [np.int64(2), np.int8(2), np.uint32(2)])
def test_numpy_integers_are_integers(ranker: Ranker, top_k: Any) -> None:
    assert ranker.rank(QUERY, PASSAGES, top_k=top_k) == ranker.rank(QUERY, PASSAGES, top_k=2)
    with Ranker(max_length=np.int64(64), threads=np.int32(1), batch_tokens=np.int64(256)) as other:  # type: ignore[arg-type]
        json.dumps(other.info())
        assert len(other.rank(QUERY, PASSAGES, top_k=top_k)) == 2


def test_progress_is_reported_to_a_function(ranker: Ranker) -> None:
    calls: dict[str, Callable[[Any], Any]] = {
        "rank": lambda report: ranker.rank(QUERY, PASSAGES, progress=report),
        "score": lambda report: ranker.score(QUERY, PASSAGES, progress=report),
        "rank_many": lambda report: ranker.rank_many([QUERY], [PASSAGES], progress=report),
        "score_pairs": lambda report: ranker.score_pairs([(QUERY, PASSAGES[0])], progress=report),
    }
    for name, call in calls.items():
        seen: list[tuple[int, int]] = []
        call(lambda done, total, seen=seen: seen.append((done, total)))
        wanted = 1 if name == "score_pairs" else len(PASSAGES)
        assert seen[-1] == (wanted, wanted), name
        assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    with pytest.raises(InvalidInput, match="progress must be True, False or a function"):
        ranker.rank(QUERY, PASSAGES, progress="yes")  # type: ignore[arg-type]


def test_progress_true_says_on_standard_error_how_far_a_long_call_is(
    run_python: Callable[..., str],
) -> None:
    code = """
import io, sys, tempfile
from conftest import PASSAGES, QUERY
import flashrank_lite.progress as progress
from flashrank_lite import Ranker
progress._PATIENCE = progress._BETWEEN_LINES = 0.0  # as if the call were long
sys.stderr = io.StringIO()
Ranker().rank(QUERY, PASSAGES[:4])
silent = sys.stderr.getvalue()
Ranker().rank(QUERY, PASSAGES[:4], progress=True)
print(repr(silent), sys.stderr.getvalue().splitlines()[-1])
with tempfile.TemporaryDirectory() as folder:
    Ranker().encode_passages(PASSAGES[:4], folder + "/store", progress=True)
print(sys.stderr.getvalue().splitlines()[-1])
"""
    assert run_python(code).splitlines() == ["'' ranked 4 of 4 passages", "encoded 4 of 4 passages"]


def test_pairs_may_be_an_array(ranker: Ranker) -> None:
    expected = ranker.score_pairs([(QUERY, text) for text in PASSAGES[:4]])
    array = np.array([[QUERY, text] for text in PASSAGES[:4]])
    for pairs in (array, list(array), pd.DataFrame(array).itertuples(index=False)):
        assert ranker.score_pairs(pairs).tolist() == expected.tolist()
    with pytest.raises(InvalidInput, match=r"pairs is a table: pass pairs of two of its columns"):
        ranker.score_pairs(pd.DataFrame(array))
    with pytest.raises(InvalidInput, match="pair 0 is not a"):
        ranker.score_pairs(np.array([["a", "b", "c"]]))


def test_one_list_is_ranked_for_every_query_where_it_is_there_for_each(ranker: Ranker) -> None:
    queries = [QUERY, "great wall of china"]
    frame = pd.DataFrame({"text": PASSAGES})
    best = [ranker.rank(query, PASSAGES, 1)[0].index for query in queries]
    for lists in ([PASSAGES] * 2, [iter(PASSAGES)] * 2, [frame] * 2, np.array([PASSAGES] * 2)):
        hits = ranker.rank_many(queries, lists)
        assert [ranked[0].index for ranked in hits] == best
        assert [len(ranked) for ranked in hits] == [len(PASSAGES)] * 2
    hits = ranker.rank_many(queries, [[{"text": "t", "page": 1}]] * 2)
    hits[0][0].meta["mine"] = True
    assert hits[1][0].meta == {"page": 1}
    for one in (PASSAGES, frame, [{"text": "t"}]):
        with pytest.raises(InvalidInput, match=r"wrap it in a list; \[passages\] \*"):
            ranker.rank_many(queries, one)


@pytest.mark.parametrize("name", ["rank", "score", "score_pairs", "rank_many"])
def test_the_async_twins_take_what_their_method_takes(name: str) -> None:
    method, twin = getattr(Ranker, name), getattr(Ranker, f"a{name}")
    assert inspect.signature(method) == inspect.signature(twin)
    assert inspect.iscoroutinefunction(twin)
    assert twin.__name__ == f"a{name}"
    assert f"`{name}` in a thread" in twin.__doc__


def test_the_async_twins_give_what_their_method_gives(ranker: Ranker) -> None:
    expected = ranker.rank(QUERY, ROWS, text="doc.body", min_score=-1, activation="raw")
    call = ranker.arank(QUERY, ROWS, text="doc.body", min_score=-1, activation="raw")
    assert asyncio.run(call) == expected


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_calibrate_fits_judged_pairs_and_keeps_the_order(
    ranker: Ranker, method: Any, tmp_path: Path
) -> None:
    queries, lists, labels = judged()
    calibration = ranker.calibrate(queries, lists, labels, method)
    assert calibration.model == ranker.info()["model"]
    assert calibration.pairs == sum(map(len, labels))
    assert calibration.held_out
    assert 0 < calibration.brier < 0.25
    calibration.save(tmp_path / "calibration.json")
    loaded = Calibration.load(tmp_path / "calibration.json")
    with Ranker(activation=loaded) as calibrated:
        assert json.loads(json.dumps(calibrated.info()))["activation"]["method"] == method
        hits = calibrated.rank(queries[0], lists[0])
        assert hits == ranker.rank(queries[0], lists[0], activation=calibration)
        again = pickle.loads(pickle.dumps(calibrated))
        assert [hit.score for hit in again.rank(queries[0], lists[0])] == [h.score for h in hits]
    assert [hit.logit for hit in hits] == [h.logit for h in ranker.rank(queries[0], lists[0])]
    assert [hit.score for hit in hits] == sorted((h.score for h in hits), reverse=True)
    assert hits[0].score > 0.5 > hits[-1].score


def test_calibrate_takes_one_passage_and_label_for_each_query(ranker: Ranker) -> None:
    queries, lists, labels = judged()
    flat = [
        (query, passage, label)
        for query, passages, row in zip(queries, lists, labels, strict=True)
        for passage, label in zip(passages, row, strict=True)
    ]
    pairs = ranker.calibrate(*map(list, zip(*flat, strict=True)))
    whole = ranker.calibrate(queries, lists, [np.array(row) for row in labels])
    assert pairs.curve.slope == pytest.approx(whole.curve.slope, abs=1e-3)  # type: ignore[union-attr]
    assert pairs.brier_before == pytest.approx(whole.brier_before, abs=1e-5)


def test_labels_that_do_not_fit_are_refused(ranker: Ranker) -> None:
    for labels, says in {
        ((1, 0),): "2 queries but labels for 1",
        ((1, 0), (1,)): "query 1 has 2 passages but 1 labels",
        ((1, 0), (1, 3)): "a label of query 1 is 3, and labels are 0 or 1",
        ((1, 1), (1, 1)): "all 4 judged pairs have the same label",
    }.items():
        with pytest.raises(InvalidInput, match=says):
            ranker.calibrate([QUERY] * 2, [PASSAGES[:2]] * 2, labels)


def test_a_calibration_of_another_model_is_refused(ranker: Ranker) -> None:
    other = replace(ranker.calibrate(*judged()), model="another")
    for use in (
        lambda: Ranker(activation=other),
        lambda: ranker.rank(QUERY, PASSAGES, activation=other),
    ):
        with pytest.raises(InvalidInput, match="fitted on 'another' and says nothing of"):
            use()
    ranker.rank(QUERY, PASSAGES, activation=replace(other, model=None))
