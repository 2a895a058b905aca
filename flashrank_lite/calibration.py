"""Scores that are probabilities: an activation fitted on pairs that people have judged.

A reranker is trained to order passages, not to say how likely one is to be right: its sigmoid may
give right answers 0.1 and wrong ones 0.6. With a few hundred judged pairs of one's own queries a
curve over its logits mends that, and a threshold then means what it says. The order stays.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from flashrank_lite.errors import InvalidInput
from flashrank_lite.logits import Activation, activate

Method = Literal["platt", "isotonic"]
Floats = NDArray[np.float64]

FORMAT = 1  # of the file
_FOLDS = 5  # parts of the queries, each predicted by a curve that was fitted on the others
_BINS = 10
_STEPS = 100  # of Newton's method; it takes fewer than ten
_CLOSE = 1e-10


@dataclass(frozen=True, slots=True)
class Platt:
    """The sigmoid of slope * logit + intercept: two numbers, fit for a few dozen pairs and more.

    J. Platt, Probabilistic outputs for support vector machines, 1999; fitted as by H. Lin, C. Lin
    and R. Weng, A note on Platt's probabilistic outputs, 2007.
    """

    method: ClassVar[Method] = "platt"
    slope: float
    intercept: float

    def __call__(self, logits: NDArray[Any]) -> NDArray[np.float32]:
        """The probabilities of logits, in their shape."""
        z = self.slope * np.asarray(logits, np.float64) + self.intercept
        return activate(z.astype(np.float32), "sigmoid")


@dataclass(frozen=True, slots=True)
class Isotonic:
    """The nearest curve that never falls, straight between its corners: for a thousand and more.

    Attributes:
        logits: of the corners, rising.
        probabilities: of the corners, never falling; beyond the ends they stay.
    """

    method: ClassVar[Method] = "isotonic"
    logits: tuple[float, ...]
    probabilities: tuple[float, ...]

    def __call__(self, logits: NDArray[Any]) -> NDArray[np.float32]:
        """The probabilities of logits, in their shape."""
        scores = np.interp(np.asarray(logits), self.logits, self.probabilities)
        return np.asarray(scores, np.float32)


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """The judged pairs with a score between `low` and `high`.

    Attributes:
        low: the lowest score.
        high: the highest score.
        pairs: how many there are.
        mean_score: what the scores say how many are relevant.
        relevant: the share that is.
    """

    low: float
    high: float
    pairs: int
    mean_score: float
    relevant: float


@dataclass(frozen=True)
class Calibration:
    """An activation: `Ranker(activation=calibration)`, or for one call.

    Attributes:
        curve: from logits to probabilities.
        model: the name of the model that it was fitted on; it is meaningless for another.
        pairs: judged pairs that it was fitted on.
        relevant: how many of them are relevant.
        brier: mean squared error of the probabilities, 0 is best; `held_out` says of which.
        brier_before: the same of the sigmoid of the logits.
        reliability: the probabilities against what is so; bins without pairs are left out.
        held_out: whether `brier` and `reliability` are of queries that the curve did not see (five
            folds); with fewer than five queries they are of the pairs it was fitted on, and flatter
            it.
    """

    curve: Platt | Isotonic
    model: str | None
    pairs: int
    relevant: int
    brier: float
    brier_before: float
    reliability: tuple[ReliabilityBin, ...]
    held_out: bool

    @property
    def method(self) -> Method:
        """ "platt" or "isotonic"."""
        return self.curve.method

    def __call__(self, logits: NDArray[Any]) -> NDArray[np.float32]:
        """Probabilities for logits: float32, in their shape."""
        return self.curve(logits)

    def to_dict(self) -> dict[str, Any]:
        """JSON-clean, and all of it: `from_dict` is the way back."""
        values = {name: value for name, value in vars(self).items() if name != "curve"}
        values["reliability"] = [asdict(row) for row in self.reliability]
        return {"format": FORMAT, "method": self.method, "curve": asdict(self.curve), **values}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Calibration":
        """What `to_dict` made.

        Raises:
            InvalidInput: something else made it.
        """
        try:
            if values["format"] != FORMAT:
                raise ValueError(f"format {values['format']}, and this version reads {FORMAT}")
            numbers = values["curve"]
            curve: Platt | Isotonic
            if values["method"] == "platt":
                curve = Platt(float(numbers["slope"]), float(numbers["intercept"]))
            else:
                corners = {name: tuple(map(float, row)) for name, row in numbers.items()}
                curve = _check(Isotonic(**corners))
            bins = tuple(ReliabilityBin(**row) for row in values["reliability"])
            rest = ("model", "pairs", "relevant", "brier", "brier_before", "held_out")
            return cls(curve=curve, reliability=bins, **{name: values[name] for name in rest})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidInput(
                f"not a calibration that `Calibration.save` wrote ({error}): fit it again with "
                "Ranker.calibrate"
            ) from None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as a JSON file."""
        text = json.dumps(self.to_dict(), indent=1, allow_nan=False)
        Path(path).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Calibration":
        """Read what `save` wrote.

        Raises:
            OSError: the file cannot be read.
            InvalidInput: it holds something else.
        """
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise InvalidInput(f"{os.fspath(path)} is not JSON: {error}") from None
        return cls.from_dict(values)


