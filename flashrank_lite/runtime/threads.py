"""The number of threads: the cores that this process may really use.

onnxruntime sizes its thread pool from the host. In a container with a CPU quota that is too much,
and the kernel throttles the whole process. Affinity and quota say how many cores there are for us;
some platforms state their share in OMP_NUM_THREADS instead.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil
from numbers import Integral
from pathlib import Path
from typing import Any

from flashrank_lite.errors import InvalidInput

THREADS_VARIABLE = "FLASHRANK_LITE_THREADS"
# How some platforms and job schedulers state a process's share; they can lower the number only.
SHARE_VARIABLES = ("OMP_NUM_THREADS", "ORT_INTRA_OP_NUM_THREADS")
MOST_THREADS = 1024  # a typing error above this would exhaust the process before it failed


@dataclass(frozen=True)
class Threads:
    """How many threads to use, and what decided it.

    `source` is "argument", the name of an environment variable, "affinity", "cgroup quota" or,
    where the platform has no affinity, "cpu count".
    """

    count: int
    source: str


def resolve_threads(
    argument: int | None = None,
    environ: Mapping[str, str] | None = None,
    root: Path = Path("/"),
) -> Threads:
    """Decide the number of threads: argument, then FLASHRANK_LITE_THREADS, then usable cores.

    Usable cores are the smaller of affinity, quota, OMP_NUM_THREADS and ORT_INTRA_OP_NUM_THREADS.

    Args:
        argument: the caller's wish, or None.
        environ: the environment to read, `os.environ` by default.
        root: where `proc` and `sys` lie; tests put faked files elsewhere.

    Raises:
        InvalidInput: the argument or the variable is not a whole number from 1 to 1024.
    """
    if argument is not None:
        given: Any = argument
        if isinstance(given, bool) or not isinstance(given, Integral):  # numpy's count as well
            raise InvalidInput(f"threads must be a whole number or None, not {argument!r}")
        count = int(given)
        if not 1 <= count <= MOST_THREADS:
            raise InvalidInput(f"threads must be from 1 to {MOST_THREADS}, not {argument}")
        return Threads(count, "argument")
    environ = os.environ if environ is None else environ
    stated = environ.get(THREADS_VARIABLE, "").strip()
    if stated:
        count = _whole_number(stated)
        if not 1 <= count <= MOST_THREADS:
            raise InvalidInput(
                f"{THREADS_VARIABLE} must be a whole number from 1 to {MOST_THREADS}, "
                f"not {stated!r}: correct it or unset it"
            )
        return Threads(count, THREADS_VARIABLE)
    threads = usable_cores(root)
    for name in SHARE_VARIABLES:
        # OpenMP takes a list, a number for each level of nesting
        share = _whole_number(environ.get(name, "").partition(",")[0].strip())
        if 1 <= share < threads.count:
            threads = Threads(share, name)
    return threads


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


def _whole_number(text: str) -> int:
    """The number that a text is; 0 if it is none, or a very large one."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0


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
