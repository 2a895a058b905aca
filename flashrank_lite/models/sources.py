"""What a user calls a model → a folder on disk, and the graph in it.

The one rule for a name that could mean several things:

1. None and "nano" are the bundled model.
2. A path that exists is that folder, whatever else has this name.
3. What looks like a path (a Path, or a str that begins with ".", "~", "/" or a drive, ends with a
   slash, or has a backslash or more than one slash) is a path, and never asked of the Hub.
4. A name of the catalog, or one of its aliases, is what the catalog says.
5. "org/name" is a repository on the Hugging Face Hub.

Nothing of the catalog or of the Hub is imported for the bundled model or for a folder.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from flashrank_lite.errors import InvalidInput, ModelNotFound

BUNDLED = "nano"
# As the Hub names repositories; "--" stands for the slash in its cache
_REPOSITORY = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}", re.ASCII)
_REVISION = re.compile(r"[\w.-]+(/[\w.-]+)*", re.ASCII)
_DRIVE = re.compile(r"[A-Za-z]:")

Model = str | os.PathLike[str] | None
Token = str | bool | None


@dataclass(frozen=True)
class Located:
    """A model on disk.

    Attributes:
        folder: holds its files.
        source: "bundled", "folder" or "hub".
        file: the graph to run; None for the best one of the folder.
        reason: why that graph, where it was chosen from more than what is in the folder.
        model: what finds it again.
        name: what the model is called, where its files do not say it.
        repository: "org/name", if it is from the Hub.
        revision: the commit, if it is from the Hub.
        languages: what it understands, where its files do not say it.
        needed: the files that it takes, as paths inside the folder, if it is from the Hub.
    """

    folder: Path
    source: str
    file: str | None = None
    reason: str | None = None
    model: str | None = None
    name: str | None = None
    repository: str | None = None
    revision: str | None = None
    languages: tuple[str, ...] = ()
    needed: tuple[str, ...] = ()


def bundled_folder() -> Path:
    """The folder of the model inside the package."""
    return Path(__file__).parent / BUNDLED


def locate(
    model: Model = None,
    *,
    revision: str | None = None,
    file: str | None = None,
    token: Token = None,
    refresh: bool = False,
) -> Located:
    """Find a model's folder; one on the Hub is downloaded unless it was before.

    Args:
        model: None for the bundled model, the path of a folder, a name of the catalog, or
            "org/name".
        revision: of a model on the Hub: a branch, a tag or a commit; None for "main".
        file: the graph to run, as a path inside the folder; None for the best one.
        token: for private repositories.
        refresh: ask the Hub for the newest commit of the revision, and compare checksums.

    Raises:
        ModelNotFound: there is no such folder or model; the message says what was tried.
        InvalidInput: an argument cannot be what it says it is.
        AccessDenied, DownloadFailed, CacheNotWritable, InvalidModel: as
            `flashrank_lite.models.hub.fetch`.
    """
    if model is None or model == BUNDLED:
        folder = _existing(bundled_folder(), "the bundled model is gone: install the package again")
        return _local(folder, "bundled", revision, file)
    if not isinstance(model, (str, os.PathLike)) or not os.fspath(model):
        raise InvalidInput(f"model must be None, a name, or the path of a folder, not {model!r}")
    path = Path(model).expanduser().absolute()
    if path.is_file():
        raise ModelNotFound(
            f"{path} is a file: pass the folder it lies in, which also holds tokenizer.json"
        )
    if path.is_dir():
        return _local(path, "folder", revision, file)
    if not isinstance(model, str) or _looks_like_a_path(model):
        raise ModelNotFound(
            f"no model {os.fspath(model)!r}: tried the folder {path}, which does not exist. Pass a "
            "folder with model*.onnx, tokenizer.json and reranker.json or config.json, or no model "
            "at all for the bundled one"
        )
    return _from_hub(model, path, revision, file, token, refresh)


def _from_hub(
    model: str, path: Path, revision: str | None, file: str | None, token: Token, refresh: bool
) -> Located:
    from flashrank_lite.models import catalog

    entry = catalog.find(model)
    repository = entry.repository if entry is not None and entry.repository else model
    if entry is None and not is_repository(model):
        near = catalog.nearest(model)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise ModelNotFound(
            f"no model {model!r}: there is no folder {path}, the catalog has no such name, and a "
            f"repository on the Hub is called org/name.{hint} `flashrank-lite models list` shows "
            "all names"
        )
    if revision is not None and (".." in revision or not _REVISION.fullmatch(revision)):
        raise InvalidInput(f"revision must be a branch, a tag or a commit, not {revision!r}")
    if entry is not None and entry.archive is not None:
        from flashrank_lite.models.archive import fetch_archive

        folder, record = fetch_archive(repository, entry.archive, revision, token, refresh=refresh)
        origin = (repository, record.commit, entry.languages, tuple(record.files))
        return Located(folder, "hub", file, None, model, entry.name, *origin)
    from flashrank_lite.models import hub

    fetched = hub.fetch(repository, revision, file, token, refresh=refresh)
    return Located(
        fetched.folder,
        "hub",
        fetched.choice.file,
        fetched.choice.reason,
        model,
        entry.name if entry is not None else model,
        repository,
        fetched.record.commit,
        entry.languages if entry is not None else (),
        fetched.needed,
    )


def is_repository(name: str) -> bool:
    """Whether a name can be that of a repository on the Hub."""
    odd = ".." in name or "--" in name
    parts_fine = all(part.strip(".-") == part for part in name.split("/"))
    return bool(_REPOSITORY.fullmatch(name)) and not odd and parts_fine


def _looks_like_a_path(model: str) -> bool:
    return (
        model.startswith((".", "~", "/"))
        or model.endswith("/")
        or "\\" in model
        or model.count("/") > 1
        or _DRIVE.match(model) is not None
    )


def _local(folder: Path, source: str, revision: str | None, file: str | None) -> Located:
    if revision is not None:
        raise InvalidInput(
            f"revision={revision!r} is of a repository on the Hub, and {folder} is a folder: leave "
            "it out"
        )
    return Located(folder, source, file)


def _existing(folder: Path, otherwise: str) -> Path:
    if not folder.is_dir():
        raise ModelNotFound(otherwise)
    return folder
