"""A model on disk: what it says of itself, which graph to run, and whether its files are there."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from flashrank_lite.errors import InvalidModel
from flashrank_lite.files import is_inside
from flashrank_lite.models.checksums import check_size
from flashrank_lite.models.graphs import GraphChoice, Processor, choose_graph
from flashrank_lite.models.manifest import MANIFEST, TOKENIZER, Manifest, read_manifest
from flashrank_lite.runtime.cpu_features import instruction_sets

Source = Literal["bundled", "package", "folder", "hub"]


@dataclass(frozen=True)
class ResolvedModel:
    """A model on disk, and how it will be run.

    Attributes:
        folder: holds its files.
        source: "bundled", "package" (an installed one), "folder" or "hub".
        manifest: what it says of itself.
        graph: the graph to run, and why.
        model: what `resolve` finds it by again; None for the bundled one.
        repository: "org/name", if it is from the Hub.
        revision: the commit, if it is from the Hub.
        languages: what it was made for: the manifest's, or else the catalog's.
        needed: the files it takes, as paths inside the folder, if it is from the Hub.
    """

    folder: Path
    source: Source
    manifest: Manifest
    graph: GraphChoice
    model: str | None = None
    repository: str | None = None
    revision: str | None = None
    languages: tuple[str, ...] = ()
    needed: tuple[str, ...] = ()

    def reload_arguments(self) -> dict[str, Any]:
        """Arguments of `resolve` that give this model and graph in any process, but for the token.

        Another processor might choose another graph, which would give other scores: the choice
        itself is passed on.
        """
        return {"model": self.model, "revision": self.revision, "file": self.graph}


def open_folder(
    folder: Path,
    file: str | GraphChoice | None = None,
    *,
    name: str | None = None,
    processor: Processor = instruction_sets,
) -> ResolvedModel:
    """Read the description, choose the graph, and check the files.

    Sizes are compared, which costs nothing; hashes are not: `flashrank_lite.models.verification`
    does that.

    Args:
        folder: the model folder.
        file: the graph to run, as a path inside it, or a choice made before; None for the best one
            that the processor runs correctly.
        name: of the model, where no reranker.json states it; None for the folder's.
        processor: gives the processor's instruction sets, where there is a choice.

    Returns:
        The model, as found by the folder's path.

    Raises:
        InvalidModel: a file is missing or malformed, or no graph can be run; the message says
            which, and what to do.
        ChecksumMismatch: a file has another size than the manifest states.
    """
    manifest = read_manifest(folder, name)
    files = _graph_files(folder, manifest, file)
    graph = choose_graph(manifest.variants, files, folder, file, processor)
    for listed, facts in manifest.files_of(graph.file).items():
        check_size(folder / listed, facts, MANIFEST)
    if not (folder / TOKENIZER).is_file():
        raise InvalidModel(
            f"{folder} has no {TOKENIZER}: save the model's fast tokenizer there "
            "(transformers' AutoTokenizer writes it with save_pretrained)"
        )
    where = str(folder.resolve())
    return ResolvedModel(folder, "folder", manifest, graph, where, languages=manifest.languages)


def _graph_files(folder: Path, manifest: Manifest, file: str | GraphChoice | None) -> set[str]:
    """The graphs among which the choice is: those that are there."""
    named = {variant.file for variant in manifest.variants}
    if file is not None:
        named.add(file.file if isinstance(file, GraphChoice) else file)
    there = {name for name in named if is_inside(name) and (folder / name).is_file()}
    if not manifest.variants or not there:  # for errors, too
        paths = (*folder.glob("*.onnx"), *folder.glob("onnx/*.onnx"))
        there |= {path.relative_to(folder).as_posix() for path in paths}
    return there
