"""Where a graph runs: device="cpu" | "cuda" | "auto", or execution providers by name.

A wish for a GPU is granted or refused. It never ends on the CPU unsaid: not as a whole, and not for
the operators that the GPU lacks, which onnxruntime would quietly run on the CPU.
"""

import io
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import onnxruntime

from flashrank_lite.errors import InvalidInput, InvalidModel, ProviderUnavailable, first_line
from flashrank_lite.runtime.graph import Graph
from flashrank_lite.runtime.sessions import Providers, resolve

DEVICES = ("cpu", "cuda", "auto")
CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


@dataclass(frozen=True)
class Placement:
    """The device that a graph runs on, and what decided it.

    `device` is "cpu", "cuda", or the first provider's name where providers were given.
    """

    device: str
    source: str


def open_graph(
    file: Path, threads: int, device: str | None = None, providers: Providers | None = None
) -> tuple[Graph, Placement]:
    """Open a graph where it was asked for.

    Args:
        file: path of the ONNX file.
        threads: threads of one run on the CPU.
        device: "cpu", "cuda" (that, or an error), "auto" (CUDA where it works, else the CPU), or
            None for what `providers` say.
        providers: execution providers by name, preferred first; None for the CPU.

    Raises:
        InvalidInput: `device` is none of these, or both arguments were given.
        ProviderUnavailable: the device cannot be had; the message says what is missing.
        InvalidModel: the file cannot be opened.
    """
    if device is not None and device not in DEVICES:
        raise InvalidInput(f"device must be one of {', '.join(DEVICES)} or None, not {device!r}")
    if device is not None and providers is not None:
        raise InvalidInput(
            "device and providers both say where to run: pass device for the CPU or CUDA, "
            "or providers for anything else"
        )
    if device == "cuda":
        return _on_cuda(file, threads), Placement("cuda", "argument")
    if device == "auto":
        try:
            return _on_cuda(file, threads), Placement("cuda", "auto: CUDA works here")
        except ProviderUnavailable as error:
            return Graph(file, threads), Placement("cpu", f"auto: {error}")
    if providers is not None:
        graph = _on(file, threads, providers)
        return graph, Placement(graph.providers[0], "providers")
    return Graph(file, threads), Placement("cpu", "default" if device is None else "argument")


def _on_cuda(file: Path, threads: int) -> Graph:
    graph = _on(file, threads, [CUDA])
    left = products_on_cpu(graph)
    if left:
        graph.close()
        raise ProviderUnavailable(
            f"CUDA lacks {', '.join(left)}, which {file.name} is made of, so it would run on the "
            "CPU: int8 graphs are for CPUs; export the model as fp32, or leave device out"
        )
    return graph


def _on(file: Path, threads: int, providers: Providers) -> Graph:
    """Open a graph on providers; where that fails, tell their fault from the file's."""
    names = [entry if isinstance(entry, str) else entry[0] for entry in resolve(providers)]
    said = _preload() if CUDA in names else ""
    try:
        return Graph(file, threads, providers)
    except ProviderUnavailable as error:
        if CUDA not in names:
            raise
        raise ProviderUnavailable(
            f"{error}{f' ({said})' if said else ''}. For CUDA look whether nvidia-smi shows a GPU, "
            "and get the CUDA and cuDNN libraries with pip install 'onnxruntime-gpu[cuda,cudnn]'"
        ) from error
    except InvalidModel as error:
        if names == [CPU]:
            raise
        Graph(file, threads).close()  # raises if the file itself is at fault
        said = first_line(error.__cause__ or error)
        look = "nvidia-smi shows a GPU with memory left and a driver that is new enough"
        raise ProviderUnavailable(
            f"{', '.join(names)}: in this onnxruntime, but cannot open {file.name} ({said}), which "
            f"the CPU can: look whether {look if CUDA in names else 'what it needs is installed'}"
        ) from error


def products_on_cpu(graph: Graph) -> list[str]:
    """The kinds of matrix products that onnxruntime gave to the CPU; empty where it does not say.

    It says so since 1.24, of graphs that were opened on more than the CPU.
    """
    return sorted(
        {
            kind
            for provider, kind in graph.placed
            if provider == CPU and ("MatMul" in kind or "Gemm" in kind or "Attention" in kind)
        }
    )


def _preload() -> str:
    """Load CUDA's libraries from the packages that pip installed; what went wrong, in one line."""
    preload = getattr(onnxruntime, "preload_dlls", None)
    if preload is None:  # before 1.21
        return ""
    said = io.StringIO()  # it prints what it could not load
    with redirect_stdout(said), redirect_stderr(said):
        preload()
    return (said.getvalue().strip().splitlines() or [""])[0]
