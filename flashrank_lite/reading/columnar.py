"""Parquet and Arrow files → rows, where pyarrow is installed."""

from __future__ import annotations

from typing import Any

from flashrank_lite.errors import InvalidInput, MissingExtra, first_line

_STARTS = {
    b"PAR1": "Parquet",
    b"ARROW1": "Arrow",
    b"FEA1": "Feather",
    b"\xff\xff\xff\xff": "Arrow stream",  # no text starts so, in any encoding
}


def kind_of(data: bytes) -> str | None:
    """What a columnar file is, by its first bytes; None for anything else."""
    return next((kind for start, kind in _STARTS.items() if data.startswith(start)), None)


def read_rows(data: bytes, name: str, kind: str) -> list[dict[str, Any]]:
    """Each row as a dictionary of its columns.

    Raises:
        MissingExtra: pyarrow is not installed.
        InvalidInput: the file is damaged.
    """
    try:
        import pyarrow
        from pyarrow import feather, ipc, parquet
    except ImportError:
        raise MissingExtra(
            f"{name}: a file of {kind}, which needs pyarrow: pip install pyarrow"
        ) from None
    source = pyarrow.BufferReader(data)
    try:
        if kind == "Parquet":
            table = parquet.read_table(source)
        elif kind == "Feather":
            table = feather.read_table(source)
        else:
            opened = ipc.open_file(source) if kind == "Arrow" else ipc.open_stream(source)
            table = opened.read_all()
        rows: list[dict[str, Any]] = table.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise InvalidInput(
            f"{name}: {kind} that cannot be read ({first_line(error)}): write it again"
        ) from None
    return rows
