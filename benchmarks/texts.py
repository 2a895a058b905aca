"""The passages that speed is measured on: the text of ``examples/``, cut to web-search lengths."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer

from flashrank_lite.models.sources import bundled_folder

EXAMPLES = Path(__file__).parent.parent / "examples" / "questions.jsonl"
MEAN_TOKENS = 89
LENGTHS = (88, 33, 52, 61, 70, 79, 97, 106, 130, 174)  # tokens; their mean is MEAN_TOKENS


def example_query() -> str:
    """The first question of the examples."""
    return str(_rows()[0]["query"])


def web_passages(count: int) -> list[str]:
    """``count`` stretches of real text, 33 to 174 tokens, 89 on average, none equal to another."""
    tokenizer = Tokenizer.from_file(str(bundled_folder() / "tokenizer.json"))
    tokenizer.no_truncation()
    text = " ".join(p["text"] for row in _rows() for p in row["passages"])
    encoding = tokenizer.encode(text, add_special_tokens=False)
    passages, start = [], 0
    for number in range(count):
        end = start + LENGTHS[number % len(LENGTHS)]
        if end >= len(encoding.ids):
            start, end = number, number + LENGTHS[number % len(LENGTHS)]
        passages.append(text[encoding.offsets[start][0] : encoding.offsets[end - 1][1]])
        start = end
    return passages


def _rows() -> list[dict]:  # type: ignore[type-arg]
    return [json.loads(line) for line in EXAMPLES.read_text(encoding="utf-8").splitlines()]
