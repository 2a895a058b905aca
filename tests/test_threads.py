import os
from pathlib import Path

import pytest

from flashrank_lite import InvalidInput
from flashrank_lite.runtime.threads import (
    Threads,
    cgroup_quota,
    resolve_threads,
    usable_cores,
)


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def v2(path: str, **quotas: str) -> dict[str, str]:
    """cgroup v2 files; quotas by folder under the mount, "_" standing for the mount itself."""
    files = {"proc/self/cgroup": f"0::{path}\n"}
    for folder, quota in quotas.items():
        inside = "" if folder == "_" else folder.replace("__", "/") + "/"
        files[f"sys/fs/cgroup/{inside}cpu.max"] = quota
    return files


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        (v2("/", _="max 100000\n"), None),
        (v2("/", _="150000 100000\n"), 1.5),
        (v2("/a/b", a__b="max 100000"), None),
        (v2("/a/b", a__b="200000 100000"), 2.0),
        (v2("/a/b", a__b="max 100000", a="50000 100000"), 0.5),
        (v2("/a/b", a__b="400000 100000", a="max 100000", _="300000 100000"), 3.0),
        (v2("/docker/not-mounted-here", _="200000 100000"), 2.0),
        (v2("/../../outside", _="200000 100000"), 2.0),
        (v2("/a", a="rubbish"), None),
        (v2("/a", a=""), None),
    ],
)
def test_the_tightest_quota_of_cgroup_v2_counts(
    tmp_path: Path, files: dict[str, str], quota: float | None
) -> None:
    assert cgroup_quota(write(tmp_path, files)) == quota


@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
@pytest.mark.parametrize(
    ("quotas", "expected"),
    [
        ({"docker/abc": -1, "docker": -1, ".": -1}, None),
        ({"docker/abc": 250000}, 2.5),
        ({"docker/abc": -1, "docker": 100000}, 1.0),
        ({".": 300000}, 3.0),
    ],
)
def test_the_tightest_quota_of_cgroup_v1_counts(
    tmp_path: Path, mount: str, quotas: dict[str, int], expected: float | None
) -> None:
    files = {"proc/self/cgroup": f"9:memory:/x\n4:{mount}:/docker/abc\n1:name=systemd:/\n0::/\n"}
    for folder, quota in quotas.items():
        files[f"sys/fs/cgroup/{mount}/{folder}/cpu.cfs_quota_us"] = f"{quota}\n"
        files[f"sys/fs/cgroup/{mount}/{folder}/cpu.cfs_period_us"] = "100000\n"
    assert cgroup_quota(write(tmp_path, files)) == expected


def test_another_controllers_group_says_nothing_about_cpu(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "4:cpuset,memory:/jobs\n",
        "sys/fs/cgroup/cpuset,memory/jobs/cpu.cfs_quota_us": "100000",
        "sys/fs/cgroup/cpuset,memory/jobs/cpu.cfs_period_us": "100000",
    }
    assert cgroup_quota(write(tmp_path, files)) is None


@pytest.mark.parametrize(
    ("quota", "affinity", "threads"),
    [
        ("50000 100000", 8, Threads(1, "cgroup quota")),
        ("150000 100000", 8, Threads(2, "cgroup quota")),
        ("400000 100000", 4, Threads(4, "affinity")),
        ("900000 100000", 4, Threads(4, "affinity")),
        ("max 100000", 3, Threads(3, "affinity")),
    ],
)
def test_usable_cores_are_the_smaller_of_affinity_and_quota_rounded_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, affinity: int, threads: Threads
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(affinity)), raising=False)
    assert usable_cores(write(tmp_path, v2("/a", a=quota))) == threads


def test_without_affinity_the_cpu_count_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert usable_cores(tmp_path) == Threads(6, "cpu count")


def test_argument_wins_over_environment_and_environment_over_cores(tmp_path: Path) -> None:
    environ = {"FLASHRANK_LITE_THREADS": "7"}
    assert resolve_threads(3, environ, tmp_path) == Threads(3, "argument")
    assert resolve_threads(None, environ, tmp_path) == Threads(7, "FLASHRANK_LITE_THREADS")
    for unset in ({}, {"FLASHRANK_LITE_THREADS": " "}):
        assert resolve_threads(None, unset, tmp_path) == usable_cores(tmp_path)


@pytest.mark.parametrize("wish", ["0", "-1", "two", "1.5", "99999", "1" * 5000, "²"])
def test_a_bad_variable_is_refused_by_name(wish: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="FLASHRANK_LITE_THREADS"):
        resolve_threads(None, {"FLASHRANK_LITE_THREADS": wish}, tmp_path)


@pytest.mark.parametrize("argument", [0, -2, True, 1.5, "2", 100_000])
def test_a_bad_argument_is_refused(argument: object, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="threads must be"):
        resolve_threads(argument, {}, tmp_path)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"OMP_NUM_THREADS": "2"}, Threads(2, "OMP_NUM_THREADS")),
        ({"OMP_NUM_THREADS": "3,2"}, Threads(3, "OMP_NUM_THREADS")),
        ({"ORT_INTRA_OP_NUM_THREADS": "1"}, Threads(1, "ORT_INTRA_OP_NUM_THREADS")),
        (
            {"OMP_NUM_THREADS": "3", "ORT_INTRA_OP_NUM_THREADS": "2"},
            Threads(2, "ORT_INTRA_OP_NUM_THREADS"),
        ),
        ({"OMP_NUM_THREADS": "64"}, Threads(4, "affinity")),  # it can only lower the number
        ({"OMP_NUM_THREADS": "many", "ORT_INTRA_OP_NUM_THREADS": "0"}, Threads(4, "affinity")),
        (
            {"OMP_NUM_THREADS": "1", "FLASHRANK_LITE_THREADS": "3"},
            Threads(3, "FLASHRANK_LITE_THREADS"),
        ),
    ],
)
@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this platform has no affinity")
def test_a_platforms_share_lowers_the_number_and_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, environ: dict[str, str], expected: Threads
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    assert resolve_threads(None, environ, tmp_path) == expected
    assert resolve_threads(5, environ, tmp_path) == Threads(5, "argument")


def test_the_share_is_below_the_quota_too(tmp_path: Path) -> None:
    root = write(tmp_path, v2("/", _="100000 100000"))
    assert resolve_threads(None, {"OMP_NUM_THREADS": "2"}, root).count == 1
