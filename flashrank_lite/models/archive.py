"""FlashRank's models: zip files in one repository, each with a model folder inside.

A zip file is downloaded as any other file. Its folder is unpacked once, beside the record of the
download, with a record of its own.
"""

import shutil
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path

from flashrank_lite.errors import InvalidModel
from flashrank_lite.files import is_inside
from flashrank_lite.models import hub
from flashrank_lite.models.checksums import check, check_size, facts_of
from flashrank_lite.models.folder import ResolvedModel, open_folder
from flashrank_lite.models.graphs import GraphChoice
from flashrank_lite.models.records import IN_FOLDER, Record, not_writable, read_record, unpacked
from flashrank_lite.options import Token

_STARTED = ".unpacking-"


def fetch(
    repository: str,
    archive: str,
    revision: str | None = None,
    file: str | GraphChoice | None = None,
    token: Token = None,
    *,
    name: str | None = None,
    refresh: bool = False,
) -> ResolvedModel:
    """Find or download a zip file of a repository, and unpack it unless it was before.

    Args:
        repository, revision, file, token, name: as for `flashrank_lite.models.hub.fetch`.
        archive: path of the zip file in the repository.
        refresh: also take the newest commit, and unpack it again where it is damaged.

    Raises:
        InvalidModel: it is damaged, or holds no model. Others as `flashrank_lite.models.hub.fetch`.
    """
    files, record = hub.fetch_files(
        repository,
        revision,
        lambda _: [archive],
        token,
        update="always" if refresh else "never",
    )
    folder = unpacked(record, archive)
    kept = read_record(folder / IN_FOLDER)
    if kept is None or (refresh and not _is_whole(folder, kept)):
        try:
            kept = _unpack(files / archive, folder, record)
        except OSError as error:
            raise not_writable(error) from error
    for inside, facts in kept.files.items():
        check_size(folder / inside, facts, "the record of its download")
    return replace(
        open_folder(folder, file, name=name),
        source="hub",
        repository=repository,
        revision=record.commit,
        needed=tuple(kept.files),
    )


def _is_whole(folder: Path, kept: Record) -> bool:
    try:
        return all(check(folder / name, kept.files[name], IN_FOLDER) for name in kept.files)
    except InvalidModel:
        return False


def _unpack(file: Path, folder: Path, record: Record) -> Record:
    """Unpack the one folder that holds a graph, whole or not at all, in place of an earlier one."""
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

    folder.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(folder.parent / f"{folder.name}.lock"):
        kept = read_record(folder / IN_FOLDER)
        if kept is not None and _is_whole(folder, kept):
            return kept  # another process unpacked it in the meantime
        for left in folder.parent.glob(f"{_STARTED}{folder.name}-*"):
            shutil.rmtree(left, ignore_errors=True)  # of a process that was killed
        prefix = f"{_STARTED}{folder.name}-"
        with tempfile.TemporaryDirectory(prefix=prefix, dir=folder.parent) as scratch:
            model = _extract(file, Path(scratch) / "files")
            paths = [path for path in sorted(model.rglob("*")) if path.is_file()]
            facts = {path.relative_to(model).as_posix(): facts_of(path) for path in paths}
            kept = Record(record.repository, record.commit, facts)
            kept.write(model / IN_FOLDER)
            if folder.exists():
                folder.replace(Path(scratch) / "earlier")
            model.replace(folder)
    return kept


def _extract(file: Path, to: Path) -> Path:
    """Extract a zip file; returns the folder that holds its graph."""
    try:
        with zipfile.ZipFile(file) as opened:
            names = [entry.filename for entry in opened.infolist() if not entry.is_dir()]
            wrong = [name for name in names if not is_inside(name)]
            if wrong:
                raise InvalidModel(f"{file} holds {wrong[0]!r}, which lies outside of it")
            opened.extractall(to)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError) as error:
        raise InvalidModel(f"{file} is no zip file that can be read ({error})") from error
    graphs = sorted(path for path in to.rglob("*.onnx") if "__MACOSX" not in path.parts)
    if not graphs:
        raise InvalidModel(f"{file} holds no *.onnx file: it is no model that can be run here")
    return graphs[0].parent
