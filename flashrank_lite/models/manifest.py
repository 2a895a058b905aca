"""What a model folder says of itself: by reranker.json, or by the Hugging Face files beside it.

Format 1 of reranker.json:

    format       1
    name         str
    head         {"type": "logit"} or {"type": "two_class", "relevant": 0 or 1}
    activation   "sigmoid" or "raw": the default for this model
    max_length   tokens of a pair by default, special tokens included
    variants     the graphs, preferred first, each with
                 file: its path inside the folder; the rest is optional
                 precision: "fp32", "int8", ...
                 size, sha256: bytes, and hexadecimal
                 data: {path: {"size", "sha256"}} of the files beside it that hold its weights
                 batch_invariant: whether a row's scores are independent of the rows beside it
                 requires: instruction sets, of which the processor must have one
                 fidelity: {figure: number}, measured by the exporter, for people
    files        {"tokenizer.json": {"size", "sha256"}, ...}
    languages    (optional) ["en"]
    license      (optional) "apache-2.0"
    inputs       (optional) ["input_ids", ...]: names of the graphs' inputs, for people; the runtime
                 asks the graph itself
    template     (optional) the prompt: {"segments": [texts], "instruction": text}
    padding_side (optional) "left" or "right"; right by default
    late_interaction (optional) how states of query and passage are compared
                 (`flashrank_lite.models.late_head`)
    token_types  (optional) whether token_type_ids tell the passage from the query; true by default

Reading it needs neither numpy nor a tokenizer.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from flashrank_lite.encoding.template import Template
from flashrank_lite.errors import InvalidModel
from flashrank_lite.files import is_inside
from flashrank_lite.models import config as hf
from flashrank_lite.models.checksums import Facts
from flashrank_lite.models.late_head import LateHead

FORMAT = 1
MANIFEST = "reranker.json"
TOKENIZER = "tokenizer.json"
CONFIG = "config.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
DEFAULT_LENGTH = 512  # where no file states one: what nearly every encoder was trained with

Json = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Variant:
    """One graph of a model, as reranker.json lists it.

    Attributes:
        file: path of the graph inside the folder.
        precision: "fp32", "int8", ...
        files: the graph and the files beside it that hold its weights.
        batch_invariant: whether a row's scores are independent of the rows beside it; None if it
            is not stated.
        requires: instruction sets (`flashrank_lite.runtime.cpu_features`), of which the processor
            must have one; none for every processor.
    """

    file: str
    precision: str = "unknown"
    files: Mapping[str, Facts] = field(default_factory=dict)
    batch_invariant: bool | None = None
    requires: tuple[str, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """A model's description.

    Attributes:
        name: what it is called.
        head: "logit", "two_class", or None to let the graph's shape decide.
        relevant: of two classes, the index of the relevant one.
        activation: what makes scores of logits by default.
        max_length: default length of a pair, in tokens, special tokens included.
        length_limit: tokens of a pair that the model can take; None where nothing bounds it.
        padding: id of the padding token, or its text.
        variants: the graphs, preferred first; none without reranker.json.
        files: the other files that reranker.json states checksums of.
        languages: codes, or "multilingual"; none if it is not stated.
        license: an SPDX identifier in lower case.
        template: the prompt of a decoder.
        padding_side: where rows of a batch are padded.
        token_types: whether token_type_ids are 1 for the passage; False for a model that was
            trained on zeros.
        late: how a model that reads query and passage apart compares their states; None for one
            that does not give them.
    """

    name: str
    head: Literal["logit", "two_class"] | None
    relevant: int
    activation: Literal["sigmoid", "raw"]
    max_length: int
    length_limit: int | None
    padding: int | str
    variants: tuple[Variant, ...] = ()
    files: Mapping[str, Facts] = field(default_factory=dict)
    languages: tuple[str, ...] = ()
    license: str | None = None
    template: Template | None = None
    padding_side: Literal["left", "right"] = "right"
    token_types: bool = True
    late: LateHead | None = None

    def files_of(self, graph: str) -> dict[str, Facts]:
        """The files whose checksums reranker.json states and that this graph takes."""
        own = [variant.files for variant in self.variants if variant.file == graph]
        return {**self.files, **(own[0] if own else {})}


def read_manifest(folder: Path, name: str | None = None) -> Manifest:
    """Read reranker.json, or derive as much from Hugging Face's config files.

    The graphs, and the files whose checksums it states, need not be there.

    Args:
        folder: the model folder.
        name: of the model, where no reranker.json states it; None for the folder's.

    Raises:
        InvalidModel: a file is malformed, there is neither reranker.json nor config.json, or only
            the latter and the model needs a prompt. The message says which, and what to do.
    """
    config = read_json(folder / CONFIG)
    tokenizer_config = read_json(folder / TOKENIZER_CONFIG) or {}
    stated = read_json(folder / MANIFEST)
    if stated is not None:
        return _Reader(folder / MANIFEST).manifest(stated, config or {}, tokenizer_config)
    if config is not None:
        return _derive(name or folder.name, config, tokenizer_config)
    raise InvalidModel(
        f"{folder} has neither {MANIFEST} nor {CONFIG}, so nothing says what kind of model it "
        "holds: put one of them there"
    )


def read_json(file: Path) -> Json | None:
    """The object in a JSON file, None if there is no such file.

    Raises:
        InvalidModel: it cannot be read, or holds something else.
    """
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InvalidModel(f"{file} cannot be read as JSON ({error}): correct it") from error
    if not isinstance(data, dict):
        raise InvalidModel(f"{file} must hold a JSON object, not a {type(data).__name__}")
    return data


def _derive(name: str, config: Json, tokenizer_config: Json) -> Manifest:
    if hf.needs_prompt(config):
        raise InvalidModel(
            f"{name} is a decoder ({config['model_type']}), and no {MANIFEST} states the prompt "
            "that it was trained on, without which its scores mean nothing: export its checkpoint "
            "with `flashrank-lite export MODEL OUT`, and load the folder OUT"
        )
    limit = hf.position_limit(config)
    lengths = [length for length in (limit, hf.stated_length(tokenizer_config)) if length]
    return Manifest(
        name=name,
        head=None,
        relevant=hf.relevant_class(config),
        activation=hf.activation(config),
        max_length=min(lengths, default=DEFAULT_LENGTH),
        length_limit=limit,
        padding=hf.padding(config, tokenizer_config),
        token_types=hf.token_types(tokenizer_config),
    )


class _Reader:
    """Reads reranker.json; every error names the file and the key."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def manifest(self, data: Json, config: Json, tokenizer_config: Json) -> Manifest:
        version = self._take(data, "format", int)
        if version != FORMAT:
            advice = "upgrade flashrank-lite" if version > FORMAT else "export the model again"
            raise self._wrong(f"is of format {version}, and this release reads {FORMAT}: {advice}")
        head = self._take(data, "head", dict)
        max_length = self._take(data, "max_length", int)
        return Manifest(
            name=self._take(data, "name", str),
            head=self._one_of(head, "type", "logit", "two_class"),
            relevant=self._one_of({"relevant": 1, **head}, "relevant", 0, 1),
            activation=self._one_of(data, "activation", "sigmoid", "raw"),
            max_length=max_length,
            length_limit=hf.position_limit(config) or max_length,
            padding=hf.padding(config, tokenizer_config),
            variants=self._variants(self._take(data, "variants", list)),
            files=self._files(self._take(data, "files", dict)),
            languages=tuple(str(language) for language in data.get("languages") or ()),
            license=data.get("license"),
            template=self._template(data),
            padding_side=self._one_of(
                {"padding_side": "right", **data}, "padding_side", "left", "right"
            ),
            token_types=self._one_of({"token_types": True, **data}, "token_types", True, False),
            late=self._late(data),
        )

    def _late(self, data: Json) -> LateHead | None:
        if data.get("late_interaction") is None:
            return None
        try:
            return LateHead.read(data["late_interaction"])
        except InvalidModel as error:
            raise self._wrong(str(error)) from error

    def _template(self, data: Json) -> Template | None:
        try:
            return Template.read(data["template"]) if data.get("template") else None
        except InvalidModel as error:
            raise self._wrong(f"has a 'template' that cannot be used: {error}") from error

    def _variants(self, entries: list[Any]) -> tuple[Variant, ...]:
        if not entries:
            raise self._wrong("lists no variants: export the model again")
        return tuple(map(self._variant, entries))

    def _variant(self, entry: Any) -> Variant:
        file = self._name(self._take(entry, "file", str))
        data = self._files(self._take({"data": {}, **entry}, "data", dict))
        requires = entry.get("requires") or []
        if not isinstance(requires, list) or not all(isinstance(flag, str) for flag in requires):
            raise self._wrong(f"has {requires!r} for 'requires': it must be a list of names")
        return Variant(
            file=file,
            precision=str(entry.get("precision", "unknown")),
            files={file: self._facts(entry), **data},
            batch_invariant=self._one_of(
                {"batch_invariant": None, **entry}, "batch_invariant", True, False, None
            ),
            requires=tuple(requires),
        )

    def _files(self, entries: Json) -> dict[str, Facts]:
        return {self._name(name): self._facts(facts) for name, facts in entries.items()}

    def _facts(self, entry: Any) -> Facts:
        size = self._take(entry, "size", int) if "size" in entry else None
        sha256 = self._take(entry, "sha256", str) if "sha256" in entry else None
        return Facts(size, sha256)

    def _name(self, name: str) -> str:
        if not is_inside(name):
            raise self._wrong(f"names the file {name!r}, which does not lie in its folder")
        return name

    def _take(self, data: Any, key: str, kind: type[T]) -> T:
        if not isinstance(data, dict) or key not in data:
            raise self._wrong(f"lacks the key {key!r}: export the model again, or add it")
        value = data[key]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not object):
            raise self._wrong(f"has {value!r} for {key!r}: it must be of type {kind.__name__}")
        return value

    def _one_of(self, data: Json, key: str, *allowed: Any) -> Any:
        value = self._take(data, key, object)
        if not any(value == choice and type(value) is type(choice) for choice in allowed):
            wanted = " or ".join(json.dumps(choice) for choice in allowed)
            raise self._wrong(f"has {json.dumps(value)} for {key!r}: it must be {wanted}")
        return value

    def _wrong(self, problem: str) -> InvalidModel:
        return InvalidModel(f"{self._file} {problem}")
