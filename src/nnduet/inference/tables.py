"""The tables that a prediction writes: ``classification.csv`` and ``<task>_results.csv``."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from nnduet.data.files import write_text_atomically
from nnduet.inference.abstention import Abstention
from nnduet.inference.answers import CaseAnswers
from nnduet.schema import CASE_COLUMN, Task

__all__ = ["CLASSIFICATION_FILE", "OUTLIER_COLUMN", "csv_text", "write_results", "write_tables"]

CLASSIFICATION_FILE = "classification.csv"
OUTLIER_COLUMN = "outlier_score"


def write_tables(
    output: Path, tasks: tuple[Task, ...], predictions: Mapping[str, CaseAnswers], abstention: Abstention | None = None
) -> None:
    """Write ``classification.csv`` and per task ``<task>_results.csv`` (columns ``Names,<Task>``).

    ``classification.csv`` has per task the answer, the probabilities, the prediction set ("benign|malignant") or the interval
    (lowest and highest value), the spread and, where asked for, the reason to abstain; then the case's outlier score. What is
    not known stays empty.
    """
    if not tasks:
        return
    header = [CASE_COLUMN, *(column for task in tasks for column in _columns(task, abstention)), OUTLIER_COLUMN]
    rows = [
        [case_id, *(v for t in tasks for v in _values(t, p, abstention)), _number(p.outlier_score)]
        for case_id, p in predictions.items()
    ]
    write_text_atomically(output / CLASSIFICATION_FILE, csv_text([header, *rows]))
    for task in tasks:
        write_results(output, task, {case_id: p.tasks[task.name].text for case_id, p in predictions.items()})


def write_results(output: Path, task: Task, answers: Mapping[str, str]) -> None:
    """Write ``<task>_results.csv``, columns ``Names,<Task>``, from {case id: answer}."""
    title = task.name[:1].upper() + task.name[1:]
    write_text_atomically(output / f"{task.name}_results.csv", csv_text([["Names", title], *map(list, answers.items())]))


def _columns(task: Task, abstention: Abstention | None) -> list[str]:
    certainty = ["set"] if task.is_classification else ["low", "high"]
    extra = [*certainty, "spread", *(["abstain"] if abstention else [])]
    return [task.name, *(f"{task.name}_p_{label}" for label in task.classes), *(f"{task.name}_{name}" for name in extra)]


def _values(task: Task, prediction: CaseAnswers, abstention: Abstention | None) -> list[str]:
    answer = prediction.tasks[task.name]
    certainty = ["|".join(answer.prediction_set)]
    if not task.is_classification:
        certainty = [_number(bound) for bound in answer.interval or (None, None)]
    reason = [abstention.reason(answer, prediction.outlier_score)] if abstention else []
    probabilities = [f"{answer.probabilities[label]:.6f}" for label in task.classes]
    return [answer.text, *probabilities, *certainty, _number(answer.spread), *reason]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def csv_text(rows: list[list[str]]) -> str:
    """Rows of cells as CSV with line feeds."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()
