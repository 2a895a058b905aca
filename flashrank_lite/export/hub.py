"""Checkpoints from the Hugging Face Hub, and exported folders to it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from flashrank_lite.errors import InvalidInput, ModelNotFound

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# What transformers reads. Pickled weights only where there are no others; code is never fetched.
_SMALL = [
    "*.json",
    "*.txt",
    "*.model",
    "*.jinja",
    "README.md",
    "LICEN[CS]E*",
    "NOTICE*",
    "COPYING*",
]
_UNWANTED = ["onnx/*", "openvino/*", "*.onnx", "*.gguf", "*.h5", "*.msgpack", "training_args*"]


def fetch(model: str | os.PathLike[str], revision: str | None = None) -> tuple[Path, str | None]:
    """The folder of a checkpoint, downloaded where it is a Hub repository.

    Args:
        model: a folder, or "owner/name".
        revision: branch, tag or commit of the repository.

    Returns:
        The folder, and "owner/name@commit" for a repository.

    Raises:
        ModelNotFound: it is neither, or the Hub cannot or will not give it.
        InvalidInput: a revision of a folder was asked for.
    """
    folder = Path(model).expanduser()
    if folder.exists():
        if revision is not None:
            raise InvalidInput(f"{folder} is on disk and has no revisions: leave --revision out")
        return folder, None
    name = os.fspath(model)
    if not _REPOSITORY.fullmatch(name) or ".." in name:
        raise ModelNotFound(
            f"{name} is not a folder, and not the name of a Hub repository (owner/name): correct it"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        found = snapshot_download(
            name,
            revision=revision,
            allow_patterns=[*_SMALL, "*.safetensors"],
            ignore_patterns=_UNWANTED,
        )
        if not any(Path(found).rglob("*.safetensors")):
            found = snapshot_download(
                name,
                revision=revision,
                allow_patterns=["*.bin"],
                ignore_patterns=_UNWANTED,
            )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        at = f" at revision {revision}" if revision else ""
        raise ModelNotFound(
            f"the Hub did not give {name}{at} ({line}): check the name and the revision, "
            "set HF_TOKEN for a private repository, or pass a folder"
        ) from error
    return Path(found), f"{name}@{Path(found).name}"


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
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InvalidInput(
            f"{folder} was written, but the Hub did not take it as {repository} ({line}): set "
            "HF_TOKEN to a token that may write there, and push the folder again"
        ) from error
    return str(commit.commit_url)
