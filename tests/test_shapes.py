"""The shapes that passages come in: tables, documents of frameworks, answers of search engines.

pandas is in the test extra. The other libraries are large: their own classes are tried wherever
they are installed, and docs/inputs.md says with which versions they were.
"""

import sqlite3
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flashrank_lite import InvalidInput
from flashrank_lite.passages import Passage, read_passages
from flashrank_lite.passages.fields import Fields

ROWS = [
    {"text": "Fleas live for weeks.", "page": 3, "lang": "en"},
    {"text": "Walls stand for centuries.", "page": None, "lang": "en"},
]
READ = [
    Passage("Fleas live for weeks.", None, {"page": 3, "lang": "en"}),
    Passage("Walls stand for centuries.", None, {"page": None, "lang": "en"}),
]
TEXTS = [row["text"] for row in ROWS]


def installed(*makers: Callable[..., Any]) -> list[Callable[..., Any]]:
    """Those whose library, the first part of their name, is here."""
    return [maker for maker in makers if find_spec(maker.__name__.partition("_")[0])]


def pandas_frame(rows: list[dict[str, Any]]) -> Any:
    return pd.DataFrame(rows)


def pandas_strings(rows: list[dict[str, Any]]) -> Any:
    return pd.DataFrame(rows).convert_dtypes()  # pandas.NA for what is missing


def polars_frame(rows: list[dict[str, Any]]) -> Any:
    import polars

    return polars.DataFrame(rows)


def pyarrow_table(rows: list[dict[str, Any]]) -> Any:
    import pyarrow

    return pyarrow.Table.from_pylist(rows)


def pyarrow_batch(rows: list[dict[str, Any]]) -> Any:
    return pyarrow_table(rows).to_batches()[0]


FRAMES = installed(pandas_frame, pandas_strings, polars_frame, pyarrow_table, pyarrow_batch)


@pytest.mark.parametrize("make", FRAMES)
def test_a_table_is_read_by_its_rows(make: Callable[..., Any]) -> None:
    read = read_passages(make(ROWS))
    assert read == READ
    assert [passage.source for passage in read] == ROWS


@pytest.mark.parametrize("make", FRAMES)
def test_a_table_without_a_usual_column_is_refused_unless_one_is_named(
    make: Callable[..., Any],
) -> None:
    table = make([{"page": row["page"], "body": row["text"]} for row in ROWS])
    with pytest.raises(InvalidInput, match=r"no column 'text' \(it has: 'page', 'body'\).*'body'"):
        read_passages(table)
    assert [passage.text for passage in read_passages(table, "body")] == TEXTS
    with pytest.raises(InvalidInput, match=r"no column 'bodies' \(it has: 'page', 'body'\)"):
        read_passages(table, "bodies")


@pytest.mark.parametrize("make", FRAMES)
def test_a_table_of_one_column_is_that_column(make: Callable[..., Any]) -> None:
    assert [p.text for p in read_passages(make([{"body": text} for text in TEXTS]))] == TEXTS


@pytest.mark.parametrize("make", FRAMES)
def test_a_row_without_a_text_is_named(make: Callable[..., Any]) -> None:
    rows = [{"text": "there", "page": 1}, {"text": None, "page": 2}]
    with pytest.raises(InvalidInput, match="the text of passage 1 is None"):
        read_passages(make(rows))


@pytest.mark.parametrize("make", FRAMES)
def test_a_table_may_hold_what_a_search_engine_wraps(make: Callable[..., Any]) -> None:
    rows = [{"_id": "a", "_score": 2.5, "_source": {"text": "t", "lang": "en"}}]
    read = read_passages(make(rows))[0]
    assert (read.text, read.id, read.first_stage) == ("t", "a", 2.5)
    assert read.meta == {"_score": 2.5, "lang": "en"}


