"""Which of a model's graphs is run here, and why: the one place that decides it.

A manifest lists its graphs, preferred first, each with what the processor must have. Without a
manifest the file names tell: those that sentence-transformers, optimum, transformers.js and
FlashRank give.

int8 products of unsigned activations and signed weights are exact and fast where the processor has
VNNI (x86) or the dot product instructions (arm64). Without VNNI the runtime has onnxruntime compute
them in a slower, exact way, so only speed is lost: full precision, which is then about as fast and
more exact, comes first.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import NamedTuple

from flashrank_lite.errors import InvalidModel
from flashrank_lite.models.config import precision_of
from flashrank_lite.models.manifest import MANIFEST, Variant
from flashrank_lite.runtime.cpu_features import instruction_sets

Processor = Callable[[], frozenset[str]]  # called only where there is a choice

_VNNI = ("avx512_vnni", "avx_vnni")
_DOT = ("dotprod", "i8mm")


@dataclass(frozen=True)
class GraphChoice:
    """The graph to run.

    Attributes:
        file: path inside the model folder, with forward slashes.
        reason: why this one, for people.
        precision: "fp32", "int8", ...; "unknown" if neither the manifest nor the name tells.
        batch_invariant: whether a row's scores are independent of the rows beside it; None if the
            manifest does not state it.
    """

    file: str
    reason: str
    precision: str = "unknown"
    batch_invariant: bool | None = None


class _Option(NamedTuple):
    """A graph that may be chosen; the processor must have one of `requires`, if there are any."""

    file: str
    requires: tuple[str, ...] = ()
    what: str = ""


# Best first. A six-layer MiniLM on two cores with AVX-512 VNNI, 100 passages in batches: fp32 840
# ms, dynamic int8 with signed weights 367 ms, with unsigned ones 903 ms. Dynamic int8 is run one
# passage at a time, so that scores do not depend on each other, and on a CPU that costs little
# (four rows take 3.6 to 4.1 times as long as one, vespa-engine/vespa#18882). sentence-transformers
# gives O1, O2 and O3 as 0.93, 1.18 and 1.17 of the plain graph's speed, O3 as the least exact.
_KNOWN = (
    _Option("model_int8.onnx", what="int8"),  # of our own exporter: static scales
    _Option("onnx/model_qint8_avx512_vnni.onnx", _VNNI, "int8"),
    _Option("onnx/model_qint8_avx512.onnx", _VNNI, "int8"),
    _Option("onnx/model_qint8_arm64.onnx", _DOT, "int8"),
    _Option("onnx/model_O2.onnx", what="full precision"),
    _Option("onnx/model.onnx", what="full precision"),
    _Option("onnx/model_optimized.onnx", what="full precision"),
    _Option("onnx/model_O3.onnx", what="full precision, GELU approximated"),
    _Option("onnx/model_O1.onnx", what="full precision"),
    _Option("onnx/model_quint8_avx2.onnx", what="int8, exact on every processor"),
    _Option("onnx/model_quantized.onnx", what="int8"),
    _Option("onnx/model_int8.onnx", what="int8"),
    _Option("onnx/model_uint8.onnx", what="int8"),
    _Option("onnx/model_q4.onnx", what="4-bit weights"),
    _Option("onnx/model_bnb4.onnx", what="4-bit weights"),
    _Option("onnx/model_fp16.onnx", what="half precision"),
    _Option("onnx/model_O4.onnx", what="half precision"),
    _Option("onnx/model_q4f16.onnx", what="4-bit weights, half precision"),
)


def choose_graph(
    variants: Sequence[Variant],
    files: Collection[str],
    where: object,
    file: str | GraphChoice | None = None,
    processor: Processor = instruction_sets,
) -> GraphChoice:
    """Choose the graph to run.

    Args:
        variants: the graphs that the manifest lists, preferred first; none without reranker.json.
        files: paths inside the folder or repository, with forward slashes; others than graphs are
            passed over.
        where: the folder or repository, for errors.
        file: the graph that the user wants, or a choice that was made before, which is kept with
            its reason; None for the best one that the processor runs correctly.
        processor: gives the processor's instruction sets.

    Raises:
        InvalidModel: there is no graph, not the one that is wanted, none for this processor, or
            several and nothing says which to use.
    """
    if file is not None:
        name = file.file if isinstance(file, GraphChoice) else file
        if name not in files:
            there = ", ".join(graphs_among(files)) or "no *.onnx file"
            raise InvalidModel(f"{where} has no file {name!r}: pass as file= {there}")
        return file if isinstance(file, GraphChoice) else _choice(variants, name, "asked for")
    graphs = graphs_among(files)
    if variants:
        options = [_Option(v.file, v.requires, v.precision) for v in variants if v.file in files]
    else:
        options = [_Option(graphs[0])] if len(graphs) == 1 else list(_known_among(graphs))
    if not options:
        raise _nothing_to_run(variants, graphs, where)
    found = _first_runnable(options, processor)
    if found is None:
        if variants:
            needed = "; ".join(f"{v.file} needs {_any_of(v.requires)}" for v in variants)
            raise InvalidModel(
                f"{where} has no graph for this processor ({needed}): name one with file= to run "
                "it all the same, or export the model with a variant for every processor"
            )
        needed = _any_of(options[0].requires)
        found = (
            options[0].file,
            f"made for a processor with {needed}, which this one lacks: it runs slower, but "
            "exactly, and there is no better graph",
        )
    name, reason = found
    preferred = takewhile(lambda listed: listed != name, (variant.file for variant in variants))
    absent = [listed for listed in preferred if listed not in files]
    if absent:
        reason += f"; {', '.join(absent)}, preferred to it, is not there"
    return _choice(variants, name, reason)


def graphs_among(files: Iterable[str]) -> list[str]:
    """The ONNX files at the top of a model and under onnx/, sorted."""
    onnx = (file for file in files if file.endswith(".onnx"))
    return sorted(file for file in onnx if "/" not in file.removeprefix("onnx/"))


def _nothing_to_run(
    variants: Sequence[Variant], graphs: Sequence[str], where: object
) -> InvalidModel:
    if variants:
        names = ", ".join(variant.file for variant in variants)
        return InvalidModel(
            f"{where} lacks the graphs that its {MANIFEST} lists ({names}): fetch or export the "
            "model again"
        )
    if graphs:
        return InvalidModel(
            f"{where} has several graphs ({', '.join(graphs)}) and no file says which to use: name "
            "one with file=, or rename the right one model.onnx"
        )
    return InvalidModel(
        f"{where} has no *.onnx file, at the top or under onnx/: export the model to ONNX with "
        f"`flashrank-lite export {where} OUT` and load the folder OUT"
    )


def _known_among(graphs: Sequence[str]) -> Iterator[_Option]:
    """Known names among the graphs, best first; of two in different folders the upper one."""
    left = set(graphs)
    for option in _KNOWN:
        name = option.file.removeprefix("onnx/")
        places = (option.file,) if name == option.file else (name, option.file)
        for file in places:
            if file in left:
                left.remove(file)
                yield option._replace(file=file)


def _first_runnable(options: Sequence[_Option], processor: Processor) -> tuple[str, str] | None:
    """The first option whose requirement the processor meets and why, None if there is none."""
    if len(options) == 1 and not options[0].requires:
        return options[0].file, "the only graph there is"
    has = processor() if any(option.requires for option in options) else frozenset()
    passed: list[str] = []
    for option in options:
        met = [flag for flag in option.requires if flag in has]
        if option.requires and not met:
            passed.append(f"{option.file} needs {_any_of(option.requires)}")
            continue
        reason = f"{option.what}, " if option.what else ""
        reason += f"the best of {len(options)} graphs that this processor runs correctly"
        if met:
            reason += f": it has {' and '.join(met)}"
        elif passed:
            reason += f" ({'; '.join(passed)})"
        return option.file, reason
    return None


def _choice(variants: Sequence[Variant], file: str, reason: str) -> GraphChoice:
    for variant in variants:
        if variant.file == file:
            return GraphChoice(file, reason, variant.precision, variant.batch_invariant)
    return GraphChoice(file, reason, precision_of(file))


def _any_of(flags: Sequence[str]) -> str:
    return " or ".join(flags)
