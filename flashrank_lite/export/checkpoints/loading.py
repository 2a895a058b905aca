"""Reads a checkpoint folder with transformers: never code of its own, never pickled objects.

The tokenizer is the one that transformers builds from all files of the folder, not tokenizer.json
as it stands: where the two disagree, scores of the library come from the former.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import normalizers
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoConfig,
    AutoModel,
    AutoTokenizer,
)
from transformers.utils import logging as transformers_logging

from flashrank_lite.errors import InvalidModel, first_line
from flashrank_lite.export.memory import check_room
from flashrank_lite.export.source import Source
from flashrank_lite.models.config import position_limit, stated_length
from flashrank_lite.models.manifest import DEFAULT_LENGTH, TOKENIZER, read_json

Json = dict[str, Any]

MODULES = "modules.json"  # sentence-transformers'
# The names under which sentence-transformers has saved the settings of its Transformer module.
_SETTINGS = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)
# Arguments of a saved module that say where to load from: these are the exporter's own.
_WHERE = frozenset({"trust_remote_code", "local_files_only", "cache_dir", "revision", "token"})


@dataclass(frozen=True)
class Checkpoint:
    """A folder with its small files read.

    Attributes:
        folder: where it lies.
        name: of the model.
        stated: config.json as it stands.
        config: the same for transformers, its defaults filled in.
        tokenizer: path of a tokenizer.json, as transformers builds it.
        library_tokenizer: the same as an object of transformers, for its chat template.
        tokenizer_config: tokenizer_config.json, empty where there is none.
        settings: those of sentence-transformers' Transformer module, empty in other folders.
        relevant: the name of the relevant class, where the caller gave one.
        held: what must live as long as `tokenizer` is read.
    """

    folder: Path
    name: str
    stated: Json
    config: Any
    tokenizer: Path
    library_tokenizer: Any
    tokenizer_config: Json
    settings: Json
    relevant: str | None = None
    held: object = None

    @property
    def architecture(self) -> str:
        """The class that the weights were saved from; empty if config.json does not say."""
        return str((self.stated.get("architectures") or [""])[0])

    @property
    def positions(self) -> int | None:
        """Tokens that the position table has room for; None where nothing bounds them."""
        return position_limit(self.stated)

    @property
    def is_decoder(self) -> bool:
        """Whether transformers knows a causal language model of this type, and no masked one."""
        kind = type(self.config)
        return kind in MODEL_FOR_CAUSAL_LM_MAPPING and kind not in MODEL_FOR_MASKED_LM_MAPPING

    def length(self, *more: int | None) -> int:
        """Tokens that the model takes: the least of what its files and `more` say."""
        text = (self.settings.get("processing_kwargs") or {}).get("text") or {}
        stated = (
            self.positions,
            stated_length(
                self.tokenizer_config | _arguments(self.settings, "processor", "tokenizer")
            ),
            stated_length({"model_max_length": self.settings.get("max_seq_length")}),
            stated_length({"model_max_length": text.get("max_length")}),
            *more,
        )
        return min((n for n in stated if n), default=DEFAULT_LENGTH)


class _Held:
    """A temporary folder that goes with this object."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="flashrank-lite-"))
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)