def test_the_labels_of_a_frame_are_ids_where_they_say_something() -> None:
    frame = pd.DataFrame(ROWS)
    assert [p.id for p in read_passages(frame)] == [None, None]
    assert [p.id for p in read_passages(frame[frame.page.isna()])] == [1]
    assert [p.id for p in read_passages(frame.set_index(pd.Index(["a", "b"])))] == ["a", "b"]
    with_ids = frame.assign(id=[8, 9]).set_index(pd.Index(["a", "b"]))
    assert [p.id for p in read_passages(with_ids)] == [8, 9]
    assert [p.id for p in read_passages(frame["text"][1:])] == [1]


def test_rows_of_a_frame_are_passages_and_one_row_must_be_in_a_list() -> None:
    frame = pd.DataFrame(ROWS)
    assert [p.text for p in read_passages([row for _, row in frame.iterrows()])] == TEXTS
    named = read_passages(frame.itertuples(index=False))
    assert [(p.text, p.meta["lang"]) for p in named] == [(text, "en") for text in TEXTS]
    with pytest.raises(InvalidInput, match="a single row of a table"):
        read_passages(frame.iloc[0])


def test_two_columns_of_one_name_are_refused() -> None:
    with pytest.raises(InvalidInput, match="two columns 'text'"):
        read_passages(pd.DataFrame([["a", "b"]], columns=["text", "text"]))


def pandas_series(texts: list[str]) -> Any:
    return pd.Series(texts)


def pandas_category(texts: list[str]) -> Any:
    return pd.Series(texts, dtype="category")


def polars_series(texts: list[str]) -> Any:
    import polars

    return polars.Series(texts)


def pyarrow_array(texts: list[str]) -> Any:
    import pyarrow

    return pyarrow.array(texts)


def pyarrow_chunks(texts: list[str]) -> Any:
    import pyarrow

    return pyarrow.chunked_array([texts[:1], texts[1:]])


