"""Metrics of tasks of which several labels may hold: each label as a question of yes and no, and their means."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nnduet.evaluation.bootstrap import FloatArray, weighted_mean
from nnduet.evaluation.metrics import classification
from nnduet.evaluation.metrics.answer_samples import NO_CASES, AnswerSample, ClassSample
from nnduet.evaluation.metrics.calibration import brier_score, expected_calibration_error

__all__ = ["label_calibration", "macro_f1_of_labels", "mean_brier", "mean_label_area", "share_all_right", "why_no_label_area"]


def share_all_right(sample: AnswerSample) -> FloatArray:
    """Share of cases of which every label is told right (R,); one without a prediction is wrong."""
    right = sample.answers.prediction == sample.answers.reference
    return weighted_mean(right.astype(float), sample.weights)


def macro_f1_of_labels(sample: AnswerSample) -> FloatArray:
    """Mean F1 over the labels that hold in truth or answers (R,)."""
    return classification.mean_of_defined(np.stack(_of_labels(sample, _f1), axis=1))


def mean_label_area(sample: AnswerSample) -> FloatArray:
    """Mean over the labels of the AUROC (R,)."""
    return _mean(sample, lambda part: part.sample.aurocs[:, part.index])


def mean_brier(sample: AnswerSample) -> FloatArray:
    """Mean over the labels of the Brier score of yes and no (R,), in [0, 2]."""
    return _mean(sample, lambda part: brier_score(part.sample.answers.probabilities, part.sample.reference, sample.weights))


def label_calibration(sample: AnswerSample) -> FloatArray:
    """Mean over the labels of the calibration error of the probability that the label holds (R,)."""
    return _mean(sample, _calibration)


def why_no_label_area(sample: AnswerSample) -> str:
    """Which labels hold in all cases or in none."""
    names = zip(sample.answers.task.classes, sample.labels, strict=True)
    constant = [name for name, part in names if part.is_absent or part.is_alone]
    return "label_of_all_or_no_cases: " + ", ".join(constant) if sample.num_cases else NO_CASES


def _f1(part: ClassSample) -> FloatArray:
    return classification.f1_per_class(part.sample.counts)[:, part.index]


def _calibration(part: ClassSample) -> FloatArray:
    holds = part.sample.answers.probabilities[:, part.index]
    return expected_calibration_error(holds, part.sample.reference == part.index, part.sample.weights)


def _of_labels(sample: AnswerSample, function: Callable[[ClassSample], FloatArray]) -> list[FloatArray]:
    return [function(part) for part in sample.labels]


def _mean(sample: AnswerSample, function: Callable[[ClassSample], FloatArray]) -> FloatArray:
    means: FloatArray = np.mean(_of_labels(sample, function), axis=0)
    return means
