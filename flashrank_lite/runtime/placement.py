"""Where a graph runs: device="cpu" | "cuda" | "auto", or execution providers by name.

A request for a GPU is met or refused. It never ends on the CPU silently: not as a whole, and not
for the operators that the GPU lacks, which onnxruntime would quietly run on the CPU.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from flashrank_lite.errors import InvalidInput, InvalidModel, ProviderUnavailable, first_line
from flashrank_lite.options import Device, Providers
from flashrank_lite.runtime.providers import CPU, CUDA, names, preload_cuda, resolve
from flashrank_lite.runtime.sessions import Sessions

DEVICES = get_args(Device)


@dataclass(frozen=True, slots=True)
class Placement:
    """The device that a graph runs on, and what decided it.

    `device` is "cpu", "cuda", or the first provider's name where providers were given.
    """

    device: str
    source: str


def open_sessions(
    file: Path, threads: int, device: Device | None = None, providers: Providers | None = None
) -> tuple[Sessions, Placement]:
    """Open a graph where it was asked for.

    Args:
        file: path of the ONNX file.
        threads: that may be busy at the same time on the CPU.
        device: "cpu", "cuda" (that, or an error), "auto" (CUDA where it works, else the CPU), or
            None for what `providers` say.
        providers: execution providers by name, preferred first; None for the CPU.

    Raises:
        InvalidInput: `device` is none of these, or both arguments were given.
        ProviderUnavailable: the device is not available; the message says what is missing.
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
            return Sessions(file, threads), Placement("cpu", f"auto: {error}")
    if providers is not None:
        sessions = _on(file, threads, providers)
        return sessions, Placement(sessions.providers[0], "providers")
    return Sessions(file, threads), Placement("cpu", "default" if device is None else "argument")


def products_on_cpu(sessions: Sessions) -> list[str]:
    """The kinds of matrix products that onnxruntime gave to the CPU; empty where it does not tell.

    It tells since 1.24, of graphs that were opened on more than the CPU.
    """
    return sorted(
        {
            kind
            for provider, kind in sessions.placed
            if provider == CPU and ("MatMul" in kind or "Gemm" in kind or "Attention" in kind)
        }
    )


def _on_cuda(file: Path, threads: int) -> Sessions:
    sessions = _on(file, threads, [CUDA])
    on_cpu = products_on_cpu(sessions)
    if on_cpu:
        sessions.close()
        raise ProviderUnavailable(
            f"CUDA lacks {', '.join(on_cpu)}, which {file.name} is made of, so it would run on the "
            "CPU: int8 graphs are for CPUs; export the model as fp32, or leave device out"
        )
    return sessions


def _on(file: Path, threads: int, providers: Providers) -> Sessions:
    """Open a graph on providers; where that fails, tell their fault from the file's."""
    wanted = names(resolve(providers))
    problem = preload_cuda() if CUDA in wanted else ""
    try:
        return Sessions(file, threads, providers)
    except ProviderUnavailable as error:
        if CUDA not in wanted:
            raise
        raise ProviderUnavailable(
            f"{error}{f' ({problem})' if problem else ''}. For CUDA look whether nvidia-smi shows "
            "a GPU, and get the CUDA and cuDNN libraries with pip install "
            "'onnxruntime-gpu[cuda,cudnn]'"
        ) from error
    except InvalidModel as error:
        if wanted == [CPU]:
            raise
        Sessions(file, threads).close()  # raises if the file itself is at fault
        problem = first_line(error.__cause__ or error)
        look = "nvidia-smi shows a GPU with memory left and a driver that is new enough"
        raise ProviderUnavailable(
            f"{', '.join(wanted)}: in this onnxruntime, but cannot open {file.name} ({problem}), "
            f"which the CPU can: look whether {look if CUDA in wanted else 'it is set up'}"
        ) from error
