"""Curves from logits to probabilities, against scikit-learn's where that is installed."""

import json
import pickle
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flashrank_lite import InvalidInput, Ranker
from flashrank_lite.calibration import Calibration, Isotonic, Method, Platt, brier, fit, reliability
from flashrank_lite.cli import main

METHODS: list[Method] = ["platt", "isotonic"]


def judged(queries: int = 60, each: int = 12) -> tuple[Any, Any, Any]:
    """Logits whose true probability is sigmoid(0.6 x - 1), with labels drawn by it."""
    random = np.random.default_rng(7)
    logits = random.normal(1.0, 4.0, queries * each).astype(np.float32)
    true = 1 / (1 + np.exp(1 - 0.6 * logits))
    return logits, random.random(len(logits)) < true, np.repeat(np.arange(queries), each)


@pytest.mark.parametrize("method", METHODS)
def test_a_fit_makes_scores_mean_what_they_say(method: Method) -> None:
    logits, labels, queries = judged()
    calibration = fit(logits, labels, queries, method)
    assert calibration.held_out
    assert calibration.brier < calibration.brier_before - 0.02
    assert calibration.method == method
    assert (calibration.pairs, calibration.relevant) == (720, int(labels.sum()))
    assert sum(row.pairs for row in calibration.reliability) == 720
    for row in calibration.reliability:
        assert row.low <= row.mean_score <= row.high
        assert row.pairs < 30 or abs(row.mean_score - row.relevant) < 0.2
    scores = calibration(np.array([-30, -2, 0, 0.5, 3, 30], np.float32))
    assert scores.dtype == np.float32
    assert np.all(np.diff(scores) >= 0)
    assert scores[0] >= 0
    assert scores[-1] <= 1


def test_platt_finds_the_line_that_the_labels_were_drawn_by() -> None:
    curve = fit(*judged(400), "platt").curve
    assert isinstance(curve, Platt)
    assert curve.slope == pytest.approx(0.6, abs=0.06)
    assert curve.intercept == pytest.approx(-1, abs=0.15)


def test_isotonic_pools_neighbours_that_fall() -> None:
    logits = np.array([0.0, 1.0, 2.0, 3.0, 3.0, 4.0])
    labels = np.array([False, True, False, True, False, True])
    curve = fit(logits, labels, range(6), "isotonic").curve
    assert isinstance(curve, Isotonic)
    assert curve.logits == (0.0, 1.0, 3.0, 4.0)
    assert curve.probabilities == pytest.approx((0.0, 0.5, 0.5, 1.0))
    # straight in between, level beyond the ends
    assert curve(np.array([-9, 0.5, 2, 3.5, 9])) == pytest.approx([0, 0.25, 0.5, 0.75, 1])


if find_spec("sklearn"):

    def test_the_curves_are_those_of_scikit_learn() -> None:
        from sklearn.calibration import _SigmoidCalibration
        from sklearn.isotonic import IsotonicRegression

        logits, labels, queries = judged(30)
        grid = np.linspace(-15, 15, 200)
        theirs = _SigmoidCalibration().fit(logits.astype(np.float64), labels)
        ours = fit(logits, labels, queries, "platt")
        assert ours(grid) == pytest.approx(theirs.predict(grid), abs=1e-4)
        regression = IsotonicRegression(out_of_bounds="clip")
        theirs = regression.fit(logits.astype(np.float64), labels)
        ours = fit(logits, labels, queries, "isotonic")
        assert ours(grid) == pytest.approx(theirs.predict(grid), abs=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_labels_that_the_logits_divide_give_finite_scores(method: Method) -> None:
    calibration = fit(np.array([-800.0, -1, 1, 800]), np.array([0, 0, 1, 1], bool), [0] * 4, method)
    scores = calibration(np.array([-1e9, -1, 0, 1, 1e9]))
    assert np.all(np.isfinite(scores))
    assert np.all(np.diff(scores) >= 0)
    assert scores[3] > 0.5 > scores[1]
    assert not calibration.held_out  # of one query none can be held out


def test_a_file_and_a_pickle_bring_the_same_back(tmp_path: Path) -> None:
    for method in METHODS:
        calibration = fit(*judged(), method, "some-model")
        calibration.save(tmp_path / "calibration.json")
        for again in (
            Calibration.load(tmp_path / "calibration.json"),
            pickle.loads(pickle.dumps(calibration)),
        ):
            assert again == calibration
            assert again.model == "some-model"
            assert np.array_equal(again(judged()[0]), calibration(judged()[0]))


def test_a_ranker_and_the_command_take_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "calibration.json"
    replace(fit(*judged()), model="nano").save(file)
    query, passages = "how long do fleas live", ["Fleas live for 100 days.", "Butter melts."]
    in_code = Ranker(activation=Calibration.load(file)).rank(query, passages)
    assert [hit.score for hit in in_code] != [hit.score for hit in Ranker().rank(query, passages)]
    for path in (file, str(file)):
        assert Ranker(activation=path).rank(query, passages) == in_code
    lines = tmp_path / "passages.txt"
    lines.write_text("\n".join(passages))
    assert main(["rank", query, str(lines), "--calibration", str(file)]) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["score"] for row in printed] == [pytest.approx(hit.score) for hit in in_code]


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(InvalidInput, match=r"'sigmoid', 'raw' or a file .*'softmax' cannot be"):
        Ranker(activation="softmax")


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"curve": {"slope": "steep", "intercept": 0}},
        {"curve": {}},
        {"method": "isotonic", "curve": {"logits": [1, 0], "probabilities": [0, 1]}},
        {"method": "isotonic", "curve": {"logits": [], "probabilities": []}},
        {"reliability": [{}]},
    ],
)
def test_a_file_that_is_no_calibration_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    values = fit(*judged(6)).to_dict() | change
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(values))
    with pytest.raises(InvalidInput, match="fit it again"):
        Calibration.load(path)
    path.write_text("[")
    with pytest.raises(InvalidInput, match="is not JSON"):
        Calibration.load(path)


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ([True] * 6, "all 6 judged pairs have the same label"),
        ([False] * 6, "all 6 judged pairs have the same label"),
        ([True, True, True, False, False, False], "swapped"),
    ],
)
def test_labels_that_nothing_can_be_fitted_on_are_refused(labels: Any, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        fit(np.arange(6.0), np.array(labels), range(6))


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(InvalidInput, match="'platt' or 'isotonic', not 'beta'"):
        fit(*judged(6), "beta")  # type: ignore[arg-type]


def test_brier_and_reliability_by_hand() -> None:
    scores, labels = np.array([0.0, 0.05, 0.5, 1.0]), np.array([False, True, True, True])
    assert brier(scores, labels) == pytest.approx((0 + 0.95**2 + 0.25 + 0) / 4)
    rows = reliability(scores, labels)
    assert [(row.low, row.pairs, row.relevant) for row in rows] == [
        (0.0, 2, 0.5),
        (0.5, 1, 1.0),
        (0.9, 1, 1.0),
    ]
