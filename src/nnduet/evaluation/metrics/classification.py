"""Metrics that follow from the confusion matrix of one task, for many bootstrap resamples at once.

``counts`` (R, K, K + 1) holds, per resample, reference class (row) against predicted class (column); the last column is "no
prediction". Every function returns NaN where the metric is undefined; :mod:`nnduet.evaluation.task_scores` adds the reason.

Source of the definitions: scikit-learn 1.9 metrics with the same names (the oracle of the tests).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nnduet.evaluation.bootstrap import FloatArray, ratio

__all__ = [
    "accuracy",
    "balanced_accuracy",
    "confusion_counts",
    "f1_per_class",
    "macro_f1",
    "matthews_correlation",
    "mean_of_defined",
    "positive_likelihood_ratio_per_class",
    "precision_per_class",
    "quadratic_kappa",
    "recall_per_class",
    "specificity_per_class",
]

IntArray = npt.NDArray[np.integer[Any]]


def confusion_counts(reference: IntArray, prediction: IntArray, weights: FloatArray, num_classes: int) -> FloatArray:
    """Count (R, K, K + 1) from class indices (N,) and case weights (R, N); prediction -1 is "no prediction", the last column.

    No cases give zeros.

    Examples:
        >>> reference, prediction = np.array([0, 0, 1, 1]), np.array([0, 1, 1, -1])
        >>> confusion_counts(reference, prediction, np.ones((1, 4)), num_classes=2).tolist()  # rows: reference; last: no answer
        [[[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]]]
    """
    cell = reference * (num_classes + 1) + np.where(prediction < 0, num_classes, prediction)
    one_hot = cell[:, None] == np.arange(num_classes * (num_classes + 1))
    counts: FloatArray = weights @ one_hot.astype(float)
    return counts.reshape(-1, num_classes, num_classes + 1)


def _true_positives(counts: FloatArray) -> FloatArray:
    return np.diagonal(counts, axis1=1, axis2=2)


def _predicted(counts: FloatArray) -> FloatArray:
    """Cases given to each class (R, K), without those that have no prediction."""
    predicted: FloatArray = counts[:, :, :-1].sum(axis=1)
    return predicted


def _support(counts: FloatArray) -> FloatArray:
    """Cases of each reference class (R, K)."""
    support: FloatArray = counts.sum(axis=2)
    return support


def accuracy(counts: FloatArray) -> FloatArray:
    """Share of cases named right, (R,); a case without a prediction is wrong; NaN without cases.

    Examples:
        >>> accuracy(np.array([[[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]]])).tolist()  # 2 of 4
        [0.5]
    """
    return ratio(_true_positives(counts).sum(axis=1), counts.sum(axis=(1, 2)))


def recall_per_class(counts: FloatArray) -> FloatArray:
    """Sensitivity (R, K); NaN for a class absent from the reference.

    Examples:
        >>> recall_per_class(np.array([[[1.0, 1.0, 0.0], [0.0, 2.0, 0.0]]])).tolist()
        [[0.5, 1.0]]
    """
    return ratio(_true_positives(counts), _support(counts))


def precision_per_class(counts: FloatArray) -> FloatArray:
    """Positive predictive value (R, K); NaN for a class that is never predicted.

    Examples:
        >>> precision_per_class(np.array([[[1.0, 1.0, 0.0], [0.0, 1.0, 0.0]]])).tolist()
        [[1.0, 0.5]]
    """
    return ratio(_true_positives(counts), _predicted(counts))


def specificity_per_class(counts: FloatArray) -> FloatArray:
    """One-vs-rest true negative rate (R, K); NaN if every reference case is of that class.

    Examples:
        >>> specificity_per_class(np.array([[[3.0, 1.0, 0.0], [0.0, 2.0, 0.0]]])).tolist()
        [[1.0, 0.75]]
    """
    negatives = _support(counts).sum(axis=1, keepdims=True) - _support(counts)
    false_positives = _predicted(counts) - _true_positives(counts)
    return ratio(negatives - false_positives, negatives)


def f1_per_class(counts: FloatArray) -> FloatArray:
    """2 TP / (support + predicted), (R, K); NaN for a class neither in the reference nor predicted.

    Examples:
        >>> f1_per_class(np.array([[[1.0, 1.0, 0.0], [1.0, 3.0, 0.0]]])).tolist()  # 2 / (2 + 2), 6 / (4 + 4)
        [[0.5, 0.75]]
    """
    return ratio(2 * _true_positives(counts), _support(counts) + _predicted(counts))


def positive_likelihood_ratio_per_class(counts: FloatArray) -> FloatArray:
    """LR+ = sensitivity / (1 - specificity), one-vs-rest, (R, K), in [0, inf).

    NaN where sensitivity or specificity is undefined, and at perfect specificity, where the quotient is infinite.

    Source: Deeks and Altman, BMJ 329 (2004).

    Examples:
        >>> counts = np.array([[[3.0, 1.0, 0.0], [2.0, 2.0, 0.0]]])
        >>> positive_likelihood_ratio_per_class(counts).tolist()  # 0.75 / 0.5; 0.5 / 0.25
        [[1.5, 2.0]]
    """
    false_positives = _predicted(counts) - _true_positives(counts)
    negatives = _support(counts).sum(axis=1, keepdims=True) - _support(counts)
    return ratio(recall_per_class(counts) * negatives, false_positives)


def balanced_accuracy(counts: FloatArray) -> FloatArray:
    """Mean recall over the classes present in the reference, (R,); NaN without cases.

    Examples:
        >>> balanced_accuracy(np.array([[[1.0, 1.0, 0.0], [0.0, 2.0, 0.0]]])).tolist()  # of 0.5 and 1
        [0.75]
    """
    return mean_of_defined(recall_per_class(counts))


def macro_f1(counts: FloatArray) -> FloatArray:
    """Mean F1 over the classes in the reference or in the predictions, (R,), as scikit-learn does; NaN without cases.

    Examples:
        >>> macro_f1(np.array([[[1.0, 1.0, 0.0], [1.0, 3.0, 0.0]]])).tolist()  # of 0.5 and 0.75
        [0.625]
    """
    return mean_of_defined(f1_per_class(counts))


def mean_of_defined(values: FloatArray) -> FloatArray:
    """Mean (R,) of values (R, K) without NaN; NaN where all are."""
    defined = np.isfinite(values)
    return ratio(np.where(defined, values, 0).sum(axis=1), defined.sum(axis=1).astype(float))


def quadratic_kappa(counts: FloatArray) -> FloatArray:
    """Cohen's kappa with weights (i - j)^2 over class ranks, (R,), in [-1, 1].

    NaN where reference and predictions hold one and the same class only: agreement by chance is then perfect. The column
    "no prediction" must be empty; give such cases a rank first.

    Source: Cohen, Psychological Bulletin 70 (1968).

    Examples:
        >>> quadratic_kappa(np.array([[[2.0, 0.0, 0.0], [0.0, 2.0, 0.0]], [[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]]])).tolist()
        [1.0, 0.0]
    """
    square = counts[:, :, :-1]
    rank = np.arange(square.shape[1])
    distance = (rank[:, None] - rank[None, :]) ** 2.0
    total = square.sum(axis=(1, 2))
    by_chance = np.einsum("ri,ij,rj->r", square.sum(axis=2), distance, square.sum(axis=1))
    return 1 - ratio((square * distance).sum(axis=(1, 2)) * total, by_chance)


def matthews_correlation(counts: FloatArray) -> FloatArray:
    """R_K: how far truth and answers vary together, over how far each varies, (R,), in [-1, 1]; two classes give Matthews' phi.

    A case without a prediction counts as an answer that is no class. NaN where the reference, or all answers, are of one class,
    and without cases.

    Source: Gorodkin, Computational Biology and Chemistry 28 (2004), equation 8; Matthews, BBA 405 (1975).
    """
    total, hits = counts.sum(axis=(1, 2)), _true_positives(counts).sum(axis=1)
    truth, answers = _support(counts), counts.sum(axis=1)
    together = hits * total - (truth * answers[:, :-1]).sum(axis=1)
    alone = [total**2 - (of_class**2).sum(axis=1) for of_class in (truth, answers)]
    return ratio(together, np.sqrt(alone[0] * alone[1]))
