"""How a model is found and opened: one frozen object, from the user's arguments to the session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from flashrank_lite.models.graphs import GraphChoice

Token = str | bool | None
Providers = Sequence[str | tuple[str, Mapping[str, Any]]]
Device = Literal["cpu", "cuda", "auto"]


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """The arguments of `Ranker` that say how its model is opened, under the same names.

    `flashrank_lite.ranker.Ranker` documents each of them.
    """

    revision: str | None = None
    file: str | GraphChoice | None = None
    token: Token = None
    max_length: int | None = None
    threads: int | None = None
    batch_tokens: int | None = None
    instruction: str | None = None
    device: Device | None = None
    providers: Providers | None = None
    passage_cache: int | str | None = None

    def of_another_model(self) -> ModelOptions:
        """Those that hold for any model: of this machine and this user, not of this model."""
        return replace(
            self, revision=None, file=None, max_length=None, instruction=None, passage_cache=None
        )
