"""Rerank what a search engine found: both orders side by side, and the time it took.

    python examples/search_engine.py sqlite "where did agriculture first arise"
    python examples/search_engine.py opensearch --saved examples/opensearch.json
    python examples/search_engine.py opensearch "how long do fleas live" \\
        --url http://localhost:9200/passages/_search --field text
    python examples/search_engine.py latency

`sqlite` needs nothing but Python: it indexes the passages of this folder (or of `--passages`, JSON
lines with a `text`) with SQLite's FTS5, takes the 100 best by BM25 and reranks them. `opensearch`
takes the answer of Elasticsearch or OpenSearch, from a URL or a file. `latency` is the table of
Metarank's guide: 1, 10 and 100 pairs. `--rerank URL` has a running `flashrank-lite serve` do it
instead of the library.
"""

import argparse
import json
import re
import sqlite3
import statistics
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CANDIDATES = 100
SHOWN = 5
WIDTH = 62  # characters of a passage in each column

Rerank = Callable[[str, Sequence[str]], list[int]]  # places of the passages, best first


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("engine", choices=("sqlite", "opensearch", "latency"))
    parser.add_argument("query", nargs="?", default="where did agriculture first arise")
    parser.add_argument("--passages", type=Path, help="JSON lines to index (default: this folder)")
    parser.add_argument("--url", help="of the engine's _search")
    parser.add_argument("--saved", type=Path, help="a saved answer of the engine instead")
    parser.add_argument("--field", default="text", help="of _source (default: text)")
    parser.add_argument("--rerank", metavar="URL", help="a running flashrank-lite serve")
    parser.add_argument("--key", help="of that server")
    parser.add_argument("--model", help="as of Ranker (default: the bundled model)")
    parser.add_argument("--file", help="the graph of it to run, as in model.onnx")
    arguments = parser.parse_args()
    if arguments.rerank:
        rerank = over_http(arguments.rerank, arguments.key)
    else:
        rerank = in_process(arguments.model, arguments.file)
    if arguments.engine == "latency":
        latency(rerank)
        return 0
    began = time.perf_counter()
    if arguments.engine == "sqlite":
        texts = search_sqlite(arguments.query, read_passages(arguments.passages))
    elif arguments.url or arguments.saved:
        texts = search_json(arguments)
    else:
        parser.error("opensearch needs --url or --saved")
    found = time.perf_counter()
    if not texts:
        print("nothing was found")
        return 1
    order = rerank(arguments.query, texts)
    done = time.perf_counter()
    show(texts, order)
    print(
        f"\n{len(texts)} found in {1000 * (found - began):.0f} ms, "
        f"reranked in {1000 * (done - found):.0f} ms"
    )
    return 0


def in_process(model: str | None, file: str | None = None) -> Rerank:
    """With the library."""
    from flashrank_lite import Ranker

    ranker = Ranker(model, file=file)
    ranker.rank("warm", ["up"])
    return lambda query, texts: [hit.index for hit in ranker.rank(query, texts)]


def over_http(url: str, key: str | None) -> Rerank:
    """With a server, asked as Text Embeddings Inference is."""

    def rerank(query: str, texts: Sequence[str]) -> list[int]:
        headers = {"Content-Type": "application/json"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        body = json.dumps({"query": query, "texts": list(texts)}).encode()
        request = urllib.request.Request(url.rstrip("/") + "/rerank", body, headers)
        with urllib.request.urlopen(request) as answer:
            return [hit["index"] for hit in json.load(answer)]

    return rerank


def read_passages(path: Path | None) -> Iterator[str]:
    """Texts of JSON lines; by default all passages of this folder's examples."""
    files = [path] if path else [HERE / "agriculture.jsonl", HERE / "questions.jsonl"]
    for file in files:
        for line in file.read_text("utf-8").splitlines():
            entry = json.loads(line)
            yield from (one["text"] for one in entry.get("passages", [entry]))


def search_sqlite(query: str, passages: Iterator[str]) -> list[str]:
    """Index passages in memory; the best for a query by SQLite's BM25."""
    base = sqlite3.connect(":memory:")
    try:
        base.execute("CREATE VIRTUAL TABLE passages USING fts5(text, tokenize='porter unicode61')")
        base.executemany("INSERT INTO passages VALUES (?)", ((text,) for text in passages))
        # any of the words, each quoted: FTS5 has operators of its own
        words = " OR ".join(f'"{word}"' for word in re.findall(r"\w+", query))
        rows = base.execute(
            "SELECT text FROM passages WHERE passages MATCH ? ORDER BY rank LIMIT ?",
            (words, CANDIDATES),
        )
        return [text for (text,) in rows]
    finally:
        base.close()


def search_json(arguments: argparse.Namespace) -> list[str]:
    """The texts in an answer of Elasticsearch or OpenSearch: `hits.hits[]._source.<field>`."""
    if arguments.saved:
        answer = json.loads(arguments.saved.read_text("utf-8"))
    else:
        asked = {"size": CANDIDATES, "query": {"match": {arguments.field: arguments.query}}}
        request = urllib.request.Request(
            arguments.url, json.dumps(asked).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request) as response:
            answer = json.load(response)
    hits: list[dict[str, Any]] = answer["hits"]["hits"]
    return [text for hit in hits if isinstance(text := hit["_source"].get(arguments.field), str)]


def show(texts: Sequence[str], order: Sequence[int]) -> None:
    """The two orders side by side."""
    print(f"     {'as found':{WIDTH}}  reranked (was)")
    for place, index in enumerate(order[:SHOWN]):
        before, after = (" ".join(texts[n].split())[:WIDTH] for n in (place, index))
        print(f"{place + 1:3}  {before:{WIDTH}}  {after:{WIDTH}} ({index + 1})")


def latency(rerank: Rerank) -> None:
    """Milliseconds for so many pairs, the median of nine rounds."""
    texts = list(read_passages(None))
    print("pairs  milliseconds")
    for count in (1, 10, 100):
        spent = []
        for _ in range(9):
            began = time.perf_counter()
            rerank("where did agriculture first arise", texts[:count])
            spent.append(time.perf_counter() - began)
        print(f"{count:5}  {1000 * statistics.median(spent):.1f}")


if __name__ == "__main__":
    sys.exit(main())
