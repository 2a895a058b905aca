"""(query, passage) → token ids by a prompt template, for models that are asked in words.

A template is a row of segments that are tokenised one by one and joined, as the recipes of decoder
rerankers do it: some tokenise the whole body at once, some query and passage apart, and the ids
differ. Texts of the template are never truncated: the passage is, and of a query what exceeds three
quarters of the room.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flashrank_lite.encoding.apart import ApartEncoder
from flashrank_lite.encoding.collate import Pair
from flashrank_lite.encoding.pairs import QUERY_SHARE, PairEncoder, in_chunks
from flashrank_lite.encoding.template import FIELD, Template
from flashrank_lite.encoding.tokenizer import Ids, Pieces, Tokens
from flashrank_lite.errors import InvalidInput
from flashrank_lite.models.late_head import Roles


class PromptEncoder:
    """A tokenizer that fills in a template.

    Args:
        tokens: the tokenizer.
        max_length: tokens of a filled-in template at most.
        template: the template.

    Raises:
        InvalidInput: `max_length` leaves no room for a query and a passage.
    """

    def __init__(self, tokens: Tokens, max_length: int, template: Template) -> None:
        self._tokens = tokens
        self.max_length = max_length
        self._template = template
        # ids of the segments that are the same in every prompt
        self._fixed: list[Ids | None] = [
            None
            if "{query}" in segment or "{passage}" in segment
            else self._tokens.ids(self._fill(segment, "", ""))
            for segment in template.segments
        ]
        filled = (self._fill(segment, "", "") for segment in template.segments)
        empty = sum(len(self._tokens.ids(segment)) for segment in filled)
        self._query_room = int((max_length - empty) * QUERY_SHARE)
        if self._query_room < 1:
            shorter = ", or a shorter instruction" if template.takes_instruction else ""
            raise InvalidInput(
                f"max_length={max_length} is too small: the prompt alone has {empty} tokens, so "
                f"use {empty + 2} or more (some hundred more to be of use){shorter}"
            )

    @property
    def instruction(self) -> str | None:
        """What stands for {instruction}; None if the template has no place for one."""
        return self._template.instruction if self._template.takes_instruction else None

    def token_id(self, token: str) -> int | None:
        """The id of a token of the vocabulary, None if there is no such token."""
        return self._tokens.token_id(token)

    def with_instruction(self, instruction: str) -> "PromptEncoder":
        """The encoder for another instruction; the tokenizer is shared. Raises as the class."""
        return PromptEncoder(
            self._tokens, self.max_length, self._template.with_instruction(instruction)
        )

    def room(self, query: str) -> int:
        """Tokens of a passage that a prompt with this query holds, at least 1."""
        query, _ = self._tokens.shorten(query, self._query_room)
        filled = (self._fill(segment, query, "") for segment in self._template.segments)
        return max(1, self.max_length - sum(len(self._tokens.ids(text)) for text in filled))

    def token_spans(self, text: str) -> NDArray[np.int32]:
        """Start and end of each token of a text in characters: int32, (n, 2)."""
        return self._tokens.spans(text)

    def chunks(self, pairs: Iterable[tuple[str, str]]) -> Iterator[list[Pair]]:
        """Encode (query, passage) pairs some at a time; as `PairEncoder.chunks`."""
        return in_chunks(
            pairs,
            lambda query: self._tokens.shorten(query, self._query_room),
            lambda query, passage: self._pair(*query, passage),
        )

    def _pair(self, query: str, cut: bool, passage: str) -> Pair:
        parts: list[Ids | None] = []
        for segment, fixed in zip(self._template.segments, self._fixed, strict=True):
            if fixed is None and "{passage}" not in segment:
                fixed = self._ids(segment, query, "")
            parts.append(fixed)
        room = self.max_length - sum(len(part) for part in parts if part is not None)
        last = next(segment for segment in self._template.segments if "{passage}" in segment)
        body = self._body(last, query, passage, room)  # takes what is left
        ids = np.concatenate([body.ids if part is None else part for part in parts])
        return Pair(ids, np.zeros_like(ids), 0, cut or body.cut)

    def _body(self, segment: str, query: str, passage: str, room: int) -> Pieces:
        """The segment of the passage, of which the passage's end is cut until it fits."""
        tokens = self._tokens
        if self._hostile(query, passage):
            tokens = tokens.plain
            passage, cut = tokens.shorten(passage, room)
            ids = self._ids(segment, query, passage)
            body = Pieces(ids[:room], cut or len(ids) > room)
        else:
            body = tokens.pieces(self._fill(segment, query, passage), room)
        if not body.cut or segment.endswith("{passage}"):
            return body
        # Tokens may span the passage and what follows, so each try is tokenised as a whole.
        fits = room
        while True:
            passage, _ = tokens.shorten(passage, fits)
            ids = self._ids(segment, query, passage)
            if len(ids) <= room or not passage:
                return Pieces(ids[:room], True)
            fits = min(fits, len(tokens.ids(passage))) - (len(ids) - room)

    def _ids(self, segment: str, query: str, passage: str) -> Ids:
        """All ids of a segment; control tokens count only where the template has them."""
        if not self._hostile(query, passage):
            return self._tokens.ids(self._fill(segment, query, passage))
        parts = [
            self._tokens.ids(part)
            if number % 2
            else self._tokens.plain.ids(self._fill(part, query, passage))
            for number, part in enumerate(self._tokens.split_at_control(segment))
        ]
        return np.concatenate(parts)

    def _hostile(self, query: str, passage: str) -> bool:
        """Whether a text holds a control token that must not count as one."""
        texts = () if self._template.parse_special else (query, passage)
        return any(self._tokens.holds_control(text) for text in texts)

    def _fill(self, segment: str, query: str, passage: str) -> str:
        """In one pass: what a text holds is never taken for a field."""
        values = {"query": query, "passage": passage, "instruction": self._template.instruction}
        return FIELD.sub(lambda found: values[found[1]], segment)


