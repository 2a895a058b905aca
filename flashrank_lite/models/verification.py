"""Are a model's files still what they were when they were exported, and when they were downloaded?

Without asking the Hub: huggingface_hub's `verify_repo_checksums` asks it, and reports as missing
the files that were not downloaded.
"""

from pathlib import Path

from flashrank_lite.models.checksums import check
from flashrank_lite.models.manifest import MANIFEST, read_manifest
from flashrank_lite.models.records import IN_FOLDER, downloaded, read_record


def verify(
    folder: str | Path, repository: str | None = None, revision: str | None = None
) -> list[str]:
    """Compare the hashes of all files that a manifest or the record of a download states.

    Graphs that a manifest lists and that are not there are left out, whichever of them would be
    run, and whether or not this processor can.

    Args:
        folder: the model folder.
        repository, revision: where it came from, if it lies in the Hub's cache.

    Returns:
        The names of the files that were compared, sorted: none if no hash is known.

    Raises:
        ChecksumMismatch: a file was changed or damaged.
        InvalidModel: a file is missing, or the folder holds no model.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    graphs = [v for v in manifest.variants if (folder / v.file).is_file()] or manifest.variants
    stated = dict(manifest.files)
    for graph in graphs:
        stated |= graph.files
    compared = {name for name, facts in stated.items() if check(folder / name, facts, MANIFEST)}
    record = read_record(folder / IN_FOLDER)
    if record is None and repository is not None:
        _, record = downloaded(repository, revision) or (None, None)
    for name, facts in record.files.items() if record is not None else ():
        if check(folder / name, facts, "the record of its download"):
            compared.add(name)
    return sorted(compared)
