"""The student before training: layers of the backbone, without their least useful neurons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoModel

from nano.data import Corpus
from nano.model import NanoConfig, NanoRanker

SAMPLE_TEXTS = 256  # read by the backbone to see which neurons matter


def student_from_backbone(
    backbone: Path, corpus: Corpus, config: NanoConfig, layers: Sequence[int]
) -> NanoRanker:
    """Build the student from layers `layers` of the backbone.

    Of each feed-forward block the `config.intermediate_size` neurons with the largest
    (mean square activation) × (output norm squared) stay.
    """
    teacher = AutoModel.from_pretrained(
        backbone, attn_implementation="eager", dtype=torch.float32
    ).eval()
    narrow = config.intermediate_size < teacher.config.intermediate_size
    nothing = [torch.ones(config.intermediate_size)] * len(layers)
    activations = _mean_squares(teacher, corpus, layers) if narrow else nothing
    student = NanoRanker(config)
    embeddings = teacher.embeddings
    with torch.no_grad():
        student.word.weight.copy_(embeddings.word_embeddings.weight)
        # Both segments use the type the backbone was trained with; it joins the position table.
        student.position.weight.copy_(
            embeddings.position_embeddings.weight + embeddings.token_type_embeddings.weight[0]
        )
        _copy(student.norm, embeddings.LayerNorm)
        for target, number, squares in zip(student.layers, layers, activations, strict=True):
            source = teacher.encoder.layer[number]
            attention = source.attention.self
            scale = 1 / math.sqrt(config.hidden_size // config.num_attention_heads)
            parts = (attention.query, attention.key, attention.value)
            scales = (scale, 1.0, 1.0)
            for name in ("weight", "bias"):
                fused = torch.cat(
                    [getattr(p, name) * s for p, s in zip(parts, scales, strict=True)]
                )
                getattr(target.qkv, name).copy_(fused)
            _copy(target.out, source.attention.output.dense)
            _copy(target.norm1, source.attention.output.LayerNorm)
            _copy(target.norm2, source.output.LayerNorm)
            useful = squares * source.output.dense.weight.square().sum(0)
            keep = useful.topk(config.intermediate_size).indices.sort().values
            target.up.weight.copy_(source.intermediate.dense.weight[keep])
            target.up.bias.copy_(source.intermediate.dense.bias[keep])
            target.down.weight.copy_(source.output.dense.weight[:, keep])
            target.down.bias.copy_(source.output.dense.bias)
    student.word.weight.requires_grad_(False)
    return student


def _mean_squares(teacher: nn.Module, corpus: Corpus, layers: Sequence[int]) -> list[Tensor]:
    sums: dict[int, Tensor] = {}
    tokens = 0

    def watch(number: int) -> object:
        def hook(_: nn.Module, __: object, out: Tensor) -> None:
            sums[number] = sums.get(number, torch.zeros(1)) + out.square().sum((0, 1))

        return teacher.encoder.layer[number].intermediate.register_forward_hook(hook)

    handles = [watch(number) for number in dict.fromkeys(layers)]
    step = max(1, len(corpus.texts) // SAMPLE_TEXTS)
    with torch.inference_mode():
        for index in range(0, len(corpus.texts), step):
            ids = torch.from_numpy(corpus.tokens(index)).long().unsqueeze(0)
            teacher(input_ids=ids)
            tokens += ids.numel()
    for handle in handles:
        handle.remove()  # type: ignore[attr-defined]
    return [sums[number] / tokens for number in layers]


def _copy(target: nn.Module, source: nn.Module) -> None:
    target.load_state_dict(source.state_dict())
