"""Models that answer in words: causal decoders, and T5 by its first decoded token.

The vocabulary head, by far the largest matrix of a small decoder, is cut down to what the answer
needs: one row, yes minus no, so that the graph ends in one logit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
)

from flashrank_lite.encoding.tokenizer import Tokens
from flashrank_lite.errors import InvalidModel
from flashrank_lite.export.checkpoints.classifiers import HEAD, last_state, read_head
from flashrank_lite.export.checkpoints.library import cross_encoder, prompted
from flashrank_lite.export.checkpoints.loading import Checkpoint, as_source, load_model
from flashrank_lite.export.checkpoints.recipes import Recipe, answer_ids
from flashrank_lite.export.source import Source
from flashrank_lite.models.config import activation

# Largest difference of the cut head to the whole one: some families scale or cap their logits.
HEAD_TOLERANCE = 1e-3
INPUTS = ("input_ids", "attention_mask")


def read_decoder(checkpoint: Checkpoint, recipe: Recipe) -> Source:
    """A causal language model whose next token says yes or no.

    Raises:
        InvalidModel: it lacks weights, or its logits are more than a product with one matrix.
    """
    yes, no = _answers(checkpoint, recipe)
    return read_decoder_by_ids(checkpoint, recipe, yes, no)


def read_decoder_by_ids(checkpoint: Checkpoint, recipe: Recipe, yes: int, no: int | None) -> Source:
    """As `read_decoder`, with the ids of the answers."""
    model = load_model(checkpoint, AutoModelForCausalLM, "language model head")
    module = Decoder(model.base_model, _cut_head(model, yes, no))
    ids = torch.arange(2, 9).unsqueeze(0) % checkpoint.config.vocab_size
    with torch.inference_mode():
        logits = model(input_ids=ids, use_cache=False).logits[:, -1]
        _compare(module(ids, torch.ones_like(ids)), logits, yes, no, checkpoint)

    def logit() -> Callable[..., float]:
        whole = load_model(checkpoint, AutoModelForCausalLM, "language model head")
        return lambda ids: _answer(whole(input_ids=ids, use_cache=False).logits, yes, no)

    return _source(checkpoint, module, recipe, logit)


def read_decoder_classifier(checkpoint: Checkpoint, recipe: Recipe | None) -> Source:
    """A causal language model with a classifier on its last token.

    Args:
        checkpoint: the folder.
        recipe: its prompt; None to join query and passage as the tokenizer joins a pair.

    Raises:
        InvalidModel: it has no trained head, or one of more than two classes.
    """
    head = read_head(checkpoint)
    model = load_model(checkpoint, AutoModelForSequenceClassification, HEAD)
    module = Decoder(model.base_model, model.score)

    def logit() -> Callable[..., float]:
        whole = load_model(checkpoint, AutoModelForSequenceClassification, HEAD)

        def of_head(ids: torch.Tensor) -> float:
            logits = whole(input_ids=ids, use_cache=False).logits
            relevant = head.get("relevant")
            return _answer(logits, relevant or 0, None if relevant is None else 1 - relevant)

        return of_head

    return _source(checkpoint, module, recipe, logit, head)


def read_seq2seq(checkpoint: Checkpoint, recipe: Recipe) -> Source:
    """An encoder-decoder whose first decoded token says yes or no.

    Raises:
        InvalidModel: it lacks weights, or its logits are more than a product with one matrix.
    """
    yes, no = _answers(checkpoint, recipe)
    model = load_model(checkpoint, AutoModelForSeq2SeqLM, "language model head")
    start = model.config.decoder_start_token_id
    if start is None:
        start = model.config.pad_token_id or 0
    tied = getattr(model.config, "tie_word_embeddings", False)  # which alone told it until 5.0
    scaled = getattr(model.config, "scale_decoder_outputs", tied)
    scale = model.config.d_model**-0.5 if scaled else 1.0
    module = FirstToken(model.encoder, model.decoder, _cut_head(model, yes, no), start, scale)
    ids = torch.arange(2, 9).unsqueeze(0) % checkpoint.config.vocab_size
    with torch.inference_mode():
        first = torch.full((1, 1), start)
        logits = model(input_ids=ids, decoder_input_ids=first, use_cache=False).logits[:, -1]
        _compare(module(ids, torch.ones_like(ids)), logits, yes, no, checkpoint)

    def logit() -> Callable[..., float]:
        whole = load_model(checkpoint, AutoModelForSeq2SeqLM, "language model head")
        return lambda ids: _answer(
            whole(input_ids=ids, decoder_input_ids=first, use_cache=False).logits, yes, no
        )

    return _source(checkpoint, module, recipe, logit)


class Decoder(torch.nn.Module):
    """Hidden states of a decoder → the head on the last real token, wherever padding stands."""

    def __init__(self, decoder: torch.nn.Module, head: torch.nn.Module) -> None:
        super().__init__()
        self.decoder = decoder.eval()
        self.head = head

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        states = self.decoder(
            input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False
        ).last_hidden_state
        out: torch.Tensor = self.head(last_state(states, mask))
        return out


class FirstToken(torch.nn.Module):
    """One step of an encoder-decoder, from its start token."""

    def __init__(
        self,
        encoder: torch.nn.Module,
        decoder: torch.nn.Module,
        head: torch.nn.Module,
        start: int,
        scale: float,
    ) -> None:
        super().__init__()
        self.encoder, self.decoder, self.head = encoder.eval(), decoder.eval(), head
        self.start, self.scale = start, scale

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        encoded = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        states = self.decoder(
            input_ids=torch.zeros_like(ids[:, :1]) + self.start,
            encoder_hidden_states=encoded,
            encoder_attention_mask=mask,
            use_cache=False,
        ).last_hidden_state
        out: torch.Tensor = self.head(states[:, 0] * self.scale)
        return out


class CappedHead(torch.nn.Module):
    """Yes and no through the soft cap that some families put on their logits, then subtracted."""

    def __init__(self, rows: torch.nn.Linear, cap: float) -> None:
        super().__init__()
        self.rows, self.cap = rows, cap

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        capped = torch.tanh(self.rows(states) / self.cap) * self.cap
        return capped[:, :1] - capped[:, 1:].sum(1, keepdim=True)


def _cut_head(model: Any, yes: int, no: int | None) -> torch.nn.Module:
    whole = model.get_output_embeddings()
    rows = [yes] if no is None else [yes, no]
    weight = whole.weight.detach()[rows]
    bias = whole.bias.detach()[rows] if getattr(whole, "bias", None) is not None else None
    cap = getattr(model.config, "final_logit_softcapping", None)
    if cap is None and no is not None:
        weight = weight[:1] - weight[1:]
        bias = None if bias is None else bias[:1] - bias[1:]
    head = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    head.weight = torch.nn.Parameter(weight.clone())
    if bias is not None:
        head.bias = torch.nn.Parameter(bias.clone())
    return head if cap is None else CappedHead(head, cap)


def _answer(logits: torch.Tensor, yes: int, no: int | None) -> float:
    """Of logits (1, tokens, vocabulary) or (1, classes) the last token's "yes" less its "no"."""
    last = logits.reshape(-1, logits.shape[-1])[-1]
    return float(last[yes] - (last[no] if no is not None else 0))


