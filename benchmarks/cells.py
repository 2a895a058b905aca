"""The cells of the measurement: what is compared with what, on which texts and cores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.engines import ENGINES, NANO, OURS, REFERENCE, SHAPES, Engine

HEAVY_TOKENS = 40_000  # padded tokens of a list from which engines run one by one, in new processes
_LONGEST = {"short": 40, "mixed": 300, "long": 495}


@dataclass(frozen=True)
class Cell:
    """Lists of one kind and size on a number of cores, scored by engines that take turns.

    Attributes:
        shape: the weights.
        kind: of the texts, as in `texts.LENGTHS`.
        count: passages of the list.
        cores: how many the processes may use.
        callers: threads that score the list at the same time.
        engines: the engines that are compared.
    """

    shape: str
    kind: str
    count: int
    cores: int
    callers: int
    engines: tuple[Engine, ...]

    @property
    def name(self) -> str:
        """The name that `--only` and the results use."""
        callers = "" if self.callers == 1 else f"/{self.callers}-callers"
        return f"latency/{self.shape}/{self.kind}-{self.count}/{self.cores}-cores{callers}"

    @property
    def heavy(self) -> bool:
        """Whether an engine that pads everything to the longest could fill the machine's memory."""
        return self.count * self.callers * _LONGEST[self.kind] > HEAVY_TOKENS


def cells(quick: bool, cores: int) -> Iterator[Cell]:
    """All cells of the run, the most telling first.

    Args:
        quick: only those against flashrank, MiniLM-L6, mixed texts.
        cores: how many there are.
    """
    if quick:
        engines = tuple(engine for engine in ENGINES if engine.quick)
        for count in (100, 10, 1):
            yield Cell(SHAPES[0], "mixed", count, cores, 1, engines)
        return
    for kind in ("mixed", "short", "long"):
        for count in (100, 10, 1):
            yield Cell(SHAPES[0], kind, count, cores, 1, ENGINES)
    if cores > 1:
        for count in (100, 10, 1):
            yield Cell(SHAPES[0], "mixed", count, 1, 1, ENGINES)
    yield Cell(SHAPES[0], "mixed", 10, cores, 4, ENGINES)
    others = tuple(engine for engine in ENGINES if engine.name != NANO)
    for shape in SHAPES[1:]:
        for count in (100, 10, 1):
            yield Cell(shape, "mixed", count, cores, 1, others)
    yield Cell(SHAPES[0], "short", 1000, cores, 1, ENGINES)
    yield Cell(SHAPES[0], "mixed", 1000, cores, 1, ENGINES)
    long = _named(REFERENCE, "ours, our fp32", OURS, "flashrank, fp32", "fastembed, fp32")
    yield Cell("minilm-l12", "long", 300, cores, 1, long)


CHARTED = "latency/minilm-l6/mixed-100/"  # what the chart shows
COLD = ("minilm-l6", "tinybert-l2")  # flashrank's default is a TinyBERT


def cold_engines(quick: bool) -> Sequence[Engine]:
    """Who is started cold."""
    return [engine for engine in ENGINES if engine.quick or not quick]


def _named(*names: str) -> tuple[Engine, ...]:
    return tuple(engine for engine in ENGINES if engine.name in names)
