"""The flashrank-lite command, with the bundled model: answers, exit statuses, terminals, pipes."""

import json
import os
import signal
import subprocess
import sys
from functools import partial

import pytest
from cli_support import EXAMPLE, QUERY, environment, rows, run, start

import flashrank_lite
from flashrank_lite import Ranker
from flashrank_lite.cli import main

FIELDS = {"text", "score", "logit", "index", "id", "meta", "truncated", "span"}


@pytest.fixture
def succeeds(capsys):
    def call(*arguments):
        status = main([*map(str, arguments)])
        out, err = capsys.readouterr()
        assert (status, err) == (0, "")
        return out

    return call


@pytest.fixture
def fails(capsys):
    """The one line of an error, for a call that gives no answer and this exit status."""

    def call(status, *arguments):
        assert main([*map(str, arguments)]) == status
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        assert err.startswith("flashrank-lite: error: ")
        return err

    return call


def test_a_pipe_gets_jsonl_best_first_with_the_scores_of_the_library(succeeds):
    found = rows(succeeds("rank", QUERY, EXAMPLE))
    passages = rows(EXAMPLE.read_text("utf-8"))
    with Ranker() as ranker:
        assert found == [hit.to_dict() for hit in ranker.rank(QUERY, passages)]
    assert set(found[0]) == FIELDS
    assert sorted(row["index"] for row in found) == list(range(len(passages)))
    assert [row["score"] for row in found] == sorted((r["score"] for r in found), reverse=True)
    assert found[0]["meta"]["license"] == passages[found[0]["index"]]["license"]


def test_the_answer_of_the_example_comes_first(succeeds):
    assert rows(succeeds("rank", QUERY, EXAMPLE))[0]["id"] == "history-of-agriculture"


def test_options_may_stand_between_the_query_and_the_file(succeeds):
    assert len(rows(succeeds("rank", QUERY, "--top-k", 2, EXAMPLE, "--threads", 1))) == 2


def test_a_query_may_start_with_a_dash(succeeds):
    assert len(rows(succeeds("rank", "--top-k", 1, "--", "-x", EXAMPLE))) == 1


def test_k_is_short_for_top_k(succeeds):
    assert succeeds("rank", QUERY, EXAMPLE, "-k", 2) == succeeds(
        "rank", QUERY, EXAMPLE, "--top-k=2"
    )


def test_a_least_score_leaves_the_others_out(succeeds):
    every = rows(succeeds("rank", QUERY, EXAMPLE))
    least = every[2]["score"]
    assert rows(succeeds("rank", QUERY, EXAMPLE, "--min-score", least)) == every[:3]
    assert rows(succeeds("rank", QUERY, EXAMPLE, "--min-score", least, "-k", 2)) == every[:2]
    assert succeeds("rank", QUERY, EXAMPLE, "--min-score", 1.1) == ""


def test_json_is_one_array(succeeds):
    found = json.loads(succeeds("rank", QUERY, EXAMPLE, "--format", "json", "--top-k", 3))
    assert found == rows(succeeds("rank", QUERY, EXAMPLE, "--top-k", 3))


def test_raw_scores_are_the_logits(succeeds):
    found = rows(succeeds("rank", QUERY, EXAMPLE, "--raw"))
    assert all(row["score"] == row["logit"] for row in found)


def test_a_short_length_is_reported_as_truncation(succeeds):
    found = rows(succeeds("rank", QUERY, EXAMPLE, "--max-length", 32))
    assert all(row["truncated"] for row in found)
    table = succeeds("rank", QUERY, EXAMPLE, "--max-length", 32, "--format", "table", "--top-k", 2)
    assert "2 of those shown cut to 32 tokens" in table


def test_a_column_of_a_table_is_ranked(succeeds, tmp_path):
    path = tmp_path / "faq.csv"
    path.write_text('id,answer\n7,"Paris, France"\n8,Berlin\n', "utf-8")
    found = rows(succeeds("rank", "capital of Germany", path, "--field", "answer"))
    assert {(row["id"], row["text"]) for row in found} == {("7", "Paris, France"), ("8", "Berlin")}


def test_no_passages_give_no_hits(succeeds, tmp_path):
    path = tmp_path / "empty.txt"
    path.touch()
    assert succeeds("rank", QUERY, path) == ""
    assert json.loads(succeeds("rank", QUERY, path, "--format", "json")) == []


