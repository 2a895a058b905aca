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

from pathlib import Path

from flashrank_lite.errors import InvalidInput
from flashrank_lite.evaluation.collection import Collection, read_passages, read_queries
from flashrank_lite.evaluation.first_stage import judged_lines, of_bm25, of_run
from flashrank_lite.evaluation.judged import JudgedData, JudgedQuery, Order, named
from flashrank_lite.evaluation.layout import sort_files
from flashrank_lite.evaluation.qrels import read_qrels
from flashrank_lite.reading import ReadOptions
from flashrank_lite.reading.questions import read_trec

CANDIDATES = 100  # of BM25, where nobody says how many


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
    files = sort_files(Path(path), split)
    if qrels is not None:
        files["qrels"] = [Path(qrels)]
    collection = Collection()
    for file in files["queries"]:
        read_queries(str(file), collection)
    for file in files["qrels"]:
        for query, grades in read_qrels(str(file)).items():
            collection.qrels.setdefault(query, {}).update(grades)
    if not collection.qrels:
        raise InvalidInput(f"{path}: no judgments: no file qrels*, and no queries with gold_ids")
    lines = None if run is None else judged_lines(run, collection)
    listed = None if lines is None else {passage for _, _, passage, _ in lines}
    for file in files["corpus"]:
        collection.passages.update(read_passages(str(file), options, listed))
    wanted = [name for name in collection.queries if name in collection.qrels]
    if not wanted:
        raise InvalidInput(f"{path}: no query of {files['queries'][0].name} is in the judgments")
    order: Order
    missed = 0
    if lines is not None:
        order, found = "given", of_run(lines, collection)
        missed = sum(name not in found for name in wanted)
        wanted = [name for name in wanted if name in found]
        if not wanted:
            raise InvalidInput(f"{run}: no judged query of {path} is in it")
    else:
        order, found = "bm25", of_bm25(wanted, collection, candidates)
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


def _notes(repeated: int, unjudged: int, missed: int) -> tuple[str, ...]:
    counts = (
        (repeated, "candidates left out: their id was in the list before"),
        (unjudged, "queries without judgments left out"),
        (missed, "judged queries left out: they are not in the run"),
    )
    return tuple(f"{count} {what}" for count, what in counts if count)
