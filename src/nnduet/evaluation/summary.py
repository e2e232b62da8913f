"""The few rows of ``metrics.json`` that a person wants to see first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

__all__ = ["SummaryRow", "format_summary", "missing_note"]

_SHOWN_CASES = 5


class SummaryRow(NamedTuple):
    """One line of a terminal table, ready to print: name, value, 95 % interval, number of cases."""

    name: str
    value: str
    interval: str
    num_cases: str


def format_summary(metrics: Mapping[str, Any]) -> list[SummaryRow]:
    """Rows for every region and task of what :func:`nnduet.evaluation.evaluate.evaluate` returned; none gives none.

    The first rows tell how many cases have no usable prediction, and how many the model was trained on, if there are any. An
    undefined value reads ``undefined (reason)``, a missing interval is empty; a baseline row follows each classification.
    """
    return [*_warning_rows(metrics), *_segmentation_rows(metrics), *_task_rows(metrics)]


def _warning_rows(metrics: Mapping[str, Any]) -> Iterator[SummaryRow]:
    missing = {entry["case_id"] for entry in metrics.get("missing_predictions", ())}
    for name, number in (("no usable prediction", len(missing)), ("trained on", len(metrics.get("trained_on", ())))):
        if number:
            yield SummaryRow(f"WARNING: cases {name}", str(number), "", str(metrics["num_cases"]))


def missing_note(metrics: Mapping[str, Any]) -> str | None:
    """A sentence about cases without a usable prediction, with the first reasons; None where every case has one."""
    missing: dict[str, str] = {}
    for entry in metrics.get("missing_predictions", ()):
        missing.setdefault(entry["case_id"], entry["error"])
    if not missing:
        return None
    first = "; ".join(f"{case_id}: {error}" for case_id, error in list(missing.items())[:_SHOWN_CASES])
    more = f"; and {len(missing) - _SHOWN_CASES} more" if len(missing) > _SHOWN_CASES else ""
    return f"{len(missing)} of {metrics['num_cases']} cases count as the worst answer, for lack of a usable one: {first}{more}"


def _segmentation_rows(metrics: Mapping[str, Any]) -> Iterator[SummaryRow]:
    for region, entry in metrics["segmentation"].items():
        yield _row(f"{region} DSC", entry["dsc"])
        yield _row(f"{region} NSD at {entry['nsd']['tolerance_mm']:g} mm", entry["nsd"])
        yield _row(f"{region} AVD (ml)", entry["avd_ml"])


def _task_rows(metrics: Mapping[str, Any]) -> Iterator[SummaryRow]:
    for task, entry in metrics["tasks"].items():
        unit = f" ({entry['unit']})" if entry.get("unit") else ""
        for name, value in entry["metrics"].items():
            yield _row(f"{task} {name}{unit if name == 'mae' else ''}", value)
        baseline = entry.get("majority_baseline")
        if baseline and baseline["macro_f1"] is not None:
            name = f"{task} macro_f1 of always {baseline['class']}"
            yield SummaryRow(name, f"{baseline['macro_f1']:.3f}", "", str(entry["num_cases"]))


def _row(name: str, entry: Mapping[str, Any]) -> SummaryRow:
    value = f"undefined ({entry['reason']})" if entry["value"] is None else f"{entry['value']:.3f}"
    interval = "" if entry["ci95"] is None else f"{entry['ci95'][0]:.3f} to {entry['ci95'][1]:.3f}"
    return SummaryRow(name, value, interval, str(entry["n_defined"]))
