"""The few rows of ``metrics.json`` that a person wants to see first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from nnduet.evaluation.metrics.metric import TASK_UNIT
from nnduet.evaluation.metrics.table import ANSWER_METRICS, REGION_METRICS
from nnduet.evaluation.stored_metrics import Estimate, Metrics, TaskMetrics

__all__ = ["SummaryRow", "format_summary", "missing_note"]

_SHOWN_CASES = 5


class SummaryRow(NamedTuple):
    """One line of a terminal table, ready to print: name, value, 95 % interval, number of cases."""

    name: str
    value: str
    interval: str
    num_cases: str


def format_summary(metrics: Metrics) -> list[SummaryRow]:
    """Rows for every region and task of what :func:`nnduet.evaluation.evaluate.evaluate` returned; none gives none.

    The first rows tell how many cases have no usable prediction, and how many the model was trained on, if there are any. An
    undefined value reads ``undefined (reason)``, a missing interval is empty; a baseline row follows each classification.
    """
    return [*_warning_rows(metrics), *_segmentation_rows(metrics), *_task_rows(metrics)]


def _warning_rows(metrics: Metrics) -> Iterator[SummaryRow]:
    missing = {entry.case_id for entry in metrics.missing_predictions}
    for name, number in (("no usable prediction", len(missing)), ("trained on", len(metrics.trained_on))):
        if number:
            yield SummaryRow(f"WARNING: cases {name}", str(number), "", str(metrics.num_cases))


def missing_note(metrics: Metrics) -> str | None:
    """A sentence about cases without a usable prediction, with the first reasons; None where every case has one."""
    missing: dict[str, str] = {}
    for entry in metrics.missing_predictions:
        missing.setdefault(entry.case_id, entry.error)
    if not missing:
        return None
    first = "; ".join(f"{case_id}: {error}" for case_id, error in list(missing.items())[:_SHOWN_CASES])
    more = f"; and {len(missing) - _SHOWN_CASES} more" if len(missing) > _SHOWN_CASES else ""
    return f"{len(missing)} of {metrics.num_cases} cases count as the worst answer, for lack of a usable one: {first}{more}"


def _segmentation_rows(metrics: Metrics) -> Iterator[SummaryRow]:
    for region, entry in metrics.segmentation.items():
        found = entry.estimates
        for metric in REGION_METRICS:
            if metric.is_shown and metric.key in found:
                tolerance = found[metric.key].tolerance_mm
                yield _row(
                    f"{region} {metric.short_text}" + ("" if tolerance is None else f" at {tolerance:g} mm"), found[metric.key]
                )


def _task_rows(metrics: Metrics) -> Iterator[SummaryRow]:
    for name, task in metrics.tasks.items():
        units = {metric.key: task.unit for metric in ANSWER_METRICS if metric.unit == TASK_UNIT}
        for key, estimate in task.metrics.items():
            yield _row(f"{name} {key}" + (f" ({units[key]})" if units.get(key) else ""), estimate)
        yield from _baseline_rows(name, task)


def _baseline_rows(name: str, task: TaskMetrics) -> Iterator[SummaryRow]:
    baseline = task.majority_baseline or {}
    score = baseline.get("macro_f1")
    if isinstance(score, float):
        yield SummaryRow(f"{name} macro_f1 of always {baseline.get('class')}", f"{score:.3f}", "", str(task.num_cases))


def _row(name: str, entry: Estimate) -> SummaryRow:
    value = f"undefined ({entry.reason})" if entry.value is None else f"{entry.value:.3f}"
    interval = "" if entry.ci95 is None else f"{entry.ci95[0]:.3f} to {entry.ci95[1]:.3f}"
    return SummaryRow(name, value, interval, str(entry.n_defined))
