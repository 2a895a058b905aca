"""How a call ranks: one frozen object, from the user's arguments to the hits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flashrank_lite.arguments import number, positive
from flashrank_lite.calibration import Calibration, check_activation
from flashrank_lite.call import Progress
from flashrank_lite.errors import InvalidInput
from flashrank_lite.logits import Activation
from flashrank_lite.passages.fields import Chosen, TextField, check_text_field

if TYPE_CHECKING:
    from flashrank_lite.strategies.grouping import GroupBy
    from flashrank_lite.strategies.stack import Long


@dataclass(frozen=True, slots=True)
class CallOptions:
    """The arguments of `Ranker.rank` beside what is ranked, under the same names.

    `flashrank_lite.ranker.Ranker.rank` documents each of them; `text` may be what
    `check_text_field` made of it.

    Raises:
        InvalidInput: one of them is out of range.
    """

    top_k: int | None = None
    min_score: float | None = None
    instruction: str | None = None
    long: Long | None = None
    passage_tokens: int | None = None
    group_by: GroupBy | None = None
    text: TextField | Chosen = None
    activation: Activation | Calibration | None = None
    progress: bool | Progress = False

    def __post_init__(self) -> None:
        checked = {
            "top_k": positive("top_k", self.top_k),
            "min_score": number("min_score", self.min_score),
            "passage_tokens": positive("passage_tokens", self.passage_tokens),
            "text": check_text_field(self.text),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        check_activation(self.activation)
        if not isinstance(self.progress, bool) and not callable(self.progress):
            raise InvalidInput(
                "progress must be True, False or a function of (pairs done, pairs in all), not "
                f"{self.progress!r}"
            )
