"""Files that are written whole or not at all, and paths that somebody else wrote."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


def write_durably(file: Path, data: bytes) -> None:
    """Write a file in one step, and bring it to the disk; after a crash it is the old or the new.

    Raises:
        OSError: the folder cannot be written.
    """
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    with partial.open("wb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(partial, file)
    sync_folder(file.parent)


def sync_folder(folder: Path) -> None:
    """Bring the names of a folder's files to the disk, on systems where folders can be opened."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold a lock that one process, and one thread in it, has at a time; it ends with the process.

    Raises:
        BlockingIOError: somebody else holds it.
        OSError: the file cannot be opened.
    """
    handle = os.open(file, os.O_RDWR | os.O_CREAT, _MODE)
    try:
        _lock(handle)
        yield
    finally:
        os.close(handle)


def is_inside(name: str) -> bool:
    """Whether a relative path stays in the folder that it is relative to, on every system."""
    path = PurePosixPath(name)
    escapes = path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name
    return bool(path.parts) and not escapes


def _lock(handle: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError(error.errno, str(error)) from error
    else:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


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
