"""The metrics of an evaluation as a person reads them: a row per region and metric."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnduet.console import say, show_table, warn

if TYPE_CHECKING:
    from nnduet.evaluation.stored_metrics import Metrics

__all__ = ["show_metrics"]


def show_metrics(metrics: Metrics) -> None:
    """Print the rows that a person wants to see first of what ``evaluate`` found; on stderr what to be wary of."""
    from nnduet.evaluation.summary import format_summary, missing_note

    missing = missing_note(metrics)
    for note in metrics.not_used:
        say(note)
    for warning in (*([missing] if missing else []), *metrics.warnings):
        warn(warning)
    show_table(("metric", "value", "95 % interval", "cases"), format_summary(metrics))
