"""`Ranker`'s arguments → scorers put together: windows inside, a cascade over them, blend last."""

from dataclasses import dataclass
from typing import Literal, get_args

from flashrank_lite.arguments import required
from flashrank_lite.errors import InvalidInput
from flashrank_lite.scorer import Scorer, TokenScorer
from flashrank_lite.strategies.beginnings import Beginnings
from flashrank_lite.strategies.cascade import Cascade
from flashrank_lite.strategies.fusion import FirstStage, Fusion, Kind
from flashrank_lite.strategies.windows import Windows

Long = Literal["truncate", "windows"]

KEEP = 25


@dataclass(frozen=True, slots=True)
class Strategies:
    """How scorers are put together: arguments of `Ranker` and of its calls, under the same names.

    `flashrank_lite.ranker.Ranker` and its `rank` document each of them.

    Raises:
        InvalidInput: one of them is out of range.
    """

    long: Long | None = None
    keep: int | None = None
    fusion: Kind | None = None
    weight: float | None = None
    first_stage: FirstStage | None = None
    passage_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.long is not None and self.long not in get_args(Long):
            raise InvalidInput(f"long must be 'truncate' or 'windows', not {self.long!r:.80}")
        if self.fusion is None and (self.weight is not None or self.first_stage is not None):
            raise InvalidInput(
                "weight and first_stage say how scores are blended: pass fusion='rrf', 'linear' or "
                "'z' with them"
            )


def stack(model: Scorer, then: Scorer | None, strategies: Strategies) -> Scorer:
    """Put scorers together; none of them is opened or changed, so this costs nothing.

    Args:
        model: what scores every passage.
        then: what scores the best of them again, if anything does.
        strategies: how.

    Raises:
        InvalidInput: a scorer cannot do what is asked, or `keep` has nothing to keep for.
        MissingExtra: first_stage="bm25" without bm25s.
    """
    scorer = _reading(model, strategies)
    if then is not None:
        if not hasattr(then, "score"):
            raise InvalidInput(
                f"then must be a model's name, its folder or a scorer, not {then!r:.80}"
            )
        keep = KEEP if strategies.keep is None else required("keep", strategies.keep)
        scorer = Cascade([scorer, _reading(then, strategies)], keep=[keep])
    elif strategies.keep is not None:
        raise InvalidInput(
            "keep says how many passages the second model reads: pass then='a-model' with it"
        )
    if strategies.fusion is not None:
        scorer = Fusion(
            scorer,
            strategies.fusion,
            strategies.weight,
            first_stage=strategies.first_stage or "given",
        )
    return scorer


def _reading(model: Scorer, strategies: Strategies) -> Scorer:
    long, scorer = strategies.long, model
    if long == "windows" or (long is None and isinstance(model, TokenScorer)):
        scorer = Windows(model)
    if strategies.passage_tokens is not None:
        scorer = Beginnings(scorer, strategies.passage_tokens, model)
    return scorer
