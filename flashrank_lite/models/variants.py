"""Several graphs of one model: the best one that this processor runs correctly, and why.

A manifest lists its variants, preferred first, each with what the processor must have. Without one
the file names tell: they are those that sentence-transformers, optimum, transformers.js and
FlashRank give.

int8 products of unsigned activations and signed weights are exact and fast where the processor has
VNNI (x86) or the dot product instructions (arm64). Without VNNI, onnxruntime is told to run them in
a slower, exact way (`flashrank_lite.runtime.graph`), so nothing is lost but the speed: full precision,
which is then about as fast and more exact, comes first.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from flashrank_lite.errors import InvalidModel
from flashrank_lite.runtime.cpu_features import instruction_sets

Processor = Callable[[], frozenset[str]]  # asked only where there is a choice

_VNNI = ("avx512_vnni", "avx_vnni")
_DOT = ("dotprod", "i8mm")


@dataclass(frozen=True)
class Choice:
    """A graph's path inside its folder, and why it is the one."""

    file: str
    reason: str


@dataclass(frozen=True)
class Option:
    """A graph that may be chosen; `requires` is what the processor must have one of."""

    file: str
    requires: tuple[str, ...] = ()
    what: str = ""


# Best first. A six-layer MiniLM on two cores with AVX-512 VNNI, 100 passages in batches: fp32 840
# ms, dynamic int8 with signed weights 367 ms, with unsigned ones 903 ms. Dynamic int8 is run one
# passage at a time, so that scores do not depend on each other, and on a CPU that costs little
# (four rows take 3.6 to 4.1 times as long as one, vespa-engine/vespa#18882). sentence-transformers
# gives O1, O2 and O3 as 0.93, 1.18 and 1.17 of the plain graph's speed, O3 as the least exact.
_KNOWN = (
    Option("model_int8.onnx", what="int8"),  # of our own exporter: static scales
    Option("onnx/model_qint8_avx512_vnni.onnx", _VNNI, "int8"),
    Option("onnx/model_qint8_avx512.onnx", _VNNI, "int8"),
    Option("onnx/model_qint8_arm64.onnx", _DOT, "int8"),
    Option("onnx/model_O2.onnx", what="full precision"),
    Option("onnx/model.onnx", what="full precision"),
    Option("onnx/model_optimized.onnx", what="full precision"),
    Option("onnx/model_O3.onnx", what="full precision, GELU approximated"),
    Option("onnx/model_O1.onnx", what="full precision"),
    Option("onnx/model_quint8_avx2.onnx", what="int8, exact on every processor"),
    Option("onnx/model_quantized.onnx", what="int8"),
    Option("onnx/model_int8.onnx", what="int8"),
    Option("onnx/model_uint8.onnx", what="int8"),
    Option("onnx/model_q4.onnx", what="4-bit weights"),
    Option("onnx/model_bnb4.onnx", what="4-bit weights"),
    Option("onnx/model_fp16.onnx", what="half precision"),
    Option("onnx/model_O4.onnx", what="half precision"),
    Option("onnx/model_q4f16.onnx", what="4-bit weights, half precision"),
)


def graphs_among(files: Iterable[str]) -> list[str]:
    """The ONNX files at the top of a model and under onnx/, sorted."""
    return sorted(
        file
        for file in files
        if file.endswith(".onnx") and (file.removeprefix("onnx/").count("/") == 0)
    )


def choose(files: Iterable[str], where: str, processor: Processor = instruction_sets) -> Choice:
    """Choose among the ONNX files of a folder or a repository by their names.

    Args:
        files: paths inside it, with forward slashes; other files are passed over.
        where: what to call it in errors: the folder or the repository.
        processor: tells the processor's instruction sets.

    Raises:
        InvalidModel: there is no ONNX file, or several and none has a known name.
    """
    graphs = graphs_among(files)
    if len(graphs) == 1:
        return Choice(graphs[0], "the only graph there is")
    known = list(_options(graphs))
    if known:
        found = first_runnable(known, processor)
        if found is not None:
            return found
        return Choice(
            known[0].file,
            f"made for a processor with {_any_of(known[0].requires)}, which this one lacks: it "
            "runs slower, but exactly, and there is no better graph",
        )
    if graphs:
        raise InvalidModel(
            f"{where} has several graphs ({', '.join(graphs)}) and no file says which to use: name "
            "one with file=, or rename the right one model.onnx"
        )
    raise InvalidModel(
        f"{where} has no *.onnx file, at the top or under onnx/: export the model to ONNX with "
        f"`flashrank-lite export {where} OUT` and load the folder OUT"
    )


def first_runnable(
    options: Sequence[Option], processor: Processor = instruction_sets
) -> Choice | None:
    """The first option whose requirement the processor meets, None if there is none."""
    if not options[0].requires and len(options) == 1:
        return Choice(options[0].file, "the only graph there is")
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
        return Choice(option.file, reason)
    return None


def _options(graphs: Sequence[str]) -> Iterator[Option]:
    """Known names among the graphs, best first; of two in different folders the upper one."""
    there = set(graphs)
    for option in _KNOWN:
        name = option.file.removeprefix("onnx/")
        places = (option.file,) if name == option.file else (name, option.file)
        for file in places:
            if file in there:
                there.remove(file)
                yield Option(file, option.requires, option.what)


def _any_of(flags: Sequence[str]) -> str:
    return " or ".join(flags)
