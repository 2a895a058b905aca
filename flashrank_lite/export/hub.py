"""Checkpoints from the Hugging Face Hub, and exported folders to it.

Names, errors and the cache are those of `flashrank_lite.models`; this module only
decides which files make up a checkpoint.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from flashrank_lite.errors import InvalidInput, InvalidModel, ModelNotFound, first_line
from flashrank_lite.models import catalog
from flashrank_lite.models.hub import fetch_files
from flashrank_lite.models.resolve import is_repository

# What transformers reads. Pickled weights only where there are no others; code is never fetched.
_SMALL = (
    "*.json",
    "*.txt",
    "*.model",
    "*.jinja",
    "README.md",
    "LICEN[CS]E*",
    "NOTICE*",
    "COPYING*",
)
_UNWANTED = ("onnx/*", "openvino/*", "training_args*")


def fetch(model: str | os.PathLike[str], revision: str | None = None) -> tuple[Path, str | None]:
    """The folder of a checkpoint, downloaded where it is a Hub repository.

    Args:
        model: a folder, a name of the catalog, or "owner/name".
        revision: branch, tag or commit of the repository.

    Returns:
        The folder, and "owner/name@commit" for a repository.

    Raises:
        ModelNotFound: it is none of those, or the Hub has no such repository or revision.
        AccessDenied, DownloadFailed, CacheNotWritable, ChecksumMismatch: as
            `flashrank_lite.models.hub.fetch`.
        InvalidModel: the repository holds no weights that can be read.
        InvalidInput: a revision of a folder was asked for.
    """
    folder = Path(model).expanduser()
    if folder.exists():
        if revision is not None:
            raise InvalidInput(f"{folder} is on disk and has no revisions: leave --revision out")
        return folder, None
    name = os.fspath(model)
    entry = catalog.find(name)
    if entry is not None and (entry.repository is None or entry.archive is not None):
        raise InvalidModel(f'{name} is ONNX already: load it with Ranker("{entry.name}")')
    if entry is not None:
        entry.check_opens()
    repository = name if entry is None or entry.repository is None else entry.repository
    if not is_repository(repository):
        near = catalog.nearest(name)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise ModelNotFound(
            f"{name} is not a folder, not a name of the catalog, and not the name of a Hub "
            f"repository (owner/name): correct it.{hint}"
        )
    found, record = fetch_files(
        repository, revision, lambda listing: _checkpoint(repository, listing)
    )
    return found, f"{repository}@{record.commit}"


def _checkpoint(repository: str, names: Iterable[str]) -> list[str]:
    """The files of a checkpoint among those of a repository.

    Raises:
        InvalidModel: there are no weights among them.
    """
    names = [name for name in names if not _fits(name, _UNWANTED)]
    tensors = [name for name in names if name.endswith(".safetensors")]
    covered = {PurePosixPath(name).parent for name in tensors}
    pickled = [
        name
        for name in names
        if name.endswith(".bin") and PurePosixPath(name).parent not in covered
    ]
    if not tensors and not pickled:
        raise InvalidModel(
            f"{repository} holds no weights (*.safetensors or *.bin): name the repository of the "
            "checkpoint itself"
        )
    return [*(name for name in names if _fits(name, _SMALL)), *tensors, *pickled]


def _fits(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def push(folder: Path, repository: str) -> str:
    """Upload an exported folder, as one commit; the repository is made where there is none.

    Returns:
        The address of the commit.

    Raises:
        InvalidInput: the Hub refuses it; the message says why.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi()
    try:
        api.create_repo(repository, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message="Export to ONNX by flashrank-lite",
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        line = first_line(error)
        raise InvalidInput(
            f"{folder} was written, but the Hub did not take it as {repository} ({line}): set "
            "HF_TOKEN to a token that may write there, and push the folder again"
        ) from error
    return str(commit.commit_url)
