"""Settings out of flags, variables and a file: flags win over variables, those over the file."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from flashrank_lite.errors import InvalidInput, first_line
from flashrank_lite.server import config_file
from flashrank_lite.server.settings import ModelSpec, Settings, kinds

VARIABLE_PREFIX = "FLASHRANK_LITE_"
# how one value of several is called, by flags and by variables
_SINGULAR = {
    "models": "model",
    "aliases": "alias",
    "api_keys": "api_key",
    "cors_origins": "cors_origin",
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare a flag for each setting, and `--config`."""
    parser.add_argument(
        "--config", metavar="FILE", help="settings in YAML or TOML; flags and variables win"
    )
    known = kinds()
    for one in fields(Settings):
        kind, words = known[one.name], one.metadata
        flag = "--" + _SINGULAR.get(one.name, one.name).replace("_", "-")
        options: dict[str, Any] = {"dest": one.name, "default": None, "help": _help(one)}
        if one.type == "bool" and one.default:
            flag = flag.replace("--", "--no-", 1)
            parser.add_argument(flag, action="store_false", **options)
        elif one.type == "bool":
            parser.add_argument(flag, action="store_true", **options)
        else:
            action = "append" if kind.several else "store"
            parser.add_argument(flag, metavar=words["metavar"], action=action, **options)


def resolve(
    flags: Mapping[str, Any], environment: Mapping[str, str], config: str | None = None
) -> Settings:
    """The settings to serve with.

    Args:
        flags: by the setting's name, as typed: text, lists of text or bools; None for not said.
        environment: variables.
        config: path of a file; None for FLASHRANK_LITE_CONFIG, or none.

    Raises:
        InvalidInput: a value cannot be what it is said to be; the message names flag, variable or
            line.
        MissingExtra: the file needs a library that is not installed.
    """
    values: dict[str, Any] = {}
    config = config or environment.get(VARIABLE_PREFIX + "CONFIG")
    if config:
        known = kinds()
        for entry in config_file.read(Path(config)):
            name = entry.name.replace("-", "_")
            if name not in known:
                raise InvalidInput(
                    f"{entry.where}: there is no setting {entry.name!r}; there are "
                    f"{', '.join(sorted(known))}"
                )
            values[name] = _of_file(name, entry)
    for one in fields(Settings):
        variable = VARIABLE_PREFIX + _SINGULAR.get(one.name, one.name).upper()
        if environment.get(variable):
            values[one.name] = _of_text(one.name, environment[variable], variable)
    for name, value in flags.items():
        if value is not None:
            shown = "--" + _SINGULAR.get(name, name).replace("_", "-")
            values[name] = _of_text(name, value, shown)
    return Settings(**_with_key_file(values))


def _help(one: Any) -> str:
    words = str(one.metadata["help"])
    if one.default in (None, False, True) or not isinstance(one.default, (int, float, str)):
        return words
    return (
        f"{words} (default: {one.default:g})"
        if one.type == "float"
        else (f"{words} (default: {one.default})")
    )


def _of_text(name: str, value: Any, where: str) -> Any:
    """A flag or a variable: text, several parted by commas in a variable."""
    kind = kinds()[name]
    if isinstance(value, bool):
        return value
    if not kind.several:
        return _read(name, str(value), where)
    texts = value if isinstance(value, list) else [part for part in str(value).split(",") if part]
    return _several(name, [_read(name, text.strip(), where) for text in texts])


def _of_file(name: str, entry: config_file.Entry) -> Any:
    kind, value = kinds()[name], entry.value
    if not kind.several:
        if isinstance(value, bool) and kind.wanted != "true or false":
            raise InvalidInput(f"{entry.where}: {name} has to be {kind.wanted}")
        if not isinstance(value, (str, int, float)):
            raise InvalidInput(f"{entry.where}: {name} has to be {kind.wanted}, one value")
        return _read(name, str(value), entry.where)
    if isinstance(value, Mapping):  # names to models
        parts: list[Any] = [f"{key}={item}" for key, item in value.items()]
    else:
        parts = value if isinstance(value, list) else [value]
    read = [
        part if isinstance(part, ModelSpec) else _read(name, str(part), entry.where)
        for part in parts
    ]
    return _several(name, read)


def _several(name: str, values: list[Any]) -> Any:
    return dict(values) if name == "aliases" else tuple(values)


def _read(name: str, text: str, where: str) -> Any:
    kind = kinds()[name]
    try:
        return kind.read(text)
    except ValueError as error:
        if isinstance(error, InvalidInput):
            raise InvalidInput(f"{where}: {error}") from error
        shown = "" if name in ("api_keys", "api_key_file") else f", not {text!r}"
        raise InvalidInput(f"{where} has to be {kind.wanted}{shown}") from error


def _with_key_file(values: dict[str, Any]) -> dict[str, Any]:
    path = values.get("api_key_file")
    if not path:
        return values
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise InvalidInput(f"cannot read the file of keys {path}: {first_line(error)}") from error
    keys = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not keys:
        raise InvalidInput(f"the file of keys {path} holds none: write one on each line")
    return {**values, "api_keys": (*values.get("api_keys", ()), *keys)}
