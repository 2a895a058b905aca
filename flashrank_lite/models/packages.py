"""Models that come with a Python package: the bundled one, and those of installed packages.

A package announces a model by an entry point of the group `flashrank_lite.models`. Its name is what
the model is loaded by; its value is the package (or module) in whose folder the model's files lie,
or a function without arguments that returns the model's folder:

    [project.entry-points."flashrank_lite.models"]
    small = "flashrank_lite_small"
    other = "my_models.places:folder_of_other"

The bundled model is one more of these, but for the entry point: looking through the installed
packages takes some ten milliseconds, which a ranker of the default model need not pay.

Files of a package that lies in a zip file (zipimport, a zipped application) are unpacked once into
the user's cache folder, because onnxruntime and tokenizers read files only.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flashrank_lite import __version__
from flashrank_lite.errors import (
    CacheNotWritable,
    FlashRankLiteError,
    InvalidModel,
    ModelNotFound,
    first_line,
)

if TYPE_CHECKING:
    from importlib.abc import Traversable
    from importlib.metadata import EntryPoint

    from flashrank_lite.models.catalog import Entry

logger = logging.getLogger(__name__)

BUNDLED = "nano"
GROUP = "flashrank_lite.models"
_KEY_LENGTH = 12  # hexadecimal digits of a hash in a folder's name


def bundled_folder() -> Path:
    """The folder of the bundled model.

    Raises:
        ModelNotFound: the installation lacks it.
        CacheNotWritable: it lies in a zip file and cannot be unpacked.
    """
    folder = Path(__file__).with_name(BUNDLED)
    return folder if folder.is_dir() else _unzipped("flashrank_lite.models", BUNDLED)


def installed_folder(name: str) -> tuple[str, Path] | None:
    """The model of this name that an installed package announces, in upper or lower case.

    Returns:
        Its name as announced, and its folder; None if there is no such model.

    Raises:
        InvalidModel: the package cannot be imported, what it announces is no folder, or two
            packages announce different models of this name.
        CacheNotWritable: it lies in a zip file and cannot be unpacked.
    """
    found = [point for point in _announced() if point.name.lower() == name.lower()]
    if len({point.value for point in found}) > 1:
        raise InvalidModel(
            f"two packages announce a model {name!r} ({found[0].value} and {found[1].value}): "
            "uninstall one of them, or pass the folder of the right one"
        )
    return (found[0].name, _folder_of(found[0])) if found else None


def installed_models() -> list[Entry]:
    """The models of installed packages; one that cannot be read is logged and left out."""
    from flashrank_lite.models.catalog import Entry
    from flashrank_lite.models.manifest import read_manifest

    found = []
    for point in _announced():
        try:
            manifest = read_manifest(_folder_of(point), point.name)
        except FlashRankLiteError as error:
            logger.warning("the model %s of an installed package: %s", point.name, error)
            continue
        found.append(
            Entry(
                point.name,
                languages=manifest.languages,
                license=manifest.license,
                max_length=manifest.max_length,
            )
        )
    return found


def _announced() -> list[EntryPoint]:
    from importlib.metadata import entry_points

    return sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value))


def _folder_of(point: EntryPoint) -> Path:
    what = f"the model {point.name!r}, which an installed package announces as {point.value!r},"
    try:
        value: Any = point.load()
        if callable(value):
            folder = Path(value())
        else:
            # a package's folder, or the one that a module lies in
            folder = Path(next(iter(getattr(value, "__path__", ())), value.__file__ or ""))
            folder = folder if hasattr(value, "__path__") else folder.parent
            if not folder.is_dir():
                return _unzipped(value.__name__)
    except FlashRankLiteError:
        raise
    except Exception as error:  # of somebody else's code
        raise InvalidModel(
            f"{what} cannot be found ({type(error).__name__}: {first_line(error)}): install its "
            "package again, or tell its authors"
        ) from error
    if not folder.is_dir():
        raise InvalidModel(f"{what} should lie in {folder}, which is no folder: tell its authors")
    return folder


def _unzipped(package: str, subfolder: str = "") -> Path:
    """The files of a package that is in a zip file, unpacked in the user's cache folder."""
    import shutil
    import tempfile
    from importlib import resources

    files = resources.files(package)
    files = files / subfolder if subfolder else files
    if not files.is_dir():
        raise ModelNotFound(
            f"the bundled model is missing: there is no folder {files}. Install flashrank-lite "
            "again; an application built from it must include the package's data files"
        )
    entries = [entry for entry in files.iterdir() if entry.is_file()]
    folder = _cache_folder() / f"{package}.{subfolder or 'model'}-{_key(files)}"
    if all((folder / entry.name).is_file() for entry in entries):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            unpacked = Path(scratch) / "files"
            unpacked.mkdir()
            for entry in entries:
                with entry.open("rb") as source, (unpacked / entry.name).open("wb") as target:
                    shutil.copyfileobj(source, target)
            if folder.exists():  # somebody cleaned a part of it away
                folder.replace(Path(scratch) / "earlier")
            unpacked.replace(folder)
    except OSError as error:
        if all((folder / entry.name).is_file() for entry in entries):
            return folder  # another process was faster
        variable = "LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME"
        raise CacheNotWritable(
            f"the model lies in a zip file ({files}), and unpacking it to {folder} failed "
            f"({error.strerror or error}): set {variable} to a folder that can be written, or "
            "install flashrank-lite as plain files"
        ) from error
    return folder


def _key(files: Traversable) -> str:
    """What another version of the model would have another of."""
    import hashlib

    manifest = files / "reranker.json"
    content = manifest.read_bytes() if manifest.is_file() else b""
    digest = hashlib.sha256(content, usedforsecurity=False).hexdigest()
    return f"{__version__}-{digest[:_KEY_LENGTH]}"


def _cache_folder() -> Path:
    variable = "LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME"
    stated = os.environ.get(variable)
    return Path(stated or "~/.cache").expanduser() / "flashrank-lite"
