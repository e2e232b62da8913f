"""The answers of a prediction as a person reads them: a row per case."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nnduet.cells import format_number
from nnduet.console import say, show_table

if TYPE_CHECKING:
    from nnduet.inference.abstention import Abstention
    from nnduet.inference.prediction_summary import PredictionSummary
    from nnduet.inference.task_predictions import TaskPrediction
    from nnduet.schema import Task

__all__ = ["answer_rows", "describe_run", "show_answers"]

MOST_ROWS = 40
_FAILED = "failed"


def show_answers(summary: PredictionSummary, tasks: Sequence[Task], abstention: Abstention | None) -> None:
    """Print the answers of the first cases, the names of those that failed, then how they came about in a line or two."""
    if tasks:
        show_table(*answer_rows(summary, tasks, abstention), styles={_FAILED: "red"})
    missing = len(summary.answers) - MOST_ROWS
    if tasks and missing > 0:
        say(f"… and {missing} more in {summary.output}/classification.csv")
    if abstention:
        say(f"{summary.num_abstained} of {len(summary.cases)} cases are left to a person ({', '.join(summary.abstention)})")
    say(describe_run(summary))


def answer_rows(
    summary: PredictionSummary, tasks: Sequence[Task], abstention: Abstention | None
) -> tuple[list[str], list[list[str]]]:
    """Titles, and the rows of at most :data:`MOST_ROWS` cases and of all that failed; columns without any cell are left out."""
    titles = ["case", *(title for task in tasks for title in _titles(task)), "outlier"]
    shown = list(summary.answers.items())[:MOST_ROWS]
    rows = [
        [
            case_id,
            *(c for t in tasks for c in _cells(t, a.tasks[t.name], abstention, a.outlier_score)),
            format_number(a.outlier_score, ".2f"),
        ]
        for case_id, a in shown
    ]
    rows += [[case_id, _FAILED, *[""] * (len(titles) - 2)] for case_id in summary.failed]
    used = [i for i in range(len(titles)) if i < 2 or any(row[i] for row in rows)]
    return [titles[i] for i in used], [[row[i] for i in used] for row in rows]


def describe_run(summary: PredictionSummary) -> str:
    """What answered, and how fast."""
    seconds = [summary.seconds[case_id] for case_id in summary.cases if case_id in summary.seconds]
    speed = f", {sum(seconds) / len(seconds):.2g} s a case" if seconds else ""
    folds = f"fold {summary.folds[0]}" if len(summary.folds) == 1 else f"folds {', '.join(summary.folds)}"
    masks = "1 mask" if len(summary.cases) == 1 else f"{len(summary.cases)} masks"
    way = f"{summary.model}, {folds}, {summary.runtime} in {summary.precision} on {summary.device}"
    return f"{masks} in {summary.output} (model {way}{speed})"


def _titles(task: Task) -> list[str]:
    return [task.name, *(("probability", "set") if task.is_classification else ("interval",)), "left to a person"]


def _cells(task: Task, answer: TaskPrediction, abstention: Abstention | None, outlier_score: float | None) -> list[str]:
    reason = abstention.reason(task, answer, outlier_score) if abstention else ""
    if task.is_classification:
        return [answer.text, f"{answer.confidence:.2f}", "|".join(answer.prediction_set), reason]
    low_high = f"{answer.interval[0]:.6g} to {answer.interval[1]:.6g}" if answer.interval else ""
    return [f"{answer.text} {task.unit}".rstrip(), low_high, reason]
