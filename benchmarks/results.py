"""The raw results: one JSON file, written after every cell: an interruption costs one cell."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from typing import Any

from flashrank_lite.files import write_whole

Record = dict[str, Any]
FORMAT = 1


class Results:
    """Records by cell; a cell is everything that was measured side by side under one name.

    Args:
        file: where they are kept.
        resume: keep what the file holds and skip its cells; otherwise begin anew.
    """

    def __init__(self, file: Path, resume: bool = False) -> None:
        self._file = file
        self.content: dict[str, Any] = {"format": FORMAT, "setting": setting(), "cells": {}}
        if resume and file.is_file():
            self.content = json.loads(file.read_text(encoding="utf-8"))
            if self.content.get("format") != FORMAT:
                raise SystemExit(f"{file} is not of this format: give another --out")

    def has(self, cell: str) -> bool:
        """Whether the cell was measured already."""
        return cell in self.content["cells"]

    def add(self, cell: str, records: list[Record]) -> None:
        """Keep the records of a cell, on disk before this returns."""
        self.content["cells"][cell] = records
        write_whole(self._file, json.dumps(self.content, indent=1) + "\n")


def setting() -> Record:
    """The date, the machine and what it says of its load."""
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1),
        "instructions": _instructions(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_at_start": os.getloadavg()[0],
    }


def _processor() -> str:
    return next(iter(_cpuinfo("model name")), platform.processor() or "unknown")


def _instructions() -> list[str]:
    flags = next(iter(_cpuinfo("flags")), "").split()
    told = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
    return [flag for flag in told if flag in flags]


def _cpuinfo(field: str) -> list[str]:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return [line.partition(":")[2].strip() for line in lines if line.startswith(field)]
