"""Metrics on the order of numbers, with ties, for many bootstrap resamples at once: AUROC and Spearman's rho.

``weights`` (R, N) are case counts; sorting is done once, each resample only adds up its counts along the sorted order.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nnduet.evaluation.bootstrap import FloatArray, ratio

__all__ = ["auroc", "spearman"]


def auroc(scores: FloatArray, positive: npt.NDArray[np.bool_], weights: FloatArray) -> FloatArray:
    """Chance that a positive case scores above a negative one, ties counting half; (R,) in [0, 1].

    NaN where a resample lacks positives or negatives, and without cases.

    Source: Hanley and McNeil, Radiology 143 (1982).

    Examples:
        >>> positive = np.array([True, True, False, False])
        >>> auroc(np.array([0.9, 0.4, 0.4, 0.1]), positive, np.ones((1, 4))).tolist()  # 3.5 of 4 pairs
        [0.875]
    """
    if not len(scores):
        return np.full(len(weights), np.nan)
    order, starts, _ = _tie_groups(scores)
    positives = np.add.reduceat((weights * positive)[:, order], starts, axis=1)
    negatives = np.add.reduceat((weights * ~positive)[:, order], starts, axis=1)
    negatives_below = np.cumsum(negatives, axis=1) - negatives
    wins = (positives * (negatives_below + negatives / 2)).sum(axis=1)
    return ratio(wins, positives.sum(axis=1) * negatives.sum(axis=1))


def spearman(reference: FloatArray, prediction: FloatArray, weights: FloatArray) -> FloatArray:
    """Pearson correlation of the mid-ranks; (R,) in [-1, 1].

    NaN where reference or prediction is constant within a resample, and without cases.

    Source: Spearman, American Journal of Psychology 15 (1904).

    Examples:
        >>> spearman(np.array([1.0, 2.0, 3.0]), np.array([1.0, 4.0, 9.0]), np.ones((1, 3))).round(6).tolist()
        [1.0]
    """
    if not len(reference):
        return np.full(len(weights), np.nan)
    x, y = (_centred(_mid_ranks(values, weights), weights) for values in (reference, prediction))
    return ratio((weights * x * y).sum(axis=1), np.sqrt((weights * x * x).sum(axis=1) * (weights * y * y).sum(axis=1)))


def _tie_groups(values: FloatArray) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Sorting order (N,), where each run of equal values starts (G,), and the run of each case in its own place (N,)."""
    order = np.argsort(values, kind="stable")
    is_start = np.concatenate(([True], np.diff(values[order]) > 0))
    group = np.empty(len(values), dtype=np.intp)
    group[order] = np.cumsum(is_start) - 1
    return order, np.flatnonzero(is_start), group


def _mid_ranks(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Rank of each case within each resample (R, N); equal values share the mean of their ranks."""
    order, starts, group = _tie_groups(values)
    size = np.add.reduceat(weights[:, order], starts, axis=1)
    return (np.cumsum(size, axis=1) - size / 2 + 0.5)[:, group]


def _centred(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Values minus their weighted mean, with exact zeros where they are all equal among the drawn cases."""
    centred = values - (values * weights).sum(axis=1, keepdims=True) / weights.sum(axis=1, keepdims=True)
    return np.where(np.abs(centred) < 1e-9, 0.0, centred)
