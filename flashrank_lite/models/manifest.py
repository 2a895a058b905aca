"""What reranker.json says of a model: its format, and how it is read.

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
                 data: {its path: {"size", "sha256"}} of the files beside it that hold its weights,
                 where one file cannot
                 batch_invariant: whether a row's scores are independent of the rows beside it
                 requires: instruction sets, of which the processor must have one
                 fidelity: {figure: number}, what the exporter measured
    files        {"tokenizer.json": {"size", "sha256"}, ...}
    languages    (optional) ["en"]
    license      (optional) "apache-2.0"
    inputs       (optional) ["input_ids", ...]: names of the graphs' inputs, for people; what is run
                 is asked of the graph itself
    template     (optional) the prompt: {"segments": [texts], "instruction": text}
    padding_side (optional) "left" or "right", which is the default
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from flashrank_lite.encoding.template import Template
from flashrank_lite.errors import InvalidModel
from flashrank_lite.models import config as hf
from flashrank_lite.models.checksums import Facts
from flashrank_lite.models.paths import is_inside

FORMAT = 1
MANIFEST = "reranker.json"
TOKENIZER = "tokenizer.json"
DEFAULT_LENGTH = 512  # where no file states one: what nearly every encoder was trained with

Json = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Variant:
    """One graph of a model.

    `data` are the files beside it that hold its weights, none where it holds them itself;
    `batch_invariant` None means that nobody said; `requires` lists what the processor must have one
    of (`flashrank_lite.runtime.threads.instruction_sets`), nothing for every processor.
    """

    file: str
    precision: str = "unknown"
    facts: Facts = field(default_factory=Facts)
    data: Mapping[str, Facts] = field(default_factory=dict)
    batch_invariant: bool | None = None
    requires: tuple[str, ...] = ()
    fidelity: Mapping[str, Any] = field(default_factory=dict)

    @property
    def files(self) -> dict[str, Facts]:
        """All files that it takes to run it."""
        return {self.file: self.facts, **self.data}


@dataclass(frozen=True)
class Manifest:
    """What the rest of the library needs to know of a model.

    Attributes:
        head: "logit", "two_class", or None to let the graph's shape decide.
        relevant: of two classes, the index of the relevant one.
        max_length: default length of a pair, in tokens, special tokens included.
        length_limit: the longest that the model can take; None where nothing bounds it.
        padding: id of the padding token, or its text.
        variants: the graphs, preferred first.
        files: the other files that the manifest vouches for.
        chosen: which of the variants to run here.
        variant_reason: why that one.
        template: the prompt of a model that is asked in words.
        padding_side: where rows of a batch are padded.
    """

    name: str
    head: Literal["logit", "two_class"] | None
    relevant: int
    activation: Literal["sigmoid", "raw"]
    max_length: int
    length_limit: int | None
    padding: int | str
    variants: tuple[Variant, ...]
    files: Mapping[str, Facts] = field(default_factory=dict)
    languages: tuple[str, ...] = ()
    license: str | None = None
    chosen: int = 0
    variant_reason: str = ""
    template: Template | None = None
    padding_side: Literal["left", "right"] = "right"

    @property
    def variant(self) -> Variant:
        """The graph to run."""
        return self.variants[self.chosen]


def parse(data: Json, file: Path, config: Json, tokenizer_config: Json) -> Manifest:
    """What reranker.json says; Hugging Face files add the limit of the length, and the padding.

    Args:
        data: the content of reranker.json.
        file: its path, for errors.
        config, tokenizer_config: the files of this name, empty where there is none.

    Raises:
        InvalidModel: a key is missing, or a value is none that the format knows.
    """
    return _Reader(file).manifest(data, config, tokenizer_config)


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


class _Reader:
    """Reads reranker.json; every complaint names the file and the key."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def manifest(self, data: Json, config: Json, tokenizer_config: Json) -> Manifest:
        version = self._take(data, "format", int)
        if version != FORMAT:
            advice = "upgrade flashrank-lite" if version > FORMAT else "export the model again"
            raise self._wrong(f"is of format {version}, and this release reads {FORMAT}: {advice}")
        max_length = self._take(data, "max_length", int)
        return Manifest(
            name=self._take(data, "name", str),
            head=self._one_of(self._take(data, "head", dict), "type", "logit", "two_class"),
            relevant=self._relevant(data["head"]),
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
        )

    def _template(self, data: Json) -> Template | None:
        try:
            return Template.read(data["template"]) if data.get("template") else None
        except InvalidModel as error:
            raise self._wrong(f"has a 'template' that cannot be used: {error}") from error

    def _variants(self, entries: list[Any]) -> tuple[Variant, ...]:
        if not entries:
            raise self._wrong("lists no variants: export the model again")
        return tuple(
            Variant(
                file=self._name(self._take(entry, "file", str)),
                precision=str(entry.get("precision", "unknown")),
                facts=self._facts(entry),
                data=self._files(self._take({"data": {}, **entry}, "data", dict)),
                batch_invariant=self._optional_bool(entry, "batch_invariant"),
                requires=self._requires(entry),
                fidelity=entry.get("fidelity") or {},
            )
            for entry in entries
        )

    def _requires(self, entry: Json) -> tuple[str, ...]:
        flags = entry.get("requires") or []
        if not isinstance(flags, list) or not all(isinstance(flag, str) for flag in flags):
            raise self._wrong(f"has {flags!r} for 'requires': it must be a list of names")
        return tuple(flags)

    def _optional_bool(self, entry: Json, key: str) -> bool | None:
        value = entry.get(key)
        if value is not None and not isinstance(value, bool):
            raise self._wrong(f"has {value!r} for {key!r}: it must be true or false")
        return value

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

    def _relevant(self, head: Json) -> int:
        relevant = head.get("relevant", 1)
        if isinstance(relevant, bool) or relevant not in (0, 1):
            raise self._wrong(f"has {relevant!r} for 'relevant' in 'head': it must be 0 or 1")
        return int(relevant)

    def _take(self, data: Any, key: str, kind: type[T]) -> T:
        if not isinstance(data, dict) or key not in data:
            raise self._wrong(f"lacks the key {key!r}: export the model again, or add it")
        value = data[key]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self._wrong(f"has {value!r} for {key!r}: it must be of type {kind.__name__}")
        return value

    def _one_of(self, data: Json, key: str, *allowed: Any) -> Any:
        value = self._take(data, key, str)
        if value not in allowed:
            wanted = " or ".join(repr(choice) for choice in allowed)
            raise self._wrong(f"has {value!r} for {key!r}: it must be {wanted}")
        return value

    def _wrong(self, problem: str) -> InvalidModel:
        return InvalidModel(f"{self._file} {problem}")
