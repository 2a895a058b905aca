"""Writes the table of models in docs/models.md from the catalog.

    python scripts/catalog_table.py

A test says when it has to be run again.
"""

from __future__ import annotations

from pathlib import Path

from flashrank_lite.models import catalog

PAGE = Path(__file__).parents[1] / "docs" / "models.md"
BEGIN, END = "<!-- the catalog, by scripts/catalog_table.py -->", "<!-- end of the catalog -->"
OPENS = {"bundled": "bundled", "ready": "as it is", "export": "export first"}


def main() -> None:
    """Rewrite the page."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}", encoding="utf-8")


def table() -> str:
    """A line for each model."""
    lines = [
        "| name | languages | licence | tokens | million parameters | MB | opens | ms | nDCG@10 "
        "| good for |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for entry in catalog.entries():
        cells = (
            f"`{entry.name}`",
            ", ".join(entry.languages),
            entry.license or "",
            _plain(entry.max_length),
            _plain(entry.parameters),
            _plain(entry.megabytes),
            OPENS.get(entry.opens or "", entry.opens or ""),
            _plain(entry.milliseconds),
            _figure(entry),
            entry.good_for or (f"{entry.opens}: {entry.why}" if entry.why else ""),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:g}" if value < 10_000 else str(value)


def _figure(entry: catalog.Entry) -> str:
    figure = entry.figure
    if figure is None:
        return ""
    source = figure.source if figure.source.startswith("https://") else "nano.md"
    return f"[{figure.value:.3f}]({source}) {figure.data}"


if __name__ == "__main__":
    main()
