"""A request's scores blended with the first stage's, after all of its slices were scored.

The blend is of a whole list, so it cannot be made slice by slice: the scorer of
`flashrank_lite.strategies` makes it, around logits that are known by then.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from flashrank_lite.hits import RankedPassage
from flashrank_lite.scorer import Candidates, Scores
from flashrank_lite.strategies.fusion import Fusion, Kind


@dataclass(frozen=True)
class Blend:
    """How the model and the first stage are blended.

    Attributes:
        kind: as of `Fusion`.
        weight: of the model; None for the default.
        first_stage: its scores; None where only its order is known.
    """

    kind: Kind
    weight: float | None
    first_stage: Sequence[float] | None

    def of(self, hits: Sequence[RankedPassage]) -> list[RankedPassage]:
        """The hits of all passages, in the request's order, with the blend as their score."""
        first = None if self.first_stage is None else np.array(self.first_stage, np.float32)
        candidates = Candidates("", [hit.text for hit in hits], first)
        (scores,) = Fusion(_Known(hits), self.kind, self.weight).score([candidates])
        assert scores.fused is not None
        return [
            replace(hit, score=score)
            for hit, score in zip(hits, scores.fused.tolist(), strict=True)
        ]


class _Known:
    """A scorer of what was scored already."""

    def __init__(self, hits: Sequence[RankedPassage]) -> None:
        self._scores = Scores(
            np.array([hit.logit for hit in hits], np.float32),
            np.array([hit.truncated for hit in hits], np.bool_),
        )

    def score(self, lists: Sequence[Candidates], *, instruction: str | None = None) -> list[Scores]:
        """The one list that there is."""
        return [self._scores]

    def info(self) -> dict[str, Any]:
        """Nothing to say."""
        return {}

    def close(self) -> None:
        """Nothing to free."""
