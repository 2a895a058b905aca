"""Sequence classifiers of one logit or two classes: BERT and its kin, and T5 with such a head."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForSequenceClassification

from flashrank_lite.encoding.template import Template
from flashrank_lite.errors import InvalidModel
from flashrank_lite.export.checkpoints.library import cross_encoder
from flashrank_lite.export.checkpoints.loading import Checkpoint, as_source, load_model
from flashrank_lite.export.source import Source
from flashrank_lite.models.config import activation, relevant_class

HEAD = "relevance head"
TOKEN_TYPES = "token_type_ids"


def read_classifier(checkpoint: Checkpoint, template: Template | None = None) -> Source:
    """A checkpoint that `AutoModelForSequenceClassification` loads.

    Args:
        checkpoint: the folder.
        template: the prompt that query and passage are put into; None to join them as a pair.

    Raises:
        InvalidModel: it has no trained head, or one of more than two classes.
    """
    head = read_head(checkpoint)
    model = load_model(checkpoint, AutoModelForSequenceClassification, HEAD)
    inputs = model_inputs(checkpoint)
    if template is not None and not template.pair:
        inputs = inputs[:2]  # one text, whose token types are all 0
    t5 = hasattr(model, "classification_head") and hasattr(model, "transformer")
    module = T5Classifier(model) if t5 else Logits(model, inputs)
    return as_source(
        *(checkpoint, module, inputs),
        activation=activation(checkpoint.stated),
        head=head,
        template=template,
        library=cross_encoder(checkpoint, head, inputs),
    )


def read_head(checkpoint: Checkpoint) -> dict[str, Any]:
    """The manifest's head: one logit, or two classes and which of them is relevant.

    Raises:
        InvalidModel: there are more classes, or nothing tells which of two is the relevant one.
    """
    classes = checkpoint.config.num_labels
    names = [str(name) for _, name in sorted(checkpoint.config.id2label.items())]
    if classes == 1:
        return {"type": "logit"}
    if classes != 2:
        raise InvalidModel(
            f"{checkpoint.folder} has {classes} classes ({', '.join(names)}): "
            "a relevance head has one logit, or two classes"
        )
    if checkpoint.relevant is not None:
        if checkpoint.relevant not in names:
            raise InvalidModel(
                f"{checkpoint.folder} has no class {checkpoint.relevant!r}: pass --relevant with "
                f"one of {', '.join(names)}"
            )
        return {"type": "two_class", "relevant": names.index(checkpoint.relevant)}
    return {
        "type": "two_class",
        "relevant": relevant_class({"id2label": checkpoint.config.id2label}),
    }


def model_inputs(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Names of the model's inputs: token types only where it was trained with them.

    An explicit `model_input_names` without them is honoured: transformers then feeds zeros. That
    the default of a tokenizer class lacks them says nothing: it changed between versions.
    """
    types = getattr(checkpoint.config, "type_vocab_size", 0) or 0
    stated = checkpoint.tokenizer_config.get("model_input_names")
    honoured = not isinstance(stated, list) or TOKEN_TYPES in stated
    return ("input_ids", "attention_mask", *((TOKEN_TYPES,) if types > 1 and honoured else ()))


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
    """`T5ForSequenceClassification`, its reading of the last end-of-sequence token traceable.

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
    """Of states (n, tokens, hidden) the last one where `real` (n, tokens) holds: (n, hidden)."""
    places = torch.arange(real.shape[1]).unsqueeze(0)
    last = (places * real.to(torch.long)).max(1).values
    picked = last.view(-1, 1, 1).expand(-1, 1, states.shape[-1])
    return states.gather(1, picked).squeeze(1)
