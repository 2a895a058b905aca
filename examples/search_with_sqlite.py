"""SQLite's full-text search finds candidates, and a passage store ranks them without reading them.

    python examples/search_with_sqlite.py "where did agriculture first arise"

The first stage (FTS5's BM25) takes the words of the question, the store the states of what it
found; both know a passage by the same id. New passages go into both.
"""

import json
import sqlite3
import sys
import tempfile
from pathlib import Path

from flashrank_lite import PassageStore, Ranker

CORPUS = Path(__file__).parent / "agriculture.jsonl"
CANDIDATES = 20


def index(passages: list[dict[str, str]]) -> sqlite3.Connection:
    """A full-text index in memory; a file's name in place of ":memory:" keeps it."""
    database = sqlite3.connect(":memory:")
    database.execute("CREATE VIRTUAL TABLE notes USING fts5(id UNINDEXED, text)")
    database.executemany("INSERT INTO notes VALUES (:id, :text)", passages)
    return database


def search(database: sqlite3.Connection, question: str) -> list[tuple[str, float]]:
    """Ids of the passages that share words with the question, with BM25 scores, best first."""
    words = [word for word in question.replace('"', " ").split() if word]
    found = database.execute(
        "SELECT id, -bm25(notes) FROM notes WHERE notes MATCH ? ORDER BY bm25(notes) LIMIT ?",
        (" OR ".join(f'"{word}"' for word in words), CANDIDATES),
    )
    return found.fetchall()


def main(question: str, path: Path) -> None:
    """Index, encode once, search and rank."""
    passages = [json.loads(line) for line in CORPUS.read_text(encoding="utf-8").splitlines()]
    database = index(passages)
    with Ranker() as ranker:
        if not path.exists():
            ranker.encode_passages(passages, path)
        store = PassageStore.open(path)
        ids, scores = zip(*search(database, question), strict=True)
        for hit in ranker.rank(question, store.select(ids, scores), top_k=3):
            print(f"{hit.score:.2f}  first stage {hit.index + 1:>2}  {hit.text[:70]}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(" ".join(sys.argv[1:]) or "where did agriculture first arise", Path(folder) / "notes")