def read_activation(
    activation: Activation | Calibration | str | os.PathLike[str] | None,
) -> Activation | Calibration | None:
    """The activation that is meant: itself, or the calibration of a file.

    Raises:
        InvalidInput: it is none, and there is no such file; the file holds something else.
    """
    if not isinstance(activation, (str, os.PathLike)):
        check_activation(activation)
        return activation
    named: Activation | None = next(
        (one for one in get_args(Activation) if one == activation), None
    )
    if named is not None:
        return named
    try:
        return Calibration.load(activation)
    except OSError as error:
        raise InvalidInput(
            f"activation must be 'sigmoid', 'raw' or a file that `Calibration.save` wrote; "
            f"{os.fspath(activation)!r} cannot be read: {error.strerror or error}"
        ) from None


def check_activation(activation: object, model: str | None = None) -> None:
    """Raises InvalidInput if it is no activation, or one that was fitted on another model."""
    if isinstance(activation, Calibration):
        if None not in (model, activation.model) and model != activation.model:
            raise InvalidInput(
                f"this calibration was fitted on {activation.model!r} and says nothing of "
                f"{model!r}: fit one with this ranker's calibrate, or, if they are one model under "
                "two names, pass dataclasses.replace(calibration, model=None)"
            )
    elif activation not in (None, "sigmoid", "raw"):
        raise InvalidInput(
            "activation must be 'sigmoid', 'raw' or None, or what Ranker.calibrate or "
            f"Calibration.load returned, not {activation!r}"
        )


def fit(
    logits: NDArray[Any],
    labels: NDArray[np.bool_],
    queries: Sequence[int],
    method: Method = "platt",
    model: str | None = None,
) -> Calibration:
    """Fit a calibration.

    Args:
        logits: (n,), of judged pairs.
        labels: (n,), whether each pair is relevant.
        queries: n numbers, the same for pairs of one query.
        method: "platt" or "isotonic".
        model: whose logits they are.

    Raises:
        InvalidInput: the method is neither; all pairs are relevant or none is; the relevant ones
            have the lower logits.
    """
    if method not in ("platt", "isotonic"):
        raise InvalidInput(f"method must be 'platt' or 'isotonic', not {method!r}")
    logits = np.asarray(logits, np.float64)
    if labels.all() or not labels.any():
        raise InvalidInput(
            f"all {len(labels)} judged pairs have the same label: a calibration needs passages "
            "that are relevant and passages that are not"
        )
    if logits[labels].mean() <= logits[~labels].mean():
        raise InvalidInput(
            "the relevant pairs score no higher than the others: either 1 and 0 are swapped in the "
            "labels, or this model cannot tell them apart"
        )
    fitter = _fit_platt if method == "platt" else _fit_isotonic
    curve = fitter(logits, labels)
    predicted = _predict_held_out(logits, labels, np.asarray(queries), fitter)
    held_out = predicted is not None
    scores = predicted if predicted is not None else np.float64(curve(logits))
    return Calibration(
        curve=curve,
        model=model,
        pairs=len(labels),
        relevant=int(labels.sum()),
        brier=brier(scores, labels),
        brier_before=brier(activate(logits.astype(np.float32), "sigmoid"), labels),
        reliability=reliability(scores, labels),
        held_out=held_out,
    )


