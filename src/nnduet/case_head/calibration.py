"""Probabilities that mean what they say: temperature scaling, and conformal sets that contain the truth as often as promised.

Sources: temperature scaling, Guo et al. 2017, "On Calibration of Modern Neural Networks"; split conformal sets with the score
1 - p(true class), Sadinle, Lei and Wasserman 2019, "Least Ambiguous Set-Valued Classifiers"; cross-conformal use of
out-of-fold scores, Vovk 2015.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from nnduet.tasks.one_class import cross_entropy

__all__ = ["conformal_threshold", "fit_temperature"]

Array = NDArray[np.float64]


def fit_temperature(logits: Array, answers: Array, loss: Callable[[Array, Array], float] = cross_entropy) -> float:
    """The divisor of the logits (N, K), in [0.05, 20], that makes the answers (N,) most likely: their ``loss`` is least.

    Examples:
        >>> logits = np.log(np.array([[3.0, 1.0]] * 4))  # says 0.75
        >>> round(fit_temperature(logits, np.array([0.0, 0.0, 0.0, 1.0])), 2)  # and is right in 3 of 4
        1.0
        >>> fit_temperature(logits, np.array([0.0, 0.0, 1.0, 1.0])) > 10  # is right in 2 of 4
        True
    """
    found = minimize_scalar(
        lambda log_t: loss(logits / np.exp(log_t), answers), bounds=(np.log(0.05), np.log(20)), method="bounded"
    )
    return float(np.exp(found.x))


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
