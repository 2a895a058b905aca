"""``flashrank-lite models``: what there is to choose from, and what of it is on this disk."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flashrank_lite.errors import InvalidInput, ModelNotFound

if TYPE_CHECKING:
    from flashrank_lite.cli.command import Commands
    from flashrank_lite.cli.rendering import Screen
    from flashrank_lite.models.records import Record
    from flashrank_lite.models.resolve import Place

_PULL_EXAMPLES = """\
examples:
  flashrank-lite models pull bge-reranker-base
  flashrank-lite models pull ms-marco-MiniLM-L-12-v2 --to layer/model

The first brings a model into the Hub's cache, or brings it up to date: what is loaded otherwise
is the commit that was first downloaded. The second writes a plain folder, to bake into an image:
load it with Ranker("layer/model"). The graph is the best one for the processor that pulls; name
another with --file where the image will run elsewhere.
"""
_COLUMNS = ("name", "languages", "size", "license", "max_length", "figure", "on_disk")


def add_to(commands: Commands) -> None:
    """Add ``models`` and what is below it."""
    models = commands.group(
        "models",
        help="list, download and verify models",
        description="The models that are known by name, and those on this disk.",
    )
    listing = models.add("list", _list, help="the models that are known by name")
    info = models.add("info", _info, help="what is known of a model, without asking the Hub")
    pull = models.add(
        "pull",
        _pull,
        help="download models, or bring them up to date",
        epilog=_PULL_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verify = models.add("verify", _verify, help="compare a model's files with their checksums")
    for command in (info, verify):
        command.add_argument("name", metavar="NAME", help="a name, org/name, or a folder")
    pull.add_argument("names", metavar="NAME", nargs="+", help="a name, or org/name")
    pull.add_argument(
        "--to", metavar="DIR", help="write a plain folder; of several models, one in DIR for each"
    )
    for command in (info, pull, verify):
        command.add_argument("--revision", metavar="R", help="branch, tag or commit")
    pull.add_argument(
        "--file", metavar="F", dest="graph", help="the graph to take, as in onnx/model.onnx"
    )
    for command in (listing, info, pull, verify):
        command.add_argument(
            "--format", choices=("table", "json"), help="default: table on a terminal, else json"
        )


def _list(arguments: argparse.Namespace) -> int:
    from flashrank_lite.models import catalog, packages, records

    rows = []
    for entry in catalog.entries():
        there = entry.repository is None or records.downloaded(
            entry.repository, archive=entry.archive
        )
        rows.append({**entry.to_dict(), "on_disk": bool(there)})
    rows += [{**entry.to_dict(), "on_disk": True} for entry in packages.installed_models()]
    _show(rows, arguments.format)
    return 0


def _info(arguments: argparse.Namespace) -> int:
    from flashrank_lite.models import catalog
    from flashrank_lite.models.resolve import find, resolve

    name, revision = arguments.name, arguments.revision
    place = find(name, revision)
    if place.folder is not None:
        entry = catalog.find(name) if place.source == "bundled" else None
        found = resolve(name)
        facts = {"path": str(found.folder), **(entry.to_dict() if entry else {})}
        manifest = found.manifest
        facts |= {"name": manifest.name, "license": manifest.license}
        facts |= {"languages": list(manifest.languages), "max_length": manifest.max_length}
        facts |= {"graph": found.graph.file, "graph_reason": found.graph.reason}
    else:
        there = _downloaded(place, revision)
        if place.entry is None and there is None:
            raise _not_here(name, revision)
        facts = place.entry.to_dict() if place.entry else {"repository": place.repository}
        facts["on_disk"] = there is not None
        if there is not None:
            folder, record = there
            facts |= {"revision": record.commit, "path": str(folder)}
            facts |= {"files": {name: known.to_dict() for name, known in record.files.items()}}
    _show(facts, arguments.format)
    return 0


def _pull(arguments: argparse.Namespace) -> int:
    from flashrank_lite.models.pull import write_folder
    from flashrank_lite.models.resolve import resolve

    rows = []
    several = arguments.to is not None and len(arguments.names) > 1
    folders = _folder_names(arguments.names) if several else {}
    for name in arguments.names:
        found = resolve(name, revision=arguments.revision, file=arguments.graph, refresh=True)
        folder = found.folder
        if arguments.to is not None:
            folder = Path(arguments.to, folders.get(name, ""))
            write_folder(found, folder)
        elif found.repository is None:
            raise InvalidInput(f"{name} is the folder {folder}: there is nothing to download")
        row = {"name": found.manifest.name, "repository": found.repository}
        row |= {"revision": found.revision, "graph": found.graph.file}
        rows.append({**row, "graph_reason": found.graph.reason})
        rows[-1]["path"] = str(folder)
    _show(rows, arguments.format)
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from flashrank_lite.models.resolve import find
    from flashrank_lite.models.verification import verify

    place, commit = find(arguments.name, arguments.revision), None
    folder = place.folder
    if folder is None:
        there = _downloaded(place, arguments.revision)
        if there is None:
            raise _not_here(arguments.name, arguments.revision)
        folder, commit = there[0], there[1].commit
    verified = verify(folder, place.repository, commit)
    if not verified:
        raise InvalidInput(
            f"nothing says what the files of {folder} should be: it has no reranker.json and no "
            "record of a download, so export or pull the model again"
        )
    _show({"path": str(folder), "revision": commit, "verified_files": verified}, arguments.format)
    return 0


def _folder_names(names: list[str]) -> dict[str, str]:
    """The folder below --to for each of several models.

    Raises:
        InvalidInput: two of them would share one.
    """
    folders: dict[str, str] = {}
    for name in names:
        folder = name.rpartition("/")[2]
        # many file systems take upper and lower case for the same
        for other, taken in folders.items():
            if taken.lower() == folder.lower():
                raise InvalidInput(
                    f"{other} and {name} would both be written into the folder {folder}: pull them "
                    "one at a time, each with a --to of its own"
                )
        folders[name] = folder
    return folders


def _downloaded(place: Place, revision: str | None) -> tuple[Path, Record] | None:
    from flashrank_lite.models import records

    archive = place.entry.archive if place.entry is not None else None
    return records.downloaded(str(place.repository), revision, archive)


def _not_here(name: str, revision: str | None) -> ModelNotFound:
    wanted = name if revision is None else f"{name} --revision {revision}"
    return ModelNotFound(
        f"{name} is not on this disk{f' at {revision}' if revision else ''}: `flashrank-lite "
        f"models pull {wanted}` downloads it, and `flashrank-lite models list` shows the names "
        "that are known"
    )


def _show(facts: dict[str, Any] | list[dict[str, Any]], wanted: str | None) -> None:
    from flashrank_lite.cli import rendering

    screen = rendering.Screen.of_stdout()
    if (wanted or ("table" if screen.terminal else "json")) == "json":
        rendering.write_json(facts, screen, lines=False)
    elif isinstance(facts, dict):
        rendering.write_facts(facts, screen)
    elif "on_disk" in facts[0]:
        _write_list(facts, screen)
    else:
        for row in facts:
            rendering.write_facts(row, screen)


def _write_list(rows: list[dict[str, Any]], screen: Screen) -> None:
    cells = [[_cell(row, column) for column in _COLUMNS] for row in rows]
    heads = [column.replace("_", " ") for column in _COLUMNS]
    rooms = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    for line in (heads, *cells):
        padded = [cell.ljust(room) for cell, room in zip(line, rooms, strict=True)]
        screen.write("  ".join(padded).rstrip())


def _cell(row: dict[str, Any], column: str) -> str:
    value = row.get(column)
    if column == "figure":
        return f"{value['metric']} {value['value']:.3f} {value['data']}" if value else ""
    if isinstance(value, list):
        return ", ".join(value)
    if isinstance(value, bool):
        return "yes" if value else ""
    return "" if value is None else str(value)
