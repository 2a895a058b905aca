"""The instruction sets that the processor really has.

int8 graphs are made for a kind of processor: on another one they are slow, or wrong. The operating
system is asked; nothing is tried out.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

# By the operating system's names, ours: those that an int8 graph can depend on.
_LINUX = {
    **{name: name for name in ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "i8mm")},
    "asimddp": "dotprod",
}
_DARWIN = {
    "hw.optional.avx2_0": "avx2",
    "hw.optional.avx512f": "avx512f",
    "hw.optional.arm.FEAT_DotProd": "dotprod",
    "hw.optional.arm.FEAT_I8MM": "i8mm",
}
# PF_... of IsProcessorFeaturePresent. It has no number for VNNI: such a processor is taken for one
# without, and gets a graph that is right on both.
_WINDOWS = {40: "avx2", 41: "avx512f", 43: "dotprod"}
_CPUINFO_READ = 1 << 16  # characters: more than one processor's entry, not those of 200 processors


def instruction_sets(root: Path = Path("/")) -> frozenset[str]:
    """Which of these the processor has: avx2, avx512f, avx512_vnni, avx_vnni, amx_int8 (x86),
    dotprod, i8mm (arm64).

    What the operating system does not tell is left out.

    Args:
        root: where `proc` lies; tests put faked files elsewhere.
    """
    if sys.platform == "darwin":
        return _those(_DARWIN, _sysctl)
    if sys.platform == "win32":
        return _those(_WINDOWS, _is_present)
    try:
        with (root / "proc/cpuinfo").open(encoding="ascii", errors="replace") as handle:
            first, _, _ = handle.read(_CPUINFO_READ).partition("\n\n")
    except OSError:
        return frozenset()
    for line in first.splitlines():
        name, _, flags = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(_LINUX[flag] for flag in flags.split() if flag in _LINUX)
    return frozenset()


def _those(names: Mapping[T, str], has: Callable[[T], bool]) -> frozenset[str]:
    return frozenset(ours for theirs, ours in names.items() if has(theirs))


def _sysctl(name: str) -> bool:
    import ctypes

    value, size = ctypes.c_int64(0), ctypes.c_size_t(8)
    ask = ctypes.CDLL(None).sysctlbyname
    failed = ask(name.encode(), ctypes.byref(value), ctypes.byref(size), None, ctypes.c_size_t(0))
    return not failed and value.value != 0


def _is_present(feature: int) -> bool:
    import ctypes

    if sys.platform == "win32":  # the only place where ctypes has it
        return bool(ctypes.windll.kernel32.IsProcessorFeaturePresent(feature))
    return False
