"""The student: BERT layers that encode query and passage apart, and a head that compares them token
by token. `nano` has three narrow ones, `small` twelve.

The layers read `[CLS] query [SEP]` and `passage [SEP]` separately. A query is encoded once for all
passages of a batch, and a training step scores each passage against every query of the batch:
hundreds of pairs at the cost of one. The head is late interaction
(Khattab and Zaharia, "ColBERT", 2020) with learned term weights and an exact-match channel (Guo et
al., "DRMM", 2016).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flashrank_lite.export.graph.tables import BLOCK

UNK, CLS, SEP = 100, 101, 102  # of the BERT uncased vocabulary
CLIP = 0.9  # of a block's largest magnitude; least squared error for 15 levels of a normal variable


@dataclass(frozen=True)
class NanoConfig:
    """Shape of the student."""

    vocab_size: int = 30522
    hidden_size: int = 384
    num_attention_heads: int = 12
    intermediate_size: int = 1280
    num_hidden_layers: int = 3
    max_position_embeddings: int = 512
    passage_cls: bool = False  # the layers read `[CLS] passage [SEP]`, as the backbone was trained

    def to_dict(self) -> dict[str, int | bool]:
        """As JSON."""
        return asdict(self)


NANO = NanoConfig()
SMALL = NanoConfig(intermediate_size=1536, num_hidden_layers=12, passage_cls=True)


class NanoRanker(nn.Module):
    """Ids and masks of n passages and of n queries, or of one for all → one logit each, (n, 1)."""

    def __init__(self, config: NanoConfig | None = None) -> None:
        super().__init__()
        self.config = config or NanoConfig()
        c = self.config
        self.word = nn.Embedding(c.vocab_size, c.hidden_size)
        self.position = nn.Embedding(c.max_position_embeddings, c.hidden_size)
        self.norm = nn.LayerNorm(c.hidden_size, eps=1e-12)
        self.layers = nn.ModuleList(_Layer(c) for _ in range(c.num_hidden_layers))
        self.head = _Head(c.hidden_size)
        self.fake_quantise = True

    def forward(
        self,
        query_input_ids: Tensor,
        query_attention_mask: Tensor,
        passage_input_ids: Tensor,
        passage_attention_mask: Tensor,
    ) -> Tensor:
        queries = encode_side(self, query_input_ids, query_attention_mask, query=True)
        passages = encode_side(self, passage_input_ids, passage_attention_mask, query=False)
        return self.head.logit(self.head.compare(queries, passages)).unsqueeze(1)

    def encode(self, ids: Tensor, mask: Tensor, *, query: bool) -> tuple[Tensor, Tensor]:
        """Embeddings and last states, each (n, tokens, hidden), of `[CLS] query [SEP]` or, for a
        passage, `passage [SEP]`, whose first token stands at position 1."""
        if query or not self.config.passage_cls:
            first = self.embed(ids, 0 if query else 1)
            return first, self.read(first, mask)
        before = torch.full_like(ids[:, :1], CLS)
        first = self.embed(torch.cat([before, ids], 1), 0)
        last = self.read(first, torch.cat([torch.ones_like(mask[:, :1]), mask], 1))
        return first[:, 1:], last[:, 1:]

    def embed(self, ids: Tensor, start: int) -> Tensor:
        """What the first layer reads: ids (n, tokens), the first at position `start`."""
        positions = torch.arange(ids.shape[1], device=ids.device).unsqueeze(0) + start
        words = self.word(ids)
        if self.fake_quantise:
            words = words + (quantise_rows(words) - words).detach()
        embedded: Tensor = self.norm(words + self.position(positions))
        return embedded

    def read(self, state: Tensor, mask: Tensor, layers: slice = slice(None)) -> Tensor:
        """What some of the layers make of states (n, tokens, hidden) with their mask."""
        bias = torch.where(mask.bool(), 0.0, -1e4).unsqueeze(1).unsqueeze(1)
        for layer in self.layers[layers]:
            state = layer(state, bias)
        return state


class _Layer(nn.Module):
    def __init__(self, c: NanoConfig) -> None:
        super().__init__()
        self.heads = c.num_attention_heads
        self.head_size = c.hidden_size // c.num_attention_heads
        self.qkv = nn.Linear(c.hidden_size, 3 * c.hidden_size)
        self.out = nn.Linear(c.hidden_size, c.hidden_size)
        self.norm1 = nn.LayerNorm(c.hidden_size, eps=1e-12)
        self.up = nn.Linear(c.hidden_size, c.intermediate_size)
        self.down = nn.Linear(c.intermediate_size, c.hidden_size)
        self.norm2 = nn.LayerNorm(c.hidden_size, eps=1e-12)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        # The scale 1/sqrt(head size) is folded into the query third of `qkv`.
        parts = zip(self.qkv.weight.chunk(3), self.qkv.bias.chunk(3), strict=True)
        q, k, v = (self._split(F.linear(x, weight, bias)) for weight, bias in parts)
        weights = torch.softmax(q @ k.transpose(-1, -2) + bias, dim=-1)
        mixed = (weights @ v).transpose(1, 2)
        mixed = mixed.reshape(mixed.shape[0], mixed.shape[1], self.heads * self.head_size)
        x = self.norm1(x + self.out(mixed))
        return self.norm2(x + self.down(F.gelu(self.up(x))))

    def _split(self, x: Tensor) -> Tensor:
        """(n, tokens, hidden) → (n, heads, tokens, head size)"""
        # Shapes are read off the tensor that is reshaped: onnxruntime then folds them away.
        return x.view(x.shape[0], x.shape[1], self.heads, self.head_size).transpose(1, 2)


class _Head(nn.Module):
    """Term-weighted MaxSim, cosine of the means and share of exact matches, in a weighted sum.

    A small network over these was worse where it had not been trained: nDCG@10 0.636 instead of
    0.644 on TREC DL 2019 with the same layers. So is more weight on exact matches: the candidates
    of a lexical first stage all have them.
    """

    FEATURES = 3

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.weigh = nn.Linear(2 * hidden, 2)  # of a query token: for similarity, for exact match
        self.linear = nn.Linear(self.FEATURES, 1)
        nn.init.zeros_(self.weigh.weight)
        nn.init.zeros_(self.weigh.bias)
        with torch.no_grad():
            self.linear.weight.copy_(torch.tensor([[10.0, 5.0, 0.5]]))
            self.linear.bias.fill_(-10.0)

    def compare(self, queries: Side, passages: Side) -> Tensor:
        """Features of each passage with its query, or with the one query: (n, FEATURES)."""
        a = F.normalize(queries.last, dim=-1)
        # The products are scaled afterwards: they are fewer than the numbers of the states.
        lengths = passages.last.norm(dim=-1).unsqueeze(1)
        similar = a @ passages.last.transpose(1, 2) / lengths
        equal = queries.ids.unsqueeze(2) == passages.ids.unsqueeze(1)
        weights = self.term_weights(queries.first, queries.last, queries.ids, queries.mask)
        means = _mean(queries.last, queries.mask) * _mean(passages.last, passages.mask)
        return self._features(similar, equal, passages.mask.unsqueeze(1), weights, means.sum(-1))

    def compare_all(self, queries: Side, passages: Side) -> Tensor:
        """Features of every query with every passage: (queries, passages, FEATURES)."""
        a, b = F.normalize(queries.last, dim=-1), F.normalize(passages.last, dim=-1)
        similar = torch.einsum("aih,bjh->abij", a, b)
        equal = queries.ids[:, None, :, None] == passages.ids[None, :, None, :]
        weights = self.term_weights(queries.first, queries.last, queries.ids, queries.mask)
        cosine = _mean(queries.last, queries.mask) @ _mean(passages.last, passages.mask).T
        return self._features(
            similar, equal, passages.mask[None, :, None, :], weights.unsqueeze(1), cosine
        )

    def logit(self, features: Tensor) -> Tensor:
        """Features (..., FEATURES) → logits (...)."""
        return self.linear(features).squeeze(-1)

    def term_weights(self, first: Tensor, last: Tensor, ids: Tensor, query: Tensor) -> Tensor:
        """Weight of each query token for similarity and for exact match: (n, tokens, 2), sums 1."""
        raw = F.softplus(self.weigh(torch.cat([first, last], -1)))
        # What the vocabulary lacks is all one token: that two texts hold it says nothing.
        known = query & (ids != UNK)
        word = known & (ids != CLS) & (ids != SEP)
        raw = raw * torch.stack([known, word], -1)
        return raw / (raw.sum(1, keepdim=True) + 1e-6)

    def _features(
        self, similar: Tensor, equal: Tensor, passage: Tensor, weights: Tensor, cosine: Tensor
    ) -> Tensor:
        best = similar.masked_fill(~passage, -1.0).amax(-1)
        found = (equal & passage).any(-1).to(best.dtype)
        maxsim, matches = (best * weights[..., 0]).sum(-1), (found * weights[..., 1]).sum(-1)
        return torch.stack([maxsim, cosine, matches], -1)


@dataclass(frozen=True)
class Side:
    """Encoded queries or passages of a batch."""

    ids: Tensor
    mask: Tensor
    first: Tensor
    last: Tensor


def encode_side(model: NanoRanker, ids: Tensor, mask: Tensor, *, query: bool) -> Side:
    """Encode texts of shape (n, tokens) on their own, for `compare_all`."""
    first, last = model.encode(ids, mask, query=query)
    return Side(ids, mask.bool(), first, last)


def quantise_rows(words: Tensor) -> Tensor:
    """Word embeddings (..., hidden) rounded to 4 bits, one scale per BLOCK columns."""
    blocks = words.unflatten(-1, (-1, BLOCK))
    scale = CLIP / 7 * blocks.abs().amax(-1, keepdim=True).clamp(min=1e-8)
    return ((blocks / scale).round().clamp(-7, 7) * scale).flatten(-2)


def _mean(last: Tensor, mask: Tensor) -> Tensor:
    total = mask.to(last.dtype).unsqueeze(1) @ last
    return F.normalize(total.squeeze(1), dim=-1)
