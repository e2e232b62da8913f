"""Whether what a model says about its own certainty holds: prediction sets, intervals, abstention, and who spots the errors.

Everything is measured on cases that the model in question had not seen: each case with the conformal scores of the fold that
answered it. Resamples draw patients, as everywhere in this room.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from nnduet.case_head.head import CaseHead
from nnduet.errors import DatasetError
from nnduet.evaluation.answer_tables import TaskAnswers
from nnduet.evaluation.bootstrap import Estimate, FloatArray, Resamples, draw_resamples, weighted_mean
from nnduet.evaluation.metrics.ranking import auroc
from nnduet.evaluation.stored_metrics import IntervalQuality, SetQuality, TaskUncertainty

__all__ = ["ABSTAINING_SHARES", "DEFINITIONS", "ERROR_RATES", "kept_weights", "measure_uncertainty", "nonconformity"]

ERROR_RATES = (0.05, 0.1, 0.2)
ABSTAINING_SHARES = (0.0, 0.1, 0.2, 0.3, 0.5)

DEFINITIONS = {
    "coverage": "by error rate: share of cases whose truth lies in the prediction set, or the interval, of the fold that had "
    "not seen them; 1 - error rate is promised. Folds without conformal scores of the task are left out and listed",
    "mean_set_size": "classes per prediction set; singleton_share: share of sets with one class",
    "mean_width": "width of the interval in the unit of the task",
    "accuracy_when_abstaining": "by share: accuracy of the other cases when this share, the least confident, goes to a person; "
    "cases of equal confidence count in part",
    "auroc_of_being_wrong": "chance that a wrong answer has the higher 1 - confidence, or outlier score, than a right one",
}


def nonconformity(answers: TaskAnswers) -> FloatArray:
    """How unlike the answer the truth is, (N,), see :meth:`~nnduet.tasks.base.TaskKind.nonconformity`."""
    return answers.task.kind.nonconformity(answers.task, answers.outputs, answers.reference)


def measure_uncertainty(
    answers: TaskAnswers,
    folds: Sequence[str],
    heads: Mapping[str, CaseHead],
    outlier_scores: FloatArray,
    *,
    num_resamples: int,
    seed: int,
) -> TaskUncertainty:
    """Measure one task; undefined values are None with a reason, see :data:`DEFINITIONS`.

    Args:
        answers: N labelled cases, each answered by a fold that had not seen it.
        folds: (N,) that fold of each case.
        heads: {fold: case head of the task}; a fold without one gives no prediction sets.
        outlier_scores: (N,), NaN where not known.

    Raises:
        DatasetError: a case has no prediction.
    """
    if answers.missing:
        raise DatasetError(f"task {answers.task.name}: expected a prediction for every case, got none for {answers.missing}")
    resamples = draw_resamples(answers.groups, num_resamples=num_resamples, seed=seed)
    thresholds = {f"{rate:g}": _thresholds(folds, heads, rate) for rate in ERROR_RATES}
    measured = TaskUncertainty(len(answers.case_ids), resamples.num_units, tuple(sorted(set(folds) - set(heads))))
    if not answers.task.is_classification:
        return replace(
            measured, intervals={rate: _intervals(answers, limits, resamples) for rate, limits in thresholds.items()}
        )
    kind, probabilities = answers.task.kind, answers.probabilities
    confidence, wrong = kind.confidence(probabilities, kind.answers(probabilities)), answers.prediction != answers.reference
    return replace(
        measured,
        prediction_sets={rate: _prediction_sets(answers, limits, resamples) for rate, limits in thresholds.items()},
        accuracy_when_abstaining={
            f"{share:g}": _accuracy_of_kept(~wrong, kept_weights(confidence, share), resamples) for share in ABSTAINING_SHARES
        },
        auroc_of_being_wrong={
            "one_minus_confidence": _auroc_of_being_wrong(1 - confidence, wrong, resamples),
            "outlier_score": _auroc_of_being_wrong(outlier_scores, wrong, resamples),
        },
    )


def kept_weights(confidence: FloatArray, share: float) -> FloatArray:
    """How much each case (N,) stays, in [0, 1], when the floor(share * N) least confident ones are left out.

    Cases of equal confidence at the border stay in equal parts, so that the order of the cases does not matter.
    """
    num_out = math.floor(share * len(confidence) + 1e-9)
    weights = np.ones(len(confidence))
    if num_out:
        border = np.sort(confidence)[num_out - 1]
        tied, below = confidence == border, confidence < border
        weights[below] = 0
        weights[tied] = 1 - (num_out - below.sum()) / tied.sum()
    return weights


def _thresholds(folds: Sequence[str], heads: Mapping[str, CaseHead], error_rate: float) -> FloatArray:
    """Nonconformity (N,) up to which a class belongs to the set of a case; NaN where its fold has no scores."""
    of_fold = {fold: head.threshold(error_rate) for fold, head in heads.items()}
    return np.array([of_fold.get(fold, math.nan) for fold in folds], dtype=float)


def _prediction_sets(answers: TaskAnswers, thresholds: FloatArray, resamples: Resamples) -> SetQuality:
    kind, holds = answers.task.kind, answers.task.kind.memberships(answers.task, answers.reference)
    size, covered = np.full(len(thresholds), np.nan), np.full(len(thresholds), np.nan)
    for case in np.flatnonzero(~np.isnan(thresholds)):
        chosen = kind.prediction_set(answers.probabilities[case], float(thresholds[case]))
        size[case], covered[case] = len(chosen), set(np.flatnonzero(holds[case])) <= set(chosen)
    reason = _why_no_sets(thresholds)
    return SetQuality(
        coverage=_mean(covered, resamples, reason),
        mean_set_size=_mean(size, resamples, reason),
        singleton_share=_mean(np.where(np.isnan(size), np.nan, size == 1), resamples, reason),
    )


def _intervals(answers: TaskAnswers, thresholds: FloatArray, resamples: Resamples) -> IntervalQuality:
    covered = np.where(np.isnan(thresholds), np.nan, nonconformity(answers) <= thresholds)
    endless = bool(np.isinf(thresholds).any())
    width = np.full(len(thresholds), np.nan) if endless else 2 * thresholds
    reason = _why_no_sets(thresholds)
    return IntervalQuality(
        coverage=_mean(covered, resamples, reason),
        mean_width=_mean(width, resamples, "endless_interval_for_want_of_scores" if endless else reason),
        unit=answers.task.unit,
    )


def _why_no_sets(thresholds: FloatArray) -> str:
    return "no_conformal_scores" if len(thresholds) else "no_labelled_cases"


def _mean(values: FloatArray, resamples: Resamples, reason: str) -> Estimate:
    mean = weighted_mean(values, resamples.weights)
    return resamples.estimate(mean, n_defined=int(np.isfinite(values).sum()), reason=reason)


def _accuracy_of_kept(right: npt.NDArray[np.bool_], kept: FloatArray, resamples: Resamples) -> Estimate:
    accuracy = weighted_mean(right.astype(float), resamples.weights * kept)
    return resamples.estimate(accuracy, n_defined=round(kept.sum()), reason="no_labelled_cases")


def _auroc_of_being_wrong(scores: FloatArray, wrong: npt.NDArray[np.bool_], resamples: Resamples) -> Estimate:
    known = np.isfinite(scores)
    area = auroc(scores[known], wrong[known], resamples.weights[:, known])
    return resamples.estimate(area, n_defined=int(known.sum()), reason=_why_no_area(wrong, known))


def _why_no_area(wrong: npt.NDArray[np.bool_], known: npt.NDArray[np.bool_]) -> str:
    if not len(wrong):
        return "no_labelled_cases"
    if not known.any():
        return "no_scores"
    return "every_answer_is_wrong" if wrong[known].any() else "every_answer_is_right"
