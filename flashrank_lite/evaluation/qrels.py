"""Judgments in files of their own: TREC's, BEIR's, JSONL or Parquet."""

from __future__ import annotations

from flashrank_lite.errors import InvalidInput
from flashrank_lite.evaluation.fields import GRADES, PASSAGE_IDS, QUERY_IDS, first_of
from flashrank_lite.evaluation.judged import grade
from flashrank_lite.reading import decode, read_placed, read_source
from flashrank_lite.reading.source import extension


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
            query, passage = first_of(row, QUERY_IDS, place), first_of(row, PASSAGE_IDS, place)
            label = next((row[key] for key in GRADES if row.get(key) is not None), 1)
            found.setdefault(str(query), {})[str(passage)] = grade(label, place)
        return found
    for number, line in enumerate(decode(data, name).split("\n"), 1):
        fields = line.split()
        if len(fields) > 4:  # ids with spaces
            fields = line.strip().split("\t")
        place = f"{name}:{number}"
        if not fields or (number == 1 and fields[0].lower() in QUERY_IDS):
            continue  # blank, or a header
        if len(fields) not in (2, 3, 4):
            raise InvalidInput(f"{place}: not a judgment, `query 0 passage grade`")
        query = fields[0]
        passage = fields[2] if len(fields) == 4 else fields[1]
        label = "1" if len(fields) == 2 else fields[-1]
        found.setdefault(query, {})[passage] = grade(label, place)
    return found
