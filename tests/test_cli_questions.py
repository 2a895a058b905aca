"""Many queries at once: JSONL with passages, TREC runs, pipes of one rank into another."""

import json

import pytest
from cli_support import EXAMPLE, QUERY, QUESTIONS, ROOT, rows, run

from flashrank_lite import Ranker
from flashrank_lite.cli import main
from flashrank_lite.passages import read_passages

RUN = ROOT / "examples" / "agriculture.run"
TOPICS = ROOT / "examples" / "agriculture.topics.tsv"


@pytest.fixture
def rank(capsys):
    """What `flashrank-lite rank ARGUMENTS` writes; it must succeed, and say nothing beside it."""

    def call(*arguments):
        status = main(["rank", *map(str, arguments)])
        out, err = capsys.readouterr()
        assert (status, err) == (0, "")
        return out

    return call


@pytest.fixture
def refusal(capsys):
    """The error of a call that gives no answer."""

    def call(*arguments):
        assert main(["rank", *map(str, arguments)]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        return err

    return call


# --queries


def test_each_question_is_answered_as_if_it_were_alone(rank):
    questions = rows(QUESTIONS.read_text("utf-8"))
    answers = rows(rank("--queries", QUESTIONS, "-k", 3))
    assert [answer["query"] for answer in answers] == [asked["query"] for asked in questions]
    assert [answer["id"] for answer in answers] == [str(n + 1) for n in range(len(questions))]
    with Ranker() as ranker:
        for asked, answer in zip(questions, answers, strict=True):
            alone = ranker.rank(asked["query"], asked["passages"], 3)
            assert [hit["id"] for hit in answer["hits"]] == [hit.id for hit in alone]
            logits = [hit["logit"] for hit in answer["hits"]]
            assert logits == pytest.approx([hit.logit for hit in alone], abs=1e-5)


def test_answers_can_be_one_array_tables_or_a_trec_run(rank):
    answers = rows(rank("--queries", QUESTIONS, "-k", 2))
    assert json.loads(rank("--queries", QUESTIONS, "-k", 2, "--format", "json")) == answers
    table = rank("--queries", QUESTIONS, "-k", 2, "--format", "table")
    for answer in answers:
        assert f"{answer['id']}: {answer['query']}\n" in table
    run_lines = rank("--queries", QUESTIONS, "-k", 2, "--format", "trec").splitlines()
    found = [line.split() for line in run_lines]
    assert [line[0] for line in found] == [str(n) for n in range(1, 7) for _ in range(2)]
    assert [line[2] for line in found] == [hit["id"] for a in answers for hit in a["hits"]]
    assert [line[3] for line in found] == ["1", "2"] * 6
    assert {(line[1], line[5]) for line in found} == {("Q0", "flashrank-lite")}


def test_more_passages_than_one_call_takes_are_answered_in_order(rank, tmp_path, monkeypatch):
    every = rank("--queries", QUESTIONS, "-k", 1)
    monkeypatch.setattr("flashrank_lite.cli.rank.AT_ONCE", 20)  # lists of 15: two a call
    assert rank("--queries", QUESTIONS, "-k", 1) == every


def test_a_question_keeps_its_id_and_answers_are_questions_again(rank, tmp_path):
    asked = tmp_path / "asked.jsonl"
    asked.write_text('{"qid": "q7", "query": "fleas", "passages": ["A flea.", "A wall."]}\n')
    (answer,) = rows(rank("--queries", asked))
    assert answer["id"] == "q7"
    (tmp_path / "again.jsonl").write_text(json.dumps(answer))
    (again,) = rows(rank("--queries", tmp_path / "again.jsonl"))
    assert again == answer


def test_one_question_may_be_piped_in_or_be_an_object():
    asked = b'{"query": "fleas", "passages": ["A flea.", "A wall."]}'
    done = run("rank", "--queries", "-", stdin=asked)
    (answer,) = rows(done.out)
    assert [hit["text"] for hit in answer["hits"]] == ["A flea.", "A wall."]


def test_a_field_is_that_of_the_passages(rank, tmp_path):
    asked = tmp_path / "asked.jsonl"
    asked.write_text('{"query": "fleas", "passages": [{"body": "A flea."}, {"body": "A wall."}]}\n')
    (answer,) = rows(rank("--queries", asked, "--field", "body"))
    assert {hit["text"] for hit in answer["hits"]} == {"A flea.", "A wall."}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('"a query"', "asked.jsonl:2: not an object"),
        ('{"passages": ["a"]}', "asked.jsonl:2: no query"),
        ('{"query": "q"}', "asked.jsonl:2: no list of passages (it has: query)"),
        ('{"query": "q", "passages": ["a", 3]}', "asked.jsonl:2: passage 2: this passage is"),
    ],
)
def test_a_question_that_cannot_be_asked_is_named(refusal, tmp_path, line, says):
    asked = tmp_path / "asked.jsonl"
    asked.write_text('{"query": "fleas", "passages": []}\n' + line + "\n")
    assert says in refusal("--queries", asked)


