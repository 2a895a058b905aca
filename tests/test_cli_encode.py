"""`flashrank-lite encode`, and `rank` over what it made."""

import json
from pathlib import Path

from cli_support import EXAMPLE, QUERY, run

TOP = ("-k", "3", "--format", "jsonl")


def test_a_store_ranks_as_its_file(tmp_path: Path) -> None:
    store = tmp_path / "notes.store"
    done = run("encode", EXAMPLE, "-o", store, "--precision", "int8")
    assert done.status == 0, done.err
    assert "24" in done.out
    stored = run("rank", QUERY, store, *TOP)
    assert stored.status == 0, stored.err
    anew = run("rank", QUERY, EXAMPLE, *TOP)
    ids = [[json.loads(line)["id"] for line in one.out.splitlines()] for one in (stored, anew)]
    assert ids[0] == ids[1]


def test_passages_are_added_only_where_that_is_said(tmp_path: Path) -> None:
    store = tmp_path / "notes.store"
    assert run("encode", "-", "-o", store, stdin=b"Fleas jump.\nSnow is white.\n").status == 0
    again = run("encode", "-", "-o", store, stdin=b"Rust.\n")
    assert again.status == 1
    assert "--add" in again.err
    added = run("encode", "-", "-o", store, "--add", stdin=b"Rust.\n")
    assert added.status == 0, added.err
    hits = run("rank", "fleas", store, "--format", "jsonl").out.splitlines()
    assert {json.loads(hit)["text"] for hit in hits} == {"Fleas jump.", "Snow is white.", "Rust."}
