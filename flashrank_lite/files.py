"""Files that are written whole or not at all, and paths that somebody else wrote."""

import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath

_MODE = 0o644  # mkstemp's 0600 would shut other users of a shared folder out


def write_whole(file: Path, text: str) -> None:
    """Write a text file in one step: readers see the earlier content or the new one.

    Args:
        file: its path; the folder is made if there is none.
        text: the content, written as UTF-8.

    Raises:
        OSError: the folder cannot be written.
    """
    _in_one_step(file, lambda partial: partial.write_text(text, encoding="utf-8"))


def copy_whole(source: Path, file: Path) -> None:
    """Copy a file's content in one step. Arguments and errors are those of `write_whole`."""
    import shutil  # with tempfile 22 ms, and loading a model writes nothing

    _in_one_step(file, lambda partial: shutil.copyfile(source, partial))


def is_inside(name: str) -> bool:
    """Whether a relative path stays in the folder that it is relative to, on every system."""
    path = PurePosixPath(name)
    escapes = path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name
    return bool(path.parts) and not escapes


def _in_one_step(file: Path, fill: Callable[[Path], object]) -> None:
    import tempfile

    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    os.close(handle)
    partial = Path(name)
    try:
        fill(partial)
        partial.chmod(_MODE)
        partial.replace(file)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
