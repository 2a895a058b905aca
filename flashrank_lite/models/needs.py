"""Which of a repository's files it takes to run one of its graphs."""

import mmap
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from flashrank_lite.errors import InvalidModel, ModelNotFound
from flashrank_lite.models.folder import parse_manifest, select
from flashrank_lite.models.manifest import MANIFEST, TOKENIZER
from flashrank_lite.models.record import Listed, Record
from flashrank_lite.models.variants import Choice, choose, graphs_among

CONFIG = ("config.json", "tokenizer_config.json")  # what a model is, where no manifest says it
# Beside a graph these are never its weights; anything else is, if the graph names it.
_NO_WEIGHTS = (".onnx", ".json", ".txt", ".md", ".py", ".safetensors", ".bin.index.json")


def plan(record: Record, folder: Path, file: str | None) -> tuple[Choice, list[str]]:
    """The graph to run, and the files it takes, its weights in other files left out.

    Raises:
        InvalidModel: the repository lacks one of them.
    """
    repository, listing = record.repository, record.listing
    if TOKENIZER not in listing:
        raise InvalidModel(
            f"{repository} has no {TOKENIZER}, the file of a fast tokenizer: export the model, "
            f"which makes one, with `flashrank-lite export {repository} OUT`, and load OUT"
        )
    needed = [TOKENIZER, *(name for name in CONFIG if name in listing)]
    if MANIFEST in listing:
        manifest = parse_manifest(folder)
        there = [v.file for v in manifest.variants if v.file in listing]
        if not there and file is None:
            named = ", ".join(variant.file for variant in manifest.variants)
            raise InvalidModel(f"{repository} lacks the graphs that its {MANIFEST} names: {named}")
        needed += [MANIFEST, *(name for name in manifest.files if name not in needed)]
        _check_listed(record, manifest.files)
    if file is not None:
        if file not in listing:
            graphs = ", ".join(graphs_among(listing)) or "no *.onnx file"
            raise ModelNotFound(f"{repository} has no file {file!r}; it has {graphs}")
        choice = Choice(file, "asked for")
    elif MANIFEST in listing:
        chosen = select(manifest, there, repository)
        choice = Choice(chosen.variant.file, chosen.variant_reason)
    else:
        choice = choose(listing, repository)
    if MANIFEST in listing:
        for variant in manifest.variants:
            _check_listed(record, variant.data if variant.file == choice.file else ())
    return choice, [*needed, choice.file]


def weights_of(folder: Path, graph: str, listing: Mapping[str, Listed]) -> list[str]:
    """The files beside a graph that hold its weights: those whose name stands in it."""
    candidates = beside(graph, listing)
    file = folder / graph
    if not candidates or file.stat().st_size == 0:
        return []
    with file.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as view:
        return [name for name in candidates if view.find(PurePosixPath(name).name.encode()) >= 0]


def beside(graph: str, listing: Mapping[str, Listed]) -> list[str]:
    """The files in a graph's folder that may hold its weights."""
    folder = PurePosixPath(graph).parent
    here = [name for name in listing if PurePosixPath(name).parent == folder]
    return [name for name in here if not name.endswith(_NO_WEIGHTS)]


def _check_listed(record: Record, names: Iterable[str]) -> None:
    missing = [name for name in names if name not in record.listing]
    if missing:
        raise InvalidModel(
            f"{record.repository} lacks {', '.join(missing)}, which its {MANIFEST} names: tell its "
            "owner, or pass the revision= of an earlier upload"
        )
