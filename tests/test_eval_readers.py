"""Every layout of judged data comes out as the same queries, candidates and judgments."""

import gzip
import json
import re
import shutil
import tracemalloc
from pathlib import Path

import pytest

from flashrank_lite import InvalidInput, MissingExtra
from flashrank_lite.evaluation import DataFiles, labelled_lists, read_data
from flashrank_lite.reading import ReadOptions

ROOT = Path(__file__).parents[1]
QUESTIONS = ROOT / "examples" / "questions.jsonl"
QRELS = ROOT / "examples" / "questions.qrels"

FLEA = "An adult flea lives for about 100 days when it has a host to feed on."
EGGS = "Flea eggs hatch in two to twelve days."
WALL = "The Great Wall of China was built over many centuries."
BUTTER = "Butter melts at about 32 to 35 degrees Celsius."
CORPUS = {"d1": WALL, "d2": EGGS, "d3": FLEA, "d4": BUTTER}
QUERIES = {"q1": "how long does a flea live", "q2": "at what temperature does butter melt"}
JUDGED = {"q1": {"d3": 2, "d2": 1, "d1": 0}, "q2": {"d4": 1, "d1": 0}}


def lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    return path


def jsonl(path, rows):
    return lines(path, (json.dumps(row) for row in rows))


def parquet(path, rows):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet as files

    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def qrel_rows():
    return [(q, d, grade) for q, grades in JUDGED.items() for d, grade in grades.items()]


def beir(folder):
    jsonl(folder / "corpus.jsonl", ({"_id": d, "title": "", "text": t} for d, t in CORPUS.items()))
    jsonl(folder / "queries.jsonl", ({"_id": q, "text": t} for q, t in QUERIES.items()))
    for split in ("test", "train"):
        rows = ["query-id\tcorpus-id\tscore", *("\t".join(map(str, row)) for row in qrel_rows())]
        lines(folder / "qrels" / f"{split}.tsv", rows if split == "test" else rows[:2])
    return folder


def coir(folder):
    rows = [{"_id": d, "title": "", "text": t, "language": "en"} for d, t in CORPUS.items()]
    parquet(folder / "queries-corpus" / "data" / "corpus-00000-of-00001.parquet", rows)
    rows = [{"_id": q, "text": t, "partition": "test"} for q, t in QUERIES.items()]
    parquet(folder / "queries-corpus" / "data" / "queries-00000-of-00001.parquet", rows)
    rows = [{"query-id": q, "corpus-id": d, "score": grade} for q, d, grade in qrel_rows()]
    parquet(folder / "qrels" / "data" / "test-00000-of-00001.parquet", rows)
    return folder


def t2ranking(folder):
    lines(folder / "collection.tsv", ["pid\ttext", *(f"{d}\t{t}" for d, t in CORPUS.items())])
    for split in ("train", "dev"):
        rows = ["qid\ttext", *(f"{q}\t{t}" for q, t in QUERIES.items())]
        lines(folder / f"queries.{split}.tsv", rows)
        rows = ["qid\t-\tpid\trel", *(f"{q}\t0\t{d}\t{g}" for q, d, g in qrel_rows())]
        lines(folder / f"qrels.{split}.tsv", rows)
    rows = ["qid\tpid", *(f"{q}\t{d}" for q, d, g in qrel_rows() if g > 1)]
    lines(folder / "qrels.retrieval.dev.tsv", rows)
    return folder


@pytest.mark.parametrize(
    ("layout", "split"),
    [(beir, None), (coir, None), (t2ranking, "dev")],
    ids=["beir", "coir", "t2ranking"],
)
def test_a_folder_of_a_collection_gets_its_candidates_by_bm25(layout, split, tmp_path):
    pytest.importorskip("bm25s")
    data = read_data(DataFiles(str(layout(tmp_path / "set")), split=split))
    assert data.order == "bm25"
    assert {query.id: query.query for query in data.queries} == QUERIES
    assert {query.id: dict(query.judgments) for query in data.queries} == JUDGED
    first = {query.id: query.passages[0] for query in data.queries}
    assert first["q2"].text == BUTTER
    assert first["q2"].id == "d4"
    assert {passage.id for query in data.queries for passage in query.passages} <= CORPUS.keys()
    assert (
        read_data(DataFiles(str(tmp_path / "set"), split=split), candidates=1).queries[0].passages
    )


