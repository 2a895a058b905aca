"""Which products of a graph are rounded together, and on which activations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from flashrank_lite.export.graph.attention import Attention
from flashrank_lite.export.graph.nodes import Feeds, watch
from flashrank_lite.export.graph.rounding import (
    Matrix,
    Scale,
    activation_scale,
    round_matrix,
    smoothing,
)
from flashrank_lite.export.graph.weights import value

# Rows of each activation that the rounding is fitted on. A matrix of 1,536 rows needs six times the
# least:
# with 3,072 its fit to the activations does not carry over to other text.
ROWS, LEAST_ROWS = 9216, 3072
ROWS_BYTES = 2 << 30  # of all activations together, from which on there are fewer rows


@dataclass(frozen=True)
class Product:
    """Activations times a constant matrix."""

    source: str
    weight: str


@dataclass(frozen=True)
class Rounded:
    """The rounded products of one group.

    Attributes:
        divisors: of the columns of the sources, (inner,).
        folded: whether the node that produces the sources already divides them.
        scales: of each source.
        matrices: of each product, by its weight.
    """

    divisors: NDArray[np.float32]
    folded: bool
    scales: Mapping[str, Scale]
    matrices: Mapping[str, Matrix]


def calibrate(
    model: onnx.ModelProto,
    plan: Sequence[Product],
    attentions: Sequence[Attention],
    feeds: Sequence[Feeds],
) -> dict[str, Rounded]:
    """Round the products in `plan`; each source maps to the result of its group.

    Args:
        model: the fp32 graph.
        plan: all products that shall be rounded.
        attentions: the attention in the graph.
        feeds: batches of real text.
    """
    graph = model.graph
    rows = sample(model, sorted({product.source for product in plan}), feeds)
    constants = {tensor.name: tensor for tensor in graph.initializer}
    narrowed: dict[str, NDArray[np.float32]] = {}  # by what the columns of a matrix are divided

    def matrix(name: str) -> NDArray[np.float32]:
        """Read one at a time: together they are as large as the model."""
        found: NDArray[np.float32] = value(constants[name])
        return found / narrowed[name] if name in narrowed else found

    groups = _groups(plan)
    planned = {product.weight for product in plan}
    giver = {f.output: f.value_weight for f in attentions if f.value_weight in planned}
    readers: dict[str, int] = {}
    for node in graph.node:
        for name in node.input:
            readers[name] = readers.get(name, 0) + 1
    divisors, folded = [], []
    for group in groups:
        sources = sorted({product.source for product in group})
        divisors.append(smoothing([rows[s] for s in sources]))
        # The columns of attention's result are those of its values: they are divided there.
        values = {giver.get(s) for s in sources}
        whole = {output for output, weight in giver.items() if weight in values}
        folded.append(whole == {*sources} and all(readers[s] == 1 for s in sources))
        if folded[-1]:
            narrowed |= dict.fromkeys({giver[s] for s in sources}, divisors[-1])
    out: dict[str, Rounded] = {}
    for group, by, done in zip(groups, divisors, folded, strict=True):
        smooth = {product.source: rows[product.source] / by for product in group}
        wide = {product.weight: matrix(product.weight) * by[:, None] for product in group}
        scales: dict[str, Scale] = {
            name: activation_scale(found, list(wide.values())) for name, found in smooth.items()
        }
        matrices = {}
        for name, weight in wide.items():
            fed = sorted({p.source for p in group if p.weight == name})
            exact = np.concatenate([smooth[source] for source in fed])
            coarse = np.concatenate([scales[source].rounded(smooth[source]) for source in fed])
            matrices[name] = round_matrix(weight, exact, coarse)
        out |= dict.fromkeys(scales, Rounded(by, done, scales, matrices))
    return out


def sample(
    model: onnx.ModelProto, names: list[str], feeds: Sequence[Feeds]
) -> dict[str, NDArray[np.float32]]:
    """Some rows, (rows, width), of what each tensor `names` holds on real text.

    Padded positions do not count: they never reach a score.
    """
    run = watch(model, names)
    rng = np.random.default_rng(0)
    # Of each tensor the rows with the largest of random numbers, so that no more are ever held than
    # are wanted: all rows of the bundled text would be 12 GB in a decoder of 0.6 B parameters.
    found: dict[str, tuple[NDArray[np.float32], NDArray[np.float64]]] = {}
    for feed in feeds:
        masks = [mask.astype(bool) for key, mask in feed.items() if key.endswith("_mask")]
        values = run(feed)
        width = sum(seen.shape[-1] for seen in values.values())
        most = min(ROWS, max(LEAST_ROWS, ROWS_BYTES // (4 * width)))
        for name, seen in values.items():
            real = next((mask for mask in masks if mask.shape == seen.shape[:2]), ...)
            rows = seen[real].reshape(-1, seen.shape[-1]).astype(np.float32)
            lots = rng.random(len(rows))
            if name in found:
                rows = np.concatenate([found[name][0], rows])
                lots = np.concatenate([found[name][1], lots])
            drawn = np.argsort(-lots)[:most]
            found[name] = rows[drawn], lots[drawn]
    return {name: rows for name, (rows, _) in found.items()}


def _groups(plan: Sequence[Product]) -> list[list[Product]]:
    """Products that share a source or a matrix, and so must share the divisors."""
    groups: list[list[Product]] = []
    for product in plan:
        near = [
            group
            for group in groups
            if any(p.source == product.source or p.weight == product.weight for p in group)
        ]
        groups = [group for group in groups if group not in near]
        groups.append([*(p for group in near for p in group), product])
    return groups
