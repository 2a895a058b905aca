"""Are a model's files still what they were when they were made, and when they were downloaded?"""

from pathlib import Path

from flashrank_lite.models.checksums import check
from flashrank_lite.models.folder import parse_manifest
from flashrank_lite.models.manifest import MANIFEST
from flashrank_lite.models.record import IN_FOLDER, Record, read_record


def verify(
    folder: str | Path, repository: str | None = None, revision: str | None = None
) -> list[str]:
    """Compare the sha256 of all files that a manifest or the record of a download vouches for.

    Graphs that a manifest lists and that are not there are left out. Which of them would be run,
    and whether this processor can, makes no difference.

    Args:
        folder: the model folder.
        repository, revision: where it came from, if it lies in the Hub's cache.

    Returns:
        The names of the files that were compared, sorted: none if nothing vouches for them.

    Raises:
        ChecksumMismatch: a file was changed or damaged.
        InvalidModel: a file is gone, or the folder holds no model.
    """
    folder = Path(folder)
    compared = set(_compare_with_manifest(folder))
    record = find_record(folder, repository, revision)
    if record is not None:
        compared |= set(record.verify(folder))
    return sorted(compared)


def find_record(folder: Path, repository: str | None, revision: str | None) -> Record | None:
    """The record of the download that a folder came from, None if there is none."""
    inside = read_record(folder / IN_FOLDER)
    if inside is not None or repository is None:
        return inside
    from flashrank_lite.models import hub

    return hub.recorded(repository, revision)


def _compare_with_manifest(folder: Path) -> list[str]:
    manifest = parse_manifest(folder)
    there = [variant for variant in manifest.variants if (folder / variant.file).is_file()]
    listed = {
        name: facts
        for variant in there or manifest.variants
        for name, facts in variant.files.items()
    }
    compared = []
    for name, facts in {**listed, **manifest.files}.items():
        check(folder / name, facts, MANIFEST)
        if facts.sha256 is not None:
            compared.append(name)
    return compared
