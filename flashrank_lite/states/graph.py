"""What a graph gives of texts that are read apart: the states that are compared.

A graph of two roles, as the bundled one, takes query and passage as inputs of their own: asked for
`passage_states` it runs the passages' half alone, asked for `query_states` the query's, so that the
weights are in memory once. A graph of one role reads any text, and gives its `states`: ColBERT's
checkpoints, whose roles differ by a token in the text, and embedding models, whose one state a text
is its embedding.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from flashrank_lite.encoding.collate import pad_alone, pad_separate
from flashrank_lite.encoding.tokenizer import Ids
from flashrank_lite.errors import InvalidModel
from flashrank_lite.models.late_head import LateHead, Roles
from flashrank_lite.opened import OpenedModel
from flashrank_lite.states.compare import Floats, QueryStates, query_states

PASSAGE_STATES = "passage_states"
QUERY_STATES = "query_states"
QUERY_WEIGHTS = "query_weights"  # of every token: in MaxSim, and in the share of exact matches
STATES = "states"  # of a graph of one role

# Runs a batch, given its inputs and the wanted outputs by name and whether all threads may run it.
Run = Callable[[Mapping[str, NDArray[np.int64]], Sequence[str], bool], Sequence[NDArray[Any]]]


class StateGraph(Protocol):
    """A graph that is asked for states."""

    width: int

    def query(self, ids: Ids) -> QueryStates:
        """The states of a query, given its row."""

    def passages(self, rows: Sequence[Ids], *, all_threads: bool) -> list[Floats]:
        """The states of each passage that count, (tokens, width), given the rows of one batch."""


class TwoRoles:
    """A graph that takes query and passage as inputs of their own.

    Args:
        run: what runs it.
        width: columns of a state.
        pad_id: what rows are padded with.
        side: where.
    """

    def __init__(
        self, run: Run, width: int, pad_id: int, side: Literal["left", "right"] = "right"
    ) -> None:
        self.width = width
        self._run, self._pad_id, self._side = run, pad_id, side

    def query(self, ids: Ids) -> QueryStates:
        """`StateGraph.query`."""
        feeds = pad_separate([ids], [ids[-1:]], self._pad_id)  # one token stands for the passages
        # a query is short: one thread reads it as quickly as all
        states, weights = self._run(feeds, [QUERY_STATES, QUERY_WEIGHTS], False)
        return query_states(ids, states[0], weights[0])

    def passages(self, rows: Sequence[Ids], *, all_threads: bool) -> list[Floats]:
        """`StateGraph.passages`."""
        # one token stands for the query
        feeds = pad_separate([rows[0][-1:]], rows, self._pad_id, self._side)
        (states,) = self._run(feeds, [PASSAGE_STATES], all_threads)
        pairs = zip(states, rows, strict=True)
        left = self._side == "left"
        return [one[-len(ids) :] if left else one[: len(ids)] for one, ids in pairs]


class OneRole:
    """A graph that reads a text as either.

    Args:
        run: what runs it.
        roles: how the two are read.
        pad_id: what rows are padded with.
    """

    def __init__(self, run: Run, roles: Roles, pad_id: int) -> None:
        self._run, self._roles, self._pad_id = run, roles, pad_id
        self.width = roles.width
        self._skipped = np.array(roles.passage.skip, np.int32)

    def query(self, ids: Ids) -> QueryStates:
        """`StateGraph.query`."""
        feeds, ids = query_feeds(ids, self._roles)
        (found,) = self._run(feeds, [STATES], False)
        states = found[0]
        kept = ~np.isin(ids, np.array(self._roles.query.skip, np.int32))
        if len(states) == len(ids) and kept.any():
            states, ids = states[kept], ids[kept]
        weights = np.zeros((len(states), 2), np.float32)
        weights[:, 0] = 1 / len(states) if self._roles.average else 1
        return query_states(ids[: len(states)], states, weights)

    def passages(self, rows: Sequence[Ids], *, all_threads: bool) -> list[Floats]:
        """`StateGraph.passages`."""
        found = []
        (states,) = self._run(pad_alone(rows, self._pad_id), [STATES], all_threads)
        for ids, one in zip(rows, states, strict=True):
            kept = ~np.isin(ids, self._skipped)
            # one state a text: an embedding, of which nothing is skipped
            whole = len(one) < len(ids) or not kept.any()
            found.append(one[: len(ids)] if whole else one[: len(ids)][kept])
        return found


def query_feeds(ids: Ids, roles: Roles) -> tuple[dict[str, NDArray[np.int64]], Ids]:
    """Inputs of a query's row, with what it is filled up with, and its ids then."""
    expansion = roles.query.expansion
    tokens = len(ids)
    if expansion is not None and tokens < expansion.length:
        filled = np.full(expansion.length - tokens, expansion.token, np.int32)
        ids = np.concatenate((ids, filled))
    feeds = pad_alone([ids], 0)
    if expansion is not None and not expansion.attend:
        feeds["attention_mask"][:, tokens:] = 0
    return feeds, ids


def open_states(opened: OpenedModel, head: LateHead | None) -> StateGraph:
    """What gives the states of an opened model.

    Raises:
        InvalidModel: it gives none, or does not say how they are compared.
    """
    given = {output.name for output in opened.sessions.outputs}
    sessions, manifest = opened.sessions, opened.found.manifest

    def run(
        feeds: Mapping[str, NDArray[np.int64]], outputs: Sequence[str], all_threads: bool
    ) -> list[NDArray[Any]]:
        return sessions.run_for(feeds, outputs, all_threads=all_threads)

    if head is not None and head.roles is not None and STATES in given:
        width = _width(opened, STATES)
        if width != head.roles.width:
            raise InvalidModel(
                f"{opened.file} gives states of {width} columns, and the manifest says "
                f"{head.roles.width}: export the model again"
            )
        return OneRole(run, head.roles, opened.pad_id)
    two = {PASSAGE_STATES, QUERY_STATES, QUERY_WEIGHTS} <= given
    if head is not None and head.roles is None and two:
        width = _width(opened, PASSAGE_STATES)
        return TwoRoles(run, width, opened.pad_id, manifest.padding_side)
    raise InvalidModel(
        f"{opened.file} does not give the states of query and passage ({PASSAGE_STATES}, "
        f"{QUERY_STATES}, {QUERY_WEIGHTS}, or {STATES} of both), or its manifest no "
        "late_interaction that fits: export the model again"
    )


def _width(opened: OpenedModel, output: str) -> int:
    """Columns of a state."""
    (shape,) = (one.shape for one in opened.sessions.outputs if one.name == output)
    width = shape[-1] if shape else None
    if width is None:
        raise InvalidModel(
            f"{opened.file} does not state how wide its {output} are: export it again"
        )
    return width