def test_info_says_what_would_run_and_why(succeeds):
    facts = json.loads(succeeds("info", "--threads", 1))
    assert (facts["threads"], facts["threads_source"]) == (1, "argument")
    assert facts["model"] == "nano"
    assert facts["providers"] == ["CPUExecutionProvider"]
    assert set(facts["versions"]) >= {"onnxruntime", "tokenizers", "numpy", "python"}
    table = succeeds("info", "--format", "table")
    assert facts["graph"] in table
    assert facts["versions"]["onnxruntime"] in table


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "rank, encode, info, bench, eval, export, models or serve"),
        (["sort"], "invalid choice"),
        (["rank"], "a QUERY and a FILE"),
        (["rank", "q", "a", "b"], "unrecognized"),
        (["rank", "q", "a", "--top", "1"], "--top"),
        (["rank", "q", "a", "-k", "0"], "'0' is not a whole number of at least 1"),
        (["rank", "q", "a", "--min-score", "high"], "--min-score"),
        (["rank", "q", "a", "--encoding", "klingon"], "'klingon' is not a text encoding"),
        (["rank", "q", "a", "--delimiter", ";;"], "is not a delimiter"),
        (["rank", "q", "a", "--queries", "b"], "a QUERY does not go with --queries"),
        (["rank", "--run", "a", "--topics", "b"], "go together"),
        (["rank", "--queries", "a", "--run", "b"], "--queries does not go with"),
        (["rank", "q", "a", "--top-k", "0"], "'0' is not a whole number of at least 1"),
        (["rank", "q", "a", "--threads", "two"], "--threads"),
        (["rank", "q", "a", "--format", "xml"], "--format"),
        (["info", "extra"], "unrecognized"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(arguments, word, fails):
    line = fails(2, *arguments)
    assert word in line
    assert "--help" in line


def test_a_missing_file_is_status_1(fails, tmp_path):
    assert "nowhere.txt: No such file" in fails(1, "rank", QUERY, tmp_path / "nowhere.txt")


def test_a_folder_is_no_file(fails, tmp_path):
    assert "Is a directory" in fails(1, "rank", QUERY, tmp_path)


def test_a_bad_line_is_status_1_with_its_place(fails, tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"text": "fine"}\n{"text": oops}\n', "utf-8")
    assert f"{path}:2: not JSON" in fails(1, "rank", QUERY, path)


def test_a_model_that_is_not_there_is_status_1(fails, tmp_path):
    missing = tmp_path / "no-model"
    assert "no-model" in fails(1, "rank", QUERY, EXAMPLE, "--model", missing)
    assert "no-model" in fails(1, "info", "--model", missing)


def test_a_length_that_the_model_cannot_take_is_status_1(fails):
    assert "512" in fails(1, "rank", QUERY, EXAMPLE, "--max-length", 100_000)


@pytest.mark.parametrize("where", [[], ["-"]])
def test_standard_input_is_read(where):
    status, out, err = run("rank", "capital of Germany", *where, stdin="Paris\nBerlin ü\n".encode())
    assert (status, err) == (0, "")
    assert {row["text"] for row in rows(out)} == {"Paris", "Berlin ü"}


def test_python_dash_m_has_a_version():
    assert run("--version")[:2] == (0, f"flashrank-lite {flashrank_lite.__version__}\n")


def test_a_reader_that_leaves_early_is_no_error(tmp_path):
    path = tmp_path / "many.txt"
    path.write_text(
        "".join(f"{'x' * 2000} {n}\n" for n in range(200)), "utf-8"
    )  # > a pipe's 64 KiB
    process = start("rank", "q", path, "--max-length", "16")
    with process:
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 128 + signal.SIGPIPE


def test_ctrl_c_is_quiet(tmp_path):
    fifo = tmp_path / "passages"
    os.mkfifo(fifo)
    # a shell starts its background jobs with the signal ignored, and children inherit that
    listening = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with start("rank", QUERY, fifo, preexec_fn=listening) as process:
        with open(fifo, "wb"):  # opens once the command has: it is about to read the passages
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) == 128 + signal.SIGINT
        assert (process.stdout.read(), process.stderr.read()) == (b"", b"")


def test_a_closed_standard_output_or_input_is_one_line():
    for closed in ("1>&-", "0<&-"):
        script = f'"$0" -m flashrank_lite rank q {closed}'
        command = ["sh", "-c", script, sys.executable]
        done = subprocess.run(command, input=b"a\n", capture_output=True, env=environment())
        assert done.returncode == 1
        assert done.stderr.count(b"\n") == 1
        assert b"is closed" in done.stderr


def test_output_in_another_encoding_stays_json():
    env = environment(PYTHONIOENCODING="ascii")
    status, out, _ = run("rank", "q", stdin="日本語\n".encode(), env=env)
    assert (status, rows(out)[0]["text"]) == (0, "日本語")
    status, out, _ = run("rank", "q", "--format", "table", stdin="日本語\n".encode(), env=env)
    assert (status, "???" in out) == (0, True)
