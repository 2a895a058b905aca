"""A model from the Hub → a plain folder, to bake into an image or a Lambda layer."""

from pathlib import Path

from flashrank_lite.errors import CacheNotWritable, InvalidInput
from flashrank_lite.files import copy_whole
from flashrank_lite.models.checksums import Facts, facts_of
from flashrank_lite.models.folder import ResolvedModel
from flashrank_lite.models.records import IN_FOLDER, Record, read_record


def write_folder(model: ResolvedModel, to: Path) -> None:
    """Copy what a model takes into a folder that `Ranker(to)` loads, without a cache or network.

    The files are copies, not links. The folder gets its record last, so that a copy which was
    broken off is not taken for whole when it is pulled again.

    Args:
        model: a model from the Hub.
        to: a new or empty folder, or one that an earlier pull made, which is replaced.

    Raises:
        InvalidInput: the folder holds something else, or the model is not from the Hub.
        CacheNotWritable: the folder cannot be written.
    """
    if model.repository is None or model.revision is None or not model.needed:
        raise InvalidInput(f"{model.folder} is a folder already: copy it, there is no download")
    try:
        _clear(to)
        files: dict[str, Facts] = {}
        for name in model.needed:
            copy_whole(model.folder / name, to / name)
            files[name] = facts_of(to / name)
        Record(model.repository, model.revision, files).write(to / IN_FOLDER)
    except OSError as error:
        raise CacheNotWritable(
            f"{to} cannot be written ({error.strerror or error}): name another folder with --to"
        ) from error


def _clear(to: Path) -> None:
    """Remove what an earlier pull wrote; refuse a folder that holds anything else."""
    if not to.exists():
        return
    before = read_record(to / IN_FOLDER) if to.is_dir() else None
    if before is None and (not to.is_dir() or any(to.iterdir())):
        raise InvalidInput(
            f"{to} exists and is not what an earlier pull made: name a new or empty folder"
        )
    (to / IN_FOLDER).unlink(missing_ok=True)
    for name in before.files if before is not None else ():
        (to / name).unlink(missing_ok=True)
