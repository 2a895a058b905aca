"""A Hugging Face reranker folder → what `export_folder` takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from flashrank_lite.errors import InvalidInput, InvalidModel, ModelNotFound
from flashrank_lite.export.card import describe
from flashrank_lite.export.checkpoints.apart import (
    AS_STATED,
    Prompts,
    is_late_interaction,
    read_embedding,
    read_late_interaction,
)
from flashrank_lite.export.checkpoints.classifiers import read_classifier
from flashrank_lite.export.checkpoints.generators import (
    read_decoder,
    read_decoder_classifier,
    read_seq2seq,
)
from flashrank_lite.export.checkpoints.loading import MODULES, Checkpoint, open_checkpoint
from flashrank_lite.export.checkpoints.modular import read_modular
from flashrank_lite.export.checkpoints.recipes import Recipe, find_recipe
from flashrank_lite.export.source import Source
from flashrank_lite.models.manifest import read_json

# Types of models that a trace cannot follow, and why. Each was tried.
UNTRACEABLE = {
    "fnet": "its Fourier transform has no ONNX operator",
    "funnel": "it pools tokens to sizes that a trace fixes to those of its example",
    "longformer": "it pads text to whole windows, whose number a trace fixes",
}


def read_checkpoint(
    folder: Path,
    *,
    max_length: int | None = None,
    recipe: Recipe | None = None,
    name: str | None = None,
    relevant: str | None = None,
    parse_special: bool = False,
    embedding: bool = False,
    prompts: Prompts = AS_STATED,
) -> Source:
    """Load a reranker (`config.json`, weights, a tokenizer) as transformers saves it.

    Sequence classifiers, decoders and T5 models that answer in words, the modular rerankers of
    sentence-transformers, ColBERT models, and embedding models where asked to. Code in the folder
    is never run, and nothing is unpickled but tensors.

    Args:
        folder: the checkpoint.
        max_length: tokens of a pair; None for what its files say.
        recipe: how to ask a model that answers in words; None for what its family is asked.
        name: of the model; None for the folder's.
        relevant: the name of the relevant one of two classes, where the names don't tell.
        parse_special: have control tokens that are written out in a passage count as such in a
            prompt, as in transformers; otherwise they are plain text.
        embedding: the folder is an embedding model, whose cosines are the scores.
        prompts: texts to put before the queries and passages of an embedding model.

    Raises:
        ModelNotFound: there is no such folder.
        InvalidModel: it cannot be exported as a reranker; the message says why.
        InvalidInput: `max_length` is more than the model takes.
    """
    if not folder.is_dir():
        raise ModelNotFound(
            f"{folder} is not a folder: pass one that holds config.json and weights"
        )
    kind = str((read_json(folder / "config.json") or {}).get("model_type"))
    if kind in UNTRACEABLE:
        raise InvalidModel(
            f"{folder} cannot be exported, whatever the settings: a model of type {kind} does not "
            f"turn into ONNX ({UNTRACEABLE[kind]}). BERT, ELECTRA, DistilBERT, (XLM-)RoBERTa, "
            "CamemBERT, DeBERTa-v2, ModernBERT, T5, Qwen, Gemma and other decoders do"
        )
    checkpoint = open_checkpoint(folder, name, relevant)
    if max_length is not None:
        limit = checkpoint.positions or max_length
        if not 0 < max_length <= limit:
            raise InvalidInput(
                f"max_length must be from 1 to the {limit} positions of the model, not {max_length}"
            )
    source = describe(_read(checkpoint, recipe, embedding, prompts), folder)
    if parse_special and source.template is not None:
        template = replace(source.template, parse_special=True)
        source = replace(source, template=template)
    return source if max_length is None else replace(source, max_length=max_length)


def _read(
    checkpoint: Checkpoint, recipe: Recipe | None, embedding: bool, prompts: Prompts
) -> Source:
    if embedding:
        return read_embedding(checkpoint, prompts)
    if prompts != AS_STATED:
        raise InvalidInput(
            "--query-prompt and --passage-prompt are for embedding models: give --as embedding "
            "with them, or leave them out"
        )
    if is_late_interaction(checkpoint):
        return read_late_interaction(checkpoint)
    if (checkpoint.folder / MODULES).is_file():
        return read_modular(checkpoint, recipe)
    if checkpoint.architecture.endswith("ForConditionalGeneration"):
        return read_seq2seq(checkpoint, recipe or find_recipe(checkpoint))
    if checkpoint.architecture.endswith("ForCausalLM"):
        return read_decoder(checkpoint, recipe or find_recipe(checkpoint))
    if checkpoint.is_decoder:
        return read_decoder_classifier(checkpoint, recipe or find_recipe(checkpoint))
    return read_classifier(checkpoint)
