"""Rerankers as sentence-transformers saves them in modules: a transformer, then small heads.

Only the configuration and the tensors of each module are read; what a module does is written here.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, AutoTokenizer

from flashrank_lite.encoding.template import Template
from flashrank_lite.errors import InvalidModel
from flashrank_lite.export.classifiers import model_inputs, read_classifier
from flashrank_lite.export.generators import read_decoder_by_ids
from flashrank_lite.export.heads import Features, read_step
from flashrank_lite.export.loading import Checkpoint, as_source, load_model
from flashrank_lite.export.recipes import Recipe, find_recipe
from flashrank_lite.export.source import Source
from flashrank_lite.models.config import activation
from flashrank_lite.models.manifest import read_json

MODULES = "modules.json"


def read_modular(checkpoint: Checkpoint, recipe: Recipe | None) -> Source:
    """Follow modules.json.

    Raises:
        InvalidModel: a module is not one of those that rerankers are made of, or the last one does
            not give one score or two classes.
    """
    modules = _list_modules(checkpoint.folder)
    first, *rest = modules
    stated = read_json(checkpoint.folder / "sentence_bert_config.json") or {}
    task = stated.get("transformer_task", "feature-extraction")
    longest = stated.get("max_seq_length")
    if first[0] != "Transformer" or first[1] != checkpoint.folder:
        raise _refused(checkpoint, f"its first module is {first[0]}, not a Transformer at the top")
    if not rest and task == "sequence-classification":
        source = read_classifier(checkpoint)
    elif [kind for kind, _ in rest] == ["LogitScore"]:
        return _yes_or_no(checkpoint, rest[0][1], recipe)
    elif task == "feature-extraction" and rest:
        source = _heads(checkpoint, rest)
    else:
        kinds = ", ".join(kind for kind, _ in modules)
        raise _refused(checkpoint, f"its modules ({kinds}; {task}) end in no relevance score")
    length = checkpoint.length(longest if isinstance(longest, int) else None)
    return replace(source, max_length=length, activation=_activation(checkpoint))


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
    if scores is None or scores.shape[1:] not in ((1,), (2,)):
        shape = "none" if scores is None else f"{tuple(scores.shape[1:])}"
        raise _refused(checkpoint, f"its modules give the scores {shape}")
    head = {"type": "logit"} if scores.shape[1] == 1 else {"type": "two_class", "relevant": 1}
    return as_source(checkpoint, module, inputs, head=head)


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


def _list_modules(folder: Path) -> list[tuple[str, Path]]:
    """The kind and the folder of each module, in their order."""
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
    """The bare name of those of sentence-transformers: they have moved between versions."""
    return named.rsplit(".", 1)[-1] if named.startswith("sentence_transformers.") else named


def _yes_or_no(checkpoint: Checkpoint, folder: Path, recipe: Recipe | None) -> Source:
    """A decoder with a LogitScore: token ids from its config, the prompt from its chat template."""
    config = read_json(folder / "config.json") or {}
    yes, no = config.get("true_token_id"), config.get("false_token_id")
    if not isinstance(yes, int) or not isinstance(no, int | None):
        raise _refused(checkpoint, f"{folder.name}/config.json names no token ids of the answers")
    if recipe is None:
        template = _chat_template(checkpoint)
        recipe = Recipe(template, "", None) if template else find_recipe(checkpoint)
    source = read_decoder_by_ids(checkpoint, recipe, yes, no)
    return replace(source, activation=_activation(checkpoint))


def _chat_template(checkpoint: Checkpoint) -> Template | None:
    """What the chat template makes of a query and a document, as sentence-transformers asks it."""
    tokenizer = AutoTokenizer.from_pretrained(
        checkpoint.folder, local_files_only=True, trust_remote_code=False
    )
    if not getattr(tokenizer, "chat_template", None):
        return None
    messages = [
        {"role": "query", "content": "\ue000query\ue001"},
        {"role": "document", "content": "\ue000passage\ue001"},
    ]
    prompts = read_json(checkpoint.folder / "config_sentence_transformers.json") or {}
    named = (prompts.get("prompts") or {}).get(prompts.get("default_prompt_name"))
    if named:
        messages.insert(0, {"role": "system", "content": str(named)})
    try:
        text = str(
            tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        )
    except Exception as error:  # a template may raise what it likes
        raise _refused(checkpoint, f"its chat template fails on a query ({error})") from error
    head, passage, tail = text.partition("\ue000passage\ue001")
    if not passage or "\ue000query\ue001" not in head:
        raise _refused(checkpoint, "its chat template leaves out the query or the document")
    body = head.replace("\ue000query\ue001", "{query}") + "{passage}"
    # One segment, as sentence-transformers tokenises it: a token may span the passage and what
    # follows it, unless that begins with a special one.
    return Template((body + tail,))


def _activation(checkpoint: Checkpoint) -> Any:
    """Of the modules' own file, which counts before config.json."""
    stated = read_json(checkpoint.folder / "config_sentence_transformers.json") or {}
    if stated.get("activation_fn"):
        return activation({"sentence_transformers": {"activation_fn": stated["activation_fn"]}})
    return activation(checkpoint.stated)


def _refused(checkpoint: Checkpoint, problem: str) -> InvalidModel:
    return InvalidModel(
        f"{checkpoint.folder} cannot be exported: {problem}. A modular reranker has a Transformer, "
        "then Pooling, Dense, LayerNorm, Normalize or Dropout up to the scores, or a LogitScore"
    )