# TREC runs


def test_a_trec_run_is_ranked_again(rank):
    given = ("--run", RUN, "--topics", TOPICS, "--texts", EXAMPLE)
    found = [line.split() for line in rank(*given, "--format", "trec").splitlines()]
    alone = rows(rank(QUERY, EXAMPLE))
    assert [line[2] for line in found] == [row["id"] for row in alone]
    assert [float(line[4]) for line in found] == [row["logit"] for row in alone]
    (answer,) = rows(rank(*given))
    assert (answer["id"], answer["query"]) == ("1", QUERY)
    assert [hit["text"] for hit in answer["hits"]] == [row["text"] for row in alone]


def test_what_rank_writes_as_a_run_it_reads_as_a_run(rank, tmp_path):
    given = ("--topics", TOPICS, "--texts", EXAMPLE, "--format", "trec")
    first = rank("--run", RUN, *given, "-k", 5)
    (tmp_path / "again.run").write_text(first)
    assert rank("--run", tmp_path / "again.run", *given) == first


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.jsonl", '{"_id": 1, "text": "where did agriculture first arise"}\n'),
        ("t.csv", "qid,query\n1,where did agriculture first arise\n"),
        (
            "t.topics",
            "<top>\n<num> Number: 1\n<title> where did agriculture\nfirst arise\n<desc> x\n</top>",
        ),
    ],
)
def test_topics_may_be_in_other_formats(rank, tmp_path, name, content):
    (tmp_path / name).write_text(content)
    given = ("--run", RUN, "--texts", EXAMPLE, "-k", 2)
    assert rank(*given, "--topics", tmp_path / name) == rank(*given, "--topics", TOPICS)


def test_documents_of_a_run_start_in_the_order_of_its_scores(rank, tmp_path):
    (tmp_path / "t.run").write_text("1 Q0 kenya 1 0.5 x\n1 Q0 history-of-agriculture 2 7.5 x\n")
    given = ("--run", tmp_path / "t.run", "--topics", TOPICS, "--texts", EXAMPLE)
    (answer,) = rows(rank(*given))
    assert {hit["id"]: hit["index"] for hit in answer["hits"]} == {
        "history-of-agriculture": 0,
        "kenya": 1,
    }


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("1 Q0 kenya 1", "t.run:2: not a line of a TREC run"),
        ("1 Q0 kenya 1 high x", "t.run:2: not a line of a TREC run"),
        ("9 Q0 kenya 1 0.5 x", "t.run:2: query '9' is not in"),
        ("1 Q0 mars 1 0.5 x", "t.run:2: document 'mars' is not in"),
    ],
)
def test_a_line_of_a_run_that_cannot_be_used_is_named(refusal, tmp_path, line, says):
    (tmp_path / "t.run").write_text(f"1 Q0 kenya 1 0.5 x\n{line}\n")
    given = ("--run", tmp_path / "t.run", "--topics", TOPICS, "--texts", EXAMPLE)
    assert says in refusal(*given)


def test_texts_without_ids_say_which_flag_names_them(refusal, rank, tmp_path):
    (tmp_path / "t.tsv").write_text("pid\ttext\nkenya\tFarming in Kenya.\n")
    (tmp_path / "t.run").write_text("1 Q0 kenya 1 0.5 x\n")
    given = ("--run", tmp_path / "t.run", "--topics", TOPICS, "--texts", tmp_path / "t.tsv")
    assert "--id" in refusal(*given)
    assert rows(rank(*given, "--id", "pid"))[0]["hits"][0]["id"] == "kenya"


# rank | rank


def test_a_hit_that_is_ranked_again_keeps_its_id_its_metadata_and_its_first_index():
    first = run("rank", QUERY, EXAMPLE, "-k", 8)
    again = run("rank", "what do people eat in Mexico", "-k", 3, stdin=first.out.encode())
    assert again.status == 0
    before = {row["id"]: row for row in rows(first.out)}
    for row in rows(again.out):
        old = before[row["id"]]
        assert (row["meta"], row["index"], row["text"]) == (old["meta"], old["index"], old["text"])
        assert row["logit"] != old["logit"]


def test_what_the_command_reads_is_what_the_library_reads(rank):
    """The command hands passages on, so that whatever `Ranker.rank` takes, files may hold."""
    found = rows(rank(QUERY, EXAMPLE))
    with Ranker() as ranker:
        hits = ranker.rank(QUERY, read_passages(rows(EXAMPLE.read_text("utf-8"))))
    assert found == [hit.to_dict() for hit in hits]
