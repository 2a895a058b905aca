"""States packed into bytes: a scale a token, and 2, 4 or 8 bits a value.

Unit states are turned by a fixed orthogonal matrix before they are rounded, and queries with them,
which changes no product: it spreads what stands out in a few columns over all of them. The scale is
then chosen so that the product of a state with itself is exact, which costs nothing and halves the
error of 4 bits (docs/late-interaction.md has the table).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from flashrank_lite.errors import InvalidInput
from flashrank_lite.models.late_head import LateHead
from flashrank_lite.states.compare import (
    Floats,
    PassageStates,
    QueryStates,
    starts_of,
    unit,
    words_of,
)

Precision = Literal["int8", "4bit", "2bit"]

_BITS = {"int8": 8, "4bit": 4, "2bit": 2}
# Of a token's largest magnitude, which 7 levels on each side reach: what is beyond is rare. On
# TREC DL 2019 the order agrees with the unpacked one to tau 0.992; with 1.0, 0.988.
_CLIP = 0.8
# The best 4 levels of a normal variable, and where they meet (Lloyd, 1982; Max, 1960)
_NORMAL = np.array([-1.510, -0.4528, 0.4528, 1.510], np.float32)
_MEET = 0.9816
_LARGEST = 65_504.0  # float16
_LEAST = 1e-6  # of a product that is divided by: of a state of zeros


@dataclass(frozen=True, slots=True)
class Packed:
    """One text's states.

    Attributes:
        codes: uint8, (tokens, bytes).
        scales: float16, (tokens,).
        mean: int8, (width,) or (0,): the mean state, up to its length.
        words: uint32: sorted token ids, each once; none where the head does not look at them.
    """

    codes: NDArray[np.uint8]
    scales: NDArray[np.float16]
    mean: NDArray[np.int8]
    words: NDArray[np.uint32]

    @property
    def nbytes(self) -> int:
        """What its arrays take."""
        return sum(part.nbytes for part in (self.codes, self.scales, self.mean, self.words))


@dataclass(frozen=True, slots=True)
class Codec:
    """Packs the states of one model at one precision.

    Attributes:
        precision: of a value.
        width: columns of a state.
        means: whether the head compares mean states.
        words: whether it looks for the query's tokens in the passage.
    """

    precision: Precision
    width: int
    means: bool
    words: bool = True

    @property
    def code_bytes(self) -> int:
        """Bytes of a token, beside its scale."""
        return -(-self.width * _BITS[self.precision] // 8)

    @property
    def mean_bytes(self) -> int:
        """Bytes of a text's mean."""
        return self.width if self.means else 0

    def pack(self, ids: NDArray[np.integer], states: Floats) -> Packed:
        """Pack the states of one text, (tokens, width), as the graph gives them."""
        vectors = _turned(unit(states))
        codes, values = _round(vectors, self.precision)
        products = np.einsum("tc,tc->t", vectors, values)
        scales = (1 / np.maximum(products, _LEAST)).clip(max=_LARGEST).astype(np.float16)
        words = words_of(ids) if self.words else np.empty(0, np.uint32)
        mean = np.empty(0, np.int8)
        if self.means:
            total = states.mean(axis=0)
            mean = np.rint(total * (127 / max(float(np.abs(total).max()), 1e-12))).astype(np.int8)
        return Packed(_joined(codes, _BITS[self.precision]), scales, mean, words)

    def unpack(
        self,
        codes: NDArray[np.uint8],
        scales: NDArray[np.float16],
        means: NDArray[np.int8],
        words: NDArray[np.uint32],
        tokens: NDArray[np.integer],
        word_counts: NDArray[np.integer],
    ) -> PassageStates:
        """States of texts that lie one after the other, ready to be compared.

        Args:
            codes, scales, words: of all of them, joined.
            means: (texts, width) or (texts, 0).
            tokens, word_counts: how many each has.
        """
        if self.precision == "int8":
            vectors = codes.view(np.int8).astype(np.float32)
        else:
            table = _values(self.precision)
            vectors = table.take(codes, axis=0).reshape(len(codes), -1)[:, : self.width]
        return PassageStates(
            vectors,
            scales.astype(np.float32),
            starts_of(tokens),
            unit(means.astype(np.float32)),
            words,
            starts_of(word_counts),
        )

    def join(self, packed: Sequence[Packed]) -> PassageStates:
        """`unpack` for texts that were packed one by one."""
        return self.unpack(
            np.concatenate([one.codes for one in packed]),
            np.concatenate([one.scales for one in packed]),
            np.stack([one.mean for one in packed]),
            np.concatenate([one.words for one in packed]),
            np.array([len(one.codes) for one in packed]),
            np.array([len(one.words) for one in packed]),
        )

    def query(self, query: QueryStates) -> QueryStates:
        """The query as it is compared with packed states."""
        return QueryStates(
            _turned(query.vectors), query.weights, query.mean, query.words, query.word_weights
        )


