"""One text → token ids, for a model that reads query and passage apart in one graph.

A row is what the tokenizer makes of a text alone, with a marker after its first special token where
the model was trained with one. Each role has a length of its own.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flashrank_lite.encoding.collate import Pair
from flashrank_lite.encoding.pairs import in_chunks
from flashrank_lite.encoding.tokenizer import Ids, Pieces, Tokens
from flashrank_lite.errors import InvalidInput
from flashrank_lite.models.late_head import Roles, Side


@dataclass(frozen=True, slots=True)
class _Frame:
    """What stands around the text of one role, and the tokens that it leaves."""

    prompt: str
    head: Ids
    tail: Ids
    room: int


class ApartEncoder:
    """Encodes the texts of both roles; in place of `PairEncoder`.

    Args:
        file: path of tokenizer.json.
        max_length: tokens of a passage at most, special tokens included.
        roles: how the texts of each are read.

    Raises:
        InvalidModel: the file cannot be read.
        InvalidInput: `max_length` leaves no room for a passage.
    """

    def __init__(self, file: Path, max_length: int, roles: Roles) -> None:
        self._tokens = Tokens(file)
        self.max_length = max_length
        self._query = self._frame(roles.query, roles.query.length or max_length)
        self._passage = self._frame(roles.passage, max_length)
        self._prompted = len(self._tokens.ids(roles.passage.prompt)) if roles.passage.prompt else 0
        if self.passage_room < 1:
            around = max_length - self.passage_room
            raise InvalidInput(
                f"max_length={max_length} is too small: {around} of the tokens are special ones or "
                f"the prompt's, so use {around + 1} or more (some hundred to be of use)"
            )

    def token_id(self, token: str) -> int | None:
        """The id of a token of the vocabulary, None if there is no such token."""
        return self._tokens.token_id(token)

    def query(self, text: str) -> Pieces:
        """Tokenise a query, as far as there is room for it."""
        return self._tokens.pieces(self._query.prompt + text, self._query.room)

    def query_row(self, query: Pieces) -> Ids:
        """The ids of a query with what stands around it."""
        return np.concatenate((self._query.head, query.ids, self._query.tail))

    def passage(self, text: str) -> Pieces:
        """Tokenise a passage, as far as there is room for it."""
        return self._tokens.pieces(self._passage.prompt + text, self._passage.room)

    def passage_row(self, passage: Pieces, room: int) -> tuple[Ids, bool]:
        """The ids of a passage likewise, cut at `room` tokens, and whether the text has more."""
        ids = passage.ids[: room + self._prompted]
        cut = passage.cut or len(ids) < len(passage.ids)
        return np.concatenate((self._passage.head, ids, self._passage.tail)), cut

    @property
    def passage_room(self) -> int:
        """Tokens of a passage that are read, whatever the query."""
        return self._passage.room - self._prompted

    def room(self, query: str) -> int:
        """Tokens of a passage that are read beside this query."""
        return self.passage_room

    def room_beside(self, query: Pieces) -> int:
        """`room` for a query that was tokenised already."""
        return self.passage_room

    def token_spans(self, text: str) -> NDArray[np.int32]:
        """Start and end of each token of a text in characters: int32, (n, 2)."""
        return self._tokens.spans(text)

    def chunks(self, pairs: Iterable[tuple[str, str]]) -> Iterator[list[Pair]]:
        """Encode (query, passage) pairs some at a time: both rows, one after the other."""
        return in_chunks(pairs, self.query, self._pair)

    def _pair(self, query: Pieces, text: str) -> Pair:
        first = self.query_row(query)
        second, cut = self.passage_row(self.passage(text), self.passage_room)
        ids = np.concatenate((first, second))
        return Pair(ids, np.zeros_like(ids), len(first), query.cut or cut)

    def _frame(self, side: Side, length: int) -> _Frame:
        encoded = self._tokens.tokenizer.encode("a")
        places = [place for place, owner in enumerate(encoded.sequence_ids) if owner is not None]
        ids = np.array(encoded.ids, np.int32)
        first = places[0] if places else len(ids)
        head, tail = ids[:first], ids[places[-1] + 1 :] if places else ids[:0]
        if side.marker is not None:
            head = np.concatenate((head[:1], np.array([side.marker], np.int32), head[1:]))
        return _Frame(side.prompt, head, tail, length - len(head) - len(tail))
