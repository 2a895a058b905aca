"""A model's name or path → a folder on disk."""

import os
from pathlib import Path

from flashrank_lite.errors import InvalidInput, ModelNotFound

BUNDLED = "nano"


def bundled_folder() -> Path:
    """The folder of the model inside the package."""
    return Path(__file__).parent / BUNDLED


def locate(model: str | os.PathLike[str] | None = None) -> Path:
    """Find the folder of a model.

    Args:
        model: None for the bundled model, or the path of a folder.

    Raises:
        ModelNotFound: there is no such folder; the message names every place that was tried.
        InvalidInput: `model` is neither None nor a path.
    """
    if model is None:
        return _existing(bundled_folder(), "the bundled model is gone: install the package again")
    if not isinstance(model, (str, os.PathLike)) or not os.fspath(model):
        raise InvalidInput(f"model must be None or the path of a folder, not {model!r}")
    path = Path(model).expanduser().absolute()
    if path.is_file():
        raise ModelNotFound(
            f"{path} is a file: pass the folder it lies in, which also holds tokenizer.json"
        )
    return _existing(
        path,
        f"no model {os.fspath(model)!r}: tried the folder {path}, which does not exist. Pass a "
        "folder with model*.onnx, tokenizer.json and reranker.json or config.json, or no model at "
        "all for the bundled one",
    )


def _existing(folder: Path, otherwise: str) -> Path:
    if not folder.is_dir():
        raise ModelNotFound(otherwise)
    return folder
