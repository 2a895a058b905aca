"""A comparison as one HTML page that needs nothing else: no script, no font, no network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from itertools import combinations
from string import Template

import numpy as np
from numpy.typing import NDArray

import flashrank_lite
from flashrank_lite.evaluation.comparison import Comparison, Difference, System
from flashrank_lite.evaluation.judged import JudgedQuery
from flashrank_lite.evaluation.picture import picture
from flashrank_lite.evaluation.remarks import remarks

SHOWN = 5  # queries that won most, and as many that lost most
DEPTH = 10  # candidates of each order
_TEXT = 220  # characters of a passage

_PAGE = Template("""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>
$style
</style>
</head>
<body>
<header>
<h1>$title</h1>
<p class="lead">$lead</p>
</header>
<main>
<section><h2>Results</h2>
$results
$differences
</section>
<section><h2>Quality against latency</h2>
$picture
<p class="note">Up is better, left is faster. A bar is the 95 % interval of a system by itself;
whether two differ, the table above says, since it compares them query by query.</p>
</section>
$queries
<section><h2>About these figures</h2>
<ul>
$remarks
</ul>
</section>
</main>
<footer>flashrank-lite $version</footer>
</body>
</html>
""")


def html_report(comparison: Comparison) -> str:
    """The page.

    For each pair of systems it shows the queries whose leading measure rose and fell most, with
    both orders side by side. Texts come from the data and are escaped.
    """
    pairs = _pairs(comparison)
    return _PAGE.substitute(
        title=escape(f"Reranking {comparison.data.name}"),
        style=files("flashrank_lite.evaluation").joinpath("report.css").read_text("utf-8"),
        lead=escape(_lead(comparison)),
        results=_results(comparison),
        differences=_differences(comparison.differences),
        picture=picture(comparison),
        queries="\n".join(_moved(comparison, first, second) for first, second in pairs),
        remarks="\n".join(f"<li>{escape(line)}</li>" for line in remarks(comparison)),
        version=escape(flashrank_lite.__version__),
    )


def _pairs(comparison: Comparison) -> list[tuple[System, System]]:
    first, *models = comparison.systems
    return [(first, model) for model in models] + list(combinations(models, 2))


def _lead(comparison: Comparison) -> str:
    measure, first = comparison.measures[0], comparison.systems[0]
    best = max(comparison.systems[1:], key=lambda system: float(system.values[measure].mean()))
    one = next(
        one
        for one in comparison.differences
        if (one.measure, one.first, one.second) == (measure, first.name, best.name)
    )
    before, after = (float(system.values[measure].mean()) for system in (first, best))
    if not one.clear:
        verdict = "These queries do not tell the two apart."
    elif one.mean > 0:
        verdict = "Reranking helps."
    else:
        verdict = "Reranking hurts."
    return (
        f"{verdict} {measure} of {first.name}: {before:.3f}; of {best.name}: {after:.3f}, "
        f"{_signed(one)}, over {len(comparison.data.queries)} queries."
    )


def _signed(one: Difference) -> str:
    interval = "" if one.low is None else f" (95 % interval {one.low:+.3f} to {one.high:+.3f})"
    return f"{one.mean:+.3f}{interval}"


def _results(comparison: Comparison) -> str:
    best = {
        name: max(round(float(system.values[name].mean()), 3) for system in comparison.systems)
        for name in comparison.measures
    }
    head = ["", *comparison.measures, "ms a query, median", "95th percentile"]
    rows = []
    for system in comparison.systems:
        cells = [f"<th scope=row>{escape(system.name)}</th>"]
        for name in comparison.measures:
            value = round(float(system.values[name].mean()), 3)
            kind = " class=best" if value == best[name] else ""
            cells.append(f"<td{kind}>{value:.3f}</td>")
        if system.milliseconds is None:
            cells += ["<td>–</td>", "<td>–</td>"]
        else:
            median, p95 = np.percentile(system.milliseconds, [50, 95])
            cells += [f"<td>{median:.1f}</td>", f"<td>{p95:.1f}</td>"]
        rows.append("".join(cells))
    return _table(head, rows)


def _differences(differences: Sequence[Difference]) -> str:
    head = ["difference", "measure", "mean", "95 % interval", "wins", "ties", "losses"]
    rows = []
    for one in differences:
        kind = ("up" if one.mean > 0 else "down") if one.clear else "open"
        interval = "–" if one.low is None else f"{one.low:+.3f} to {one.high:+.3f}"
        rows.append(
            f"<th scope=row>{escape(one.second)} − {escape(one.first)}</th>"
            f"<td class=word>{escape(one.measure)}</td><td class={kind}>{one.mean:+.3f}</td>"
            f"<td>{interval}</td><td>{one.wins}</td><td>{one.ties}</td><td>{one.losses}</td>"
        )
    return _table(head, rows)


def _table(head: Sequence[str], rows: Sequence[str]) -> str:
    heads = "".join(f"<th scope=col>{escape(name)}</th>" for name in head)
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    return (
        f"<div class=wide><table><thead><tr>{heads}</tr></thead>\n"
        f"<tbody>{body}</tbody></table></div>"
    )


def _moved(comparison: Comparison, first: System, second: System) -> str:
    measure = comparison.measures[0]
    deltas = second.values[measure] - first.values[measure]
    order = np.argsort(-deltas, kind="stable").tolist()
    won = [place for place in order[:SHOWN] if deltas[place] > 0]
    lost = [place for place in reversed(order[-SHOWN:]) if deltas[place] < 0]
    parts = [f"<section><h2>{escape(first.name)} → {escape(second.name)}: query by query</h2>"]
    for title, places in (("Won most", won), ("Lost most", lost)):
        parts.append(f"<h3>{title}</h3>")
        if not places:
            parts.append("<p class=note>None.</p>")
        for number, place in enumerate(places):
            query = comparison.data.queries[place]
            before, after = first.values[measure][place], second.values[measure][place]
            kind = "up" if after > before else "down"
            opened = " open" if number == 0 else ""
            parts.append(
                f"<details{opened}><summary><span class=query>{escape(query.query)}</span>"
                f"<span class={kind}>{escape(measure)} {before:.3f} → {after:.3f}</span></summary>"
                f"<div class=sides>{_side(first, None, query, place)}"
                f"{_side(second, first, query, place)}</div></details>"
            )
    return "\n".join([*parts, "</section>"])


def _side(system: System, before: System | None, query: JudgedQuery, place: int) -> str:
    """One order; with another before it, how far each candidate has moved."""
    ranks = None if before is None else _ranks(before.orders[place])
    items = []
    for rank, candidate in enumerate(system.orders[place][:DEPTH].tolist()):
        passage = query.passages[candidate]
        grade = query.judgments.get(str(passage.id))
        known = grade is not None and grade >= 0
        kind = "unjudged" if not known else "relevant" if grade else "other"
        text = " ".join(passage.text.split())
        text = text if len(text) <= _TEXT else text[: _TEXT - 1] + "…"
        label = f"grade {grade}" if known else "unjudged"
        if ranks is not None:
            moved = int(ranks[candidate]) - rank
            label += f" · {'▲' if moved > 0 else '▼'}{abs(moved)}" if moved else " · ="
        items.append(f"<li class={kind}><span class=marks>{label}</span>{escape(text)}</li>")
    return f"<div><h4>{escape(system.name)}</h4><ol>{''.join(items)}</ol></div>"


def _ranks(order: NDArray[np.int64]) -> NDArray[np.int64]:
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    return ranks
