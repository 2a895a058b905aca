"""The `flashrank-lite` command."""

from flashrank_lite.cli.main import main

__all__ = ["main"]
