"""Models that come with a Python package: the bundled one, and those of installed packages.

A package announces a model by an entry point of the group `flashrank_lite.models`. Its name is what
the model is loaded by; its value is the package in whose folder the model's files lie, or a
function without arguments that returns the folder:

    [project.entry-points."flashrank_lite.models"]
    small = "flashrank_lite_small"
    other = "my_models.places:folder_of_other"

The bundled model is one more of these, but for the entry point: to look through 76 installed
packages takes 44 ms of processor time, which a ranker of the default model need not pay.

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
from flashrank_lite.models.manifest import MANIFEST, read_manifest

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from flashrank_lite.models.catalog import Entry

logger = logging.getLogger(__name__)

BUNDLED = "nano"
GROUP = "flashrank_lite.models"
_CACHE_VARIABLE = "LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME"
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
        folder = Path(value() if callable(value) else value.__file__)
        if not callable(value):
            folder = folder.parent
    except Exception as error:  # of somebody else's code
        raise InvalidModel(
            f"{what} cannot be found ({type(error).__name__}: {first_line(error)}): install its "
            "package again, or tell its authors"
        ) from error
    if folder.is_dir():
        return folder
    if callable(value):
        raise InvalidModel(f"{what} should lie in {folder}, which is no folder: tell its authors")
    return _unzipped(point.module)


def _unzipped(package: str, subfolder: str = "") -> Path:
    """The files of a package that is in a zip file, unpacked in the user's cache folder."""
    import hashlib
    import shutil
    import tempfile
    from importlib import resources

    files = resources.files(package) / subfolder
    if not files.is_dir():
        raise ModelNotFound(
            f"the bundled model is missing: there is no folder {files}. Install flashrank-lite "
            "again; an application built from it must include the package's data files"
        )
    entries = [entry for entry in files.iterdir() if entry.is_file()]
    cache = Path(os.environ.get(_CACHE_VARIABLE) or "~/.cache").expanduser() / "flashrank-lite"
    manifest = files / MANIFEST  # it holds the checksums of the other files
    key = hashlib.sha256(manifest.read_bytes() if manifest.is_file() else b"").hexdigest()
    name = f"{package}.{subfolder}" if subfolder else package
    folder = cache / f"{name}-{__version__}-{key[:_KEY_LENGTH]}"
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
        raise CacheNotWritable(
            f"the model lies in a zip file ({files}), and unpacking it to {folder} failed "
            f"({error.strerror or error}): set {_CACHE_VARIABLE} to a folder that can be written, "
            "or install the package as plain files"
        ) from error
    return folder
