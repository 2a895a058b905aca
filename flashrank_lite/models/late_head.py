"""How a late-interaction model reads a text, and compares a query's states with a passage's.

In reranker.json:

    late_interaction {"maxsim": 1.0, "cosine": 0.0, "matches": 0.0, "bias": 0.0}: the weights of the
                     channels of `flashrank_lite.states.compare`

That is all for a graph of two roles, which takes query and passage as inputs of their own and gives
`query_states`, `query_weights` and `passage_states`. A graph of one role takes any text and gives
its `states`; then the same object has more:

    width            columns of a state
    average          whether the best matches are averaged over the query's tokens, not summed
    query, passage   how a text of each role becomes a row: {"prompt": "query: ", "marker": 1,
                     "length": 32, "skip": [1010, 1012], "expansion": {"token": 103, "length": 32,
                     "attend": false}} (all of it may be left out; a passage's length is max_length)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flashrank_lite.errors import InvalidModel

WEIGHTS = ("maxsim", "cosine", "matches", "bias")


@dataclass(frozen=True)
class Expansion:
    """What a short query is filled up with (Khattab and Zaharia, "ColBERT", 2020).

    Attributes:
        token: the id that follows the query up to `length` tokens; its states count as others.
        length: of the row that is filled.
        attend: whether the other tokens see these.
    """

    token: int
    length: int
    attend: bool = False


@dataclass(frozen=True)
class Side:
    """How a text of one role becomes a row of tokens.

    Attributes:
        prompt: text that is put before it.
        marker: id of a token that is put after the tokenizer's first special one; None for none.
        length: tokens of a row at most, special ones and marker included; None for the model's.
        skip: ids of tokens that are read, but whose states do not count.
        expansion: what a shorter row is filled up with; None for nothing.
    """

    prompt: str = ""
    marker: int | None = None
    length: int | None = None
    skip: tuple[int, ...] = ()
    expansion: Expansion | None = None

    def to_json(self) -> dict[str, Any]:
        """As reranker.json has it."""
        filled = vars(self.expansion) if self.expansion else None
        stated = {**vars(self), "skip": list(self.skip), "expansion": filled}
        return {name: value for name, value in stated.items() if value not in (None, "", [])}


@dataclass(frozen=True)
class Roles:
    """What a graph of one role needs to know of the two.

    Attributes:
        query: how a query is read.
        passage: how a passage is read.
        width: columns of a state.
        average: whether the best matches are averaged over the query's tokens, not summed.
    """

    query: Side
    passage: Side
    width: int
    average: bool = False


@dataclass(frozen=True)
class LateHead:
    """The channels of a comparison and their weights.

    Attributes:
        maxsim: of the weighted sum of each query token's best match.
        cosine: of the cosine of the mean states.
        matches: of the weighted share of query tokens that the passage holds.
        bias: added to their sum.
        roles: how texts are read, where the graph has one role; None where it has two.
    """

    maxsim: float = 1.0
    cosine: float = 0.0
    matches: float = 0.0
    bias: float = 0.0
    roles: Roles | None = None

    def to_json(self) -> dict[str, Any]:
        """As reranker.json has it."""
        stated: dict[str, Any] = {name: getattr(self, name) for name in WEIGHTS}
        if self.roles is not None:
            stated |= {
                "width": self.roles.width,
                "average": self.roles.average,
                "query": self.roles.query.to_json(),
                "passage": self.roles.passage.to_json(),
            }
        return stated

    @classmethod
    def read(cls, stated: Any) -> "LateHead":
        """What reranker.json states.

        Raises:
            InvalidModel: it is malformed; the message says how, for the file's name in front.
        """
        if not isinstance(stated, Mapping):
            raise InvalidModel("has a 'late_interaction' that is no object: export the model again")
        weights = {name: _of(stated, name, (int, float), 0.0) for name in WEIGHTS}
        roles = None
        if "query" in stated or "passage" in stated:
            roles = Roles(
                query=_side(stated, "query"),
                passage=_side(stated, "passage"),
                width=_of(stated, "width", int),
                average=_of(stated, "average", bool, False),
            )
        return cls(**{name: float(weight) for name, weight in weights.items()}, roles=roles)


def _side(stated: Mapping[str, Any], role: str) -> Side:
    found = _of(stated, role, dict, {})
    skip = _of(found, "skip", list, [])
    if not all(isinstance(number, int) for number in skip):
        raise InvalidModel(f"has {skip!r:.60} for 'skip': it must be a list of token ids")
    expansion = _of(found, "expansion", dict, None)
    return Side(
        prompt=_of(found, "prompt", str, ""),
        marker=_of(found, "marker", int, None),
        length=_of(found, "length", int, None),
        skip=tuple(skip),
        expansion=None
        if expansion is None
        else Expansion(
            _of(expansion, "token", int),
            _of(expansion, "length", int),
            _of(expansion, "attend", bool, False),
        ),
    )


def _of(stated: Mapping[str, Any], name: str, kind: Any, *default: Any) -> Any:
    if name not in stated and default:
        return default[0]
    value = stated.get(name)
    if isinstance(value, bool) is not (kind is bool) or not isinstance(value, kind):
        wanted = {int: "a whole number", bool: "true or false", str: "a text"}.get(kind)
        wanted = wanted or ("a number" if isinstance(kind, tuple) else "an object or a list")
        raise InvalidModel(f"has {value!r:.60} for {name!r}: it must be {wanted}")
    return value