def test_bright_has_its_judgments_with_the_queries_and_leaves_excluded_documents_out(tmp_path):
    pytest.importorskip("bm25s")
    for domain in ("earth_science", "biology"):
        rows = [{"id": d, "content": text} for d, text in CORPUS.items()]
        parquet(tmp_path / "documents" / f"{domain}-00000-of-00001.parquet", rows)
        rows = [
            {"id": "q1", "query": QUERIES["q1"], "gold_ids": ["d3"], "excluded_ids": ["d2"]},
            {"id": "q2", "query": QUERIES["q2"], "gold_ids": ["d4"], "excluded_ids": ["N/A"]},
        ]
        parquet(tmp_path / "examples" / f"{domain}-00000-of-00001.parquet", rows)
    with pytest.raises(InvalidInput, match=r"several sets of queries \(biology, earth_science\)"):
        read_data(str(tmp_path))
    data = read_data(DataFiles(str(tmp_path), split="earth_science"))
    assert [dict(query.judgments) for query in data.queries] == [{"d3": 1}, {"d4": 1}]
    assert "d2" not in [passage.id for passage in data.queries[0].passages]
    assert "d3" in [passage.id for passage in data.queries[0].passages]


def test_a_run_says_what_the_first_stage_of_a_folder_found(tmp_path):
    folder = beir(tmp_path / "set")
    run = lines(tmp_path / "a.run", ["q1 Q0 d1 1 9.5 x", "q1 Q0 d3 2 9.0 x", "q1 Q0 d3 3 1.0 x"])
    data = read_data(DataFiles(str(folder), run=str(run)))
    assert data.order == "given"
    assert [query.id for query in data.queries] == ["q1"]
    assert [passage.id for passage in data.queries[0].passages] == ["d1", "d3"]
    assert [passage.first_stage for passage in data.queries[0].passages] == [9.5, 9.0]
    assert "1 candidates left out: their id was in the list before" in data.notes
    assert "1 judged queries left out: they are not in the run" in data.notes


def test_of_a_large_collection_only_what_the_run_names_is_kept_in_memory(tmp_path):
    folder = t2ranking(tmp_path / "set")
    filler = "Nothing that anybody asked for. " * 40
    with open(folder / "collection.tsv", "a", encoding="utf-8") as file:
        file.writelines(f"more{number}\t{filler}\n" for number in range(20_000))  # 26 MB
    run = lines(tmp_path / "a.run", ["q1 Q0 d1 1 9.5 x", "q2 Q0 d4 1 9.0 x", "q9 Q0 gone 1 1 x"])
    tracemalloc.start()
    try:
        data = read_data(DataFiles(str(folder), split="dev", run=str(run)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [[one.text for one in query.passages] for query in data.queries] == [[WALL], [BUTTER]]
    assert peak < 5_000_000


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("d1\tfine\nd2\tcaf\u00e9\n".encode("cp1252"), "collection.tsv:2: not UTF-8"),
        (b"d1\tfine\nd2\ta\0b\n", "line 2 has a NUL character"),
        (b"d1\tfine\nno tab\n", "collection.tsv:2: not an id, a tab and a text"),
    ],
)
def test_a_line_of_a_collection_that_cannot_be_read_is_named(content, said, tmp_path):
    folder = t2ranking(tmp_path / "set")
    (folder / "collection.tsv").write_bytes(content)
    run = lines(tmp_path / "a.run", ["q1 Q0 d1 1 9.5 x"])
    with pytest.raises(InvalidInput, match=re.escape(said)):
        read_data(DataFiles(str(folder), split="dev", run=str(run)))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_collection_may_have_a_mark_be_compressed_or_end_its_lines_otherwise(encoding, tmp_path):
    folder = t2ranking(tmp_path / "set")
    text = (folder / "collection.tsv").read_text("utf-8").replace("\n", "\r\n")
    (folder / "collection.tsv").unlink()
    (folder / "collection.tsv.gz").write_bytes(gzip.compress(text.encode(encoding)))
    run = lines(tmp_path / "a.run", ["q2 Q0 d4 1 9.0 x"])
    files = DataFiles(str(folder), split="dev", run=str(run))
    assert read_data(files).queries[0].passages[0].text == BUTTER
    (folder / "collection.tsv.gz").unlink()
    (folder / "collection.tsv").write_bytes(text.encode(encoding))
    assert read_data(files).queries[0].passages[0].text == BUTTER