def open_checkpoint(
    folder: Path, name: str | None = None, relevant: str | None = None
) -> Checkpoint:
    """Read the configuration and the tokenizer.

    Args:
        folder: the checkpoint.
        name: of the model; None for the folder's.
        relevant: the name of the relevant class; None for what the names of the classes say.

    Raises:
        InvalidModel: there is no config.json, transformers does not know the model without running
            code from the folder, or there is no tokenizer.
    """
    stated = read_json(folder / "config.json")
    if stated is None:
        raise InvalidModel(f"{folder} has no config.json: pass the folder of a saved checkpoint")
    settings = _settings(folder)
    try:
        with quietly():
            config = AutoConfig.from_pretrained(
                folder,
                **_arguments(settings, "config"),
                local_files_only=True,
                trust_remote_code=False,
            )
    except (OSError, ValueError, KeyError) as error:
        raise InvalidModel(
            f"transformers does not know the model in {folder} ({first_line(error)}): if it "
            "comes with code of its own, that is never run; look for a checkpoint of a "
            "built-in architecture"
        ) from error
    held = _Held()
    tokenizer = _load_tokenizer(folder, settings, getattr(config, "vocab_size", 0))
    file = held.folder / TOKENIZER
    tokenizer.backend_tokenizer.save(str(file))
    return Checkpoint(
        folder=folder,
        name=name or folder.resolve().name,
        stated=stated,
        config=config,
        tokenizer=file,
        library_tokenizer=tokenizer,
        tokenizer_config=read_json(folder / "tokenizer_config.json") or {},
        settings=settings,
        relevant=relevant,
        held=held,
    )


def load_model(checkpoint: Checkpoint, kind: Any, what: str) -> Any:
    """Load the weights into a transformers model in fp32, ready for tracing.

    Args:
        checkpoint: the folder.
        kind: an Auto class of transformers.
        what: what is missing if the checkpoint lacks weights that `kind` needs.

    Raises:
        InvalidModel: transformers cannot load it, weights are missing, or this machine has not the
            memory or the disk for it.
    """
    folder = checkpoint.folder
    _check_room_unloaded(checkpoint, kind)
    try:
        with quietly():
            model, loading = kind.from_pretrained(
                folder,
                config=checkpoint.config,
                local_files_only=True,
                trust_remote_code=False,
                weights_only=True,
                attn_implementation="eager",
                dtype=torch.float32,  # many checkpoints are stored in half precision
                output_loading_info=True,
            )
    except Exception as error:  # unpickling refused, shapes that do not fit, files cut short
        raise InvalidModel(f"transformers cannot load {folder} ({first_line(error)})") from error
    # BERT's pooler is not asked for where the states are
    bare = kind is AutoModel
    missing = sorted(
        key for key in loading["missing_keys"] if not (bare and key.startswith("pooler."))
    )
    if missing:
        own = " (its config.json names code of its own, which is never run)"
        raise InvalidModel(
            f"{folder} holds no trained {what} (missing {', '.join(missing[:4])})"
            f"{own if checkpoint.stated.get('auto_map') else ''}: export a fine-tuned "
            "cross-encoder, not its backbone; an embedding model with --as embedding"
        )
    return model.eval()


@contextmanager
def quietly() -> Iterator[None]:
    """No progress bar and no table of missing weights: what is wrong is said by an exception."""
    bar, level = (
        transformers_logging.is_progress_bar_enabled(),
        transformers_logging.get_verbosity(),
    )
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bar:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def as_source(
    checkpoint: Checkpoint, module: torch.nn.Module, inputs: tuple[str, ...], **more: Any
) -> Source:
    """What an exporter takes: `module`, and what the checkpoint's files say beside it.

    Args:
        checkpoint: the folder.
        module: takes `inputs`, returns logits.
        inputs: the names of its inputs.
        more: other attributes of `Source`, or other values for them.

    Raises:
        InvalidModel: this machine has not the memory or the disk for it.
    """
    check_room(sum(p.numel() for p in module.parameters()) * 4, checkpoint.name, loaded=True)
    padding = checkpoint.config.pad_token_id
    stated: dict[str, Any] = {
        "tokenizer": checkpoint.tokenizer,
        "config": checkpoint.stated,
        "name": checkpoint.name,
        "max_length": checkpoint.length(),
        "padding": padding if isinstance(padding, int) and padding >= 0 else 0,
        "held": checkpoint.held,
    }
    return Source(module=module.eval(), inputs=inputs, **{**stated, **more})


