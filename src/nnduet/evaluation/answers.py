"""Reading what is known and what was predicted about each case: the case table against ``classification.csv``."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnduet.errors import DatasetError, TableError, UnreadableFileError
from nnduet.evaluation.bootstrap import FloatArray
from nnduet.schema import CASE_COLUMN, GROUP_COLUMN, Task

__all__ = ["PREDICTIONS_FILE", "Row", "TaskAnswers", "answer_columns", "collect_answers", "patients_of", "read_rows"]

PREDICTIONS_FILE = "classification.csv"

_SUM_TOLERANCE = 0.01
"""How far probabilities may sum from 1; three decimals for ten classes are off by up to 0.005."""


@dataclass(frozen=True)
class Row:
    """One line of a table; ``place`` names file and line for messages."""

    place: str
    cells: Mapping[str, str]


@dataclass(frozen=True)
class TaskAnswers:
    """The N cases of one task whose truth is known.

    ``reference`` (N,) and ``prediction`` (N,) are class indices or values, NaN for a case without a prediction;
    ``probabilities`` (N, K), K = 0 for regression, uniform for a case without a prediction. ``groups`` are patients.
    """

    task: Task
    case_ids: tuple[str, ...]
    groups: tuple[str, ...]
    reference: FloatArray
    prediction: FloatArray
    probabilities: FloatArray

    @property
    def missing(self) -> tuple[str, ...]:
        """Cases without a prediction."""
        return tuple(case_id for case_id, value in zip(self.case_ids, self.prediction, strict=True) if math.isnan(value))


def answer_columns(task: Task) -> list[str]:
    """Columns of ``classification.csv`` for a task: ``<task>``, then ``<task>_p_<class>`` in the order of the classes."""
    return [task.name, *(f"{task.name}_p_{class_label}" for class_label in task.classes)]


def read_rows(path: Path, columns: Sequence[str]) -> dict[str, Row]:
    """Read a CSV with a header, by case; cells are stripped, other columns than ``columns`` are kept unread.

    ``Case_id`` in any case of letters is taken as ``case_id``. A file with only a header gives no rows.

    Raises:
        UnreadableFileError: the file is missing or no UTF-8 text.
        TableError: a column is missing, a case is empty or comes twice, or a line has too few or too many cells.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UnreadableFileError(f"{path}: expected a CSV file in UTF-8, got {error}") from error
    header = [CASE_COLUMN if cell.strip().lower() == CASE_COLUMN else cell.strip() for cell in (lines or [[]])[0]]
    absent = [column for column in (CASE_COLUMN, *columns) if column not in header]
    if absent:
        raise TableError(f"{path}, line 1: expected columns {absent}, got {header}")
    rows: dict[str, Row] = {}
    for number, cells in enumerate(lines[1:], start=2):
        if cells:
            _add_row(rows, Row(f"{path}, line {number}", _named(header, cells, f"{path}, line {number}")))
    return rows


def _named(header: list[str], cells: list[str], place: str) -> dict[str, str]:
    if len(cells) != len(header):
        raise TableError(f"{place}: expected {len(header)} cells, got {len(cells)}")
    return dict(zip(header, (cell.strip() for cell in cells), strict=True))


def _add_row(rows: dict[str, Row], row: Row) -> None:
    case_id = row.cells[CASE_COLUMN]
    if not case_id or case_id in rows:
        raise TableError(f"{row.place}: expected a new {CASE_COLUMN}, got {case_id!r}")
    rows[case_id] = row


def patients_of(case_ids: Sequence[str], table: Mapping[str, Row]) -> tuple[str, ...]:
    """Resampling unit of each case: its ``patient_id``, or the case itself where the table has none for it."""
    cells = (table[case_id].cells.get(GROUP_COLUMN, "") if case_id in table else "" for case_id in case_ids)
    return tuple(f"patient {cell}" if cell else f"case {case_id}" for case_id, cell in zip(case_ids, cells, strict=True))


def collect_answers(
    task: Task, case_ids: Sequence[str], table: Mapping[str, Row], predictions: Mapping[str, Row]
) -> TaskAnswers:
    """Put truth and prediction of one task side by side, for the cases whose cell in the table is not empty.

    A case without a row in ``predictions``, or with an empty cell, has no prediction.

    Raises:
        TableError: a cell names no class, is no finite number, or probabilities are impossible; names the line.
    """
    labelled = [case_id for case_id in case_ids if table[case_id].cells[task.name]]
    answered = [predictions.get(case_id) for case_id in labelled]
    return TaskAnswers(
        task,
        tuple(labelled),
        patients_of(labelled, table),
        np.array([_encode(task, table[case_id]) for case_id in labelled], dtype=float),
        np.array([_encode(task, row) if row else math.nan for row in answered], dtype=float),
        np.array([_probabilities(task, row) for row in answered], dtype=float).reshape(len(labelled), len(task.classes)),
    )


def _encode(task: Task, row: Row) -> float:
    try:
        return task.encode(row.cells[task.name])
    except DatasetError as error:
        raise TableError(f"{row.place}: {error}") from error


def _probabilities(task: Task, row: Row | None) -> list[float]:
    if row is None or not row.cells[task.name]:
        return [1 / len(task.classes) for _ in task.classes]
    cells = [row.cells[column] for column in answer_columns(task)[1:]]
    try:
        values = [float(cell) for cell in cells]
    except ValueError:
        values = [math.nan]
    in_range = all(0 <= value <= 1 for value in values)
    if task.classes and not (in_range and abs(sum(values) - 1) <= _SUM_TOLERANCE):
        raise TableError(f"{row.place}: task {task.name}: expected probabilities that sum to 1, got {cells}")
    return values
