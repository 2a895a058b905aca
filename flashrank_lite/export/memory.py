"""Checks that this machine has enough memory and disk for an export, before it begins."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from flashrank_lite.errors import InvalidModel
from flashrank_lite.runtime.threads import cgroups

# Both are shares of the weights in fp32, measured on random ones of Qwen3-0.6B and XLM-R large.
# Memory: 8.1 GB where the weights are 2.38, and 6.5 where they are 2.27, while activations are
# sampled: torch's weights, onnxruntime's, and the rows that the rounding is fitted on, which are
# more beside the weights of small models, where little is at stake.
MEMORY = 3.5
# The temporary folder: the traced graph beside the fused one, then fp32 twice and int8.
DISK = 2.5


def check_room(weights: int, name: str, *, loaded: bool = False, root: Path = Path("/")) -> None:
    """Refuse a model whose export would run out of memory or disk.

    Args:
        weights: bytes of its weights in fp32.
        name: of the model.
        loaded: whether they are in memory by now.
        root: where `proc` and `sys` lie; tests put faked files elsewhere.

    Raises:
        InvalidModel: there is not enough memory, or disk.
    """
    said = f"{name} has {_gigabytes(weights)} of weights in fp32, and to export it takes about"
    free = available_memory(root)
    needed = weights * MEMORY - (weights if loaded else 0)
    if free is not None and needed > free:
        raise InvalidModel(
            f"{said} {_gigabytes(weights * MEMORY)} of memory: there are {_gigabytes(free)} left "
            "here. Export it on a larger machine (the folder that comes out can be copied), free "
            "memory or add swap, or take a smaller model"
        )
    folder = tempfile.gettempdir()
    space = shutil.disk_usage(folder).free
    if weights * DISK > space:
        raise InvalidModel(
            f"{said} {_gigabytes(weights * DISK)} in the temporary folder: {folder} has "
            f"{_gigabytes(space)} left. Set TMPDIR to a folder on a larger disk"
        )


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes that a process can still get: of memory and swap, and no more than its cgroup's limit.

    None where the system does not tell, as on macOS and Windows.
    """
    try:
        lines = (root / "proc/meminfo").read_text(encoding="ascii").splitlines()
        entries = {name: rest.split()[0] for name, _, rest in (x.partition(":") for x in lines)}
        free = (int(entries["MemAvailable"]) + int(entries.get("SwapFree", 0))) * 1024
    except (OSError, ValueError, KeyError, IndexError):
        return None
    return min([free, *_limits(root)])


def peak_memory() -> int | None:
    """Bytes of memory that this process has had at most; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _limits(root: Path) -> list[int]:
    found = []
    for group in cgroups(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            try:
                found.append(int((group / name).read_text(encoding="ascii")))
            except (OSError, ValueError):  # "max", or no such file
                continue
    return found


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB"
