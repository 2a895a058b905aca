"""Paths that somebody else wrote: in a manifest, a listing of the Hub, an archive."""

from pathlib import PurePosixPath


def is_inside(name: str) -> bool:
    """Whether a path stays in the folder it is relative to, on every system."""
    path = PurePosixPath(name)
    escapes = path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name
    return bool(path.parts) and not escapes
