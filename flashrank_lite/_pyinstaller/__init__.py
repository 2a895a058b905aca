"""Tells PyInstaller what its reading of our imports cannot find: the bundled model, above all.

PyInstaller asks the entry point group `pyinstaller40` for folders with hooks; no setting is needed.
"""

from pathlib import Path


def hook_folders() -> list[str]:
    """The folders in which PyInstaller looks for hooks."""
    return [str(Path(__file__).parent)]
