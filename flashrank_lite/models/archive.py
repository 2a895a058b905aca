"""FlashRank's models: zip files in one repository, each with a model folder inside.

The zip file is downloaded like any other file; its folder is unpacked beside the record of the
download, with checksums of its own.
"""

import logging
import shutil
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

from flashrank_lite.errors import InvalidModel
from flashrank_lite.models import hub
from flashrank_lite.models.checksums import facts_of
from flashrank_lite.models.client import Client, Token, not_writable
from flashrank_lite.models.paths import is_inside
from flashrank_lite.models.record import IN_FOLDER, Record, read_record

logger = logging.getLogger(__name__)

_STARTED = ".unpacking-"


def fetch_archive(
    repository: str,
    archive: str,
    revision: str | None = None,
    token: Token = None,
    *,
    refresh: bool = False,
) -> tuple[Path, Record]:
    """Find or download a zip file of a repository, and unpack it unless it was before.

    With `refresh`, what was unpacked before is compared with its checksums, and unpacked again
    where it is damaged; without its record it always is.

    Returns:
        The unpacked folder, and the record of its files.

    Raises:
        InvalidModel: it is damaged, or holds no model. Others as `flashrank_lite.models.hub.fetch`.
    """
    file, record = hub.fetch_file(repository, archive, revision, token, refresh=refresh)
    folder = unpacked(record, archive)
    kept = read_record(folder / IN_FOLDER)
    if kept is not None and not refresh:
        kept.check_sizes(folder, kept.files)
        return folder, kept
    with Client(repository).lock():
        kept = read_record(folder / IN_FOLDER)  # another process may have unpacked it meanwhile
        if kept is None or (refresh and _is_damaged(folder, kept)):
            try:
                kept = _unpack(file, folder, record)
            except OSError as error:
                raise not_writable(error) from error
    return folder, kept


def unpacked(record: Record, archive: str) -> Path:
    """Where a zip file of a repository is unpacked."""
    name = PurePosixPath(archive).stem
    return Client(record.repository).folder / "flashrank-lite" / f"{record.commit}-{name}"


def _is_damaged(folder: Path, kept: Record) -> bool:
    try:
        kept.verify(folder)
    except InvalidModel as error:
        logger.warning("%s: it is unpacked again", error)
        return True
    return False


def _unpack(file: Path, folder: Path, record: Record) -> Record:
    """Unpack the one folder that holds a graph, whole or not at all, in place of an earlier one."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    # of a process that was killed: the lock is ours
    for left in folder.parent.glob(f"{_STARTED}*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_STARTED, dir=folder.parent) as scratch:
        inside = Path(scratch) / "files"
        try:
            with zipfile.ZipFile(file) as opened:
                names = [entry.filename for entry in opened.infolist() if not entry.is_dir()]
                wrong = [name for name in names if not is_inside(name)]
                if wrong:
                    raise InvalidModel(f"{file} holds {wrong[0]!r}, which lies outside of it")
                opened.extractall(inside)
        except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError) as error:
            raise InvalidModel(f"{file} is no zip file that can be read ({error})") from error
        graphs = sorted(path for path in inside.rglob("*.onnx") if "__MACOSX" not in path.parts)
        if not graphs:
            raise InvalidModel(f"{file} holds no *.onnx file: it is no model that can be run here")
        model = graphs[0].parent
        files = {path.relative_to(model).as_posix(): path for path in model.rglob("*")}
        facts = {name: facts_of(path) for name, path in sorted(files.items()) if path.is_file()}
        kept = Record(record.repository, record.revision, record.commit, files=facts)
        kept.write(model / IN_FOLDER)
        if folder.exists():
            folder.replace(Path(scratch) / "earlier")
        model.replace(folder)
        return kept
