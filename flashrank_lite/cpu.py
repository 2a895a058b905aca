"""The cores this process may really use, and the instruction sets it really has.

onnxruntime sizes its thread pool from the host. In a container with a CPU quota that is too much,
and the kernel throttles the whole process. Affinity and quota say what is ours.

int8 graphs are made for a kind of processor: on another one they are slow, or wrong. What the
processor has is asked of the operating system; nothing is tried out.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TypeVar

from flashrank_lite.errors import InvalidInput

T = TypeVar("T")

THREADS_VARIABLE = "FLASHRANK_LITE_THREADS"
MOST_THREADS = 1024  # a typing error above this would exhaust the process before it failed


@dataclass(frozen=True)
class Threads:
    """How many threads to use, and what decided it.

    `source` is "argument", "environment", "affinity", "cgroup quota" or, where the platform has no
    affinity, "cpu count".
    """

    count: int
    source: str


def resolve_threads(
    argument: int | None = None,
    environ: Mapping[str, str] | None = None,
    root: Path = Path("/"),
) -> Threads:
    """Decide the number of threads: argument, then FLASHRANK_LITE_THREADS, then usable cores.

    Args:
        argument: the caller's wish, or None.
        environ: the environment to read, `os.environ` by default.
        root: where `proc` and `sys` lie; tests put faked files elsewhere.

    Raises:
        InvalidInput: the argument or the variable is not a whole number from 1 to 1024.
    """
    if argument is not None:
        if isinstance(argument, bool) or not isinstance(argument, int):
            raise InvalidInput(f"threads must be a whole number or None, not {argument!r}")
        if not 1 <= argument <= MOST_THREADS:
            raise InvalidInput(f"threads must be from 1 to {MOST_THREADS}, not {argument}")
        return Threads(argument, "argument")
    wish = (os.environ if environ is None else environ).get(THREADS_VARIABLE, "").strip()
    if wish:
        count = int(wish) if wish.isascii() and wish.isdigit() and len(wish) < 6 else 0
        if not 1 <= count <= MOST_THREADS:
            raise InvalidInput(
                f"{THREADS_VARIABLE} must be a whole number from 1 to {MOST_THREADS}, "
                f"not {wish!r}: correct it or unset it"
            )
        return Threads(count, "environment")
    return usable_cores(root)


def usable_cores(root: Path = Path("/")) -> Threads:
    """The smaller of the affinity mask and the cgroup's CPU quota, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        cores = Threads(max(1, len(os.sched_getaffinity(0))), "affinity")
    else:
        cores = Threads(os.cpu_count() or 1, "cpu count")
    quota = cgroup_quota(root)
    if quota is not None and ceil(quota) < cores.count:
        return Threads(max(1, ceil(quota)), "cgroup quota")
    return cores


def cgroup_quota(root: Path = Path("/")) -> float | None:
    """CPUs granted by the tightest cgroup above this process (v1 and v2), None when unlimited."""
    quotas = [quota for group in cgroups(root) for quota in _quotas(group)]
    return min(quotas, default=None)


def cgroups(root: Path = Path("/"), controller: str = "cpu") -> Iterator[Path]:
    """Every folder that can hold a limit of ours: our own group, then each one above it."""
    base = root / "sys/fs/cgroup"
    yield base  # v2 in a container: the file lies at the mount itself
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            mounts = [base, base / "unified"]
        elif controller in controllers.split(","):
            mounts = [base / controllers, base / controller, base / "cpu,cpuacct"]
        else:
            continue
        # ".." appears when the group lies outside our cgroup namespace: only the mount is ours
        parts = [] if ".." in path.split("/") else [part for part in path.split("/") if part]
        for mount in mounts:
            for depth in range(len(parts), -1, -1):
                yield mount.joinpath(*parts[:depth])


def _quotas(group: Path) -> Iterator[float]:
    both = _words(group / "cpu.max")
    period = _words(group / "cpu.cfs_period_us")
    for words in (both, _words(group / "cpu.cfs_quota_us") + period):
        try:
            quota, length = (int(word) for word in words)
        except ValueError:  # "max", an absent or an empty file
            continue
        if quota > 0 and length > 0:  # v1 says -1 for unlimited
            yield quota / length


def _words(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError):
        return []


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
