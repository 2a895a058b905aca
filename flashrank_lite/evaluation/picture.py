"""Quality against latency, as inline SVG: up is better, left is faster."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from flashrank_lite.evaluation.comparison import Comparison, System

_WIDTH, _HEIGHT = 720, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 150, 20, 48  # room for the axes and for names beside points
_SIGN = 6.2  # a character's width at this size of type, for what would leave the picture


def picture(comparison: Comparison) -> str:
    """The systems by the leading measure and milliseconds a query.

    The first stage has no time of its own here, so it is a line at its height. Bars are 95 % of a
    normal distribution about the mean over queries: of each system by itself, so wider than what
    tells two of them apart.
    """
    measure = comparison.measures[0]
    first, *models = comparison.systems
    points = [(system, system.median_milliseconds or 0.0) for system in models]
    means = {system.name: float(system.values[measure].mean()) for system in comparison.systems}
    errors = {system.name: _error(system, measure) for system in models}
    low = min([means[first.name], *(means[name] - error for name, error in errors.items())])
    high = max([means[first.name], *(means[name] + error for name, error in errors.items())])
    heights = _ticks(max(0.0, low), min(1.0, high))
    times = _times([time for _, time in points])
    lines = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(measure)} against '
        'milliseconds a query">'
    ]
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def x(time: float) -> float:
        begin, end = math.log10(times[0]), math.log10(times[-1])
        return _LEFT + (right - _LEFT) * (math.log10(time) - begin) / (end - begin)

    def y(value: float) -> float:
        return bottom - (bottom - _TOP) * (value - heights[0]) / (heights[-1] - heights[0])

    for value in heights:
        lines.append(
            f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y(value):.1f}" '
            f'y2="{y(value):.1f}"/>'
            f'<text class="tick" x="{_LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">'
            f"{value:.2f}</text>"
        )
    for time in times:
        lines.append(
            f'<line class="grid" y1="{_TOP}" y2="{bottom}" x1="{x(time):.1f}" x2="{x(time):.1f}"/>'
            f'<text class="tick" x="{x(time):.1f}" y="{bottom + 18}" text-anchor="middle">'
            f"{time:g}</text>"
        )
    lines.append(
        f'<text class="axis" x="{(_LEFT + right) / 2}" y="{_HEIGHT - 8}" text-anchor="middle">'
        "milliseconds a query (median)</text>"
        f'<text class="axis" transform="translate(14 {(_TOP + bottom) / 2}) rotate(-90)" '
        f'text-anchor="middle">{escape(measure)}</text>'
    )
    level = y(means[first.name])
    lines.append(
        f'<line class="base" x1="{_LEFT}" x2="{right}" y1="{level:.1f}" y2="{level:.1f}"/>'
        f'<text class="name" x="{right + 8}" y="{level + 4:.1f}">{_fit(first.name)}</text>'
    )
    taken = [level]
    for number, (system, time) in enumerate(points):
        across, up = x(max(time, times[0])), y(means[system.name])
        low_end = y(max(heights[0], means[system.name] - errors[system.name]))
        high_end = y(min(heights[-1], means[system.name] + errors[system.name]))
        label = up + 4
        while any(abs(label - 4 - other) < 14 for other in taken):
            label -= 4
        taken.append(label - 4)
        kind = f"p{number % 6}"
        lines.append(
            f'<g class="{kind}"><line class="bar" x1="{across:.1f}" x2="{across:.1f}" '
            f'y1="{low_end:.1f}" y2="{high_end:.1f}"/>'
            f'<circle cx="{across:.1f}" cy="{up:.1f}" r="6">'
            f"<title>{escape(system.name)}: {means[system.name]:.3f}, {time:.1f} ms</title>"
            f'</circle><text class="name" x="{across + 11:.1f}" y="{label:.1f}">'
            f"{_fit(system.name)}</text></g>"
        )
    lines.append("</svg>")
    return "\n".join(lines)


def _error(system: System, measure: str) -> float:
    values = system.values[measure]
    return 1.96 * float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def _ticks(low: float, high: float) -> list[float]:
    step = next((one for one in (0.01, 0.02, 0.05, 0.1) if (high - low) / one <= 6), 0.2)
    begin, end = math.floor(low / step), math.ceil(high / step)
    return [round(place * step, 2) for place in range(begin, max(end, begin + 1) + 1)]


def _times(milliseconds: Sequence[float]) -> list[float]:
    """Marks of a logarithmic axis that has room on both sides: 1, 2, 5, 10, 20, ..."""
    least, most = max(min(milliseconds), 0.01) / 1.5, max(*milliseconds, 0.01) * 1.5
    marks = [
        sign * 10.0**power
        for power in range(math.floor(math.log10(least)) - 1, math.ceil(math.log10(most)) + 2)
        for sign in (1, 2, 5)
    ]
    begin = max(place for place, mark in enumerate(marks) if mark <= least)
    end = min(place for place, mark in enumerate(marks) if mark >= most)
    return marks[begin : end + 1]


def _fit(name: str) -> str:
    most = int(_RIGHT / _SIGN)
    short = name if len(name) <= most else "…" + name[-most + 1 :]
    return escape(short)
