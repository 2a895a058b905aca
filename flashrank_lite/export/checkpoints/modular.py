"""Rerankers as sentence-transformers saves them in modules: a transformer, then small heads.

Only the configuration and the tensors of each module are read; what a module does is written here.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel

from flashrank_lite.encoding.template import Template
from flashrank_lite.errors import InvalidModel
from flashrank_lite.export.checkpoints.classifiers import model_inputs, read_classifier
from flashrank_lite.export.checkpoints.generators import (
    read_decoder_by_ids,
    read_decoder_classifier,
)
from flashrank_lite.export.checkpoints.heads import Features, read_step
from flashrank_lite.export.checkpoints.library import cross_encoder
from flashrank_lite.export.checkpoints.loading import (
    Checkpoint,
    as_source,
    list_modules,
    load_model,
)
from flashrank_lite.export.checkpoints.recipes import Recipe, find_recipe
from flashrank_lite.export.source import Source
from flashrank_lite.models.config import activation
from flashrank_lite.models.manifest import read_json

_MODEL_CONFIG = "config_sentence_transformers.json"
# Stand for a field while a chat template is filled in: in characters that no template has.
_MARK, _MARKED = "\ue000{}\ue001", re.compile("\ue000(query|passage|instruction)\ue001")
# Arguments that sentence-transformers keeps beside those of `apply_chat_template`.
_NOT_FOR_TEMPLATE = {"restore_suffix", "padding", "truncation", "max_length", "return_tensors"}


def read_modular(checkpoint: Checkpoint, recipe: Recipe | None) -> Source:
    """Follow modules.json.

    Args:
        checkpoint: the folder.
        recipe: the prompt of a model that answers in words; None for the one saved with it.

    Raises:
        InvalidModel: a module is not one of those that rerankers are made of, or the last one does
            not give one score or two classes.
    """
    modules = list_modules(checkpoint.folder)
    first, *rest = modules
    task = checkpoint.settings.get("transformer_task", "feature-extraction")
    if first[0] != "Transformer" or first[1] != checkpoint.folder:
        raise _refused(checkpoint, f"its first module is {first[0]}, not a Transformer at the top")
    if not rest and task == "sequence-classification":
        source = _classifier(checkpoint, recipe)
    elif [kind for kind, _ in rest] == ["LogitScore"]:
        source = _yes_or_no(checkpoint, rest[0][1], recipe)
    elif task == "feature-extraction" and rest:
        source = _heads(checkpoint, rest)
    else:
        kinds = ", ".join(kind for kind, _ in modules)
        raise _refused(checkpoint, f"its modules ({kinds}; {task}) end in no relevance score")
    _, prompts = named_prompts(checkpoint)
    return replace(source, activation=_activation(checkpoint), prompts=prompts)


def _classifier(checkpoint: Checkpoint, recipe: Recipe | None) -> Source:
    template = recipe.template if recipe else _saved_template(checkpoint)
    if checkpoint.is_decoder:
        prompt = Recipe(template, "", None, saved=recipe is None) if template else None
        return read_decoder_classifier(checkpoint, prompt)
    return read_classifier(checkpoint, template)


def _heads(checkpoint: Checkpoint, modules: list[tuple[str, Path]]) -> Source:
    backbone = load_model(checkpoint, AutoModel, "backbone")
    inputs = model_inputs(checkpoint)
    steps = [read_step(kind, folder) for kind, folder in modules]
    module = Modular(backbone, inputs, steps).eval()
    with torch.inference_mode():
        ids = torch.arange(2, 9).unsqueeze(0) % checkpoint.config.vocab_size
        features = module.features(
            *(torch.ones_like(ids) if n != inputs[0] else ids for n in inputs)
        )
    scores = features.get("scores")
    if scores is None and "sentence_embedding" in features:
        raise InvalidModel(
            f"{checkpoint.folder} is an embedding model, which gives no relevance score of a pair: "
            "export it with --as embedding, and the cosines of its embeddings are the scores"
        )
    if scores is None or scores.shape[1:] not in ((1,), (2,)):
        shape = "none" if scores is None else f"{tuple(scores.shape[1:])}"
        raise _refused(checkpoint, f"its modules give the scores {shape}")
    head: dict[str, Any] = {"type": "logit"}
    if scores.shape[1] == 2:
        head = {"type": "two_class", "relevant": 1}
    template = _saved_template(checkpoint)
    if template is not None and not template.pair:
        raise _refused(checkpoint, "it puts a chat template before pooling, which is not supported")
    library = cross_encoder(checkpoint, head, inputs)
    return as_source(checkpoint, module, inputs, head=head, template=template, library=library)


class Modular(torch.nn.Module):
    """The modules, one after the other, over named features."""

    def __init__(
        self, backbone: torch.nn.Module, inputs: tuple[str, ...], steps: list[torch.nn.Module]
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.inputs = inputs
        self.steps = torch.nn.ModuleList(steps)

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        return self.features(*tensors)["scores"]

    def features(self, *tensors: torch.Tensor) -> Features:
        """All features by name, the last module's included."""
        named = dict(zip(self.inputs, tensors, strict=True))
        states = self.backbone(**named).last_hidden_state
        features = {"token_embeddings": states, "attention_mask": named["attention_mask"]}
        for step in self.steps:
            features = step(features)
        return features