def test_a_title_stands_before_the_text_of_a_collection_unless_a_field_is_named(tmp_path):
    folder = beir(tmp_path / "set")
    jsonl(folder / "corpus.jsonl", [{"_id": "d3", "title": "Fleas", "text": FLEA}])
    run = lines(tmp_path / "a.run", ["q1 Q0 d3 1 9.0 x"])
    files = DataFiles(str(folder), run=str(run))
    assert read_data(files).queries[0].passages[0].text == f"Fleas {FLEA}"
    assert read_data(files, ReadOptions(field="text")).queries[0].passages[0].text == FLEA


def test_a_trec_run_is_read_with_its_topics_texts_and_judgments(tmp_path):
    run = lines(tmp_path / "a.run", ["q1 Q0 d1 1 2 x", "q1 Q0 d3 2 1 x", "q2 Q0 d4 1 7 x"])
    topics = lines(tmp_path / "topics.tsv", (f"{q}\t{text}" for q, text in QUERIES.items()))
    texts = jsonl(tmp_path / "texts.jsonl", ({"id": d, "text": t} for d, t in CORPUS.items()))
    qrels = lines(tmp_path / "qrels.txt", (f"{q} 0 {d} {g}" for q, d, g in qrel_rows()))
    files = {"run": str(run), "topics": str(topics), "texts": str(texts), "qrels": str(qrels)}
    data = read_data(DataFiles(**files))
    assert [query.id for query in data.queries] == ["q1", "q2"]
    assert [passage.text for passage in data.queries[0].passages] == [WALL, FLEA]
    assert dict(data.queries[0].judgments) == JUDGED["q1"]
    with pytest.raises(InvalidInput, match="give all four"):
        read_data(DataFiles(**{**files, "qrels": None}))


def test_questions_get_their_judgments_from_a_file(tmp_path):
    data = read_data(DataFiles(str(QUESTIONS), qrels=str(QRELS)))
    assert len(data.queries) == 6
    assert all(query.has_positive for query in data.queries)
    assert sum(query.unjudged for query in data.queries) == 0
    with pytest.raises(InvalidInput, match="ids differ"):
        read_data(DataFiles(str(QUESTIONS), qrels=str(lines(tmp_path / "a.qrels", ["a 0 b 1"]))))
    with pytest.raises(InvalidInput, match=r"agriculture\.run:1: not a judgment"):
        read_data(DataFiles(str(QUESTIONS), qrels=str(ROOT / "examples" / "agriculture.run")))


def test_lists_of_candidates_have_labels_texts_of_a_corpus_and_what_was_missed(tmp_path):
    jsonl(tmp_path / "corpus.all.jsonl", ({"id": d, "text": t} for d, t in CORPUS.items()))
    candidates = [
        {"id": "d1", "label": 0},
        {"id": "d3", "label": 2},
        {"id": "new", "text": "Nobody has looked at this."},
    ]
    row = {"qid": "q1", "query": QUERIES["q1"], "ideal": [2, 1], "candidates": candidates}
    query = read_data(str(jsonl(tmp_path / "rerank.jsonl", [row]))).queries[0]
    assert query.id == "q1"
    assert [passage.text for passage in query.passages[:2]] == [WALL, FLEA]
    assert query.unjudged == 1
    assert sorted(query.judgments.values()) == [0, 1, 2]  # the 1 is none of the candidates
    assert {"d1": 0, "d3": 2}.items() <= query.judgments.items()


@pytest.mark.parametrize("write", [jsonl, parquet])
@pytest.mark.parametrize(
    "names", [("positive", "negative"), ("pos", "neg"), ("document", "negatives")]
)
def test_positives_and_negatives_are_shuffled_so_that_ties_do_not_flatter(write, names, tmp_path):
    positive = FLEA if names[0] == "document" else [FLEA]
    rows = [
        {"query": f"{QUERIES['q1']} ({number})", names[0]: positive, names[1]: [EGGS, WALL, BUTTER]}
        for number in range(20)
    ]
    path = write(tmp_path / f"set.{'jsonl' if write is jsonl else 'parquet'}", rows)
    data = read_data(str(path))
    assert data.order == "shuffled"
    assert data == read_data(str(path))
    places = []
    for query in data.queries:
        grades = [query.judgments[passage.id] for passage in query.passages]
        assert sum(grades) == 1
        places.append(grades.index(1))
        assert query.passages[places[-1]].text == FLEA
    assert set(places) == {0, 1, 2, 3}


