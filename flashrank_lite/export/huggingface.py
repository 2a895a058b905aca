"""A Hugging Face cross-encoder folder → what ``export_folder`` takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from flashrank_lite.errors import InvalidModel, ModelNotFound
from flashrank_lite.export.folder import Source
from flashrank_lite.models.config import activation, position_limit, relevant_class, stated_length
from flashrank_lite.models.manifest import DEFAULT_LENGTH, TOKENIZER, read_json


def read_checkpoint(folder: Path, *, max_length: int | None = None) -> Source:
    """Load a sequence-classification checkpoint (``config.json``, weights, ``tokenizer.json``).

    Args:
        folder: the checkpoint.
        max_length: tokens of a pair; None for what its files say.

    Raises:
        ModelNotFound: there is no such folder.
        InvalidModel: it has no ``tokenizer.json``, no relevance head, or weights of its head are
            missing; the message says which.
    """
    if not folder.is_dir():
        raise ModelNotFound(
            f"{folder} is not a folder: pass one that holds config.json and weights"
        )
    if not (folder / TOKENIZER).is_file():
        raise InvalidModel(f"{folder} has no {TOKENIZER}: save its fast tokenizer there first")
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        model, loading = AutoModelForSequenceClassification.from_pretrained(
            folder,
            config=config,
            local_files_only=True,
            attn_implementation="eager",
            dtype=torch.float32,  # many checkpoints are stored in fp16
            output_loading_info=True,
        )
    except (OSError, ValueError) as error:
        raise InvalidModel(
            f"transformers cannot load {folder} as a cross-encoder: {error}"
        ) from error
    if loading["missing_keys"]:
        missing = ", ".join(sorted(loading["missing_keys"])[:4])
        raise InvalidModel(
            f"{folder} holds no trained relevance head (missing {missing}): "
            "export a fine-tuned cross-encoder, not its backbone"
        )
    if config.num_labels not in (1, 2):
        raise InvalidModel(
            f"{folder} has {config.num_labels} classes ({', '.join(config.id2label.values())}): "
            "a relevance head has one logit, or two classes"
        )
    stated: dict[str, Any] = read_json(folder / "config.json") or {}
    lengths = (
        position_limit(stated),
        stated_length(read_json(folder / "tokenizer_config.json") or {}),
    )
    found = min((n for n in lengths if n), default=DEFAULT_LENGTH)
    head = (
        {"type": "logit"}
        if config.num_labels == 1
        else {"type": "two_class", "relevant": relevant_class(stated)}
    )
    typed = getattr(config, "type_vocab_size", 0) and config.type_vocab_size > 1
    inputs = ("input_ids", "attention_mask", *(("token_type_ids",) if typed else ()))
    return Source(
        module=_Logits(model, inputs),
        tokenizer=folder / TOKENIZER,
        config=stated,
        name=folder.resolve().name,
        max_length=max_length or found,
        inputs=inputs,
        activation=activation(stated),
        head=head,
    )


class _Logits(torch.nn.Module):
    """A transformers model as a function of plain tensors."""

    def __init__(self, model: torch.nn.Module, inputs: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model.eval()
        self.inputs = inputs

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.model(**dict(zip(self.inputs, tensors, strict=True))).logits
        return out
