"""The tables that a prediction writes: ``classification.csv`` and ``<task>_results.csv``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from nnduet.cells import format_number
from nnduet.errors import DatasetError
from nnduet.inference.abstention import Abstention
from nnduet.inference.task_predictions import CaseAnswers
from nnduet.io.csv_text import csv_text
from nnduet.io.files import write_text_atomically
from nnduet.names import check_name
from nnduet.schema import CASE_COLUMN, OUTLIER_COLUMN, RESULT_NAMES_KEY, Task

__all__ = ["CLASSIFICATION_FILE", "OUTLIER_COLUMN", "result_ending", "write_results", "write_tables"]

CLASSIFICATION_FILE = "classification.csv"


def write_tables(
    output: Path,
    tasks: tuple[Task, ...],
    predictions: Mapping[str, CaseAnswers],
    abstention: Abstention | None = None,
    ending: str = "",
) -> None:
    """Write ``classification.csv`` and per task ``<task>_results.csv`` (columns ``Names,<Task>``, see :func:`write_results`).

    ``classification.csv`` has per task the answer, the probabilities, the prediction set ("benign|malignant") or the interval
    (lowest and highest value), the spread and, where asked for, the reason to abstain; then the case's outlier score. What is
    not known stays empty.
    """
    if not tasks:
        return
    header = [CASE_COLUMN, *(column for task in tasks for column in _columns(task, abstention)), OUTLIER_COLUMN]
    rows = [
        [case_id, *(v for t in tasks for v in _values(t, p, abstention)), format_number(p.outlier_score)]
        for case_id, p in predictions.items()
    ]
    write_text_atomically(output / CLASSIFICATION_FILE, csv_text([header, *rows]))
    for task in tasks:
        write_results(output, task, {case_id: p.tasks[task.name].text for case_id, p in predictions.items()}, ending)


def result_ending(dataset_json: Mapping[str, object]) -> str:
    """What follows a case's name in ``<task>_results.csv``: the files' ending where the dataset names files, else nothing.

    Raises:
        DatasetError: the key that says so holds something else.
    """
    names = dataset_json.get(RESULT_NAMES_KEY, "cases")
    if names not in ("cases", "files"):
        raise DatasetError(f'dataset.json: {RESULT_NAMES_KEY} expected "cases" or "files", got {names!r}')
    return str(dataset_json["file_ending"]) if names == "files" else ""


def write_results(output: Path, task: Task, answers: Mapping[str, str], ending: str = "") -> None:
    """Write ``<task>_results.csv``, columns ``Names,<Task>``, from {case id: answer}; ``ending`` follows every name."""
    title = task.name[:1].upper() + task.name[1:]
    rows = [[f"{case_id}{ending}", answer] for case_id, answer in answers.items()]
    write_text_atomically(output / f"{check_name(task.name, 'task')}_results.csv", csv_text([["Names", title], *rows]))


def _columns(task: Task, abstention: Abstention | None) -> list[str]:
    return [*task.answer_columns, *task.certainty_columns, *([task.abstain_column] if abstention else [])]


def _values(task: Task, prediction: CaseAnswers, abstention: Abstention | None) -> list[str]:
    answer = prediction.tasks[task.name]
    certainty = ["|".join(answer.prediction_set)]
    if not task.is_classification:
        certainty = [format_number(bound) for bound in answer.interval or (None, None)]
    reason = [abstention.reason(task, answer, prediction.outlier_score)] if abstention else []
    probabilities = [f"{answer.probabilities[label]:.6f}" for label in task.classes]
    return [answer.text, *probabilities, *certainty, format_number(answer.spread), *reason]
