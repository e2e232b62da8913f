"""Differences of two runs that are resampled together: interval, p-value, correction for many comparisons, largest changes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nnduet.evaluation.bootstrap import FloatArray, Resamples
from nnduet.evaluation.metrics.metric import Metric
from nnduet.records import record_object

__all__ = ["add_holm", "largest_changes", "paired_entry"]

_NUM_CHANGES = 10
_ROUNDING = 1e-12  # differences that are zero but for the order of additions


def paired_entry(
    metric: Metric, values: Sequence[FloatArray], resamples: Resamples, n_defined: int, reason: str
) -> dict[str, Any]:
    """A, B and their difference, each (1 + R,), as JSON."""
    one, other, difference = values
    difference = np.where(np.abs(difference) < _ROUNDING, 0.0, difference)
    found = resamples.estimate(difference, n_defined=n_defined, reason=reason)
    shown = {"better": metric.better, "a": _json_number(one[0]), "b": _json_number(other[0])}
    p_value = None if found.ci95 is None else _p_value(difference[1:])
    estimate = record_object(found)
    return shown | {"difference": estimate.pop("value"), "ci95": estimate.pop("ci95"), "p_value": p_value} | estimate


def _p_value(differences: FloatArray) -> float:
    """See ``definitions``; from (R,) with at least one defined value."""
    defined = differences[np.isfinite(differences)]
    least = int(min(np.count_nonzero(defined <= 0), np.count_nonzero(defined >= 0)))
    return min(1.0, 2 * (1 + least) / (defined.size + 1))


def _json_number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def largest_changes(
    cases: Sequence[str], a: FloatArray, b: FloatArray, change: FloatArray
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The cases with the largest changes above 0, and with the largest below 0; of equals the first; none gives none."""
    entries = [
        (float(change[i]), {"case_id": case_id, "a": float(a[i]), "b": float(b[i]), "difference": float(change[i])})
        for i, case_id in enumerate(cases)
    ]
    up = sorted((entry for entry in entries if entry[0] >= _ROUNDING), key=lambda entry: -entry[0])
    down = sorted((entry for entry in entries if entry[0] <= -_ROUNDING), key=lambda entry: entry[0])
    return [entry for _, entry in up[:_NUM_CHANGES]], [entry for _, entry in down[:_NUM_CHANGES]]


def add_holm(entries: Sequence[dict[str, Any]]) -> int:
    """Set ``p_holm`` of every entry, None without p-value; returns how many p-values there are."""
    tested = sorted((entry for entry in entries if entry["p_value"] is not None), key=lambda entry: entry["p_value"])
    for entry in entries:
        entry["p_holm"] = None
    least = 0.0
    for rank, entry in enumerate(tested):
        entry["p_holm"] = least = max(least, min(1.0, (len(tested) - rank) * entry["p_value"]))
    return len(tested)
