"""Probabilities that mean what they say: temperature scaling, and conformal sets that contain the truth as often as promised.

Sources: temperature scaling, Guo et al. 2017, "On Calibration of Modern Neural Networks"; split conformal sets with the score
1 - p(true class), Sadinle, Lei and Wasserman 2019, "Least Ambiguous Set-Valued Classifiers"; cross-conformal use of
out-of-fold scores, Vovk 2015.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from nnduet.schema import Task

__all__ = ["conformal_set", "conformal_threshold", "cross_entropy", "fit_temperature", "nonconformity"]

Array = NDArray[np.float64]


def cross_entropy(logits: Array, labels: Array) -> float:
    """Mean -log p(true class) in nats, of logits (N, K) and class indices (N,); N >= 1.

    Examples:
        >>> round(cross_entropy(np.zeros((1, 2)), np.array([0.0])), 4)  # ln 2
        0.6931
    """
    picked = np.take_along_axis(log_softmax(logits, axis=1), labels.astype(int)[:, None], axis=1)
    return float(-picked.mean())


def fit_temperature(logits: Array, labels: Array) -> float:
    """The divisor of the logits, in [0.05, 20], that makes the labels most likely.

    Examples:
        >>> logits = np.log(np.array([[3.0, 1.0]] * 4))  # says 0.75
        >>> round(fit_temperature(logits, np.array([0.0, 0.0, 0.0, 1.0])), 2)  # and is right in 3 of 4
        1.0
        >>> fit_temperature(logits, np.array([0.0, 0.0, 1.0, 1.0])) > 10  # is right in 2 of 4
        True
    """
    found = minimize_scalar(
        lambda log_t: cross_entropy(logits / np.exp(log_t), labels), bounds=(np.log(0.05), np.log(20)), method="bounded"
    )
    return float(np.exp(found.x))


def nonconformity(task: Task, outputs: Array, reference: Array) -> Array:
    """How unlike the answer the truth is, (N,): 1 - p(true class), or the absolute error of a regression.

    Args:
        outputs: class probabilities (N, K), or values (N, 1).
        reference: (N,) class indices, or values.

    Examples:
        >>> grade = Task("grade", "binary", ("low", "high"))
        >>> nonconformity(grade, np.array([[0.75, 0.25], [0.5, 0.5]]), np.array([0.0, 1.0]))
        array([0.25, 0.5 ])
        >>> nonconformity(Task("age", "regression"), np.array([[40.0]]), np.array([43.0]))
        array([3.])
    """
    if task.type == "regression":
        return np.asarray(np.abs(outputs[:, 0] - reference))
    return np.asarray(1 - np.take_along_axis(outputs, reference.astype(int)[:, None], axis=1)[:, 0])


def conformal_threshold(scores: Sequence[float] | Array, error_rate: float) -> float:
    """The score that a new exchangeable case stays below with probability 1 - ``error_rate``.

    Args:
        scores: (N,) nonconformity of cases that the model had not seen.
        error_rate: in (0, 1).

    Returns:
        The ceil((N + 1)(1 - error_rate))-th smallest score; infinity where N is too small to promise that.

    Examples:
        >>> conformal_threshold([0.1, 0.2, 0.3, 0.4], error_rate=0.2)  # the ceil(5 * 0.8) = 4th smallest
        0.4
        >>> conformal_threshold([0.1, 0.2, 0.3, 0.4], error_rate=0.1)  # five scores would be needed
        inf
    """
    ordered = np.sort(np.asarray(scores, dtype=float))
    rank = int(np.ceil((len(ordered) + 1) * (1 - error_rate) - 1e-9))
    return float(ordered[rank - 1]) if rank <= len(ordered) else float("inf")


def conformal_set(probabilities: Array, threshold: float) -> list[int]:
    """Classes with 1 - p at most the threshold, likeliest first; the likeliest one is always in it.

    Examples:
        >>> conformal_set(np.array([0.25, 0.625, 0.125]), threshold=0.75)  # 1 - 0.25 is within, 1 - 0.125 is not
        [1, 0]
        >>> conformal_set(np.array([0.25, 0.625, 0.125]), threshold=0.0)
        [1]
    """
    order = np.argsort(-probabilities, kind="stable")
    return [int(k) for rank, k in enumerate(order) if rank == 0 or 1 - probabilities[k] <= threshold]
