"""Whether probabilities mean what they say: Brier score and expected calibration error."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nnduet.evaluation.bootstrap import FloatArray, ratio, weighted_mean

__all__ = ["NUM_BINS", "brier_score", "expected_calibration_error"]

NUM_BINS = 15

IntArray = npt.NDArray[np.integer[Any]]


def brier_score(probabilities: FloatArray, reference: IntArray, weights: FloatArray) -> FloatArray:
    """Squared error summed over classes, averaged over cases: (R,) in [0, 2], also for two classes; NaN without cases.

    Args:
        probabilities: (N, K).
        reference: (N,) class indices.
        weights: (R, N).

    Source: Brier, Monthly Weather Review 78 (1950), equation 2. Twice the one-column form for two classes.

    Examples:
        >>> probabilities = np.array([[0.5, 0.5], [1.0, 0.0]])
        >>> brier_score(probabilities, np.array([0, 0]), np.ones((1, 2))).tolist()  # of 0.25 + 0.25 and 0
        [0.25]
    """
    target = reference[:, None] == np.arange(probabilities.shape[1])
    return weighted_mean(((probabilities - target) ** 2).sum(axis=1), weights)


def expected_calibration_error(confidence: FloatArray, correct: npt.NDArray[np.bool_], weights: FloatArray) -> FloatArray:
    """Mean over bins of |accuracy - confidence|, weighted by the cases in the bin: (R,) in [0, 1]; NaN without cases.

    Args:
        confidence: (N,) probability of the most probable class, in 15 equal bins on [0, 1].
        correct: (N,) whether that class is right.
        weights: (R, N).

    Source: Guo et al., ICML (2017), equation 3; same bins as ``torchmetrics`` ``multiclass_calibration_error(norm="l1")``.

    Examples:
        >>> confidence, correct = np.array([0.75, 0.75]), np.array([True, False])
        >>> expected_calibration_error(confidence, correct, np.ones((1, 2))).tolist()  # right in half, sure of 0.75
        [0.25]
    """
    bins = np.digitize(confidence, np.linspace(0, 1, NUM_BINS + 1))
    in_bin = (bins[:, None] == np.arange(1, NUM_BINS + 2)).astype(float)
    gap = np.abs(weights @ (in_bin * (correct - confidence)[:, None]))
    return ratio(gap.sum(axis=1), weights.sum(axis=1))
