"""Two runs' answers to one task, on the cases that both were asked: metrics, and which answers changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nnduet.errors import DatasetError
from nnduet.evaluation.answer_tables import Row, TaskAnswers, answer_columns, collect_answers
from nnduet.evaluation.bootstrap import FloatArray, draw_resamples
from nnduet.evaluation.metrics.answer_samples import AnswerSample
from nnduet.evaluation.metrics.table import answer_metrics_of
from nnduet.report.compared_runs import ComparedRun
from nnduet.report.paired_differences import largest_changes, paired_entry
from nnduet.schema import Task

__all__ = ["compare_task", "difference_of_answers", "paired_answers"]


def paired_answers(
    name: str, cases: Sequence[str], a: ComparedRun, b: ComparedRun, patients: Mapping[str, Row]
) -> tuple[TaskAnswers, TaskAnswers]:
    """Both runs' answers to the cases that are labelled in both."""
    task, other = a.tasks[name], b.tasks[name]
    if task.classes != other.classes:
        raise DatasetError(
            f"task {name}: classes expected {list(task.classes)} as in {a.folder}, got {list(other.classes)} in {b.folder}"
        )
    column = f"{name}_reference"
    labelled = [case_id for case_id in cases if all(run.rows[case_id].cells.get(column) for run in (a, b))]
    one, two = (_answers_of(run, task, labelled, patients) for run in (a, b))
    for index in np.flatnonzero(one.reference != two.reference)[:1]:
        told = [run.rows[labelled[index]] for run in (a, b)]
        raise DatasetError(
            f"{labelled[index]}: the truth of {name} expected equal in both runs, got {told[0].cells[column]!r} in "
            f"{told[0].place} and {told[1].cells[column]!r} in {told[1].place}"
        )
    return one, two


def _answers_of(run: ComparedRun, task: Task, labelled: Sequence[str], patients: Mapping[str, Row]) -> TaskAnswers:
    truth, predicted = {}, {}
    for case_id in labelled:
        place, cells = run.rows[case_id].place, run.rows[case_id].cells
        group = patients[case_id].cells if case_id in patients else {}
        truth[case_id] = Row(place, {**group, task.name: cells[f"{task.name}_reference"]})
        answer = {column: cells.get(column, "") for column in answer_columns(task)[1:]}
        predicted[case_id] = Row(place, {**answer, task.name: cells.get(f"{task.name}_prediction", "")})
    return collect_answers(task, labelled, truth, predicted)


def compare_task(a: TaskAnswers, b: TaskAnswers, num_bootstrap: int, seed: int) -> dict[str, Any]:
    """Paired differences of the metrics that the table marks as compared, and the answers that changed."""
    resamples = draw_resamples(a.groups, num_resamples=num_bootstrap, seed=seed)
    samples = [AnswerSample(answers, resamples.weights) for answers in (a, b)]
    metrics = {}
    for metric in (metric for metric in answer_metrics_of(a.task) if metric.compared):
        one, two = (metric.function(sample) for sample in samples)
        reason = metric.reason(samples[0 if np.isnan(one[0]) else 1])  # of the run that leaves the difference undefined
        metrics[metric.key] = paired_entry(metric, (one, two, two - one), resamples, len(a.case_ids), reason)
    return {"type": a.task.type, "num_cases": len(a.case_ids), "metrics": metrics, **_changed_answers(a, b)}


def _changed_answers(a: TaskAnswers, b: TaskAnswers) -> dict[str, list[dict[str, Any]]]:
    if not a.task.is_classification:
        errors = [np.abs(answers.prediction - answers.reference) for answers in (a, b)]
        farther, closer = largest_changes(a.case_ids, errors[0], errors[1], errors[1] - errors[0])
        return {"closer": closer, "farther": farther}
    change = difference_of_answers(a, b)
    told = [
        {"case_id": case_id, "reference": _said(a.task, truth), "a": _said(a.task, one), "b": _said(a.task, two)}
        for case_id, truth, one, two in zip(a.case_ids, a.reference, a.prediction, b.prediction, strict=True)
    ]
    return {
        "became_right": [told[index] for index in np.flatnonzero(change > 0)],
        "became_wrong": [told[index] for index in np.flatnonzero(change < 0)],
    }


def _said(task: Task, answer: float) -> str | float | None:
    return None if np.isnan(answer) else task.decode(answer)


def difference_of_answers(a: TaskAnswers, b: TaskAnswers) -> FloatArray:
    """B - A (N,): of 1 for right and 0 for wrong or missing; of a regression the absolute errors, NaN where one is missing."""
    if a.task.is_classification:
        values = [(answers.prediction == answers.reference).astype(float) for answers in (a, b)]
    else:
        values = [np.abs(answers.prediction - answers.reference) for answers in (a, b)]
    difference: FloatArray = values[1] - values[0]
    return difference
