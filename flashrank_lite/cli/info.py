"""`flashrank-lite info`: what would rank here, and why."""

from __future__ import annotations

import argparse
import platform

from flashrank_lite.cli import flags
from flashrank_lite.cli.command import Command

MODEL = (*flags.MODEL, *flags.SCORES)
PACKAGES = ("onnxruntime", "tokenizers", "numpy", "huggingface-hub")  # what a score depends on


def run(arguments: argparse.Namespace) -> int:
    """Open the model, check its files and write the facts; the exit status."""
    from flashrank_lite.cli.screen import Screen, write_facts, write_json
    from flashrank_lite.models.verification import verify
    from flashrank_lite.ranker import Ranker

    screen = Screen.of_stdout()
    with Ranker(arguments.model, **flags.given(arguments, MODEL)) as ranker:
        facts = ranker.info()
        facts["verified_files"] = verify(facts["path"], facts["repository"], facts["revision"])
        facts["versions"] = versions()
    if screen.choose(arguments.format, "table", "json") == "table":
        write_facts(facts, screen)
    else:
        write_json(facts, screen, lines=False)
    return 0


def versions() -> dict[str, str]:
    """The versions of what a score depends on, beside our own."""
    from importlib.metadata import PackageNotFoundError, version  # 20 ms that --help need not take

    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    found["python"] = platform.python_version()
    found["platform"] = platform.platform()
    return found


def _add_flags(parser: argparse.ArgumentParser) -> None:
    flags.add_format(parser, "table", "json")
    flags.add(parser, [flags.MODEL_NAME, *MODEL], "the model")


COMMAND = Command(
    name="info",
    help="show the model, the threads and why, and the versions",
    description="Show the model that would rank (its files compared with their checksums), its "
    "threads and\nwhy, and the versions.",
    add_flags=_add_flags,
    run=run,
)
