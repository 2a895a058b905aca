"""(query, passage) → token ids, exactly as the model was trained.

A text is tokenised once, without special tokens. A pair is the query's ids and the passage's ids
with the special tokens and types that the tokenizer puts around a pair: the ids of
`tokenizer.encode(query, passage)`, with the passage truncated to the tokens that the query leaves.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from flashrank_lite.encoding.collate import Pair
from flashrank_lite.encoding.tokenizer import Ids, Pieces, Tokens
from flashrank_lite.errors import InvalidInput, InvalidModel

Query = TypeVar("Query")  # a query as an encoder has read it

QUERY_SHARE = 0.75  # of the tokens that are left beside the special ones, as FlagReranker gives it
# Tokens of a query that room is left for where a passage is read before any query is known
QUERY_ALLOWANCE = 32
# Pairs that are encoded before they are sorted and run: at 512 tokens each they take 4 MB, and with
# more of them batches of 512 tokens would not get more even.
CHUNK_PAIRS = 1024


@dataclass(frozen=True, slots=True)
class _Frame:
    """What a tokenizer puts around a pair: head + query + middle + passage + tail."""

    ids: tuple[Ids, Ids, Ids]
    types: tuple[Ids, Ids, Ids]
    query_type: int
    passage_type: int

    @property
    def size(self) -> int:
        return sum(len(part) for part in self.ids)

    def without_types(self) -> "_Frame":
        head, middle, tail = (np.zeros_like(part) for part in self.types)
        return _Frame(self.ids, (head, middle, tail), 0, 0)


class PairEncoder:
    """Encodes a query and a passage as one row.

    Args:
        file: path of tokenizer.json.
        max_length: tokens of a pair at most, special tokens included.
        token_types: give query and passage the types that the tokenizer gives them; False for a
            model whose tokenizer is configured to give none, which was trained with zeros.

    Raises:
        InvalidModel: the file cannot be read, or the tokenizer does not join pairs.
        InvalidInput: `max_length` leaves no room for a query and a passage.
    """

    def __init__(self, file: Path, max_length: int, *, token_types: bool = True) -> None:
        self._tokens = Tokens(file)
        self._frame = _learn_frame(self._tokens.tokenizer, file)
        if not token_types:
            self._frame = self._frame.without_types()
        self.max_length = max_length
        self._room = max_length - self._frame.size
        self._query_room = int(self._room * QUERY_SHARE)
        if self._query_room < 1:
            raise InvalidInput(
                f"max_length={max_length} is too small: {self._frame.size} of the tokens are "
                f"special ones, so use {self._frame.size + 2} or more (some hundred to be of use)"
            )

    def token_id(self, token: str) -> int | None:
        """The id of a token of the vocabulary, None if there is no such token."""
        return self._tokens.token_id(token)

    def query(self, text: str) -> Pieces:
        """Tokenise a query: at most three quarters of the room, so that passages have the rest."""
        return self._tokens.pieces(text, self._query_room)

    def passage(self, text: str) -> Pieces:
        """Tokenise a passage, as far as an empty query would leave room for it."""
        return self._tokens.pieces(text, self._room)

    def pair(self, query: Pieces, passage: Pieces) -> Pair:
        """Join a query and a passage, which is truncated to the tokens that the query leaves."""
        room = self._room - len(query.ids)
        kept = passage.ids[:room]
        head, middle, tail = self._frame.ids
        head_types, middle_types, tail_types = self._frame.types
        types = (
            head_types,
            np.full(len(query.ids), self._frame.query_type, np.int32),
            middle_types,
            np.full(len(kept), self._frame.passage_type, np.int32),
            tail_types,
        )
        return Pair(
            np.concatenate((head, query.ids, middle, kept, tail)),
            np.concatenate(types),
            len(head) + len(query.ids) + len(middle),
            query.cut or passage.cut or len(kept) < len(passage.ids),
        )

    def query_row(self, query: Pieces) -> Ids:
        """The ids of a query for a model that reads it apart: a pair's up to the passage."""
        head, middle, _ = self._frame.ids
        return np.concatenate((head, query.ids, middle))

    def passage_row(self, passage: Pieces, room: int) -> tuple[Ids, bool]:
        """The ids of a passage likewise, cut at `room` tokens, and whether the text has more."""
        ids = np.concatenate((passage.ids[:room], self._frame.ids[2]))
        return ids, passage.cut or len(passage.ids) > room

    @property
    def passage_room(self) -> int:
        """Tokens of a passage that are read whatever the query: some room is left for one."""
        return self._room - min(QUERY_ALLOWANCE, self._query_room)

    def room(self, query: str) -> int:
        """Tokens of a passage that a pair with this query holds."""
        return self.room_beside(self.query(query))

    def room_beside(self, query: Pieces) -> int:
        """`room` for a query that was tokenised already."""
        return self._room - len(query.ids)

    def token_spans(self, text: str) -> NDArray[np.int32]:
        """Start and end of each token of a text in characters: int32, (n, 2)."""
        return self._tokens.spans(text)

    def chunks(self, pairs: Iterable[tuple[str, str]]) -> Iterator[list[Pair]]:
        """Encode (query, passage) pairs some at a time, so that memory does not grow with the list.

        A query is tokenised once for the passages that follow each other under it.
        """
        return in_chunks(
            pairs, self.query, lambda query, text: self.pair(query, self.passage(text))
        )


def in_chunks(
    pairs: Iterable[tuple[str, str]],
    read_query: Callable[[str], Query],
    join: Callable[[Query, str], Pair],
) -> Iterator[list[Pair]]:
    """`PairEncoder.chunks` for any encoder: how it reads a query, and joins a passage to it."""
    queries: dict[str, Query] = {}
    rest = iter(pairs)
    while chunk := list(islice(rest, CHUNK_PAIRS)):
        if len(queries) > CHUNK_PAIRS:
            queries.clear()
        for query, _ in chunk:
            if query not in queries:
                queries[query] = read_query(query)
        yield [join(queries[query], passage) for query, passage in chunk]


def _learn_frame(tokenizer: Tokenizer, file: Path) -> _Frame:
    """Find the special tokens and types by encoding one pair."""
    joined = tokenizer.encode("a", "a")
    owners = joined.sequence_ids
    ids, types = np.array(joined.ids, np.int32), np.array(joined.type_ids, np.int32)
    queries = [place for place, owner in enumerate(owners) if owner == 0]
    passages = [place for place, owner in enumerate(owners) if owner == 1]
    if not queries or not passages or queries[-1] > passages[0]:
        raise InvalidModel(
            f"{file}: this tokenizer does not join a query and a passage, in this order, into a "
            "pair: it needs a post-processor that does"
        )
    first, last = slice(0, queries[0]), slice(passages[-1] + 1, None)
    middle = slice(queries[-1] + 1, passages[0])
    return _Frame(
        (ids[first], ids[middle], ids[last]),
        (types[first], types[middle], types[last]),
        int(types[queries[0]]),
        int(types[passages[0]]),
    )
