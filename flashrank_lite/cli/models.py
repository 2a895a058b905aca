"""`flashrank-lite models`: what there is to choose from, and what of it is on this disk."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flashrank_lite.cli import flags
from flashrank_lite.cli.command import Command
from flashrank_lite.errors import InvalidInput, ModelNotFound

if TYPE_CHECKING:
    from flashrank_lite.cli.screen import Screen
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
SIZES = ("tiny", "small", "medium", "large")
SORTS = (
    "name",
    "size",
    "languages",
    "license",
    "max-length",
    "megabytes",
    "milliseconds",
    "opens",
    "figure",
    "on-disk",
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
    if arguments.sort is not None:
        rows.sort(key=lambda row: _sort_key(row, arguments.sort))
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
            facts |= {"files": {file: known.to_dict() for file, known in record.files.items()}}
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
    from flashrank_lite.cli.screen import Screen, write_facts, write_json

    screen = Screen.of_stdout()
    if screen.choose(wanted, "table", "json") == "json":
        write_json(facts, screen, lines=False)
    elif isinstance(facts, dict):
        write_facts(facts, screen)
    elif facts and "on_disk" in facts[0]:
        _write_list(facts, screen)
    else:
        for row in facts:
            write_facts(row, screen)


def _write_list(rows: list[dict[str, Any]], screen: Screen) -> None:
    from flashrank_lite.cli.tables import Cell, Column, write_table

    columns = {
        "name": Column("name"),
        "languages": Column("languages", most=12),
        "size": Column("size"),
        "license": Column("license", most=14, drop=3),
        "max_length": Column("tokens", right=True, drop=4),
        "megabytes": Column("MB", right=True, drop=6),
        "milliseconds": Column("ms", right=True, drop=5),
        "opens": Column("opens", drop=1),
        "figure": Column("figure", rest=True, drop=2),
        "on_disk": Column("here"),
    }
    cells = [[Cell(_cell(row, name)) for name in columns] for row in rows]
    write_table(list(columns.values()), cells, screen)


def _cell(row: dict[str, Any], column: str) -> str:
    value = row.get(column)
    if column == "figure":
        return f"{value['metric']} {value['value']:.3f} {value['data']}" if value else ""
    if isinstance(value, list):
        return ", ".join(value)
    if isinstance(value, bool):
        return "yes" if value else ""
    return "" if value is None else str(value)


def _sort_key(row: dict[str, Any], column: str) -> tuple[bool, Any]:
    """What is not known comes last; of figures and of what is on disk the best comes first."""
    value = row.get(column.replace("-", "_"))
    if value is None or value == []:
        return True, ""
    if column == "size":
        return False, SIZES.index(value)
    if column == "figure":
        return False, (value["data"], value["metric"], -value["value"])
    if column == "on-disk":
        return False, not value
    if column == "languages":
        return False, (value == ["multilingual"], len(value), value)
    return False, value.lower() if isinstance(value, str) else value


def _add_list(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--sort",
        choices=SORTS,
        metavar="BY",
        help=f"one of {', '.join(SORTS)} (default: the order of the catalogue)",
    )
    flags.add_format(parser, "table", "json")


def _add_info(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="a name, org/name, or a folder")
    flags.add(parser, [_REVISION])
    flags.add_format(parser, "table", "json")


def _add_pull(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", metavar="NAME", nargs="+", help="a name, or org/name")
    parser.add_argument(
        "--to", metavar="DIR", help="write a plain folder; of several models, one in DIR for each"
    )
    flags.add(parser, [_REVISION])
    parser.add_argument(
        "--file", metavar="F", dest="graph", help="the graph to take, as in onnx/model.onnx"
    )
    flags.add_format(parser, "table", "json")


_REVISION = flags.flag("--revision", metavar="R", help="branch, tag or commit")

COMMAND = Command(
    name="models",
    help="list, download and verify models",
    description="The models that are known by name, and those on this disk.",
    commands=(
        Command("list", "the models that are known by name", _list, _add_list),
        Command("info", "what is known of a model, without asking the Hub", _info, _add_info),
        Command(
            "pull",
            "download models, or bring them up to date",
            _pull,
            _add_pull,
            examples=_PULL_EXAMPLES,
        ),
        Command("verify", "compare a model's files with their checksums", _verify, _add_info),
    ),
)
