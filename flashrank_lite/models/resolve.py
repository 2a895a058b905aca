"""What a user calls a model → its folder, its description, and the graph to run.

A name is taken for the first of these that fits:

1. None and "nano" are the bundled model.
2. A path that exists is that folder, whatever else has this name.
3. What looks like a path (a Path, or a str that begins with ".", "~", "/" or a drive, ends with a
   slash, or has a backslash or more than one slash) is a path, and never asked of the Hub.
4. The name of a model that an installed package announces (`packages.py`) is that model.
5. A name of the catalog, or one of its aliases, is what the catalog says.
6. "org/name" is a repository on the Hugging Face Hub.

Nothing of the catalog or of the Hub is imported for the bundled model or for a folder.
"""

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from flashrank_lite.errors import InvalidInput, ModelNotFound
from flashrank_lite.models.folder import ResolvedModel, Source, open_folder
from flashrank_lite.models.graphs import GraphChoice
from flashrank_lite.models.manifest import TOKENIZER
from flashrank_lite.models.packages import BUNDLED, bundled_folder, installed_folder
from flashrank_lite.options import Token

if TYPE_CHECKING:
    from flashrank_lite.models.catalog import Entry

Model = str | os.PathLike[str] | None

# As the Hub names repositories; "--" stands for the slash in its cache
_REPOSITORY = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}", re.ASCII)
_REVISION = re.compile(r"[\w.-]+(/[\w.-]+)*", re.ASCII)
_DRIVE = re.compile(r"[A-Za-z]:")


@dataclass(frozen=True)
class Place:
    """Where a name leads.

    Attributes:
        source: what kind of place it is.
        model: the name that leads here again; None for the bundled model.
        folder: None for a model on the Hub.
        repository: "org/name" of a model on the Hub.
        entry: its entry in the catalog, if it has one.
    """

    source: Source
    model: str | None
    folder: Path | None = None
    repository: str | None = None
    entry: "Entry | None" = None


def resolve(
    model: Model = None,
    *,
    revision: str | None = None,
    file: str | GraphChoice | None = None,
    token: Token = None,
    refresh: bool = False,
) -> ResolvedModel:
    """Find a model and choose its graph; one on the Hub is downloaded unless it was before.

    Args:
        model: None for the bundled model, the path of a folder, the name of an installed model or
            of the catalog, or "org/name".
        revision: of a model on the Hub: a branch, a tag or a commit; None for "main".
        file: the graph to run, as a path inside the folder, or a choice made before, which is kept
            with its reason; None for the best one that this processor runs correctly.
        token: for private repositories.
        refresh: ask the Hub for the newest commit of the revision, and compare checksums.

    Raises:
        ModelNotFound: there is no such folder or model; the message says what was tried.
        InvalidInput: an argument cannot be what it says it is.
        InvalidModel: it cannot be used as a reranker; the message says why.
        ChecksumMismatch: a file has another size than its manifest or its download states.
        AccessDenied, DownloadFailed, CacheNotWritable: as `flashrank_lite.models.hub.fetch`.
    """
    place = find(model, revision)
    if place.folder is not None:
        found = open_folder(place.folder, file)
        return replace(found, source=place.source, model=place.model)
    repository, entry = str(place.repository), place.entry
    name = entry.name if entry is not None else repository
    if entry is not None and entry.archive is not None:
        from flashrank_lite.models import archive

        found = archive.fetch(
            repository, entry.archive, revision, file, token, name=name, refresh=refresh
        )
    else:
        from flashrank_lite.models import hub

        found = hub.fetch(repository, revision, file, token, name=name, refresh=refresh)
    languages = found.languages or (entry.languages if entry is not None else ())
    return replace(found, model=place.model, languages=languages)


def find(model: Model = None, revision: str | None = None) -> Place:
    """Apply the rule for names, without asking the Hub. Arguments and errors: `resolve`."""
    if model is None or model == BUNDLED:
        return _on_disk("bundled", None, bundled_folder(), revision)
    if not isinstance(model, (str, os.PathLike)) or not os.fspath(model):
        raise InvalidInput(f"model must be None, a name, or the path of a folder, not {model!r}")
    path, kind = _check_path(model)
    if kind == "file":
        raise ModelNotFound(
            f"{path} is a file: pass the folder it lies in, which also holds {TOKENIZER}"
        )
    if kind == "folder":
        return _on_disk("folder", str(path.resolve()), path, revision)
    if not isinstance(model, str) or _looks_like_a_path(model):
        raise ModelNotFound(
            f"no model {os.fspath(model)!r}: tried the folder {path}, which does not exist. Pass a "
            "folder with model*.onnx, tokenizer.json and reranker.json or config.json, or no model "
            "at all for the bundled one"
        )
    installed = installed_folder(model) if "/" not in model else None
    if installed is not None:
        return _on_disk("package", *installed, revision)
    from flashrank_lite.models import catalog

    entry = catalog.find(model)
    if entry is not None:
        entry.check_opens()
    repository = entry.repository if entry is not None and entry.repository else model
    if entry is None and not is_repository(model):
        near = catalog.nearest(model)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise ModelNotFound(
            f"no model {model!r}: there is no folder {path}, neither an installed package nor the "
            "catalog has such a name, and a repository on the Hub is called org/name."
            f"{hint} `flashrank-lite models list` shows all names"
        )
    if revision is not None and (".." in revision or not _REVISION.fullmatch(revision)):
        raise InvalidInput(f"revision must be a branch, a tag or a commit, not {revision!r}")
    return Place("hub", model, repository=repository, entry=entry)


def is_repository(name: str) -> bool:
    """Whether a name can be that of a repository on the Hub."""
    odd = ".." in name or "--" in name
    parts_fine = all(part.strip(".-") == part for part in name.split("/"))
    return bool(_REPOSITORY.fullmatch(name)) and not odd and parts_fine


def _check_path(model: str | os.PathLike[str]) -> tuple[Path, Literal["folder", "file"] | None]:
    """The path that a name may mean, and what is there.

    Raises:
        ModelNotFound: the name can only be a path, and one that cannot be checked: there is no
            such home, it is too long, or a folder on the way may not be read.
    """
    path = Path(model)
    try:
        path = path.expanduser().absolute()
        path.stat()
        return path, "folder" if path.is_dir() else "file" if path.is_file() else None
    except (FileNotFoundError, NotADirectoryError):
        return path, None
    except (OSError, RuntimeError, ValueError) as error:
        if isinstance(model, str) and not _looks_like_a_path(model):
            return path, None  # no folder, but it may be a name all the same
        why = error.strerror if isinstance(error, OSError) else None
        raise ModelNotFound(
            f"no model {os.fspath(model)!r:.80}: this path cannot be checked ({why or error}). "
            "Pass the path of a folder, a name that `flashrank-lite models list` shows, or org/name"
        ) from error


def _looks_like_a_path(model: str) -> bool:
    return (
        model.startswith((".", "~", "/"))
        or model.endswith("/")
        or "\\" in model
        or model.count("/") > 1
        or _DRIVE.match(model) is not None
    )


def _on_disk(source: Source, model: str | None, folder: Path, revision: str | None) -> Place:
    if revision is not None:
        raise InvalidInput(
            f"revision={revision!r} is for a repository on the Hub, and {folder} is a folder: "
            "leave it out"
        )
    return Place(source, model, folder)