def brier(scores: NDArray[Any], labels: NDArray[np.bool_]) -> float:
    """Mean squared difference of scores in [0, 1] and labels; 0 is best."""
    return float(np.mean((np.asarray(scores, np.float64) - labels) ** 2))


def reliability(scores: NDArray[Any], labels: NDArray[np.bool_]) -> tuple[ReliabilityBin, ...]:
    """Ten bins of equal width over scores in [0, 1]; those without pairs are left out."""
    scores = np.asarray(scores, np.float64)
    places = np.minimum((scores * _BINS).astype(int), _BINS - 1)
    bins = []
    for place in np.unique(places):
        inside = places == place
        bins.append(
            ReliabilityBin(
                low=int(place) / _BINS,
                high=(int(place) + 1) / _BINS,
                pairs=int(inside.sum()),
                mean_score=float(scores[inside].mean()),
                relevant=float(labels[inside].mean()),
            )
        )
    return tuple(bins)


def _predict_held_out(
    logits: Floats, labels: NDArray[np.bool_], queries: NDArray[Any], fitter: Any
) -> Floats | None:
    """Each query's scores by a curve that did not see it; None with too few queries or labels."""
    numbers = np.unique(queries, return_inverse=True)[1]
    folds = numbers % _FOLDS
    if len(np.unique(numbers)) < _FOLDS:
        return None
    scores = np.empty(len(logits))
    for fold in range(_FOLDS):
        apart = folds == fold
        if labels[~apart].all() or not labels[~apart].any():
            return None
        scores[apart] = fitter(logits[~apart], labels[~apart])(logits[apart])
    return scores


def _fit_platt(logits: Floats, labels: NDArray[np.bool_]) -> Platt:
    """Newton's method with halved steps, on targets that are a little short of 0 and 1."""
    relevant = int(labels.sum())
    target = np.where(labels, (relevant + 1) / (relevant + 2), 1 / (len(labels) - relevant + 2))
    columns = np.stack([logits, np.ones_like(logits)])
    weights = np.array([0.0, np.log((relevant + 1) / (len(labels) - relevant + 1))])

    def loss(at: Floats) -> float:
        z = at @ columns
        return float(np.sum(np.logaddexp(0.0, z) - target * z))

    for _ in range(_STEPS):
        probability = np.exp(-np.logaddexp(0.0, -(weights @ columns)))
        gradient = columns @ (probability - target)
        if np.abs(gradient).max() < _CLOSE * len(labels):
            break
        curvature = (columns * (probability * (1 - probability))) @ columns.T
        step = np.linalg.solve(curvature + 1e-12 * np.eye(2), gradient)
        size, here = 1.0, loss(weights)
        while loss(weights - size * step) > here - 1e-4 * size * (gradient @ step):
            size /= 2
            if size < 1e-10:
                return Platt(float(weights[0]), float(weights[1]))
        weights = weights - size * step
    return Platt(float(weights[0]), float(weights[1]))


def _fit_isotonic(logits: Floats, labels: NDArray[np.bool_]) -> Isotonic:
    """Pool adjacent violators: neighbours that fall are replaced by their mean."""
    corners, inverse, counts = np.unique(logits, return_inverse=True, return_counts=True)
    means = np.bincount(inverse, labels) / counts
    blocks: list[list[float]] = []  # mean, weight, corners
    for mean, weight in zip(means.tolist(), counts.tolist(), strict=True):
        blocks.append([mean, weight, 1])
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            last, before = blocks.pop(), blocks[-1]
            total = before[1] + last[1]
            before[0] = (before[0] * before[1] + last[0] * last[1]) / total
            before[1], before[2] = total, before[2] + last[2]
    fitted = np.repeat([block[0] for block in blocks], [int(block[2]) for block in blocks])
    # of a level stretch the two ends are enough
    inner = np.zeros(len(fitted), bool)
    inner[1:-1] = (fitted[1:-1] == fitted[:-2]) & (fitted[1:-1] == fitted[2:])
    return Isotonic(tuple(corners[~inner].tolist()), tuple(fitted[~inner].tolist()))


def _check(curve: Isotonic) -> Isotonic:
    rising = np.all(np.diff(curve.logits) > 0) and np.all(np.diff(curve.probabilities) >= 0)
    if not curve.logits or len(curve.logits) != len(curve.probabilities) or not rising:
        raise ValueError("the corners of its curve do not rise")
    return curve