def list_modules(folder: Path) -> list[tuple[str, Path]]:
    """The kind and the folder of each module in modules.json, in their order.

    Raises:
        InvalidModel: the file cannot be read, or names a folder outside.
    """
    try:
        entries = json.loads((folder / MODULES).read_text(encoding="utf-8"))
        found = [(_kind(str(entry["type"])), folder / entry["path"]) for entry in entries]
        inside = all(path.resolve().is_relative_to(folder.resolve()) for _, path in found)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidModel(f"{folder / MODULES} cannot be read ({error}): correct it") from error
    if not found or not inside:
        raise InvalidModel(f"{folder / MODULES} lists no modules of this folder: correct it")
    return found


def _kind(named: str) -> str:
    """The bare name of those of sentence-transformers, which have moved between versions.

    PyLate's are likewise.
    """
    known = named.startswith(("sentence_transformers.", "pylate."))
    return named.rsplit(".", 1)[-1] if known else named


def _check_room_unloaded(checkpoint: Checkpoint, kind: Any) -> None:
    """Weigh the model by its configuration alone, before gigabytes are read.

    An untied LM head is not counted: only one or two of its rows are kept.
    """
    try:
        with quietly(), torch.device("meta"):
            model = kind.from_config(checkpoint.config, trust_remote_code=False)
            model.tie_weights()
        inner = {id(parameter) for parameter in model.base_model.parameters()}
        head = model.get_output_embeddings()
        dropped = {id(p) for p in head.parameters()} - inner if head is not None else set()
        count = sum(p.numel() for p in model.parameters() if id(p) not in dropped)
    except Exception:  # not every model can be made without memory: it is weighed once loaded
        return
    check_room(count * 4, checkpoint.name)


def _settings(folder: Path) -> Json:
    """The arguments of the Transformer module that sentence-transformers saved here."""
    if not (folder / MODULES).is_file():
        return {}
    found = (read_json(folder / name) for name in _SETTINGS)
    return next((settings for settings in found if settings), {})


def _arguments(settings: Json, *kinds: str) -> Json:
    """Arguments for one of the loaders of transformers, by their new name or an older one."""
    found: Json = {}
    for name in (*(f"{kind}_args" for kind in kinds), *(f"{kind}_kwargs" for kind in kinds)):
        found |= settings.get(name) or {}
    return {key: argument for key, argument in found.items() if key not in _WHERE}


def _load_tokenizer(folder: Path, settings: Json, known: int) -> Any:
    """The tokenizer as the library builds it; `known` is the size of the model's vocabulary."""
    lacking = "" if (folder / TOKENIZER).is_file() else f" has no {TOKENIZER}, and"
    try:
        with quietly():
            tokenizer = AutoTokenizer.from_pretrained(
                folder,
                **_arguments(settings, "processor", "tokenizer"),
                local_files_only=True,
                trust_remote_code=False,
            )
        backend = tokenizer.backend_tokenizer
    except Exception as error:  # every converter fails in its own way
        raise InvalidModel(
            f"{folder}{lacking} has no tokenizer that transformers can load ({first_line(error)}): "
            f"correct tokenizer_config.json, or save the fast tokenizer there as {TOKENIZER}"
        ) from error
    if backend.get_vocab_size() < known / 2:  # without its vocabulary some classes make up one
        raise InvalidModel(
            f"{folder}{lacking} has a tokenizer that knows {backend.get_vocab_size()} tokens of "
            f"{known}: put its vocabulary there"
        )
    if settings.get("do_lower_case") and not _lowers(backend.normalizer):
        steps = [] if backend.normalizer is None else [backend.normalizer]
        backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *steps])
    return tokenizer


def _lowers(normalizer: Any) -> bool:
    """Whether there is a `Lowercase` among the steps; BERT's own switch does not count there."""
    steps = list(normalizer) if isinstance(normalizer, normalizers.Sequence) else [normalizer]  # type: ignore[call-overload]
    return any(isinstance(step, normalizers.Lowercase) for step in steps)
