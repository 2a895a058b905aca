"""OpenTelemetry spans, where its package is installed; nothing at all where it is not.

`opentelemetry-instrument flashrank-lite serve` sets up where they go. A span names sizes and times,
never a text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

try:
    from opentelemetry.propagate import extract
    from opentelemetry.trace import SpanKind, get_tracer
except ImportError:
    INSTALLED = False
else:
    INSTALLED = True


class Span:
    """A span, or none."""

    def __init__(self, span: Any = None) -> None:
        self._span = span

    def set(self, **attributes: str | int | float) -> None:
        """Attributes, under `flashrank_lite.`."""
        if self._span is not None:
            for name, value in attributes.items():
                self._span.set_attribute(f"flashrank_lite.{name}", value)


@contextmanager
def span(name: str, headers: Mapping[str, str]) -> Iterator[Span]:
    """A span of one request, within the trace that its headers name."""
    if not INSTALLED:
        yield Span()
        return
    tracer = get_tracer("flashrank_lite.server")
    with tracer.start_as_current_span(
        name, context=extract(dict(headers)), kind=SpanKind.SERVER
    ) as current:
        yield Span(current)
