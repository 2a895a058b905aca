"""flashrank-lite bench: what it measures is there, in turn, and on the user's own passages."""

import json

import pytest
from cli_support import EXAMPLE, QUERY, screen, written

from flashrank_lite.cli import main
from flashrank_lite.cli.bench import write_measured
from flashrank_lite.models.packages import bundled_folder


@pytest.fixture
def bench(capsys):
    def call(*arguments):
        status = main(["bench", *map(str, arguments)])
        out, err = capsys.readouterr()
        return status, out, err

    return call


def test_a_pipe_gets_json_with_every_round_of_every_list(bench):
    status, out, err = bench(QUERY, EXAMPLE, "--counts", "2,1", "--repeats", 3, "--threads", 1)
    assert (status, err) == (0, "")
    facts = json.loads(out)
    [model] = facts["models"]
    assert model["model"] == "bundled"
    assert model["info"]["threads"] == 1
    assert [entry["passages"] for entry in model["lists"]] == [1, 2]
    for entry in model["lists"]:
        assert len(entry["milliseconds"]) == 3
        assert min(entry["milliseconds"]) > 0
        assert entry["processor_seconds"] > 0
    assert facts["peak_memory_mb"] is None or facts["peak_memory_mb"] > 20


def test_a_list_is_no_longer_than_the_file(bench, tmp_path):
    few = tmp_path / "few.txt"
    few.write_text("Wheat was grown.\nThe wall is long.\n", encoding="utf-8")
    out = bench(QUERY, few, "--counts", "1,10,100", "--repeats", 1)[1]
    [model] = json.loads(out)["models"]
    assert [entry["passages"] for entry in model["lists"]] == [1, 2]


def test_several_models_are_compared_list_by_list(bench):
    folder = bundled_folder()
    arguments = ("--model", folder, "--model", folder, "--counts", "1,2", "--repeats", 2)
    status, out, _ = bench(QUERY, EXAMPLE, *arguments, "--format", "table")
    assert status == 0
    head, *rows = out.splitlines()
    assert head.split()[-3:] == ["time", "/", "first"]
    assert [row.split()[0] for row in rows[:4]] == ["1", "1", "2", "2"]
    ratios = [float(row.split()[-1]) for row in rows[:4]]
    assert ratios[0::2] == [1.0, 1.0]
    assert all(ratio > 0 for ratio in ratios)


def test_what_was_cut_is_said(bench, tmp_path):
    file = tmp_path / "long.txt"
    file.write_text("flea " * 300 + "\nshort\n", encoding="utf-8")
    short = ("--max-length", 64, "--repeats", 1, "--counts", "1,2")
    [model] = json.loads(bench(QUERY, file, *short)[1])["models"]
    assert [entry["truncated"] for entry in model["lists"]] == [1, 1]
    assert "1 passages cut to 64 tokens" in bench(QUERY, file, *short, "--format", "table")[1]


def test_the_table_has_the_median_and_the_95th_percentile_of_the_rounds(bench):
    facts = json.loads(bench(QUERY, EXAMPLE, "--counts", 1, "--repeats", 1)[1])
    facts["models"][0]["lists"][0]["milliseconds"] = [float(n) for n in range(21, 0, -1)]
    to = screen()
    write_measured(facts, to)
    assert written(to).splitlines()[1].split()[2:4] == ["11.0", "20.0"]


@pytest.mark.parametrize("counts", ["0", "1,x", "", "1,,2", "-1"])
def test_counts_that_are_no_counts_are_wrong_usage(bench, counts):
    status, out, err = bench(QUERY, EXAMPLE, f"--counts={counts}")
    assert (status, out) == (2, "")
    assert "list of whole numbers" in err


def test_a_file_without_passages_is_refused(bench, tmp_path):
    empty = tmp_path / "empty.txt"
    empty.write_text("\n", encoding="utf-8")
    status, out, err = bench(QUERY, empty)
    assert (status, out) == (1, "")
    assert "no passages to measure on" in err


def test_help_says_that_a_model_may_be_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["bench", "--help"])
    assert left.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "--model M a name, a repository org/name, or a folder" in said
