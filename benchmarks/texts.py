"""The passages that speed is measured on: the text of `examples/`, cut to stated lengths.

The text is English Wikipedia, CC BY-SA; `examples/README.md` names sources and licences.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from flashrank_lite.models.packages import bundled_folder

EXAMPLES = Path(__file__).parent.parent / "examples" / "questions.jsonl"

# Tokens of the passages, in turn. "mixed" is what a web search returns: 20 to 300, 92 on average.
# Its first ten reach 180 only: a longer one among few would flatter engines that do not pad to it.
LENGTHS: dict[str, tuple[int, ...]] = {
    "short": (30, 20, 25, 40, 22, 35, 28, 33, 38, 26),
    "mixed": (
        *(86, 20, 34, 180, 45, 56, 130, 67, 94, 113),
        *(79, 28, 300, 40, 50, 150, 61, 73, 126, 103),
    ),
    "long": (495,),  # with a query and special tokens just under 512, so that nothing is truncated
}


def example_query() -> str:
    """The first question of the examples."""
    return str(_rows()[0]["query"])


def passages(kind: str, count: int) -> list[str]:
    """`count` stretches of real text of the lengths of `kind`, none equal to another."""
    tokenizer = Tokenizer.from_file(str(bundled_folder() / "tokenizer.json"))
    tokenizer.no_truncation()
    text = " ".join(p["text"] for row in _rows() for p in row["passages"])
    encoding = tokenizer.encode(text, add_special_tokens=False)
    lengths = LENGTHS[kind]
    found, start = [], 0
    for number in range(count):
        end = start + lengths[number % len(lengths)]
        if end >= len(encoding.ids):
            start, end = number, number + lengths[number % len(lengths)]
        found.append(text[encoding.offsets[start][0] : encoding.offsets[end - 1][1]])
        start = end
    return found


def _rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in EXAMPLES.read_text(encoding="utf-8").splitlines()]
