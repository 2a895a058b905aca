"""Rounding a product to 8 bits with little damage to its result."""

import numpy as np
import pytest
from export_support import require_export

require_export()

from flashrank_lite.export.graph.rounding import (  # noqa: E402
    WEIGHT_MAX,
    Matrix,
    activation_scale,
    round_matrix,
    smoothing,
)


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    """Activations as transformers have them: correlated, off centre, a few columns far larger."""
    rng = np.random.default_rng(0)
    basis = rng.normal(size=(24, 96))
    found = rng.normal(size=(2000, 24)) @ basis + rng.normal(size=96)
    found[:, [3, 70]] *= 20
    return found.astype(np.float32)


@pytest.fixture(scope="module")
def weight() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(96, 80)).astype(np.float32)


def damage(matrix: Matrix, given: np.ndarray, exact: np.ndarray) -> float:
    """Root mean square of what the rounded product is off by."""
    return float(
        np.sqrt(np.square(given @ (matrix.stored * matrix.scale) + matrix.bias - exact).mean())
    )


def test_a_compensated_matrix_does_less_damage_than_the_nearest_one(rows, weight):
    fitted, unseen = rows[:1000], rows[1000:]
    scale = np.abs(weight).max(0) / WEIGHT_MAX
    nearest = Matrix(np.rint(weight / scale).astype(np.int8), scale, np.zeros(80, np.float32))
    found = round_matrix(weight, fitted, fitted)
    exact = unseen @ weight
    assert damage(found, unseen, exact) < 0.7 * damage(nearest, unseen, exact)
    assert np.abs(found.stored.astype(int)).max() <= WEIGHT_MAX


def test_smoothing_spares_the_small_columns_beside_large_ones(rows, weight):
    exact = rows @ weight
    errors = []
    for divisors in (np.ones(96, np.float32), smoothing([rows])):
        smooth, scaled = rows / divisors, weight * divisors[:, None]
        np.testing.assert_allclose(smooth @ scaled, exact, rtol=1e-3, atol=1e-2)
        scale = activation_scale(smooth, [scaled])
        errors.append(float(np.square(scale.rounded(smooth) @ scaled - exact).mean()))
    assert errors[1] < 0.5 * errors[0]


def test_the_mean_error_goes_into_the_bias(rows, weight):
    scale = activation_scale(rows, [weight])
    coarse = scale.rounded(rows)
    found = round_matrix(weight, rows, coarse)
    off = coarse @ (found.stored * found.scale) + found.bias - rows @ weight
    assert np.abs(off.mean(0)).max() < 1e-2 * np.abs(off).max()


def test_an_activation_scale_represents_zero_exactly(rows):
    for values in (rows, np.abs(rows), -np.abs(rows)):
        found = activation_scale(values, [np.eye(96, dtype=np.float32)])
        assert 0 <= found.zero_point <= 255
        assert found.rounded(np.zeros(3, np.float32)).tolist() == [0.0, 0.0, 0.0]


def test_a_matrix_is_not_fitted_to_a_few_texts(rows, weight):
    divisors = smoothing([rows])
    smooth, scaled = rows / divisors, weight * divisors[:, None]
    few, unseen = smooth[:60], smooth[1000:]
    scale = activation_scale(smooth, [scaled])
    found = round_matrix(scaled, few, scale.rounded(few))
    plain = round_matrix(scaled, few, few)  # nothing to fit: the activations are exact
    exact, given = unseen @ scaled, scale.rounded(unseen)
    assert damage(found, given, exact) < 1.1 * damage(plain, given, exact)
