import copy
import enum
import json
import uuid
from collections import UserDict, deque
from dataclasses import FrozenInstanceError, dataclass
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashrank_lite import InvalidInput, RankedPassage
from flashrank_lite.passages import Passage, read_passages


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Source:
    page: int
    when: date


def hit(meta: dict[str, Any] | None = None, **changes: Any) -> RankedPassage:
    values: dict[str, Any] = {"text": "t", "score": 0.5, "logit": 0.0, "index": 0, **changes}
    return RankedPassage(**values, meta=meta or {})


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("plain", Passage("plain")),
        ("", Passage("")),
        (np.str_("numpy"), Passage("numpy")),
        ({"text": "t"}, Passage("t")),
        ({"text": "t", "id": 7, "meta": {"a": 1}}, Passage("t", 7, {"a": 1})),
        ({"text": "t", "id": "x", "title": "T"}, Passage("t", "x", {"title": "T"})),
        ({"text": "t", "a": 1, "b": 2, "meta": {"a": 3}}, Passage("t", None, {"a": 3, "b": 2})),
        ({"text": "t", "meta": None}, Passage("t")),
        ({"text": "t", "meta": "loose"}, Passage("t", None, {"meta": "loose"})),
        ({"text": "t", "id": np.int64(5)}, Passage("t", 5)),
        (UserDict({"text": "t", "id": "u"}), Passage("t", "u")),
        (SimpleNamespace(text="t", id_=3, metadata={"k": 1}), Passage("t", 3, {"k": 1})),
        (SimpleNamespace(text="t", doc_id="d", meta={"k": 2}), Passage("t", "d", {"k": 2})),
        (SimpleNamespace(text="t", id=None, node_id="n"), Passage("t", "n")),
        (
            SimpleNamespace(page_content="p", id="lc", metadata={"source": "f"}),
            Passage("p", "lc", {"source": "f"}),
        ),
        (SimpleNamespace(text="t", id=uuid.UUID(int=1)), Passage("t", str(uuid.UUID(int=1)))),
    ],
)
def test_a_passage_is_read_from_any_common_shape(given: Any, read: Passage) -> None:
    assert read_passages([given]) == [read]
    assert type(read_passages([given])[0].text) is str


@pytest.mark.parametrize("wrap", [list, tuple, iter, deque, np.array])
def test_any_iterable_will_do(wrap: Any) -> None:
    assert read_passages(wrap(["a", "b"])) == [Passage("a"), Passage("b")]


def test_a_generator_will_do() -> None:
    assert [p.text for p in read_passages(str(n) for n in range(3))] == ["0", "1", "2"]


@pytest.mark.parametrize(
    "single",
    ["text", b"bytes", {"text": "t"}, UserDict({"text": "t"}), SimpleNamespace(text="t")],
)
def test_a_single_passage_must_be_wrapped_in_a_list(single: Any) -> None:
    with pytest.raises(InvalidInput, match="wrap it in a list"):
        read_passages(single)


@pytest.mark.parametrize("wrong", [None, 5, object()])
def test_what_cannot_be_iterated_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidInput, match="must be a list"):
        read_passages(wrong)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (None, "passage 1 is None"),
        (5, "passage 1 is of type int"),
        (b"bytes", "passage 1 is of type bytes"),
        (["nested"], "passage 1 is of type list"),
        ({"body": "t"}, "passage 1 is a dict without the key 'text'.*'body'.*put the passage"),
        ({}, "passage 1 .*its keys: none"),
        ({"text": None}, "the text of passage 1 is None.*convert it"),
        ({"text": 3.5}, "the text of passage 1 is of type float"),
        (SimpleNamespace(text=["a"]), "the text of passage 1 is of type list"),
        (SimpleNamespace(body="t"), "passage 1 is a SimpleNamespace without .*text=.body."),
    ],
)
def test_a_passage_without_text_is_refused_by_its_place(wrong: Any, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        read_passages(["fine", wrong])


def test_reading_changes_nothing_and_shares_no_dict() -> None:
    given = [{"text": "t", "id": 1, "meta": {"a": [1, 2]}, "extra": {"b": 1}}]
    before = copy.deepcopy(given)
    read = read_passages(given)[0]
    read.meta["new"] = True
    assert given == before


def test_a_hit_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        hit().score = 1.0  # type: ignore[misc]


def test_to_dict_renders_metadata_as_the_docstring_says() -> None:
    deep: Any = "bottom"
    for _ in range(50):
        deep = [deep]
    circle: dict[str, Any] = {}
    circle |= {"self": circle, "again": [circle, circle]}
    meta = {
        "scalar": np.float32(0.5),
        "integer": np.int64(3),
        "truth": np.bool_(True),
        "array": np.array([[1, 2], [3, 4]]),
        "nan": float("nan"),
        "numpy nan": np.float64("nan"),
        "array nan": np.array([1.0, np.inf]),
        "set": {3, 1, 2},
        "tuple": (1, "a", None),
        "date": date(2024, 5, 6),
        "moment": datetime(2024, 5, 6, 7, 8, tzinfo=timezone.utc),
        "span": timedelta(minutes=2),
        "enum": Colour.RED,
        "dataclass": Source(3, date(2024, 1, 1)),
        "bytes": b"caf\xc3\xa9 \xff",
        "path": Path("a/b"),
        "nested": UserDict({1: {"x": {np.int32(1)}}}),
        "surrogate": "bad \ud800",
        "numpy string": np.str_("s"),
        "huge": 10**30,
    }
    written = json.dumps(hit(meta).to_dict(), allow_nan=False)
    assert json.loads(written)["meta"] == {
        "scalar": 0.5,
        "integer": 3,
        "truth": True,
        "array": [[1, 2], [3, 4]],
        "nan": None,
        "numpy nan": None,
        "array nan": [1.0, None],
        "set": [1, 2, 3],
        "tuple": [1, "a", None],
        "date": "2024-05-06",
        "moment": "2024-05-06T07:08:00+00:00",
        "span": 120.0,
        "enum": "red",
        "dataclass": {"page": 3, "when": "2024-01-01"},
        "bytes": "café \ufffd",
        "path": str(Path("a/b")),
        "nested": {"1": {"x": [1]}},
        "surrogate": "bad \ufffd",
        "numpy string": "s",
        "huge": 10**30,
    }
    assert "..." in json.dumps(hit({"deep": deep, "circle": circle}).to_dict())


def test_to_dict_has_the_hits_fields_and_can_be_written_as_utf8() -> None:
    made = hit(text="a\udfff", id=9, truncated=True).to_dict()
    assert made == {
        "text": "a\ufffd",
        "score": 0.5,
        "logit": 0.0,
        "index": 0,
        "id": 9,
        "meta": {},
        "truncated": True,
        "span": None,
    }
    assert json.dumps(made, ensure_ascii=False).encode("utf-8")


JSON_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.dates(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), JSON_LIKE), st.text(st.characters()))
def test_any_metadata_and_text_become_strict_json(meta: dict[str, Any], text: str) -> None:
    json.dumps(hit(meta, text=text).to_dict(), allow_nan=False).encode("utf-8")
