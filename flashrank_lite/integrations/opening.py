"""What drop-ins and adapters share: how a ranker is opened, and what a missing package says."""

import os
from collections.abc import Mapping
from importlib import import_module
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from flashrank_lite.arguments import positive
from flashrank_lite.errors import InvalidInput, MissingExtra
from flashrank_lite.models.manifest import TOKENIZER
from flashrank_lite.ranker import Ranker

if TYPE_CHECKING:
    from tokenizers import Tokenizer

ModelName = str | os.PathLike[str] | None
Options = Mapping[str, Any]  # arguments of `Ranker` by name


def need(package: str, extra: str) -> ModuleType:
    """The package, imported.

    Args:
        package: the module's name, with dots.
        extra: the extra of flashrank-lite that installs it.

    Raises:
        MissingExtra: it is not installed; the message names the extra.
    """
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package.partition(".")[0]:
            raise  # it is installed, and lacks something of its own
        raise MissingExtra(f"{package} is not installed", extra) from error


def check_options(options: Options | None) -> dict[str, Any]:
    """The options, which frameworks write to disk, print and send to other machines.

    Raises:
        InvalidInput: one is not an argument of `Ranker`, or holds a secret.
    """
    options = dict(options or {})
    if isinstance(options.get("token"), str):
        raise InvalidInput(
            "options hold a token, and are written out with the rest of the settings: set HF_TOKEN "
            "instead, or log in with `hf auth login`"
        )
    known = set(signature(Ranker).parameters) - {"model", "scorer"}
    unknown = sorted(options.keys() - known)
    if unknown:
        raise InvalidInput(
            f"options has {unknown}, which are no arguments of flashrank_lite.Ranker: those are "
            f"{sorted(known)}"
        )
    return options


def open_ranker(model: ModelName, options: Options | None, **arguments: Any) -> Ranker:
    """A ranker from settings.

    Args:
        model: as for `Ranker`.
        options: further arguments of `Ranker`, which win over `arguments`.
        **arguments: defaults of the caller.

    Raises:
        InvalidInput: as `check_options` raises it.
        FlashRankLiteError: as `Ranker` raises it.
    """
    return Ranker(model, **{**arguments, **check_options(options)})


def open_within(model: ModelName, max_length: int | None, **arguments: Any) -> Ranker:
    """A ranker as peers have one: of a pair it reads the first `max_length` tokens, and no more.

    `Ranker` refuses a length beyond what its model can take; peers take the smaller of both.

    Args:
        model: as for `Ranker`.
        max_length: tokens, special ones included; None for what the model says.
        **arguments: further ones of `Ranker`; `long="windows"` reads passages whole.
    """
    positive("max_length", max_length)
    arguments.setdefault("long", "truncate")
    ranker = Ranker(model, **arguments)
    if max_length is None or ranker.info()["max_length"] <= max_length:
        return ranker
    ranker.close()
    return Ranker(model, max_length=max_length, **arguments)


def tokenizer_of(ranker: Ranker) -> "Tokenizer":
    """The tokenizer of a ranker's model, which neither cuts nor pads."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(Path(ranker.info()["path"]) / TOKENIZER))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
