"""Collections: queries, passages and judgments in files of their own, in one folder or named each.

The layouts differ in names alone, so one reader sorts a folder's files into what they hold:

    BEIR        corpus.jsonl, queries.jsonl, qrels/test.tsv
    CoIR        corpus-*.parquet and queries-*.parquet in data/ or folders, qrels in a third
    BRIGHT      documents/biology-*.parquet, examples/biology-*.parquet with `gold_ids`
    T2Ranking   collection.tsv, queries.dev.tsv, qrels.dev.tsv

What is ranked is what a run found, or else what BM25 finds among all passages. With a run the
passages that it does not name are not kept, and of a TSV not even read at once: T2Ranking's
collection has two million.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from flashrank_lite.errors import InvalidInput, MissingExtra
from flashrank_lite.evaluation.judged import JudgedData, JudgedQuery, Order, grade, named
from flashrank_lite.evaluation.rows import PASSAGES, QUERIES
from flashrank_lite.passages import Passage
from flashrank_lite.reading import (
    ReadOptions,
    as_passages,
    decode,
    read_lines,
    read_placed,
    read_source,
)
from flashrank_lite.reading.questions import read_run, read_trec
from flashrank_lite.reading.source import extension

CANDIDATES = 100  # of BM25, where nobody says how many

_IDS = ("_id", "id", "pid", "qid", "docid", "doc_id", "query_id", "query-id")
_QUERY_IDS = ("query-id", "query_id", "qid")
_PASSAGE_IDS = ("corpus-id", "corpus_id", "doc_id", "docid", "pid")
_GRADES = ("score", "rel", "relevance", "label", "grade")
_DATA = (
    ".jsonl",
    ".ndjson",
    ".json",
    ".parquet",
    ".arrow",
    ".tsv",
    ".csv",
    ".txt",
    ".trec",
    ".qrels",
)
_HOLDS = (  # what a file holds, by how its name or a folder's above it starts, the first that fits
    ("qrels", re.compile(r"qrels|.*[-_.]qrels$|default$")),
    ("corpus", re.compile(r"corpus|documents|docs$|docs[-_.]|collection")),
    ("queries", re.compile(r"queries|examples|topics")),
)

RunLine = tuple[str, str, str, float]  # where it stands, query, passage, score


@dataclass
class _Collection:
    queries: dict[str, str] = field(default_factory=dict)
    passages: dict[str, Passage] = field(default_factory=dict)
    qrels: dict[str, dict[str, int]] = field(default_factory=dict)
    excluded: dict[str, frozenset[str]] = field(default_factory=dict)


def read_folder(
    path: str,
    options: ReadOptions,
    *,
    split: str | None = None,
    qrels: str | None = None,
    run: str | None = None,
    candidates: int = CANDIDATES,
) -> JudgedData:
    """Read a folder of one of the layouts above.

    Args:
        path: the folder.
        options: how to read passages; `field` is where their text is. Without it a title stands
            before the text, as BEIR has it.
        split: which of several sets the folder holds, as in "dev" or "biology".
        qrels: judgments, instead of those in the folder.
        run: a TREC run of the first stage.
        candidates: how many BM25 is to find for each query, without a run.

    Raises:
        OSError: a file cannot be read.
        InvalidInput: the folder holds no such thing, or several; or a file cannot be understood.
        MissingExtra: there is no run and bm25s is not installed; or pyarrow is needed.
    """
    files = _sort(Path(path), split)
    if qrels is not None:
        files["qrels"] = [Path(qrels)]
    collection = _Collection()
    for file in files["queries"]:
        _read_queries(str(file), collection)
    for file in files["qrels"]:
        for query, grades in read_qrels(str(file)).items():
            collection.qrels.setdefault(query, {}).update(grades)
    if not collection.qrels:
        raise InvalidInput(f"{path}: no judgments: no file qrels*, and no queries with gold_ids")
    listed = None if run is None else _of_judged(run, collection)
    named_there = None if listed is None else {passage for _, _, passage, _ in listed}
    for file in files["corpus"]:
        collection.passages.update(_read_passages(str(file), options, named_there))
    wanted = [name for name in collection.queries if name in collection.qrels]
    if not wanted:
        raise InvalidInput(f"{path}: no query of {files['queries'][0].name} is in the judgments")
    order: Order
    missed = 0
    if listed is not None:
        order, found = "given", _of_run(listed, collection)
        missed = sum(name not in found for name in wanted)
        wanted = [name for name in wanted if name in found]
        if not wanted:
            raise InvalidInput(f"{run}: no judged query of {path} is in it")
    else:
        order, found = "bm25", _of_bm25(wanted, collection, candidates)
    queries, left_out = [], 0
    for name in wanted:
        passages, repeated = named(found.get(name, ()))
        left_out += repeated
        queries.append(
            JudgedQuery(name, collection.queries[name], passages, collection.qrels[name])
        )
    notes = _notes(left_out, len(collection.queries) - len(wanted) - missed, missed)
    return JudgedData(Path(path).name or str(path), tuple(queries), order, notes)


def read_trec_files(
    run: str, topics: str, texts: str, qrels: str, options: ReadOptions
) -> JudgedData:
    """Read a TREC run with its queries, passages and judgments.

    Raises:
        OSError: a file cannot be read.
        InvalidInput: one cannot be understood, or lacks what the run names.
    """
    grades = read_qrels(qrels)
    questions = read_trec(run, topics, texts, options)
    queries, left_out, without = [], 0, 0
    for question in questions:
        if question.id not in grades:
            without += 1
            continue
        passages, repeated = named(question.passages)
        left_out += repeated
        queries.append(JudgedQuery(question.id, question.query, passages, grades[question.id]))
    if not queries:
        raise InvalidInput(f"{qrels}: no query of {run} is in it")
    asked = {question.id for question in questions}
    notes = _notes(left_out, without, sum(name not in asked for name in grades))
    return JudgedData(Path(run).name, tuple(queries), "given", notes)


def read_qrels(path: str) -> dict[str, dict[str, int]]:
    """Judgments: TREC's (query, 0, passage, grade), BEIR's with a header, JSONL or Parquet.

    A line of two fields, a query and a passage, says that the passage is relevant.

    Raises:
        OSError: the file cannot be read.
        InvalidInput: a line is none of these.
    """
    found: dict[str, dict[str, int]] = {}
    data, name = read_source(path)
    if extension(name) in (".jsonl", ".ndjson", ".json", ".parquet", ".arrow"):
        for place, row in read_placed(path, unwrap=False):
            query, passage = _value(row, _QUERY_IDS, place), _value(row, _PASSAGE_IDS, place)
            label = next((row[key] for key in _GRADES if row.get(key) is not None), 1)
            found.setdefault(str(query), {})[str(passage)] = grade(label, place)
        return found
    for number, line in enumerate(decode(data, name).split("\n"), 1):
        fields = line.split()
        if len(fields) > 4:  # ids with spaces
            fields = line.strip().split("\t")
        place = f"{name}:{number}"
        if not fields or (number == 1 and fields[0].lower() in _QUERY_IDS):
            continue  # blank, or a header
        if len(fields) not in (2, 3, 4):
            raise InvalidInput(f"{place}: not a judgment, `query 0 passage grade`")
        query = fields[0]
        passage = fields[2] if len(fields) == 4 else fields[1]
        label = "1" if len(fields) == 2 else fields[-1]
        found.setdefault(query, {})[passage] = grade(label, place)
    return found


def _notes(repeated: int, unjudged: int, missed: int) -> tuple[str, ...]:
    counts = (
        (repeated, "candidates left out: their id was in the list before"),
        (unjudged, "queries without judgments left out"),
        (missed, "judged queries left out: they are not in the run"),
    )
    return tuple(f"{count} {what}" for count, what in counts if count)


def _sort(folder: Path, split: str | None) -> dict[str, list[Path]]:
    """The files of a folder by what they hold."""
    found: dict[str, list[Path]] = {"qrels": [], "corpus": [], "queries": []}
    for file in sorted(folder.rglob("*")):
        if file.is_file() and extension(file.name) in _DATA:
            parts = [*reversed(file.relative_to(folder).parts[:-1]), ""]
            names = [file.name.lower(), *(part.lower() for part in parts if part)]
            kind = next(
                (kind for kind, form in _HOLDS if any(form.match(name) for name in names)), None
            )
            if kind is not None:
                found[kind].append(file)
    for kind in found:
        found[kind] = _of_split(found[kind], split, folder, kind)
    for kind in ("corpus", "queries"):  # BRIGHT's judgments are with its queries
        if not found[kind]:
            raise InvalidInput(
                f"{folder}: no file of {kind}: a BEIR folder has corpus.jsonl, queries.jsonl and "
                "qrels/test.tsv; CoIR, BRIGHT and T2Ranking folders are read as they are published"
            )
    return found


def _of_split(files: list[Path], split: str | None, folder: Path, kind: str) -> list[Path]:
    """Those of a split; all where no name tells, or where there is but one set."""
    if split is not None:
        form = re.compile(rf"(?:^|[-_.]){re.escape(split)}(?:[-_.]|$)")
        of_it = [file for file in files if form.search(file.name)]
        # T2Ranking has a second file for retrieval, in which the grades are gone
        graded = [file for file in of_it if ".retrieval." not in file.name]
        if of_it:
            return graded or of_it
        if kind == "qrels" and len(_sets(files)) > 1:
            names = ", ".join(_sets(files))
            raise InvalidInput(f"{folder}: no qrels of {split!r}; there are: {names}")
        return files
    sets = _sets(files)
    if len(sets) > 1 and kind != "corpus":
        # the usual set to measure on, if it is there
        usual = next((name for name in sets if "test" in re.split(r"[-_.]", name)), None)
        if usual is None:
            raise InvalidInput(
                f"{folder}: several sets of {kind} ({', '.join(sets)}): say which with --split"
            )
        return sets[usual]
    return files


def _sets(files: Iterable[Path]) -> dict[str, list[Path]]:
    """Files by their names without the number of a shard and the extension."""
    sets: dict[str, list[Path]] = {}
    for file in files:
        name = re.sub(r"(-\d{5}-of-\d{5})?(\.\w+)$", "", file.name)
        sets.setdefault(name, []).append(file)
    return sets


def _read_queries(path: str, collection: _Collection) -> None:
    for place, row in _placed(path, QUERIES):
        name = str(_value(row, _IDS, place))
        collection.queries[name] = str(_value(row, QUERIES, place))
        gold = row.get("gold_ids")
        if gold is not None:
            collection.qrels[name] = {str(one): 1 for one in gold}
            excluded = row.get("excluded_ids") or ()
            collection.excluded[name] = frozenset(str(one) for one in excluded if one != "N/A")


def _read_passages(
    path: str, options: ReadOptions, wanted: Container[str] | None
) -> dict[str, Passage]:
    """The passages of a file by their ids; those alone that are wanted, unless that is None."""
    placed = _placed(path, PASSAGES)
    if options.field or options.id_field:
        placed = list(placed)
        read = as_passages(placed, options)
        lacking = next(
            (place for (place, _), one in zip(placed, read, strict=True) if one.id is None), None
        )
        if lacking is not None:
            raise InvalidInput(f"{lacking}: no id: name its field with --id")
        return {
            str(one.id): replace(one, id=str(one.id))
            for one in read
            if wanted is None or str(one.id) in wanted
        }
    found = {}
    for place, row in placed:
        name, text = str(_value(row, _IDS, place)), _value(row, PASSAGES, place, empty=True)
        if wanted is not None and name not in wanted:
            continue
        title = row.get("title")
        whole = f"{title} {text}" if title else str(text)
        found[name] = Passage(whole, name, {"title": title} if title else {})
    return found


def _placed(path: str, names: Sequence[str]) -> Iterable[tuple[str, dict[str, Any]]]:
    """Rows as dictionaries; of a TSV an id, a tab and the text, whatever quotes there are."""
    if extension(path) not in (".tsv", ".txt"):
        rows = read_placed(path, unwrap=False, columns=tuple(names))
        wrong = next((place for place, row in rows if not isinstance(row, dict)), None)
        if wrong is not None:
            raise InvalidInput(f"{wrong}: not an object with an id and a text")
        return rows
    return _tab_separated(path, names[0])


def _tab_separated(path: str, named: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        identity, tab, text = line.partition("\t")
        if not tab:
            raise InvalidInput(f"{path}:{number}: not an id, a tab and a text")
        if number == 1 and identity.strip() in _IDS:
            continue
        yield f"{path}:{number}", {"_id": identity.strip(), named: text.strip()}


def _of_judged(run: str, collection: _Collection) -> list[RunLine]:
    """The lines of a run whose queries are judged."""
    return [line for line in read_run(run) if line[1] in collection.qrels]


def _of_run(run: Iterable[RunLine], collection: _Collection) -> dict[str, list[Passage]]:
    found: dict[str, list[Passage]] = {}
    for place, query, passage, score in run:
        if passage not in collection.passages:
            raise InvalidInput(f"{place}: passage {passage!r} is not in the corpus")
        if passage not in collection.excluded.get(query, ()):
            listed = found.setdefault(query, [])
            listed.append(replace(collection.passages[passage], first_stage=score))
    for listed in found.values():
        listed.sort(key=lambda one: -(one.first_stage or 0.0))
    return found


def _of_bm25(
    wanted: Sequence[str], collection: _Collection, candidates: int
) -> dict[str, list[Passage]]:
    try:
        import bm25s
    except ImportError as error:
        raise MissingExtra(
            "a collection without a run needs BM25 to find candidates: give --run, or install "
            "bm25s",
            "bm25",
        ) from error
    passages = list(collection.passages.values())
    words = bm25s.tokenize([one.text for one in passages], stopwords=None, show_progress=False)
    index = bm25s.BM25()
    index.index(words, show_progress=False)
    asked = bm25s.tokenize(
        [collection.queries[name] for name in wanted],
        stopwords=None,
        show_progress=False,
        return_ids=False,
    )
    found = {}
    for name, query in zip(wanted, asked, strict=True):
        excluded = collection.excluded.get(name, frozenset())
        known = [word for word in query if word in words.vocab]
        if not known:
            continue
        count = min(candidates + len(excluded), len(passages))
        places, scores = index.retrieve([known], k=count, show_progress=False)
        found[name] = [
            replace(passages[place], first_stage=float(score))
            for place, score in zip(places[0].tolist(), scores[0].tolist(), strict=True)
            if score > 0 and passages[place].id not in excluded
        ][:candidates]
    return found


def _value(row: Mapping[str, Any], names: Sequence[str], place: str, empty: bool = False) -> Any:
    for name in names:
        value = row.get(name) if isinstance(row, Mapping) else None
        if value is not None and (empty or value != ""):
            return value
    raise InvalidInput(f"{place}: none of {', '.join(names)}")
