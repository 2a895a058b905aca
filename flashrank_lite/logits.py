"""Logits out of the graph, scores out of the logits.

A relevance head gives one logit per pair, or two classes, of which one means "relevant".
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from flashrank_lite.errors import InvalidModel, NonFiniteScores

Activation = Literal["sigmoid", "raw"]
Curve = Callable[[NDArray[np.float32]], NDArray[np.float32]]  # it never falls: the order is kept

_FLOATS = ("tensor(float16)", "tensor(float)", "tensor(double)")
_SMALLEST = np.finfo(np.float32).tiny  # of a probability, so that its logit is finite
_GRAPH_ACTIVATIONS: dict[str, Literal["sigmoid", "softmax"]] = {
    "Sigmoid": "sigmoid",
    "Softmax": "softmax",
}


@dataclass(frozen=True, slots=True)
class Head:
    """How to read the output.

    Attributes:
        type: "logit" (one number per pair), "two_class", or None, which lets the graph's own shape
            decide between the two.
        relevant: of two classes, the index of the one that means relevant.
        graph_activation: what the graph itself ends in; its output is a probability then, and the
            logit its inverse.
    """

    type: Literal["logit", "two_class"] | None = None
    relevant: int = 1
    graph_activation: Literal["sigmoid", "softmax"] | None = None


@dataclass(frozen=True, slots=True)
class Output:
    """An output that a graph declares: its shape, None where it is dynamic; onnxruntime's type."""

    name: str
    shape: tuple[int | None, ...] | None
    type: str = "tensor(float)"

    def __str__(self) -> str:
        kind = "" if self.type in _FLOATS else f" of {self.type}"
        if self.shape is None:
            return f"{self.name} (shape not declared){kind}"
        return f"{self.name} ({', '.join('?' if d is None else str(d) for d in self.shape)}){kind}"


def choose_output(outputs: Sequence[Output], head: Head) -> tuple[str, Head]:
    """Find the relevance logits among a graph's outputs.

    Returns:
        The output's name, and the head with its type settled where the shape tells it.

    Raises:
        InvalidModel: no output can be a relevance head; the message lists what there is.
    """
    named = [output for output in outputs if output.name in ("logits", "scores")]
    able = [output for output in named or outputs if _width(output) in (1, 2, None)]
    if len(able) != 1:
        raise _not_a_head("no single relevance output", outputs)
    output = able[0]
    width = _width(output)
    if width is None:
        return output.name, head
    return output.name, resolve_head(head, width, output)


def graph_activation(last_operator: str | None) -> Literal["sigmoid", "softmax"] | None:
    """What a graph with this last operator has already done to its logits."""
    return _GRAPH_ACTIVATIONS.get(last_operator or "")


def resolve_head(head: Head, width: int, output: Output) -> Head:
    """The head whose type fits an output of `width` columns.

    Raises:
        InvalidModel: the manifest says another head than the graph has.
    """
    found: Literal["logit", "two_class"] = "two_class" if width == 2 else "logit"
    if width not in (1, 2) or head.type not in (None, found):
        wanted = "" if head.type is None else f"a head of type {head.type!r} does not fit"
        raise _not_a_head(wanted or "not a relevance head", [output])
    return replace(head, type=found)


def read_logits(array: NDArray[Any], rows: int, name: str, head: Head) -> NDArray[np.float32]:
    """One float32 logit per pair, (rows,), from the output of one run.

    For two classes the logit is x_relevant - x_other: its sigmoid is the softmax.

    Raises:
        InvalidModel: the output has another shape than a relevance head.
        NonFiniteScores: a logit is NaN or infinite.
    """
    array = np.asarray(array)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or array.shape[0] != rows or array.dtype.kind != "f":
        raise _not_a_head(f"{rows} pairs in, {array.dtype} out", [Output(name, array.shape)])
    head = resolve_head(head, array.shape[1], Output(name, array.shape))
    values = array.astype(np.float32)
    finite = np.isfinite(values)
    if not finite.all():
        bad = int(np.count_nonzero(~finite.all(axis=1)))
        raise NonFiniteScores(
            f"the model gave NaN or infinite logits for {bad} of the {rows} pairs of a batch: "
            "its weights or its quantisation are broken (a float16 graph overflows so); "
            "use another variant of it, for instance the fp32 one"
        )
    if head.graph_activation is not None:
        values = _inverse(values, head)
    logits: NDArray[np.float32] = values[:, 0]
    if head.type == "two_class":
        logits = values[:, head.relevant] - values[:, 1 - head.relevant]
    return logits


def activate(logits: NDArray[np.float32], activation: Activation | Curve) -> NDArray[np.float32]:
    """Scores for logits: through the sigmoid or a curve of the user's, or unchanged ("raw")."""
    if not isinstance(activation, str):
        probabilities: NDArray[np.float32] = activation(logits)
        return probabilities
    if activation == "raw":
        return np.array(logits)
    # 1 / (1 + e^-x), without overflow whatever the sign
    scores: NDArray[np.float64] = np.exp(-np.logaddexp(0.0, -logits.astype(np.float64)))
    return scores.astype(np.float32)


def _inverse(probabilities: NDArray[np.float32], head: Head) -> NDArray[np.float32]:
    """Logits whose sigmoid, or softmax, these probabilities are; finite where they are 0 or 1."""
    logarithms = np.log(np.maximum(probabilities, _SMALLEST))
    if head.graph_activation == "softmax" and head.type == "two_class":
        return np.asarray(logarithms, np.float32)
    rest = np.maximum(1 - probabilities.astype(np.float64), _SMALLEST)
    logits: NDArray[np.float32] = (logarithms - np.log(rest)).astype(np.float32)
    return logits


def _width(output: Output) -> int | None:
    """Columns of a float output of one or two dimensions: 0 if it is none, None if undeclared."""
    if output.type not in _FLOATS:
        return 0
    if output.shape is None or (len(output.shape) == 2 and output.shape[1] is None):
        return None
    if len(output.shape) == 2:
        return output.shape[1]
    return 1 if len(output.shape) == 1 else 0


def _not_a_head(problem: str, outputs: Sequence[Output]) -> InvalidModel:
    listed = "; ".join(str(output) for output in outputs) or "none"
    return InvalidModel(
        f"{problem}: a reranker gives one logit, (n, 1) or (n,), or two classes, (n, 2), for each "
        f"pair, as floats; the graph's outputs are: {listed}. Export the model as a "
        "sequence classifier with one label, or point to a model that is a cross-encoder"
    )
