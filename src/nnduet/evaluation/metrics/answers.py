"""Metrics of answers that need more than the confusion matrix, and the reasons why metrics of answers are undefined."""

from __future__ import annotations

import numpy as np

from nnduet.evaluation.bootstrap import FloatArray, weighted_mean
from nnduet.evaluation.metrics.answer_samples import NO_CASES, AnswerSample, ClassSample
from nnduet.evaluation.metrics.calibration import expected_calibration_error
from nnduet.evaluation.metrics.ranking import spearman

__all__ = [
    "absolute_error",
    "calibration_error",
    "mean_area",
    "rank_correlation",
    "rank_error",
    "why_no_area",
    "why_no_error",
    "why_no_kappa",
    "why_no_likelihood_ratio",
    "why_no_mean_area",
    "why_no_precision",
    "why_no_recall",
    "why_no_specificity",
]


def calibration_error(sample: AnswerSample) -> FloatArray:
    """Expected calibration error of the answers (R,); a case without a prediction is wrong at even odds."""
    probabilities = sample.answers.probabilities
    correct = (probabilities.argmax(axis=1) == sample.reference) & (sample.prediction >= 0)
    return expected_calibration_error(probabilities.max(axis=1), correct, sample.weights)


def mean_area(sample: AnswerSample) -> FloatArray:
    """AUROC of the second of two classes, else the mean over classes (R,)."""
    areas: FloatArray = sample.aurocs[:, 1] if len(sample.answers.task.classes) == 2 else sample.aurocs.mean(axis=1)
    return areas


def rank_error(sample: AnswerSample) -> FloatArray:
    """Mean absolute error of ranks (R,)."""
    return weighted_mean(np.abs(sample.reference - sample.ranks).astype(float), sample.weights)


def absolute_error(sample: AnswerSample) -> FloatArray:
    """Mean absolute error of values (R,); NaN where a missing prediction has no worst value."""
    if np.isnan(sample.values).any():
        return np.full(len(sample.weights), np.nan)
    return weighted_mean(np.abs(sample.answers.reference - sample.values), sample.weights)


def rank_correlation(sample: AnswerSample) -> FloatArray:
    """Spearman's rho of values (R,); NaN where a missing prediction has no worst value."""
    if np.isnan(sample.values).any():
        return np.full(len(sample.weights), np.nan)
    return spearman(sample.answers.reference, sample.values, sample.weights)


def why_no_mean_area(sample: AnswerSample) -> str:
    """Which classes are in no reference."""
    return "absent_class: " + ", ".join(sample.absent_classes) if sample.num_cases else NO_CASES


def why_no_kappa(sample: AnswerSample) -> str:
    """Truth and answers are of one class."""
    return "one_class_only" if sample.num_cases else NO_CASES


def why_no_error(sample: AnswerSample) -> str:
    """Nothing varies, or a missing prediction has no worst value."""
    if not sample.num_cases:
        return NO_CASES
    if np.isnan(sample.values).any():
        return "missing_prediction_in_a_constant_reference"
    return "constant_reference" if np.ptp(sample.answers.reference) == 0 else "constant_prediction"


def why_no_recall(part: ClassSample) -> str:
    """No reference is of the class."""
    return "absent_class" if part.sample.num_cases else NO_CASES


def why_no_precision(part: ClassSample) -> str:
    """No prediction is of the class."""
    return "never_predicted" if part.sample.num_cases else NO_CASES


def why_no_specificity(part: ClassSample) -> str:
    """Every reference is of the class."""
    return "no_other_class" if part.sample.num_cases else NO_CASES


def why_no_area(part: ClassSample) -> str:
    """All references are of the class, or none."""
    return why_no_recall(part) if part.is_absent else why_no_specificity(part)


def why_no_likelihood_ratio(part: ClassSample) -> str:
    """All references are of the class, or none, or nothing is taken for the class that is not of it."""
    return why_no_area(part) if part.is_absent or part.is_alone else "perfect_specificity"
