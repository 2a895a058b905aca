"""The `flashrank-lite` command."""

from flashrank_lite.cli.program import main

__all__ = ["main"]
