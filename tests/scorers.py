"""Scorers of the tests' own, each a few lines over the seam."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flashrank_lite.errors import RankerClosed
from flashrank_lite.scorer import Candidates, Scores


class SharedWords:
    """Scores a passage by the share of its words that the query has, as far as it reads.

    Args:
        room: words of a passage that it reads.
    """

    def __init__(self, room: int = 8, name: str = "shared words") -> None:
        self._room = room
        self._name = name
        self.closed = False
        self.asked: list[list[Candidates]] = []

    def score(self, lists: Sequence[Candidates], *, instruction: str | None = None) -> list[Scores]:
        if self.closed:
            raise RankerClosed("closed")
        self.asked.append(list(lists))
        return [self._score(one) for one in lists]

    def info(self) -> dict[str, Any]:
        return {"model": self._name, "instruction": None}

    def close(self) -> None:
        self.closed = True

    def _score(self, one: Candidates) -> Scores:
        asked = set(one.query.lower().split())
        words = [re.findall(r"\w+", text.lower()) for text in one.texts]
        read = [found[: self._room] for found in words]
        return Scores(
            np.array([sum(w in asked for w in r) / (len(r) or 1) for r in read], np.float32),
            np.array([len(found) > self._room for found in words], np.bool_),
        )


class SharedWordsInWindows(SharedWords):
    """The same, and says where its words lie."""

    def room(self, query: str, *, instruction: str | None = None) -> int:
        return self._room

    def token_spans(self, text: str) -> NDArray[np.int32]:
        spans = [word.span() for word in re.finditer(r"\w+[^\w\s]*", text)]
        return np.array(spans, np.int32).reshape(-1, 2)


class Given:
    """Gives each text the logit that it is made with.

    Args:
        logits: of each text.
        instruction: its default one; None if it takes none.
    """

    def __init__(
        self, logits: dict[str, float], instruction: str | None = None, name: str = "given"
    ) -> None:
        self._logits = logits
        self._info = {"model": name, "instruction": instruction}
        self.closed = False
        self.asked: list[list[Candidates]] = []
        self.instructions: list[str | None] = []

    def score(self, lists: Sequence[Candidates], *, instruction: str | None = None) -> list[Scores]:
        self.asked.append(list(lists))
        self.instructions.append(instruction)
        return [
            Scores(
                np.array([self._logits[text] for text in one.texts], np.float32),
                np.zeros(len(one.texts), np.bool_),
            )
            for one in lists
        ]

    def info(self) -> dict[str, Any]:
        return self._info

    def close(self) -> None:
        self.closed = True
