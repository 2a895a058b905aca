"""What a model folder says of itself: reranker.json, or Hugging Face files that stand in for it.

Format 1 of reranker.json:

    format       1
    name         str
    head         {"type": "logit"} or {"type": "two_class", "relevant": 0 or 1}
    activation   "sigmoid" or "raw": the default for this model
    max_length   tokens of a pair by default, special tokens included
    variants     the graphs, preferred first: {"file", "precision", "size", "sha256",
                 "batch_invariant", "requires", "fidelity"}, of which only "file" is obligatory;
                 "requires" lists instruction sets, of which the processor must have one
    files        {"tokenizer.json": {"size", "sha256"}, ...}
    languages    (optional) ["en"]
    license      (optional) "apache-2.0"
    template     (optional) the prompt: {"segments": [texts], "instruction": text}
    padding_side (optional) "left" or "right", which is the default
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeVar

from flashrank_lite.cpu import instruction_sets
from flashrank_lite.errors import InvalidModel
from flashrank_lite.models import config as hf
from flashrank_lite.models.checksums import Facts, check, check_size
from flashrank_lite.models.variants import Option, Processor, choose, first_runnable
from flashrank_lite.prompts import Template

FORMAT = 1
MANIFEST = "reranker.json"
TOKENIZER = "tokenizer.json"
DEFAULT_LENGTH = 512  # where no file states one: what nearly every encoder was trained with

Json = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Variant:
    """One graph of a model.

    `batch_invariant` None means that nobody said; `requires` lists what the processor must have one
    of (`flashrank_lite.cpu.instruction_sets`), nothing for every processor.
    """

    file: str
    precision: str = "unknown"
    facts: Facts = field(default_factory=Facts)
    batch_invariant: bool | None = None
    requires: tuple[str, ...] = ()
    fidelity: Mapping[str, Any] = field(default_factory=dict)


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


def read_manifest(
    folder: Path,
    file: str | None = None,
    *,
    name: str | None = None,
    processor: Processor = instruction_sets,
) -> Manifest:
    """Read reranker.json, or derive as much from Hugging Face files; check that the files exist.

    Sizes are compared (it costs nothing), hashes are not: `verify` does that.

    Args:
        folder: the model folder.
        file: the graph to run, as a path inside it; None for the best one for this processor.
        name: of the model, where no manifest says it; None for the folder's.
        processor: tells the processor's instruction sets, where there is a choice.

    Raises:
        InvalidModel: a file is missing or malformed; the message says which, and what to do.
        ChecksumMismatch: a file has another size than the manifest states.
    """
    manifest = parse_manifest(folder, name)
    variants = manifest.variants
    if file is not None:
        manifest = _asked_for(manifest, folder, file)
    elif variants:
        there = [variant for variant in variants if (folder / variant.file).is_file()]
        manifest = select(manifest, [v.file for v in there or variants], folder, processor)
    else:
        choice = choose(_graphs_in(folder), str(folder), processor)
        manifest = _with_variant(manifest, choice.file, choice.reason)
    chosen = manifest.variant
    for listed, facts in {chosen.file: chosen.facts, **manifest.files}.items():
        check_size(folder / listed, facts, MANIFEST)
    if not (folder / TOKENIZER).is_file():
        raise InvalidModel(
            f"{folder} has no {TOKENIZER}: save the model's fast tokenizer there "
            "(transformers' AutoTokenizer writes it with save_pretrained)"
        )
    return manifest


def parse_manifest(folder: Path, name: str | None = None) -> Manifest:
    """What the JSON files say, of graphs that may not be there; without reranker.json no variants.

    Raises:
        InvalidModel: a file is malformed, or there is neither reranker.json nor config.json.
    """
    config = read_json(folder / "config.json")
    tokenizer_config = read_json(folder / "tokenizer_config.json") or {}
    stated = read_json(folder / MANIFEST)
    if stated is not None:
        return _Reader(folder / MANIFEST).manifest(stated, config or {}, tokenizer_config)
    if config is not None:
        return _derive(name or folder.name, config, tokenizer_config)
    raise InvalidModel(
        f"{folder} has neither {MANIFEST} nor config.json, so nothing says what kind of model "
        "it holds: put one of them there"
    )


def select(
    manifest: Manifest, there: Sequence[str], where: object, processor: Processor = instruction_sets
) -> Manifest:
    """Of the variants that are there, choose the first one that this processor can run.

    Raises:
        InvalidModel: it can run none of them.
    """
    options = [Option(v.file, v.requires, v.precision) for v in manifest.variants]
    found = first_runnable([option for option in options if option.file in there], processor)
    if found is None:
        needed = "; ".join(f"{v.file} needs {' or '.join(v.requires)}" for v in manifest.variants)
        raise InvalidModel(
            f"{where} has no graph for this processor ({needed}): name one with file= to run it "
            "all the same, or export the model with a variant for every processor"
        )
    chosen = [option.file for option in options].index(found.file)
    absent = [option.file for option in options[:chosen] if option.file not in there]
    note = f"; {', '.join(absent)}, preferred to it, is not there" if absent else ""
    return replace(manifest, chosen=chosen, variant_reason=found.reason + note)


def verify(folder: Path) -> list[str]:
    """Compare the sha256 of every file that reranker.json lists, absent graphs left out.

    Returns:
        The names of the files that were compared: none if there is no reranker.json.

    Raises:
        ChecksumMismatch: a file is not the one that the manifest describes.
        InvalidModel: as `read_manifest`.
    """
    manifest = read_manifest(folder)
    listed = {variant.file: variant.facts for variant in manifest.variants}
    compared = []
    for name, facts in {**listed, **manifest.files}.items():
        if facts.sha256 is not None and (folder / name).is_file():
            check(folder / name, facts, MANIFEST)
            compared.append(name)
    return compared


def is_inside(name: str) -> bool:
    """Whether a path that somebody else wrote stays in the folder it is relative to."""
    path = PurePosixPath(name)
    escapes = path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name
    return bool(path.parts) and not escapes


def _asked_for(manifest: Manifest, folder: Path, file: str) -> Manifest:
    if not is_inside(file) or not (folder / file).is_file():
        graphs = ", ".join(sorted(_graphs_in(folder))) or "a file that is there"
        raise InvalidModel(f"{folder} has no file {file!r}: pass as file= {graphs}")
    return _with_variant(manifest, file, "asked for")


def _graphs_in(folder: Path) -> list[str]:
    there = (*folder.glob("*.onnx"), *folder.glob("onnx/*.onnx"))
    return [path.relative_to(folder).as_posix() for path in there]


def _with_variant(manifest: Manifest, file: str, reason: str) -> Manifest:
    """Choose `file`, which the manifest need not list."""
    listed = [variant.file for variant in manifest.variants]
    if file in listed:
        return replace(manifest, chosen=listed.index(file), variant_reason=reason)
    variants = (*manifest.variants, Variant(file, hf.precision_of(file)))
    return replace(manifest, variants=variants, chosen=len(listed), variant_reason=reason)


def read_json(file: Path) -> Json | None:
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
        variants=(),
    )


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
            files={
                self._name(name): self._facts(facts)
                for name, facts in self._take(data, "files", dict).items()
            },
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