@pytest.mark.parametrize("header", [True, False])
def test_a_table_has_one_passage_a_row(header, tmp_path):
    rows = [(QUERIES[q], CORPUS[d], g) for q, d, g in sorted(qrel_rows())]
    table = ["\t".join(map(str, row)) for row in rows]
    path = lines(tmp_path / "set.tsv", ["query\ttext\tlabel", *table] if header else table)
    data = read_data(str(path), ReadOptions(header=None if header else False))
    assert [query.query for query in data.queries] == list(QUERIES.values())
    assert data.order == "given"  # of q1 the best is not the first
    read = [[query.judgments[one.id] for one in query.passages] for query in data.queries]
    assert read == [[0, 1, 2], [0, 1]]


def test_rows_that_put_the_answer_first_in_every_query_have_no_first_stage(tmp_path):
    rows = [
        {"q_id": q, "question": QUERIES[q], "text": CORPUS[d], "label": g}
        for q, d, g in qrel_rows()  # by falling grade
    ]
    data = read_data(str(jsonl(tmp_path / "jqara.jsonl", rows)))
    assert data.order == "shuffled"
    assert [query.id for query in data.queries] == ["q1", "q2"]
    for query in data.queries:
        grades = {passage.text: query.judgments[passage.id] for passage in query.passages}
        assert grades == {CORPUS[d]: grade for d, grade in JUDGED[query.id].items()}


def test_what_the_readers_give_calibrates_a_ranker(ranker):
    queries, lists, labels = labelled_lists(
        read_data(DataFiles(str(QUESTIONS), qrels=str(QRELS))), least=2
    )
    calibration = ranker.calibrate(queries, [rows[:5] for rows in lists], [r[:5] for r in labels])
    assert calibration.pairs == 30
    assert calibration.relevant == sum(sum(row[:5]) for row in labels)
    assert 0 < calibration.brier < 0.25


def test_unjudged_candidates_are_no_labels(tmp_path):
    candidates = [{"text": WALL, "label": 0}, {"text": EGGS}, {"text": FLEA, "label": -1}]
    rows = [
        {"query": "a", "candidates": candidates},
        {"query": "b", "candidates": [{"text": EGGS}]},
    ]
    queries, lists, labels = labelled_lists(read_data(str(jsonl(tmp_path / "a.jsonl", rows))))
    assert (queries, labels) == (["a"], [[0]])
    assert [passage.text for passage in lists[0]] == [WALL]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"candidates": []}, r"a\.jsonl:1: no query"),
        ({"query": "a"}, r'no passages \(it has: query\): put them under "candidates"'),
        ({"query": "a", "positive": ["b"], "negative": "c", "x": 1}, "no passages"),
        ({"query": "a", "candidates": [{"text": "b", "label": 0.5}]}, "0.5 is not a grade"),
        ({"query": "a", "candidates": [{"text": "b", "label": "yes"}]}, "'yes' is not a grade"),
    ],
)
def test_a_row_that_cannot_be_understood_is_named(row, message, tmp_path):
    with pytest.raises(InvalidInput, match=message):
        read_data(str(jsonl(tmp_path / "a.jsonl", [row])))


def test_of_a_query_with_several_wordings_the_first_is_ranked_and_that_is_said(tmp_path):
    row = {
        "query": ["how old do fleas get", "age of fleas"],
        "positive": [FLEA],
        "negative": [WALL],
    }
    data = read_data(str(jsonl(tmp_path / "a.jsonl", [row])))
    assert data.queries[0].query == "how old do fleas get"
    assert data.notes == ("1 queries with several wordings: ranked by the first",)


def test_a_folder_that_lacks_a_part_says_which(tmp_path):
    folder = beir(tmp_path / "set")
    shutil.rmtree(folder / "qrels")
    with pytest.raises(InvalidInput, match="no judgments"):
        read_data(str(folder))
    (folder / "corpus.jsonl").unlink()
    with pytest.raises(InvalidInput, match="no file of corpus: a BEIR folder has"):
        read_data(str(folder))
    with pytest.raises(InvalidInput, match="--run and --split go with a folder"):
        read_data(DataFiles(str(QUESTIONS), split="dev"))


def test_a_collection_without_a_run_needs_bm25(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "bm25s", None)
    with pytest.raises(MissingExtra, match=r"flashrank-lite\[bm25\]"):
        read_data(str(beir(tmp_path / "set")))
