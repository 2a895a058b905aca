"""Files with a query and its judged passages in each row, whatever the row looks like.

Three forms are told apart by their keys: a list of candidates with labels (this project's own), a
list of positives and one of negatives (MTEB's reranking tasks, CoRNStack), and one passage a row
(JQaRA, and tables that people make).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from flashrank_lite.cli.reading import Placed, ReadOptions, as_passages, read_placed
from flashrank_lite.errors import InvalidInput
from flashrank_lite.evaluation.candidates import read_corpus
from flashrank_lite.evaluation.judged import (
    JudgedData,
    JudgedQuery,
    Order,
    grade,
    named,
    shuffled,
)
from flashrank_lite.passages import Passage

QUERIES = ("query", "question", "title", "text")
QUERY_IDS = ("id", "_id", "qid", "q_id", "query_id", "query-id")
PASSAGES = ("text", "passage", "document", "content", "contents", "body")
LABELS = ("label", "relevance", "relevant", "grade", "rel")
_LISTS = ("candidates", "passages", "documents", "hits")
_POSITIVES = ("positive", "positives", "pos", "document")
_NEGATIVES = ("negative", "negatives", "neg")

Qrels = Mapping[str, Mapping[str, int]]  # query id → passage id → grade


def read_rows(path: str, options: ReadOptions, qrels: Qrels | None = None) -> JudgedData:
    """Read a file of JSONL, JSON, CSV, TSV, Parquet or Arrow.

    Args:
        path: the file.
        options: how to read it; `field` is where the text of a passage is.
        qrels: judgments by query and passage id, instead of those in the file.

    Raises:
        OSError: the file cannot be read.
        InvalidInput: a row has none of the three forms, or no labels are to be found.
    """
    unnamed = options.header is False
    plain = replace(options, field="1" if unnamed else None, id_field=None)
    placed = read_placed(path, plain, columns=("query", "question"), unwrap=False)
    if unnamed:
        placed = [(place, _by_place(place, row)) for place, row in placed]
    if not placed:
        raise InvalidInput(f"{path}: it is empty")
    place, row = placed[0]
    read: Callable[..., JudgedData]
    if not isinstance(row, dict) or _find(row, ("query", "question")) is None:
        raise InvalidInput(f'{place}: no query: put it under "query"')
    if _find(row, _LISTS, list) is not None:
        read = _candidate_lists
    elif _find(row, _NEGATIVES, list) is not None:
        read = _positives_and_negatives
    elif _find(row, options.fields or PASSAGES) is not None:
        read = _one_passage_a_row
    else:
        raise InvalidInput(
            f"{place}: no passages (it has: {', '.join(row)}): put them under "
            '"candidates" with labels, under "positive" and "negative", or one a row under "text"'
        )
    data = read(path, placed, options)
    if qrels is not None:
        data = judge(data, qrels)
    elif not any(query.judgments for query in data.queries):
        raise InvalidInput(
            f'{path}: no labels: give each passage a "label", a whole number with 0 for not '
            "relevant, or the file's judgments with --qrels"
        )
    several = sum(isinstance(_find(row, ("query", "question")), list) for _, row in placed)
    if several:
        note = f"{several} queries with several wordings: ranked by the first"
        data = replace(data, notes=(*data.notes, note))
    return data


def judge(data: JudgedData, qrels: Qrels) -> JudgedData:
    """The same data with these judgments; a query that is not in them has none."""
    queries = [replace(query, judgments=qrels.get(query.id, {})) for query in data.queries]
    if not any(query.judgments for query in queries):
        raise InvalidInput(
            f"none of the {len(queries)} queries is in the judgments: their ids differ (a query "
            "without an id has its number, from 1)"
        )
    return replace(data, queries=tuple(queries))


def _candidate_lists(path: str, placed: Sequence[Placed], options: ReadOptions) -> JudgedData:
    corpus: dict[str, str] | None = None
    queries, notes = [], 0
    for number, (place, row) in enumerate(placed, 1):
        items = _required(row, _LISTS, place, "candidates")
        if not isinstance(items, list):
            raise InvalidInput(f"{place}: the candidates are not a list")
        if corpus is None and any(_lacks_text(item, options) for item in items):
            corpus = read_corpus(Path(path).parent)
        listed = [
            (f"{place}: passage {index}", _with_text(item, corpus or {}, options))
            for index, item in enumerate(items, 1)
        ]
        passages, repeated = named(as_passages(listed, options) if listed else [])
        notes += repeated
        judgments = {}
        for passage in passages:
            label = _find(passage.meta, LABELS)
            if label is not None:
                judgments[str(passage.id)] = grade(label, place)
        _add_missed(judgments, row.get("ideal"), place)
        queries.append(_query(row, number, place, passages, judgments))
    return JudgedData(Path(path).name, tuple(queries), "given", _repeated(notes))


def _positives_and_negatives(
    path: str, placed: Sequence[Placed], options: ReadOptions
) -> JudgedData:
    queries = []
    for number, (place, row) in enumerate(placed, 1):
        texts = [
            (text, label)
            for label, names in ((1, _POSITIVES), (0, _NEGATIVES))
            for text in _listed(_required(row, names, place, names[0]))
        ]
        texts = shuffled(texts, number)
        listed = [(f"{place}: a passage", text) for text, _ in texts]
        read = as_passages(listed, options) if listed else []
        ids = [str(index) for index in range(1, len(read) + 1)]
        passages = tuple(
            replace(one, id=name, index=None) for one, name in zip(read, ids, strict=True)
        )
        judgments = {name: label for name, (_, label) in zip(ids, texts, strict=True)}
        queries.append(_query(row, number, place, passages, judgments))
    return JudgedData(Path(path).name, tuple(queries), "shuffled")


def _one_passage_a_row(path: str, placed: Sequence[Placed], options: ReadOptions) -> JudgedData:
    field = options.field or next(name for name in PASSAGES if name in placed[0][1])
    # a row's "id" may be the query's, or the row's own: it counts where the user says so
    identity = options.id_field or next(
        (name for name in ("doc_id", "docid", "pid", "passage_id") if name in placed[0][1]), None
    )
    read = as_passages(
        [(place, {**row, "id": None}) for place, row in placed],
        replace(options, field=field, id_field=None),
    )
    groups: dict[str, tuple[str, list[tuple[Passage, int | None]]]] = {}
    for (place, row), passage in zip(placed, read, strict=True):
        query = _required(row, ("query", "question"), place, "query")
        key = str(_find(row, ("q_id", "qid", "query_id", "query-id")) or query)
        label = _find(row, LABELS)
        name = row.get(identity) if identity else None
        passage = replace(passage, id=None if name is None else str(name))
        judged = None if label is None else grade(label, place)
        groups.setdefault(key, (str(query), []))[1].append((passage, judged))
    told = all(_positives_first([label for _, label in pairs]) for _, pairs in groups.values())
    order: Order = "shuffled" if told else "given"
    queries, notes = [], 0
    for number, (key, (query, pairs)) in enumerate(groups.items(), 1):
        pairs = shuffled(pairs, number) if told else pairs
        passages, repeated = named(passage for passage, _ in pairs)
        notes += repeated
        judgments: dict[str, int] = {}
        for index, (passage, label) in enumerate(pairs, 1):
            if label is not None:
                name = str(index) if passage.id is None else str(passage.id)
                judgments[name] = max(label, judgments.get(name, label))
        identity = str(number) if key == query else key
        queries.append(JudgedQuery(identity, query, passages, judgments))
    return JudgedData(Path(path).name, tuple(queries), order, _repeated(notes))


def _positives_first(labels: Sequence[int | None]) -> bool:
    known = [label for label in labels if label is not None]
    return known == sorted(known, reverse=True)


def _add_missed(judgments: dict[str, int], ideal: Any, place: str) -> None:
    """Judgments for what the first stage missed, of which `ideal` knows the grades alone."""
    if not ideal:
        return
    if not isinstance(ideal, list):
        raise InvalidInput(f'{place}: "ideal" is not a list of grades')
    left = [label for label in judgments.values() if label > 0]
    for number, value in enumerate(ideal, 1):
        label = grade(value, place)
        if label in left:
            left.remove(label)
        elif label > 0:
            judgments[f"missed by the first stage: {number}"] = label


def _query(
    row: Mapping[str, Any],
    number: int,
    place: str,
    passages: tuple[Passage, ...],
    judgments: Mapping[str, int],
) -> JudgedQuery:
    query = _required(row, ("query", "question"), place, "query")
    if isinstance(query, list):  # MTEB has tasks with several wordings of a query
        query = query[0] if query else ""
    if not isinstance(query, str):
        raise InvalidInput(f"{place}: the query is not a text but {query!r:.40}")
    name = _find(row, QUERY_IDS)
    return JudgedQuery(str(number if name is None else name), query, passages, judgments)


def _by_place(place: str, row: Any) -> dict[str, Any]:
    if not isinstance(row, dict) or len(row) != 3:
        raise InvalidInput(
            f"{place}: without a header a row is a query, a passage and a label: three columns"
        )
    return dict(zip(("query", "text", "label"), row.values(), strict=True))


def _lacks_text(item: Any, options: ReadOptions) -> bool:
    return isinstance(item, dict) and not options.field and _find(item, PASSAGES) is None


def _with_text(item: Any, corpus: Mapping[str, str], options: ReadOptions) -> Any:
    if _lacks_text(item, options) and item.get("id") in corpus:
        return {**item, "text": corpus[item["id"]]}
    return item


def _find(row: Mapping[str, Any], names: Sequence[str], kind: type = object) -> Any:
    return next(
        (row[name] for name in names if row.get(name) is not None and isinstance(row[name], kind)),
        None,
    )


def _required(row: Any, names: Sequence[str], place: str, wanted: str) -> Any:
    value = _find(row, names) if isinstance(row, dict) else None
    if value is None:
        raise InvalidInput(f'{place}: no "{wanted}", which the first row has')
    return value


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _repeated(count: int) -> tuple[str, ...]:
    return (f"{count} candidates left out: their id was in the list before",) if count else ()
