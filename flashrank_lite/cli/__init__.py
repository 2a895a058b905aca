"""The ``flashrank-lite`` command."""

from flashrank_lite.cli.command import main

__all__ = ["main"]
