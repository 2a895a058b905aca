"""The weakness table: its changes to queries and passages, and figures of the bundled model."""

import json
import sys
from collections import Counter
from pathlib import Path

import pytest

from flashrank_lite import Ranker
from flashrank_lite.evaluation import CandidateList

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
sys.path.append(str(ROOT))  # the benchmarks are not part of the package

pytest.importorskip("onnx")  # benchmarks.pair_logits cuts the bundled graph

from benchmarks import weaknesses  # noqa: E402


@pytest.fixture(scope="module")
def lists() -> list[CandidateList]:
    """The example questions with their judgments; the n-th line is topic n."""
    judged = [line.split() for line in (EXAMPLES / "questions.qrels").read_text().splitlines()]
    grades = {(topic, passage): float(grade) for topic, _, passage, grade in judged}
    found = []
    lines = (EXAMPLES / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        row = json.loads(line)
        texts = tuple(passage["text"] for passage in row["passages"])
        labels = tuple(grades.get((str(number), one["id"]), 0.0) for one in row["passages"])
        found.append(CandidateList(row["query"], texts, labels))
    return found


def test_typos_change_one_letter_in_ten_and_are_the_same_every_time() -> None:
    query = "where do comb jellies live in the sea"
    changed = weaknesses.with_typos(query, seed=1)
    assert changed == weaknesses.with_typos(query, seed=1) != query
    assert sum((Counter(query) - Counter(changed)).values()) <= 4


def test_the_rarest_words_keep_their_order() -> None:
    known = Counter({"where": 9, "do": 9, "comb": 1, "jellies": 2, "live": 5})
    assert weaknesses.rarest("Where do comb jellies live?", 2, known) == "comb jellies"
    assert weaknesses.rarest("jellies, comb", 3, known) == "jellies comb"
    assert weaknesses.rarest("?", 1, known) == "?"


def test_a_passage_is_negated_once_and_its_numbers_change() -> None:
    assert weaknesses.negated("It is wet. It is deep.") == "It is not wet. It is deep."
    assert weaknesses.negated("No such verb here.") is None
    text = "In 1999, 7 of 12."
    changed = weaknesses.other_numbers(text, seed=1)
    assert changed is not None
    before, after = (weaknesses.NUMBER.findall(one) for one in (text, changed))
    assert [len(one) for one in before] == [len(one) for one in after]
    assert all(a != b for a, b in zip(before, after, strict=True))
    assert weaknesses.other_numbers("none", seed=1) is None


def test_an_answer_stands_between_two_others_of_its_list() -> None:
    one = CandidateList("q", ("answer", "first", "second"), (1.0, 0.0, 0.0))
    changed = weaknesses.in_the_middle(one, seed=1)
    assert changed.texts[0] in ("first answer second", "second answer first")
    assert changed.texts[1:] == one.texts[1:]


def test_the_table_has_a_figure_for_every_weakness(
    lists: list[CandidateList], ranker: Ranker
) -> None:
    chosen = weaknesses.sample([lists], 3)
    assert len(chosen) == 3
    text = weaknesses.table(ranker.score, chosen, seed=1)
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == 2 + 6 + 3
    before = {line.split("|")[3].strip() for line in rows[1:7]}
    assert len(before) == 1  # the same queries before every change
    assert float(before.pop()) > 0.8