def _compare(
    found: torch.Tensor, logits: torch.Tensor, yes: int, no: int | None, checkpoint: Checkpoint
) -> None:
    expected = logits[:, yes] - (logits[:, no] if no is not None else 0)
    difference = float((found[:, 0] - expected).abs().max())
    if not difference <= HEAD_TOLERANCE:
        raise InvalidModel(
            f"{checkpoint.name}: the logits of a {checkpoint.config.model_type} model are not "
            f"those of its head alone (they differ by {difference:.2g}): its family is not "
            "supported yet"
        )


def _answers(checkpoint: Checkpoint, recipe: Recipe) -> tuple[int, int | None]:
    tokens = Tokens(checkpoint.tokenizer)
    return answer_ids(recipe, lambda text: [int(number) for number in tokens.ids(text)])


def _source(
    checkpoint: Checkpoint,
    module: torch.nn.Module,
    recipe: Recipe | None,
    logit: Callable[[], Callable[..., float]],
    head: dict[str, Any] | None = None,
) -> Source:
    head = head or {"type": "logit"}
    library = cross_encoder(checkpoint, head, INPUTS)
    if recipe is not None and not recipe.saved:
        library = prompted(checkpoint, recipe.template, logit)
    tokenizer = checkpoint.tokenizer_config
    return as_source(
        *(checkpoint, module, INPUTS),
        max_length=checkpoint.length(recipe.max_length if recipe else None),
        activation=activation(checkpoint.stated),
        head=head,
        template=recipe.template if recipe else None,
        padding_side="left" if tokenizer.get("padding_side") == "left" else "right",
        library=library,
    )
