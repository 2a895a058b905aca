"""Sequence classifiers of one logit or two classes: BERT and its kin, and T5 with such a head."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForSequenceClassification

from flashrank_lite.errors import InvalidModel
from flashrank_lite.export.checkpoints.loading import Checkpoint, as_source, load_model
from flashrank_lite.export.source import Source
from flashrank_lite.models.config import activation, relevant_class

HEAD = "relevance head"


def read_classifier(checkpoint: Checkpoint) -> Source:
    """A checkpoint that ``AutoModelForSequenceClassification`` loads.

    Raises:
        InvalidModel: it has no trained head, or one of more than two classes.
    """
    head = read_head(checkpoint)
    model = load_model(checkpoint, AutoModelForSequenceClassification, HEAD)
    inputs = model_inputs(checkpoint)
    t5 = hasattr(model, "classification_head") and hasattr(model, "transformer")
    module = T5Classifier(model) if t5 else Logits(model, inputs)
    return as_source(
        *(checkpoint, module, inputs), activation=activation(checkpoint.stated), head=head
    )


def read_head(checkpoint: Checkpoint) -> dict[str, Any]:
    """The manifest's head: one logit, or two classes and which of them is relevant.

    Raises:
        InvalidModel: there are more classes.
    """
    classes = checkpoint.config.num_labels
    if classes == 1:
        return {"type": "logit"}
    if classes == 2:
        return {"type": "two_class", "relevant": relevant_class(checkpoint.stated)}
    raise InvalidModel(
        f"{checkpoint.folder} has {classes} classes "
        f"({', '.join(map(str, checkpoint.config.id2label.values()))}): "
        "a relevance head has one logit, or two classes"
    )


def model_inputs(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Token types only where the model tells them apart."""
    types = getattr(checkpoint.config, "type_vocab_size", 0) or 0
    return ("input_ids", "attention_mask", *(("token_type_ids",) if types > 1 else ()))


class Logits(torch.nn.Module):
    """A transformers model as a function of plain tensors."""

    def __init__(self, model: torch.nn.Module, inputs: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model.eval()
        self.inputs = inputs

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.model(**dict(zip(self.inputs, tensors, strict=True))).logits
        return out


class T5Classifier(torch.nn.Module):
    """``T5ForSequenceClassification``, its reading of the last end-of-sequence token traceable.

    transformers selects with a boolean mask, so that the number of rows depends on the ids.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model.eval()
        self.end = model.config.eos_token_id

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        states = self.model.transformer(
            input_ids=ids,
            attention_mask=mask,
            decoder_input_ids=self.model._shift_right(ids),
            use_cache=False,
        ).last_hidden_state
        out: torch.Tensor = self.model.classification_head(last_state(states, ids == self.end))
        return out


def last_state(states: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Of states (n, tokens, hidden) the last one where ``real`` (n, tokens) holds: (n, hidden)."""
    places = torch.arange(real.shape[1]).unsqueeze(0)
    last = (places * real.to(torch.long)).max(1).values
    picked = last.view(-1, 1, 1).expand(-1, 1, states.shape[-1])
    return states.gather(1, picked).squeeze(1)