def _yes_or_no(checkpoint: Checkpoint, folder: Path, recipe: Recipe | None) -> Source:
    """A decoder with a LogitScore: token ids from its config, the prompt from its chat template."""
    config = read_json(folder / "config.json") or {}
    yes, no = config.get("true_token_id"), config.get("false_token_id")
    if not isinstance(yes, int) or not isinstance(no, int | None):
        raise _refused(checkpoint, f"{folder.name}/config.json names no token ids of the answers")
    if recipe is None:
        template = _chat_template(checkpoint)
        recipe = Recipe(template, "", None, saved=True) if template else find_recipe(checkpoint)
    return read_decoder_by_ids(checkpoint, recipe, yes, no)


def _saved_template(checkpoint: Checkpoint) -> Template | None:
    """How sentence-transformers feeds query and passage to this model; None for a plain pair.

    A chat template where the folder says that the model takes messages; a pair whose query begins
    with the default prompt where it has one.
    """
    if "message" in (checkpoint.settings.get("modality_config") or {}):
        return _chat_template(checkpoint)
    default, _ = named_prompts(checkpoint)
    if not default:
        return None
    return Template(("{instruction}{query}", "{passage}"), default, pair=True)


def model_settings(checkpoint: Checkpoint) -> dict[str, Any]:
    """What sentence-transformers and PyLate keep of a model; empty where they kept nothing."""
    return read_json(checkpoint.folder / _MODEL_CONFIG) or {}


def named_prompts(checkpoint: Checkpoint) -> tuple[str, dict[str, str]]:
    """The prompt that is used by default, empty if there is none, and all prompts by name."""
    stated = model_settings(checkpoint)
    prompts = {str(name): str(text or "") for name, text in (stated.get("prompts") or {}).items()}
    return prompts.get(str(stated.get("default_prompt_name")), ""), prompts


def _chat_template(checkpoint: Checkpoint) -> Template | None:
    """What the chat template makes of a query and a document, as sentence-transformers asks it."""
    tokenizer = checkpoint.library_tokenizer
    if not getattr(tokenizer, "chat_template", None):
        return None
    message = (checkpoint.settings.get("modality_config") or {}).get("message") or {}
    structured = message.get("format") == "structured"

    def content(text: str) -> Any:
        return [{"type": "text", "text": text}] if structured else text

    messages = [
        {"role": "query", "content": content(_MARK.format("query"))},
        {"role": "document", "content": content(_MARK.format("passage"))},
    ]
    default, _ = named_prompts(checkpoint)
    if default:
        prompt = _MARK.format("instruction")
        messages.insert(0, {"role": "system", "content": content(prompt)})
    arguments = (checkpoint.settings.get("processing_kwargs") or {}).get("chat_template") or {}
    arguments = {key: value for key, value in arguments.items() if key not in _NOT_FOR_TEMPLATE}
    try:
        text = str(tokenizer.apply_chat_template(messages, tokenize=False, **arguments))
    except Exception as error:  # a template may raise what it likes
        raise _refused(checkpoint, f"its chat template fails on a query ({error})") from error
    fields = _MARKED.findall(text)
    if fields.count("query") != 1 or fields.count("passage") != 1:
        raise _refused(
            checkpoint, "its chat template does not show the query and the document once each"
        )
    # One segment, as sentence-transformers tokenises it: a token may span the passage and what
    # follows it, unless that begins with a special one.
    return Template((_MARKED.sub(r"{\1}", text),), default)


def _activation(checkpoint: Checkpoint) -> Any:
    """Of the modules' own file, which counts before config.json."""
    stated = model_settings(checkpoint)
    if stated.get("activation_fn"):
        return activation({"sentence_transformers": {"activation_fn": stated["activation_fn"]}})
    return activation(checkpoint.stated)


def _refused(checkpoint: Checkpoint, problem: str) -> InvalidModel:
    return InvalidModel(
        f"{checkpoint.folder} cannot be exported: {problem}. A modular reranker has a Transformer, "
        "then Pooling, Dense, LayerNorm, Normalize or Dropout up to the scores, or a LogitScore"
    )