def check_precision(precision: object) -> Precision:
    """Raises InvalidInput if states cannot be packed at it."""
    for known in get_args(Precision):
        if precision == known:
            return known  # type: ignore[no-any-return]
    wanted = " or ".join(map(repr, get_args(Precision)))
    raise InvalidInput(f"precision must be {wanted}, not {precision!r:.80}")


def open_codec(head: LateHead, width: int, precision: Precision) -> Codec:
    """What packs the states of a model with this head, `width` columns wide."""
    return Codec(precision, width, bool(head.cosine), bool(head.matches))


def _turned(vectors: Floats) -> Floats:
    """The vectors times an orthogonal matrix, the same on every machine: signs, then Hadamard's.

    Blocks are as large as the greatest power of two that divides the width, and go in log2 steps.
    """
    width = vectors.shape[1]
    size = width & -width
    # of a fixed sequence, so that no column sums up what all states share
    signs = np.where(np.arange(width) * 2654435761 % 2**32 < 2**31, 1.0, -1.0)
    turned: Floats = vectors * (signs / np.sqrt(size)).astype(np.float32)
    step = 1
    while step < size:
        pairs = turned.reshape(len(vectors), -1, 2, step)
        first, second = pairs[:, :, 0], pairs[:, :, 1]
        turned = np.stack([first + second, first - second], axis=2)
        step *= 2
    return turned.reshape(vectors.shape)


def _round(vectors: Floats, precision: Precision) -> tuple[NDArray[np.uint8], Floats]:
    """The code of every value, and what it stands for, up to the token's scale."""
    if precision == "2bit":
        size = np.sqrt(np.einsum("tc,tc->t", vectors, vectors) / vectors.shape[1])[:, None]
        codes = ((vectors > -_MEET * size).astype(np.uint8) + (vectors > 0)) + (
            vectors > _MEET * size
        )
        return codes, _NORMAL[codes]
    levels, clip = (127, 1.0) if precision == "int8" else (7, _CLIP)
    largest = np.maximum(np.abs(vectors).max(axis=1, keepdims=True), _LEAST)
    values = np.rint(vectors * (levels / (clip * largest))).clip(-levels, levels)
    if precision == "int8":
        return values.astype(np.int8).view(np.uint8), values
    return (values + 8).astype(np.uint8), values


def _joined(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Codes of so many bits side by side in bytes, the first in the highest bits."""
    each = 8 // bits
    codes = np.pad(codes, ((0, 0), (0, -codes.shape[1] % each)))
    joined = np.zeros((len(codes), codes.shape[1] // each), np.uint8)
    for place in range(each):
        joined |= codes[:, place::each] << (8 - bits * (place + 1))
    return joined


@cache
def _values(precision: Precision) -> Floats:
    """What the codes in each byte stand for: float32, (256, codes)."""
    bits = _BITS[precision]
    shifts = np.arange(8 - bits, -1, -bits)
    codes = np.arange(256)[:, None] >> shifts & (2**bits - 1)
    values: Floats = _NORMAL[codes] if precision == "2bit" else (codes - 8).astype(np.float32)
    return values