class PairPromptEncoder(PromptEncoder):
    """Fills in a template whose two segments the tokenizer then joins as a pair.

    Args:
        pairs: what joins them.
        template: one with `pair`.
    """

    def __init__(self, pairs: PairEncoder, template: Template) -> None:
        self._pairs = pairs
        self._template = template
        self.max_length = pairs.max_length

    def token_id(self, token: str) -> int | None:
        """The id of a token of the vocabulary, None if there is no such token."""
        return self._pairs.token_id(token)

    def with_instruction(self, instruction: str) -> "PairPromptEncoder":
        """The encoder for another instruction; the tokenizer is shared."""
        return PairPromptEncoder(self._pairs, self._template.with_instruction(instruction))

    def room(self, query: str) -> int:
        """Tokens of a passage that a pair with this query holds."""
        first, second = self._template.segments
        around = len(self._pairs.passage(self._fill(second, "", "")).ids)
        return max(1, self._pairs.room(self._fill(first, query, "")) - around)

    def token_spans(self, text: str) -> NDArray[np.int32]:
        """Start and end of each token of a text in characters: int32, (n, 2)."""
        return self._pairs.token_spans(text)

    def chunks(self, pairs: Iterable[tuple[str, str]]) -> Iterator[list[Pair]]:
        """Encode (query, passage) pairs some at a time; as `PairEncoder.chunks`."""
        first, second = self._template.segments
        return in_chunks(
            pairs,
            lambda query: self._pairs.query(self._fill(first, query, "")),
            lambda query, text: self._pairs.pair(
                query, self._pairs.passage(self._fill(second, "", text))
            ),
        )


def open_encoder(
    file: Path,
    max_length: int,
    template: Template | None,
    *,
    token_types: bool = True,
    roles: Roles | None = None,
) -> PairEncoder | PromptEncoder | ApartEncoder:
    """What encodes pairs for a model with this tokenizer.json and this template, if it has one.

    Args:
        file: path of tokenizer.json.
        max_length: tokens of a row at most.
        template: the prompt of a model that is asked in words.
        token_types: the model was trained with token types that tell query and passage apart.
        roles: how texts are read by a model that reads each alone.

    Raises:
        InvalidModel: the file cannot be read, or the tokenizer does not do what it has to.
        InvalidInput: `max_length` leaves no room for a query and a passage.
    """
    if roles is not None:
        return ApartEncoder(file, max_length, roles)
    if template is None:
        return PairEncoder(file, max_length, token_types=token_types)
    if template.pair:
        pairs = PairEncoder(file, max_length, token_types=token_types)
        return PairPromptEncoder(pairs, template)
    return PromptEncoder(Tokens(file), max_length, template)
