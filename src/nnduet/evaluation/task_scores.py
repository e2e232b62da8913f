"""All metrics of one task with intervals, reasons for what is undefined, and the baseline they must beat.

A case without a prediction stays in: its answer counts as wrong (no class), its probabilities as uniform, its confidence as
wrong. Where a metric needs a number, the worst one is taken: for ordinal tasks the rank farthest from the truth, for
regression the value farthest from the truth within the range of the references.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nnduet.evaluation.answer_tables import TaskAnswers
from nnduet.evaluation.bootstrap import FloatArray, Resamples, draw_resamples, weighted_mean
from nnduet.evaluation.metrics import classification as by_counts
from nnduet.evaluation.metrics.calibration import brier_score, expected_calibration_error
from nnduet.evaluation.metrics.ranking import auroc, spearman

__all__ = ["score_task"]


def score_task(answers: TaskAnswers, *, num_resamples: int, seed: int) -> dict[str, Any]:
    """Score one task as JSON; without labelled cases every value is None with reason ``no_labelled_cases``."""
    resamples = draw_resamples(answers.groups, num_resamples=num_resamples, seed=seed)
    common = {
        "type": answers.task.type,
        "num_cases": len(answers.case_ids),
        "num_resampling_units": resamples.num_units,
        "num_missing_predictions": len(answers.missing),
    }
    score = _score_classification if answers.task.is_classification else _score_regression
    return {**common, **score(answers, resamples)}


def _score_classification(answers: TaskAnswers, resamples: Resamples) -> dict[str, Any]:
    classes = answers.task.classes
    reference, prediction = _class_indices(answers)
    counts = by_counts.confusion_counts(reference, prediction, resamples.weights, len(classes))
    aurocs = _auroc_per_class(answers, resamples)
    support = counts[0].sum(axis=1)
    absent = [name for name, number in zip(classes, support, strict=True) if number == 0]
    baseline = _majority_baseline(answers, reference)
    metrics = _overall(answers, resamples, counts, aurocs, absent)
    if answers.task.type == "ordinal":
        metrics |= _ordinal(answers, resamples)
    measured = metrics["macro_f1"]["value"]
    return {
        "classes": list(classes),
        "absent_classes": absent,
        "metrics": metrics,
        "per_class": _per_class(answers, resamples, counts, aurocs),
        "confusion_matrix": counts[0, :, :-1].astype(int).tolist(),
        "no_prediction_per_reference_class": counts[0, :, -1].astype(int).tolist(),
        "majority_baseline": baseline,
        "beats_majority_baseline": None if measured is None else measured > baseline["macro_f1"],
        "collapsed": bool((counts[0, :, :-1].sum(axis=0) > 0).sum() == 1 and (support > 0).sum() > 1),
    }


def _class_indices(answers: TaskAnswers) -> tuple[by_counts.IntArray, by_counts.IntArray]:
    return answers.reference.astype(int), np.where(np.isnan(answers.prediction), -1, answers.prediction).astype(int)


def _overall(
    answers: TaskAnswers, resamples: Resamples, counts: FloatArray, aurocs: FloatArray, absent: list[str]
) -> dict[str, Any]:
    weights, num_cases = resamples.weights, len(answers.case_ids)
    reference, prediction = _class_indices(answers)
    correct = (answers.probabilities.argmax(axis=1) == reference) & (prediction >= 0)
    curve = aurocs[:, 1] if len(answers.task.classes) == 2 else aurocs.mean(axis=1)
    values = {
        "accuracy": by_counts.accuracy(counts),
        "balanced_accuracy": by_counts.balanced_accuracy(counts),
        "macro_f1": by_counts.macro_f1(counts),
        "auroc": curve,
        "brier": brier_score(answers.probabilities, reference, weights),
        "ece": expected_calibration_error(answers.probabilities.max(axis=1), correct, weights),
    }
    entries = {}
    for name, value in values.items():
        reason = "absent_class: " + ", ".join(absent) if num_cases and name == "auroc" else "no_labelled_cases"
        entries[name] = resamples.estimate(value, n_defined=num_cases, reason=reason)
    entries["balanced_accuracy"]["absent_classes"] = absent
    return entries


def _auroc_per_class(answers: TaskAnswers, resamples: Resamples) -> FloatArray:
    """One-vs-rest AUROC (R, K)."""
    columns = [
        auroc(answers.probabilities[:, index], answers.reference == index, resamples.weights)
        for index in range(len(answers.task.classes))
    ]
    return np.stack(columns, axis=1)


def _ordinal(answers: TaskAnswers, resamples: Resamples) -> dict[str, Any]:
    """Quadratic kappa and mean absolute error over ranks."""
    reference, prediction = _class_indices(answers)
    top = len(answers.task.classes) - 1
    farthest = np.where(reference > top / 2, 0, top)
    ranks = np.where(prediction < 0, farthest, prediction)
    counts = by_counts.confusion_counts(reference, ranks, resamples.weights, top + 1)
    error = weighted_mean(np.abs(reference - ranks).astype(float), resamples.weights)
    num_cases = len(reference)
    reason = "one_class_only" if num_cases else "no_labelled_cases"
    return {
        "quadratic_kappa": resamples.estimate(by_counts.quadratic_kappa(counts), n_defined=num_cases, reason=reason),
        "rank_mae": resamples.estimate(error, n_defined=num_cases, reason="no_labelled_cases"),
    }


def _per_class(answers: TaskAnswers, resamples: Resamples, counts: FloatArray, aurocs: FloatArray) -> dict[str, Any]:
    values = {
        "precision": by_counts.precision_per_class(counts),
        "recall": by_counts.recall_per_class(counts),
        "specificity": by_counts.specificity_per_class(counts),
        "f1": by_counts.f1_per_class(counts),
        "auroc": aurocs,
        "lr_plus": by_counts.positive_likelihood_ratio_per_class(counts),
    }
    num_cases = len(answers.case_ids)
    return {
        class_label: {
            "support": int(counts[0, index].sum()),
            **{
                name: resamples.estimate(value[:, index], n_defined=num_cases, reason=_reason(name, counts[0], index))
                for name, value in values.items()
            },
        }
        for index, class_label in enumerate(answers.task.classes)
    }


def _reason(metric: str, counts: FloatArray, index: int) -> str:
    """Why a per-class value is undefined, given the counts (K, K + 1) of the sample."""
    support = counts.sum(axis=1)
    if not support.sum():
        return "no_labelled_cases"
    if metric == "precision":
        return "never_predicted"
    if metric != "specificity" and not support[index]:
        return "absent_class"
    return "no_other_class" if support[index] == support.sum() else "perfect_specificity"


def _majority_baseline(answers: TaskAnswers, reference: by_counts.IntArray) -> dict[str, Any]:
    """What always naming the most frequent reference class would score; of equals the first."""
    if not len(reference):
        return {"class": None, "accuracy": None, "macro_f1": None, "reason": "no_labelled_cases"}
    num_classes = len(answers.task.classes)
    majority = int(np.bincount(reference, minlength=num_classes).argmax())
    constant = np.full_like(reference, majority)
    counts = by_counts.confusion_counts(reference, constant, np.ones((1, len(reference))), num_classes)
    return {
        "class": answers.task.classes[majority],
        "accuracy": float(by_counts.accuracy(counts)[0]),
        "macro_f1": float(by_counts.macro_f1(counts)[0]),
    }


def _score_regression(answers: TaskAnswers, resamples: Resamples) -> dict[str, Any]:
    reference, weights, num_cases = answers.reference, resamples.weights, len(answers.case_ids)
    prediction = _with_worst_values(answers)
    undefined = np.full(len(weights), np.nan)
    known = not np.isnan(prediction).any()
    error = weighted_mean(np.abs(reference - prediction), weights) if known else undefined
    rho = spearman(reference, prediction, weights) if known else undefined
    return {
        "unit": answers.task.unit,
        "metrics": {
            "mae": resamples.estimate(error, n_defined=num_cases, reason=_regression_reason(reference, prediction)),
            "spearman": resamples.estimate(rho, n_defined=num_cases, reason=_regression_reason(reference, prediction)),
        },
    }


def _with_worst_values(answers: TaskAnswers) -> FloatArray:
    """Predictions (N,), the missing ones replaced by the reference value farthest from the truth; NaN if all are equal."""
    reference, prediction = answers.reference, answers.prediction
    if not len(answers.missing) or reference.min() == reference.max():
        return prediction
    low, high = reference.min(), reference.max()
    farthest = np.where(reference - low > high - reference, low, high)
    return np.where(np.isnan(prediction), farthest, prediction)


def _regression_reason(reference: FloatArray, prediction: FloatArray) -> str:
    if not len(reference):
        return "no_labelled_cases"
    if np.isnan(prediction).any():
        return "missing_prediction_in_a_constant_reference"
    return "constant_reference" if reference.min() == reference.max() else "constant_prediction"
