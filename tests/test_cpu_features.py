"""What int8 graphs need of a processor, as each operating system tells it."""

import platform
import sys
from pathlib import Path

import pytest

from flashrank_lite.runtime import cpu_features
from flashrank_lite.runtime.cpu_features import instruction_sets

X86 = """processor\t: 0
model name\t: some processor
flags\t\t: fpu sse2 avx avx2 avx512f avx512_vnni amx_int8 hypervisor

processor\t: 1
flags\t\t: fpu avx_vnni
"""
ARM = """processor\t: 0
BogoMIPS\t: 243.75
Features\t: fp asimd evtstrm aes asimddp i8mm bf16
"""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (X86, {"avx2", "avx512f", "avx512_vnni", "amx_int8"}),
        (X86.replace("avx512_vnni", "avx_vnni"), {"avx2", "avx512f", "avx_vnni", "amx_int8"}),
        (X86 * 400, {"avx2", "avx512f", "avx512_vnni", "amx_int8"}),
        (ARM, {"dotprod", "i8mm"}),
        (ARM.replace(" asimddp i8mm", ""), set()),
        ("", set()),
        ("rubbish \udcff", set()),
    ],
)
def test_instruction_sets_are_those_of_the_first_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, found: set[str]
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert instruction_sets(tmp_path) == found
    assert instruction_sets(tmp_path / "nowhere") == frozenset()


@pytest.mark.parametrize(
    ("system", "asked", "has", "found"),
    [
        ("darwin", "_sysctl", {"hw.optional.arm.FEAT_DotProd"}, {"dotprod"}),
        ("darwin", "_sysctl", {"hw.optional.avx2_0"}, {"avx2"}),
        ("win32", "_is_present", {40, 41}, {"avx2", "avx512f"}),
        ("win32", "_is_present", set(), set()),
    ],
)
def test_instruction_sets_are_asked_of_the_operating_system(
    monkeypatch: pytest.MonkeyPatch, system: str, asked: str, has: set[object], found: set[str]
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(cpu_features, asked, lambda name: name in has)
    assert instruction_sets() == found


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="what lscpu would show on x86")
def test_what_this_processor_has_is_what_the_system_lists() -> None:
    flags = set(Path("/proc/cpuinfo").read_text().split())
    for name in ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8"):
        assert (name in instruction_sets()) == (name in flags)
