"""What an exporter takes, and the choices a caller may make about a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from flashrank_lite.encoding.collate import JOINED_INPUTS
from flashrank_lite.encoding.template import Template
from flashrank_lite.models.late_head import LateHead


class Library(Protocol):
    """The library that a checkpoint was made with, from text to score."""

    @property
    def name(self) -> str:
        """Its name and version."""

    def logit(self, query: str, passage: str) -> float:
        """The logit of one pair, alone; of two classes the relevant one's less the other's."""

    def tokens(self, query: str, passage: str) -> list[str]:
        """The tokens of one pair, as the model reads them."""


@dataclass(frozen=True)
class Source:
    """A reranker to be exported.

    Attributes:
        module: takes `inputs` of shape (n, tokens), returns logits of shape (n, 1) or (n, 2); or
            of a model that reads query and passage apart its states
            (`flashrank_lite.states.graph`).
        inputs: the names of its inputs, in the order it takes them: of `JOINED_INPUTS` or
            all of `SEPARATE_INPUTS`.
        tokenizer: path of its tokenizer.json.
        config: what config.json shall hold.
        name: of the model.
        activation: "sigmoid" or "raw", what its scores are by default.
        max_length: tokens of a pair, special tokens included.
        head: as in the manifest.
        template: the prompt, of a model that is asked in words.
        padding: id of the padding token.
        padding_side: where rows of a batch are padded.
        license: its licence, an identifier or a name.
        custom_license: whether that is a name of the owner's own, which no list of licences has.
        licences: files of the checkpoint that state its licence, by name.
        checkpoint: the folder that it was read from, which an export never writes to.
        prompts: texts by name that the checkpoint keeps to put before a query, for the card.
        library: opens the checkpoint in the library that it was made with, whose scores of a text
            are the ones to give; told the maximum length. None where there is no such library.
        origin: what the model card names as the source: a repository and its revision.
        late: how a model that reads query and passage apart compares their states; None for one
            that reads them together.
        outputs: the names of what its module returns.
        held: whatever must live as long as the source (a temporary folder).
    """

    module: torch.nn.Module
    tokenizer: Path
    config: dict[str, Any]
    name: str
    max_length: int
    inputs: tuple[str, ...] = JOINED_INPUTS
    activation: Literal["sigmoid", "raw"] = "sigmoid"
    head: dict[str, Any] | None = None
    languages: tuple[str, ...] = ()
    license: str | None = None
    custom_license: bool = False
    template: Template | None = None
    padding: int = 0
    padding_side: Literal["left", "right"] = "right"
    licences: Mapping[str, Path] = field(default_factory=dict)
    checkpoint: Path | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)
    library: Callable[[int], Library] | None = None
    origin: str | None = None
    held: object = None
    late: LateHead | None = None
    outputs: tuple[str, ...] = ("logits",)
