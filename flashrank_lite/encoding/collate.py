"""Encoded pairs → the padded arrays that a graph is fed."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from flashrank_lite.encoding.tokenizer import Ids
from flashrank_lite.errors import InvalidModel

# What a graph may take: both texts in one row, or each in a row of its own (late interaction), and
# then one row of a query serves all passages of a batch.
JOINED_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
SEPARATE_INPUTS = (
    "query_input_ids",
    "query_attention_mask",
    "passage_input_ids",
    "passage_attention_mask",
)


@dataclass(frozen=True, slots=True)
class Pair:
    """One row for the model: ids and token types, special tokens included.

    From `passage_start` on the ids are the passage's and its closing special tokens.
    """

    ids: Ids
    types: Ids
    passage_start: int
    truncated: bool


def check_inputs(declared: Mapping[str, object], file: Path) -> None:
    """Are the inputs that a graph declares those that a tokenizer gives?

    Args:
        declared: by name; None for one that is not of int64 or int32.
        file: the graph, for the error.

    Raises:
        InvalidModel: they are not.
    """
    joined = "input_ids" in declared
    known = JOINED_INPUTS if joined else SEPARATE_INPUTS
    wrong = [name for name, kind in declared.items() if name not in known or kind is None]
    if wrong or not (joined or declared.keys() == {*SEPARATE_INPUTS}):
        raise InvalidModel(
            f"{file} is not a text reranker: its inputs are {', '.join(declared)}; it must take "
            f"input_ids, and may take {' and '.join(JOINED_INPUTS[1:])}, as int64 or int32; or "
            f"else all of {', '.join(SEPARATE_INPUTS)}"
        )


def pad(
    pairs: Sequence[Pair],
    pad_id: int,
    inputs: Container[str] = JOINED_INPUTS,
    side: Literal["left", "right"] = "right",
) -> dict[str, NDArray[np.int64]]:
    """Rows of one batch, padded on one `side`: what a graph with these `inputs` is fed.

    Returns:
        JOINED_INPUTS, each of shape (rows, longest), or SEPARATE_INPUTS, where the query's are of
        shape (1, longest) if it is the same in every row.
    """
    if SEPARATE_INPUTS[0] in inputs:
        queries = [pair.ids[: pair.passage_start] for pair in pairs]
        if all(np.array_equal(query, queries[0]) for query in queries[1:]):
            queries = queries[:1]
        passages = [pair.ids[pair.passage_start :] for pair in pairs]
        return pad_separate(queries, passages, pad_id, side)
    types, _ = _padded([pair.types for pair in pairs], 0, side)
    values = [*_padded([pair.ids for pair in pairs], pad_id, side), types]
    return dict(zip(JOINED_INPUTS, values, strict=True))


def pad_separate(
    queries: Sequence[Ids],
    passages: Sequence[Ids],
    pad_id: int,
    side: Literal["left", "right"] = "right",
) -> dict[str, NDArray[np.int64]]:
    """SEPARATE_INPUTS of a batch: (queries, longest query) and (passages, longest passage)."""
    values = [*_padded(queries, pad_id, side), *_padded(passages, pad_id, side)]
    return dict(zip(SEPARATE_INPUTS, values, strict=True))


def pad_alone(
    rows: Sequence[Ids], pad_id: int, side: Literal["left", "right"] = "right"
) -> dict[str, NDArray[np.int64]]:
    """JOINED_INPUTS of a batch of texts that are read alone: (rows, longest)."""
    ids, mask = _padded(rows, pad_id, side)
    return dict(zip(JOINED_INPUTS, (ids, mask, np.zeros_like(ids)), strict=True))


def _padded(
    rows: Sequence[Ids], value: int, side: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    longest = max(map(len, rows))
    ids = np.full((len(rows), longest), value, np.int64)
    mask = np.zeros((len(rows), longest), np.int64)
    for number, row in enumerate(rows):
        place = slice(len(row)) if side == "right" else slice(longest - len(row), None)
        ids[number, place] = row
        mask[number, place] = 1
    return ids, mask
