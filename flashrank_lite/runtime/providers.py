"""Execution providers by the names that people use, and what a missing one needs."""

import io
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import onnxruntime

from flashrank_lite.errors import InvalidInput, ProviderUnavailable
from flashrank_lite.options import Providers

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
_OTHER_NAMES = {"directml": "dml"}  # what people say, where onnxruntime says otherwise

Resolved = list[str | tuple[str, dict[str, Any]]]


def resolve(providers: Providers | None) -> Resolved:
    """Providers under onnxruntime's own names; the CPU for None.

    Args:
        providers: names ("CUDA" for "CUDAExecutionProvider" will do) or (name, options), preferred
            first.

    Raises:
        InvalidInput: `providers` is not a list, or empty.
        ProviderUnavailable: this onnxruntime has no such provider; the message says what has.
    """
    if providers is None:
        return [CPU]
    if isinstance(providers, str) or not providers:
        raise InvalidInput(
            f"providers must be a list of names, not {providers!r}: "
            "pass for instance ['CPUExecutionProvider'], or None for the CPU"
        )
    available = {name.lower(): name for name in onnxruntime.get_available_providers()}
    resolved: Resolved = []
    for entry in providers:
        name, options = (entry, None) if isinstance(entry, str) else entry
        short = str(name).lower().removesuffix("executionprovider")
        short = _OTHER_NAMES.get(short, short)
        if f"{short}executionprovider" not in available:
            advice = "pip uninstall onnxruntime, then pip install onnxruntime-gpu"
            if short != "cuda":
                advice = "choose one of these, or install the build of onnxruntime that has it"
            raise ProviderUnavailable(
                f"no provider {name!r} in this onnxruntime {onnxruntime.__version__} (it has "
                f"{', '.join(available.values())}): {advice}"
            )
        full = available[f"{short}executionprovider"]
        resolved.append(full if options is None else (full, dict(options)))
    return resolved


def names(resolved: Sequence[str | tuple[str, Any]]) -> list[str]:
    """The names alone, without options."""
    return [entry if isinstance(entry, str) else entry[0] for entry in resolved]


def preload_cuda() -> str:
    """Load CUDA's libraries from the packages that pip installed.

    Returns:
        What went wrong, in one line; empty if nothing did.
    """
    preload = getattr(onnxruntime, "preload_dlls", None)
    if preload is None:  # before 1.21
        return ""
    said = io.StringIO()  # it prints what it could not load
    with redirect_stdout(said), redirect_stderr(said):
        preload()
    return (said.getvalue().strip().splitlines() or [""])[0]
