"""Many queries in one go: JSONL with the passages beside each query, or a TREC run.

A run names documents by their ids, so it comes with two more files: the topics (the queries by id)
and the texts (the passages by id).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from flashrank_lite.cli.reading import (
    Placed,
    ReadOptions,
    as_passages,
    decode,
    read_file,
    read_placed,
    read_source,
)
from flashrank_lite.cli.reading.source import extension
from flashrank_lite.errors import InvalidInput

if TYPE_CHECKING:
    from flashrank_lite.passages import Passage

_LISTS = ("passages", "candidates", "documents", "hits")
_QUERIES = ("query", "question", "text", "title")
_IDS = ("id", "_id", "qid", "query_id")
_TOPIC = re.compile(r"<top>(.*?)</top>", re.DOTALL | re.IGNORECASE)
_NUMBER = re.compile(r"<num>\s*(?:number:)?\s*([^\s<]+)", re.IGNORECASE)
_TITLE = re.compile(r"<title>\s*(?:topic:)?\s*([^<]+)", re.IGNORECASE)


@dataclass(frozen=True)
class Question:
    """A query with the passages to rank for it; its id is its number where it has none."""

    id: str
    query: str
    passages: Sequence[Passage]


def read_questions(path: str, options: ReadOptions) -> list[Question]:
    """Questions of a file in which each line, or item, holds a query and its passages.

    Raises:
        OSError: the file cannot be read.
        InvalidInput: a line is not of that form.
    """
    questions = []
    for number, (place, value) in enumerate(_lines(path, options), 1):
        if not isinstance(value, dict):
            raise InvalidInput(f'{place}: not an object {{"query": ..., "passages": [...]}}')
        query = _query(value, place)
        listed = next((value[name] for name in _LISTS if isinstance(value.get(name), list)), None)
        if listed is None:
            raise InvalidInput(
                f"{place}: no list of passages (it has: {', '.join(value)}): put it under "
                '"passages"; queries that are all ranked over one FILE are not a case for --queries'
            )
        placed: list[Placed] = [
            (f"{place}: passage {index}", item) for index, item in enumerate(listed, start=1)
        ]
        questions.append(Question(_id(value, number), query, as_passages(placed, options)))
    return questions


def read_trec(run: str, topics: str, texts: str, options: ReadOptions) -> list[Question]:
    """The questions of a TREC run, in its order; the documents of each by falling score.

    Args:
        run: lines of `query Q0 document rank score name`.
        topics: lines of an id, a tab and the query; the SGML of TREC; or JSON, CSV and the like
            with an id and a query.
        texts: passages with ids.
        options: how to read `texts`.

    Raises:
        OSError: a file cannot be read.
        InvalidInput: one cannot be understood, or a query or a document of the run is in no file.
    """
    queries = _read_topics(topics)
    passages = {}
    for passage in read_file(texts, options):
        if passage.id is None:
            raise InvalidInput(
                f"{texts}: a text has no id, which a run needs: name its field with --id"
            )
        passages[str(passage.id)] = passage
    found: dict[str, list[tuple[float, Passage]]] = {}
    for place, query, document, score in read_run(run):
        if query not in queries:
            raise InvalidInput(f"{place}: query {query!r} is not in {topics}")
        if document not in passages:
            raise InvalidInput(f"{place}: document {document!r} is not in {texts}")
        passage = replace(passages[document], first_stage=score)
        found.setdefault(query, []).append((score, passage))
    for listed in found.values():
        listed.sort(key=lambda pair: -pair[0])
    return [
        Question(name, queries[name], [passage for _, passage in listed])
        for name, listed in found.items()
    ]


def read_run(path: str) -> list[tuple[str, str, str, float]]:
    """The lines of a TREC run: where each stands, its query, document and score.

    Raises:
        OSError: the file cannot be read.
        InvalidInput: a line is not of that form.
    """
    data, name = read_source(path)
    lines = []
    for number, line in enumerate(decode(data, name).split("\n"), start=1):
        fields = line.split()
        if not fields:
            continue
        place = f"{name}:{number}"
        try:
            query, _, document, _, score, *_ = fields
            lines.append((place, query, document, float(score)))
        except ValueError:
            raise InvalidInput(
                f"{place}: not a line of a TREC run, `query Q0 document rank score name`"
            ) from None
    return lines


def _lines(path: str, options: ReadOptions) -> list[Placed]:
    options = replace(options, field=None, id_field=None)
    return read_placed(path, options, columns=_QUERIES, unwrap=False)


def _read_topics(path: str) -> dict[str, str]:
    data, name = read_source(path)
    kind = extension(name)
    if kind in ("", ".tsv", ".txt", ".tab", ".topics", ".sgml", ".xml"):
        text = decode(data, name)
        topics = _TOPIC.findall(text)
        return _sgml(topics, name) if topics else _tabbed(text, name)
    placed = read_placed(path, columns=_QUERIES, unwrap=False)
    return {
        _id(value, number): _query(value, place)
        for number, (place, value) in enumerate(placed, start=1)
    }


def _sgml(topics: Sequence[str], name: str) -> dict[str, str]:
    found = {}
    for number, topic in enumerate(topics, start=1):
        identity, title = _NUMBER.search(topic), _TITLE.search(topic)
        if identity is None or title is None:
            raise InvalidInput(f"{name}: topic {number} lacks a <num> or a <title>")
        found[identity[1]] = " ".join(title[1].split())
    return found


def _tabbed(text: str, name: str) -> dict[str, str]:
    found = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            identity, tab, query = line.strip().partition("\t")
            if not tab or not query.strip():
                raise InvalidInput(f"{name}:{number}: not an id, a tab and a query")
            found[identity.strip()] = query.strip()
    return found


def _query(value: Any, place: str) -> str:
    fields = value if isinstance(value, dict) else {}
    for name in _QUERIES:
        query = fields.get(name)
        if isinstance(query, str):
            return query
    raise InvalidInput(f'{place}: no query: put it under "query"')


def _id(value: dict[str, Any], number: int) -> str:
    return next((str(value[name]) for name in _IDS if value.get(name) is not None), str(number))
