"""What a reader of the figures has to know about the data, in sentences."""

from __future__ import annotations

from flashrank_lite.evaluation.comparison import Comparison

_ORDERS = {
    "given": "in the first stage's order",
    "bm25": "in the order of BM25",
    "shuffled": "without a first stage: the baseline is a random order",
}


def remarks(comparison: Comparison) -> list[str]:
    """Lines about queries, unjudged candidates, ties and truncation; those that apply."""
    data = comparison.data
    candidates = sum(len(query.passages) for query in data.queries)
    lines = [
        f"{data.name}: {len(data.queries)} queries, {candidates} candidates {_ORDERS[data.order]}"
    ]
    if comparison.without_positive:
        lines.append(
            f"left out, since nothing is relevant for them: {comparison.without_positive} queries"
        )
    empty = sum(not query.passages for query in data.queries)
    if empty:
        lines.append(f"queries without candidates, which count as 0: {empty}")
    lines.extend(data.notes)
    unjudged = sum(query.unjudged for query in data.queries)
    if unjudged:
        how = "taken out" if comparison.judged_only else "counted as not relevant"
        tops = ", ".join(f"{system.name} {system.unjudged}" for system in comparison.systems)
        lines.append(f"unjudged candidates, {how}: {unjudged}; in the first ten: {tops}")
    for system in comparison.systems:
        if system.tied:
            lines.append(
                f"{system.name}: queries with equal scores, which keep the order before: "
                f"{system.tied}"
            )
        if system.truncated:
            lines.append(f"{system.name}: passages truncated: {system.truncated}")
    grades = sorted({grade for query in data.queries for grade in query.judgments.values()})
    if grades[-1] > 1:
        lines.append(f"graded labels, {grades[0]} to {grades[-1]}; nDCG has linear gain")
    if any(one.low is not None and not one.clear for one in comparison.differences):
        lines.append("where an interval holds 0, these queries do not tell the two apart")
    return lines
