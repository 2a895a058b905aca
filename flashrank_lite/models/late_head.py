"""How a late-interaction model compares a query's states with a passage's.

In reranker.json, beside a graph that gives `query_states`, `passage_states` and, where tokens are
weighted, `query_weights`:

    late_interaction {"maxsim": 1.0, "cosine": 0.0, "matches": 0.0, "bias": 0.0}: the weights of the
                     channels of `flashrank_lite.states.compare`
"""

from dataclasses import dataclass

WEIGHTS = ("maxsim", "cosine", "matches", "bias")


@dataclass(frozen=True)
class LateHead:
    """The channels of a comparison and their weights.

    Attributes:
        maxsim: of the weighted sum of each query token's best match.
        cosine: of the cosine of the mean states.
        matches: of the weighted share of query tokens that the passage holds.
        bias: added to their sum.
    """

    maxsim: float = 1.0
    cosine: float = 0.0
    matches: float = 0.0
    bias: float = 0.0