@pytest.mark.parametrize(
    "make",
    [
        *installed(pandas_series, pandas_category, polars_series, pyarrow_array, pyarrow_chunks),
        np.array,
        lambda texts: np.array(texts, dtype=object),
    ],
)
def test_a_column_of_texts_is_a_list_of_passages(make: Callable[[list[str]], Any]) -> None:
    read = read_passages(make(TEXTS))
    assert read == [Passage(text) for text in TEXTS]
    assert all(type(passage.text) is str for passage in read)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.array([["q", "d"]]), "2 dimensions: pass one of texts"),
        (np.array("text"), "0 dimensions"),
        (np.array([b"text"]), r"bytes: decode it, as passages\.astype\(str\)"),
        (np.array([1.5]), "passage 0 is of type float"),
    ],
)
def test_an_array_that_is_no_column_of_texts_is_refused(array: Any, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        read_passages(array)


@dataclass
class Note:
    text: str
    title: str
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class SlottedNote:
    text: str
    title: str
    meta: dict[str, Any] = field(default_factory=dict)


class PlainNote:
    kind = "shared by all, so no metadata of one"

    def __init__(self, text: str, title: str, meta: dict[str, Any]) -> None:
        self._words = text
        self.title = title
        self.meta = meta

    @property
    def text(self) -> str:
        return self._words


NamedNote = namedtuple("NamedNote", "text title meta")


def pydantic_note(**values: Any) -> Any:
    import pydantic

    return pydantic.create_model("Note", text=str, title=str, meta=dict)(**values)


def pydantic_open_note(**values: Any) -> Any:
    import pydantic

    config = pydantic.ConfigDict(extra="allow")
    return pydantic.create_model("Note", __config__=config, text=str)(**values)


@pytest.mark.parametrize(
    "make",
    [
        dict,
        SimpleNamespace,
        Note,
        SlottedNote,
        NamedNote,
        PlainNote,
        *installed(pydantic_note, pydantic_open_note),
    ],
)
def test_metadata_is_alike_for_every_shape(make: Callable[..., Any]) -> None:
    note = make(text="t", title="T", meta={"page": 3})
    assert read_passages([note]) == [Passage("t", None, {"title": "T", "page": 3})]
    assert read_passages([note])[0].source is note
    with pytest.raises(InvalidInput, match="wrap it in a list"):
        read_passages(note)


def test_a_database_row_is_a_passage() -> None:
    connection = sqlite3.connect(":memory:")
    connection.row_factory = sqlite3.Row
    rows = connection.execute("SELECT 'a' AS text, 3 AS id, 'T' AS title").fetchall()
    connection.close()
    assert read_passages(rows) == [Passage("a", 3, {"title": "T"})]


def langchain_core_document() -> tuple[Any, Passage]:
    from langchain_core.documents import Document

    document = Document(page_content="t", metadata={"source": "s"}, id="i")
    return document, Passage("t", "i", {"source": "s"})


def langchain_core_scored() -> tuple[Any, Passage]:
    document, read = langchain_core_document()
    return (document, np.float32(0.25)), Passage("t", "i", {"score": 0.25, **read.meta}, 0.25)


def llama_index_node() -> tuple[Any, Passage]:
    from llama_index.core.schema import TextNode

    return TextNode(text="t", id_="i", metadata={"k": 1}), Passage("t", "i", {"k": 1})


def llama_index_scored() -> tuple[Any, Passage]:
    from llama_index.core.schema import NodeWithScore

    node = NodeWithScore(node=llama_index_node()[0], score=0.5)
    return node, Passage("t", "i", {"score": 0.5, "k": 1}, 0.5)


def llama_index_resource() -> tuple[Any, Passage]:
    from llama_index.core.schema import MediaResource, Node, NodeWithScore

    node = Node(text_resource=MediaResource(text="t"), id_="i")  # without .text
    return NodeWithScore(node=node), Passage("t", "i")


def haystack_document() -> tuple[Any, Passage]:
    from haystack import Document

    document = Document(content="t", id="i", meta={"k": 1}, score=0.5, embedding=[0.0] * 4)
    return document, Passage("t", "i", {"score": 0.5, "k": 1}, 0.5)


def qdrant_client_point() -> tuple[Any, Passage]:
    from qdrant_client.models import ScoredPoint

    point = ScoredPoint(id=7, version=1, score=0.5, payload={"text": "t", "lang": "en"})
    return point, Passage("t", 7, {"score": 0.5, "lang": "en"}, 0.5)


def qdrant_client_record() -> tuple[Any, Passage]:
    from qdrant_client.models import Record

    record = Record(id="i", payload={"text": "t", "lang": "en"})
    return record, Passage("t", "i", {"lang": "en"})


def scored() -> tuple[Any, Passage]:
    return ("t", 0.5), Passage("t", None, {"score": 0.5}, 0.5)


def of_elasticsearch() -> tuple[Any, Passage]:
    hit = {"_index": "x", "_id": "i", "_score": 3.5, "_source": {"text": "t", "title": "T"}}
    return hit, Passage("t", "i", {"_index": "x", "_score": 3.5, "title": "T"}, 3.5)


def of_pinecone() -> tuple[Any, Passage]:
    match = {"id": "i", "score": 0.5, "metadata": {"text": "t", "k": 2}}
    return match, Passage("t", "i", {"score": 0.5, "k": 2}, 0.5)


def of_cohere() -> tuple[Any, Passage]:
    result = {"relevance_score": 0.5, "document": {"text": "t"}}
    return result, Passage("t", None, {"relevance_score": 0.5}, 0.5)


def of_infinity() -> tuple[Any, Passage]:
    result = {"relevance_score": 0.5, "document": "t"}
    return result, Passage("t", None, {"relevance_score": 0.5}, 0.5)


@pytest.mark.parametrize(
    "make",
    [
        scored,
        of_elasticsearch,
        of_pinecone,
        of_cohere,
        of_infinity,
        *(
            maker
            for library, makers in {
                "langchain_core": (langchain_core_document, langchain_core_scored),
                "llama_index": (llama_index_node, llama_index_scored, llama_index_resource),
                "haystack": (haystack_document,),
                "qdrant_client": (qdrant_client_point, qdrant_client_record),
            }.items()
            if find_spec(library)
            for maker in makers
        ),
    ],
)
def test_documents_and_hits_keep_id_metadata_and_first_score(
    make: Callable[[], tuple[Any, Passage]],
) -> None:
    document, read = make()
    assert read_passages([document, "other"]) == [read, Passage("other")]
    assert read_passages([document])[0].source is document


@pytest.mark.parametrize("score", [None, "0.5", True, float("nan")])
def test_what_is_no_score_stays_in_the_metadata_alone(score: Any) -> None:
    read = read_passages([{"text": "t", "score": score}])[0]
    assert read.first_stage is None
    assert read.meta["score"] is score


HITS = [{"_id": "1", "_score": 2.0, "_source": {"text": "a"}}]


@pytest.mark.parametrize(
    "answer",
    [
        {"took": 3, "hits": {"total": {"value": 1}, "hits": HITS}},
        {"hits": HITS},
        {"results": [{"text": "a"}], "meta": {"billed": 1}},
        {"documents": [{"content": "a"}]},
        {"response": {"numFound": 1, "docs": [{"text": "a"}]}},
        {"result": {"points": [{"id": 1, "payload": {"text": "a"}}]}, "status": "ok"},
        {"ids": ["1"], "documents": ["a"], "metadatas": [{"k": 1}]},
        {"ids": [["1"]], "documents": [["a"]], "metadatas": [[{"k": 1}]], "distances": [[0.1]]},
        SimpleNamespace(points=[SimpleNamespace(id=1, payload={"text": "a"})]),
    ],
)
def test_the_answer_of_a_search_engine_is_the_list_that_it_holds(answer: Any) -> None:
    assert [passage.text for passage in read_passages(answer)] == ["a"]


def test_the_answer_of_chroma_keeps_ids_and_metadata() -> None:
    answer = {
        "ids": [["1", "2"]],
        "documents": [["a", "b"]],
        "metadatas": [[{"k": 1}, None]],
        "distances": [[0.1, 0.2]],
    }
    assert read_passages(answer) == [
        Passage("a", "1", {"distance": 0.1, "k": 1}),
        Passage("b", "2", {"distance": 0.2}),
    ]
    with pytest.raises(InvalidInput, match="answers to 2 queries"):
        read_passages({"ids": [["1"], ["2"]], "documents": [["a"], ["b"]]})


@pytest.mark.parametrize(
    ("holder", "says"),
    [
        ({"results": ["a"], "documents": ["b"]}, "several lists .'results', 'documents'."),
        ({"results": ["a"], "text": "b"}, "a single dict: wrap it in a list"),
        ({"took": 3}, "a single dict: wrap it in a list"),
        (SimpleNamespace(took=3), "must be a list or another iterable, not SimpleNamespace"),
    ],
)
def test_what_holds_no_list_or_several_is_refused(holder: Any, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        read_passages(holder)


def qdrant_client_response() -> Any:
    from qdrant_client.http.models import QueryResponse

    return QueryResponse(points=[qdrant_client_point()[0]])


def haystack_output() -> Any:
    return {"documents": [haystack_document()[0]]}


def llama_index_response() -> Any:
    from llama_index.core.base.response.schema import Response

    return Response("an answer", source_nodes=[llama_index_scored()[0]])


@pytest.mark.parametrize(
    "make",
    [
        maker
        for library, maker in {
            "qdrant_client": qdrant_client_response,
            "haystack": haystack_output,
            "llama_index": llama_index_response,
        }.items()
        if find_spec(library)
    ],
)
def test_the_answer_of_a_library_is_the_list_that_it_holds(make: Callable[[], Any]) -> None:
    (read,) = read_passages(make())
    assert (read.text, read.first_stage) == ("t", 0.5)


if find_spec("elastic_transport"):

    def test_a_response_of_elasticsearchs_client_is_its_hits() -> None:
        from elastic_transport import ApiResponseMeta, HttpHeaders, NodeConfig, ObjectApiResponse

        node = NodeConfig("http", "localhost", 9200)
        meta = ApiResponseMeta(200, "1.1", HttpHeaders(), 0.1, node)
        answer = ObjectApiResponse({"took": 3, "hits": {"hits": HITS}}, meta)
        assert [passage.id for passage in read_passages(answer)] == ["1"]


NESTED = {"id": 1, "title": "T", "doc": {"body": "b", "parts": ["p", "q"], "lang": "en"}}


@pytest.mark.parametrize(
    ("text", "read", "left"),
    [
        ("title", "T", {"doc": NESTED["doc"]}),
        ("doc.body", "b", {"title": "T", "doc": {"parts": ["p", "q"], "lang": "en"}}),
        ("doc.parts.1", "q", {"title": "T", "doc": NESTED["doc"]}),
        (["title", "doc.body"], "T\nb", {"title": "T", "doc": NESTED["doc"]}),
        (Fields(("title", "doc.body"), separator=" – "), "T – b", None),
        (lambda passage: passage["doc"]["lang"] + "!", "en!", None),
    ],
)
def test_text_names_a_key_a_path_several_or_a_function(
    text: Any, read: str, left: dict[str, Any] | None
) -> None:
    whole = {"title": "T", "doc": NESTED["doc"]}
    assert read_passages([NESTED], text) == [Passage(read, 1, whole if left is None else left)]


def test_text_names_attributes_and_what_is_in_a_hit() -> None:
    note = SimpleNamespace(text="t", body=SimpleNamespace(words="w"), id=4)
    assert read_passages([note], "body.words")[0].text == "w"
    hit = {"_id": "i", "_score": 2, "_source": {"title": "T", "body": "b"}}
    assert read_passages([hit], "body") == [Passage("b", "i", {"_score": 2, "title": "T"}, 2.0)]
    assert read_passages([hit], ["title", "body"])[0].text == "T\nb"
    assert read_passages([(note, 0.5)], "body.words")[0].first_stage == 0.5


def test_a_field_that_is_empty_or_missing_is_left_out_of_several() -> None:
    rows = [{"title": "T", "body": "a"}, {"body": "b"}, {"title": None, "body": "c"}]
    rows.append({"title": "", "body": "d"})
    assert [p.text for p in read_passages(rows, ["title", "body"])] == ["T\na", "b", "c", "d"]


def test_a_str_is_its_own_text_whatever_field_is_named() -> None:
    assert [p.text for p in read_passages(["s", {"body": "b"}], "body")] == ["s", "b"]


@pytest.mark.parametrize(
    ("passage", "text", "says"),
    [
        ({"body": "b", "title": "T"}, None, r"without the key 'text' .*text='body'"),
        ({"_source": {"body": "bb", "t": ""}}, None, r"'_source.body', '_source.t'.*text='_source"),
        ({"body": "b"}, "bodies", r"passage 0 is a dict without 'bodies' \(its keys: 'body'\)"),
        ({"body": "b"}, ["body", "titel"], "no passage has the field 'titel'"),
        ({"body": 3}, "body", "the field 'body' of passage 0 is of type int"),
        ({"body": None}, "body", "the field 'body' of passage 0 is None"),
        ({"body": float("nan")}, "body", "nan, a missing value"),
        ({"body": 3}, lambda passage: passage["body"], "what text= returned for passage 0 is of"),
        ({"page_content": "a", "content": "b"}, None, "'page_content' and 'content', and either"),
        ({"payload": {"text": "a"}, "node": {"text": "b"}}, None, "in 'payload' and in 'node'"),
        ({"body": "b"}, 5, "text must be the name of a field"),
        ({"body": "b"}, [], "text names no fields"),
        ({"body": "b"}, [5], "text names no fields"),
    ],
)
def test_what_is_no_text_or_may_be_two_is_refused(passage: Any, text: Any, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        read_passages([passage], text)


def test_an_object_that_holds_itself_or_whose_properties_fail_has_no_text() -> None:
    class Odd:
        @property
        def node(self) -> "Odd":
            return self

        @property
        def text(self) -> str:
            raise RuntimeError("not loaded")

    with pytest.raises(InvalidInput, match="passage 0 is of type Odd"):
        read_passages([Odd()])
