"""Values of measures query by query, by ir-measures, which has them computed by trec_eval's code.

Names are ir-measures': nDCG@10, RR@10, R@100, AP, P@5, Success@1, nDCG(judged_only=True)@10, ...
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flashrank_lite.errors import InvalidInput, MissingExtra, first_line
from flashrank_lite.evaluation.judged import JudgedQuery

MEASURES = ("nDCG@10", "RR@10", "R@10")


def parse_measures(names: Sequence[str]) -> list[Any]:
    """Names as measures of ir-measures, each once.

    Raises:
        MissingExtra: ir-measures is not installed.
        InvalidInput: a name is none of a measure that can be computed here.
    """
    try:
        import ir_measures
    except ImportError as error:
        raise MissingExtra("measures need ir-measures", "eval") from error
    found: dict[str, Any] = {}
    for name in names:
        try:
            measure = ir_measures.parse_measure(name)
            computable = any(
                provider.is_available() and provider.supports(measure)
                for provider in ir_measures.DefaultPipeline.providers
            )
        except Exception as error:  # NameError, ValueError, SyntaxError ... of its parser
            raise InvalidInput(
                f"{name!r:.60} is not a measure ({first_line(error)}): for instance nDCG@10, "
                "RR@10, R@100, AP, P@5 or Success@1"
            ) from None
        if not computable:
            raise InvalidInput(f"{name!r:.60} cannot be computed by what is installed")
        found[str(measure)] = measure
    if not found:
        raise InvalidInput("no measures: name one, as in nDCG@10")
    return list(found.values())


def per_query(
    measures: Sequence[Any],
    queries: Sequence[JudgedQuery],
    orders: Sequence[NDArray[np.int64]],
    judged_only: bool = False,
) -> dict[str, NDArray[np.float64]]:
    """The value of each measure for each query.

    Args:
        measures: of `parse_measures`.
        queries: q of them.
        orders: for each query the places of its candidates, best first.
        judged_only: whether candidates that nobody judged are taken out first, as by trec_eval's
            option -J; else they count as not relevant.

    Returns:
        float64, (q,), by the measure's name. Ranks are what counts, so ties are as `orders` has
        them; trec_eval breaks ties of a run by document id.
    """
    import ir_measures

    judgments, run = {}, {}
    for number, (query, order) in enumerate(zip(queries, orders, strict=True)):
        passages = [query.passages[place] for place in order.tolist()]
        if judged_only:
            passages = [passage for passage in passages if query.is_judged(passage)]
        judgments[str(number)] = dict(query.judgments)
        run[str(number)] = {
            str(passage.id): float(len(passages) - rank) for rank, passage in enumerate(passages)
        }
    values = {str(measure): np.zeros(len(queries)) for measure in measures}
    if judgments:
        for result in ir_measures.iter_calc(list(measures), judgments, run):
            values[str(result.measure)][int(result.query_id)] = result.value
    return values


def missing_in_top(
    queries: Sequence[JudgedQuery], orders: Sequence[NDArray[np.int64]], depth: int = 10
) -> int:
    """How many of the first `depth` candidates of all queries nobody has judged."""
    return sum(
        not query.is_judged(query.passages[place])
        for query, order in zip(queries, orders, strict=True)
        for place in order[:depth].tolist()
    )
