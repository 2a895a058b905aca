"""What an export finds out about the machine before it begins."""

import pytest
from export_support import require_export

from flashrank_lite import InvalidModel

require_export()

from flashrank_lite.export.memory import available_memory, check_room  # noqa: E402

GB = 10**9
FREE = "MemTotal: 32000000 kB\nMemAvailable: 12000000 kB\nSwapFree: 4000000 kB\n"


def machine(root, **files):
    """A folder with the files of /proc and /sys; dots in names stand for slashes."""
    for name, text in {"proc/meminfo": FREE, **files}.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def test_memory_is_what_the_system_has_left_with_its_swap(tmp_path):
    assert available_memory(machine(tmp_path)) == 16_000_000 * 1024


@pytest.mark.parametrize(
    ("group", "file"),
    [
        ("0::/job", "sys/fs/cgroup/job/memory.max"),
        ("0::/", "sys/fs/cgroup/memory.max"),
        ("5:memory:/job", "sys/fs/cgroup/memory/job/memory.limit_in_bytes"),
    ],
)
def test_a_container_gets_no_more_than_its_limit(tmp_path, group, file):
    files = {"proc/self/cgroup": f"3:cpu:/other\n{group}\n", file: "5000000000\n"}
    assert available_memory(machine(tmp_path, **files)) == 5_000_000_000


def test_no_limit_is_none(tmp_path):
    files = {"proc/self/cgroup": "0::/job\n", "sys/fs/cgroup/job/memory.max": "max\n"}
    assert available_memory(machine(tmp_path, **files)) == 16_000_000 * 1024


def test_a_system_that_does_not_tell_refuses_nothing(tmp_path):
    assert available_memory(tmp_path) is None
    check_room(GB, "any", root=tmp_path)


def test_what_does_not_fit_is_refused_with_the_figures(tmp_path):
    root = machine(tmp_path)
    check_room(2 * GB, "small", root=root)
    with pytest.raises(InvalidModel, match=r"big has 10\.0 GB .* 16\.4 GB left .*larger machine"):
        check_room(10 * GB, "big", root=root)


def test_weights_that_are_loaded_are_not_counted_twice(tmp_path):
    root = machine(tmp_path)
    check_room(5 * GB, "loaded", loaded=True, root=root)
    with pytest.raises(InvalidModel):
        check_room(5 * GB, "to be loaded", root=root)
