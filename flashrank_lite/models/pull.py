"""A model from the Hub → a plain folder, to bake into an image or a Lambda layer."""

import os
import shutil
from pathlib import Path

from flashrank_lite.errors import CacheNotWritable, InvalidInput
from flashrank_lite.models.record import IN_FOLDER, Record, read_record
from flashrank_lite.models.sources import Located
from flashrank_lite.models.verification import find_record


def write_folder(located: Located, to: Path) -> None:
    """Copy what a model takes into a folder that `Ranker(to)` loads, without a cache or network.

    The files are copies, not links. The folder gets its record last, so that one which was broken
    off is not taken for whole when it is pulled again.

    Args:
        located: a model from the Hub.
        to: a new or empty folder, or one that an earlier pull made, which is replaced.

    Raises:
        InvalidInput: the folder holds something else, or the model is not from the Hub.
        CacheNotWritable: the folder cannot be written.
    """
    record = find_record(located.folder, located.repository, located.revision)
    if record is None or not located.needed:
        raise InvalidInput(f"{located.folder} is a folder already: copy it, there is no download")
    try:
        _write(located, record, to)
    except OSError as error:
        raise CacheNotWritable(
            f"{to} cannot be written ({error.strerror or error}): name another folder with --to"
        ) from error


def _write(located: Located, record: Record, to: Path) -> None:
    if to.exists():
        before = read_record(to / IN_FOLDER) if to.is_dir() else None
        if before is None and (not to.is_dir() or any(to.iterdir())):
            raise InvalidInput(
                f"{to} exists and is not what an earlier pull made: name a new or empty folder"
            )
        (to / IN_FOLDER).unlink(missing_ok=True)
        for name in before.files if before is not None else ():
            (to / name).unlink(missing_ok=True)
    for name in located.needed:
        file = to / name
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f"{file.name}.partial")
        shutil.copyfile(located.folder / name, partial)
        os.replace(partial, file)
    facts = {name: record.files[name] for name in located.needed}
    kept = Record(record.repository, record.revision, record.commit, files=facts)
    kept.write(to / IN_FOLDER)
