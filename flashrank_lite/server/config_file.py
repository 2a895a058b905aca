"""A YAML or TOML file of settings → values with the lines they stand on, for errors that say where.

Metarank's file is understood too: of it, the block `inference:` names the models, and the blocks
that configure Metarank's own ranking are left alone.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flashrank_lite.errors import InvalidInput, MissingExtra, first_line
from flashrank_lite.server.settings import ModelSpec

METARANK_BLOCKS = frozenset({"api", "core", "features", "models", "source", "state", "train"})
_CROSS_ENCODER_KEYS = {"type", "model", "modelFile", "tokenizerFile", "vocabFile", "cache", "dim"}


@dataclass(frozen=True)
class Entry:
    """A value of a file, and where it stands: `serve.yaml, line 3`."""

    name: str
    value: Any
    where: str


def read(path: Path) -> list[Entry]:
    """The top-level entries of a file, Metarank's block as `models`.

    Raises:
        InvalidInput: the file cannot be read, or is not a mapping; with the line.
        MissingExtra: PyYAML is missing, or tomli on Python 3.10.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeError) as error:
        raise InvalidInput(f"cannot read the configuration {path}: {first_line(error)}") from error
    toml = path.suffix.lower() == ".toml"
    values, lines = _toml(text, path) if toml else _yaml(text, path)

    def where(name: str) -> str:
        return f"{path}, line {lines[name]}" if name in lines else str(path)

    if "inference" not in values:
        return [Entry(name, value, where(name)) for name, value in values.items()]
    entries = [
        Entry(name, value, where(name))
        for name, value in values.items()
        if name != "inference" and not (name in METARANK_BLOCKS and isinstance(value, (dict, list)))
    ]
    return [*entries, Entry("models", _metarank(values["inference"], where), where("inference"))]


def _metarank(block: Any, where: Any) -> list[ModelSpec]:
    if not isinstance(block, Mapping) or not block:
        raise InvalidInput(
            f"{where('inference')}: inference has to name models, each with type: cross-encoder "
            "and model: a name, a repository or a folder"
        )
    return [_metarank_model(str(name), entry, where) for name, entry in block.items()]


def _metarank_model(name: str, entry: Any, where: Any) -> ModelSpec:
    here = where(f"inference.{name}")
    if not isinstance(entry, Mapping) or not isinstance(entry.get("model"), str):
        raise InvalidInput(f"{here}: the model {name!r} needs model: a name, repository or folder")
    if entry.get("type") != "cross-encoder":
        raise InvalidInput(
            f"{here}: the model {name!r} is of type {entry.get('type')!r}; this server runs "
            "type: cross-encoder. Take the others out of the file"
        )
    unknown = sorted(str(key) for key in entry.keys() - _CROSS_ENCODER_KEYS)
    if unknown:
        raise InvalidInput(f"{here}: the model {name!r} has no setting {unknown[0]!r}")
    file = entry.get("modelFile")
    return ModelSpec(name, entry["model"].removeprefix("file://"), str(file) if file else None)


def _yaml(text: str, path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    try:
        import yaml
    except ImportError as error:
        raise MissingExtra(
            f"{path} is YAML, which needs PyYAML; write it as TOML, or install it", "server"
        ) from error
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return {}, {}
        if not isinstance(node, yaml.MappingNode):
            raise InvalidInput(f"{path}, line 1: settings are written as name: value")
        lines: dict[str, int] = {}
        for key, value in node.value:
            lines[str(key.value)] = key.start_mark.line + 1
            if isinstance(value, yaml.MappingNode):
                for inner, _ in value.value:
                    lines[f"{key.value}.{inner.value}"] = inner.start_mark.line + 1
        return {str(key): value for key, value in loader.construct_document(node).items()}, lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f", line {mark.line + 1}" if mark is not None else ""
        raise InvalidInput(f"{path}{line}: not YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise InvalidInput(f"{path}: not YAML: {first_line(error)}") from error
    finally:
        loader.dispose()


def _toml(text: str, path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    try:
        import tomllib
    except ImportError:  # Python 3.10
        try:
            import tomli as tomllib
        except ImportError as error:
            raise MissingExtra(f"{path} is TOML, which needs tomli", "server") from error
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:  # its message ends with the line
        raise InvalidInput(f"{path}: not TOML: {error}") from error
    lines: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        table = re.match(r"\s*\[\[?\s*([\w.\"'-]+)\s*\]", line)
        key = re.match(r"\s*([\w\"'-]+)\s*=", line)
        found = table or key
        if found:
            name = found[1].replace('"', "").replace("'", "")
            lines.setdefault(name, number)
            lines.setdefault(name.partition(".")[0], number)
    return values, lines
