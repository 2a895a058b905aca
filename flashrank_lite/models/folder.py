"""A model folder: what it says of itself, by reranker.json or by Hugging Face files that stand in
for it, and which of its graphs to run.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from flashrank_lite.errors import InvalidModel
from flashrank_lite.models import config as hf
from flashrank_lite.models.checksums import check_size
from flashrank_lite.models.manifest import (
    DEFAULT_LENGTH,
    MANIFEST,
    TOKENIZER,
    Json,
    Manifest,
    Variant,
    parse,
    read_json,
)
from flashrank_lite.models.paths import is_inside
from flashrank_lite.models.variants import Option, Processor, choose, first_runnable
from flashrank_lite.runtime.cpu_features import instruction_sets


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
    for listed, facts in {**manifest.variant.files, **manifest.files}.items():
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
        InvalidModel: a file is malformed, there is neither reranker.json nor config.json, or only
            the latter and the model needs a prompt.
    """
    config = read_json(folder / "config.json")
    tokenizer_config = read_json(folder / "tokenizer_config.json") or {}
    stated = read_json(folder / MANIFEST)
    if stated is not None:
        return parse(stated, folder / MANIFEST, config or {}, tokenizer_config)
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


def _derive(name: str, config: Json, tokenizer_config: Json) -> Manifest:
    if hf.wants_prompt(config):
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
        variants=(),
    )
