"""All metrics of one task with intervals, reasons for what is undefined, and the baseline they must beat.

What counts where a case has no prediction: :mod:`nnduet.evaluation.metrics.answer_samples`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from nnduet.evaluation.answer_tables import TaskAnswers
from nnduet.evaluation.bootstrap import Estimate, Resamples, draw_resamples
from nnduet.evaluation.metrics import classification as by_counts
from nnduet.evaluation.metrics.answer_samples import NO_CASES, AnswerSample, ClassSample
from nnduet.evaluation.metrics.metric import AnswerMetric
from nnduet.evaluation.metrics.table import CLASS_METRICS, answer_metrics_of
from nnduet.evaluation.stored_metrics import ClassMetrics, TaskMetrics

__all__ = ["score_task"]


def score_task(answers: TaskAnswers, *, num_resamples: int, seed: int) -> TaskMetrics:
    """Score one task; without labelled cases every value is None with reason ``no_labelled_cases``."""
    resamples = draw_resamples(answers.groups, num_resamples=num_resamples, seed=seed)
    sample = AnswerSample(answers, resamples.weights)
    scored = TaskMetrics(
        answers.task.type,
        sample.num_cases,
        resamples.num_units,
        len(answers.missing),
        metrics={metric.key: _estimate(metric, sample, resamples) for metric in answer_metrics_of(answers.task)},
    )
    if not answers.task.is_classification:
        return replace(scored, unit=answers.task.unit)
    return (_with_classes if answers.task.kind.exclusive else _with_labels)(scored, sample, resamples)


def _estimate(metric: AnswerMetric, sample: AnswerSample, resamples: Resamples) -> Estimate:
    values = metric.function(sample)
    found = resamples.estimate(values, n_defined=sample.num_cases, reason=metric.reason(sample))
    return replace(found, absent_classes=tuple(sample.absent_classes)) if metric.beside == "absent_classes" else found


def _with_classes(scored: TaskMetrics, sample: AnswerSample, resamples: Resamples) -> TaskMetrics:
    """What only a classification has: classes, one by one and against each other, and the baseline."""
    counts, classes = sample.counts[0], sample.answers.task.classes
    baseline = _majority_baseline(sample)
    measured = scored.metrics["macro_f1"].value
    return replace(
        scored,
        classes=classes,
        absent_classes=tuple(sample.absent_classes),
        per_class={name: _class_metrics(ClassSample(sample, index), resamples) for index, name in enumerate(classes)},
        confusion_matrix=tuple(tuple(row) for row in counts[:, :-1].astype(int).tolist()),
        no_prediction_per_reference_class=tuple(counts[:, -1].astype(int).tolist()),
        majority_baseline=baseline,
        beats_majority_baseline=None if measured is None else measured > float(baseline["macro_f1"] or 0.0),
        collapsed=bool((counts[:, :-1].sum(axis=0) > 0).sum() == 1 and (sample.support > 0).sum() > 1),
    )


def _with_labels(scored: TaskMetrics, sample: AnswerSample, resamples: Resamples) -> TaskMetrics:
    """What only tasks have of which several labels may hold: the labels, one by one."""
    classes, answers = sample.answers.task.classes, sample.answers
    parts = dict(zip(classes, sample.labels, strict=True))
    told = answers.prediction[~np.isnan(answers.prediction)]
    return replace(
        scored,
        classes=classes,
        absent_classes=tuple(name for name, part in parts.items() if part.is_absent),
        per_class={name: _class_metrics(part, resamples) for name, part in parts.items()},
        collapsed=len(np.unique(told)) == 1 and len(np.unique(answers.reference)) > 1,
    )


def _class_metrics(part: ClassSample, resamples: Resamples) -> ClassMetrics:
    number = part.sample.num_cases
    estimates = {
        metric.key: resamples.estimate(metric.function(part), n_defined=number, reason=metric.reason(part))
        for metric in CLASS_METRICS
    }
    return ClassMetrics.of(estimates, support=int(part.sample.support[part.index]))


def _majority_baseline(sample: AnswerSample) -> Mapping[str, float | str | None]:
    """What always naming the most frequent reference class would score; of equals the first."""
    if not sample.num_cases:
        return {"class": None, "accuracy": None, "macro_f1": None, "reason": NO_CASES}
    classes = sample.answers.task.classes
    majority = int(np.bincount(sample.reference, minlength=len(classes)).argmax())
    constant = np.full_like(sample.reference, majority)
    counts = by_counts.confusion_counts(sample.reference, constant, np.ones((1, len(constant))), len(classes))
    return {
        "class": classes[majority],
        "accuracy": float(by_counts.accuracy(counts)[0]),
        "macro_f1": float(by_counts.macro_f1(counts)[0]),
    }
