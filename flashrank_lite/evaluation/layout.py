"""Which file of a collection's folder holds what: told by its name, or a folder's above it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from flashrank_lite.errors import InvalidInput
from flashrank_lite.reading.source import extension

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


def sort_files(folder: Path, split: str | None) -> dict[str, list[Path]]:
    """The files of a folder by what they hold: "qrels", "corpus" and "queries".

    Args:
        folder: it is searched with all that is below.
        split: which of several sets it holds, as in "dev" or "biology".

    Raises:
        InvalidInput: there is no corpus or no queries, or several sets to choose from.
    """
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
