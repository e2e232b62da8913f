"""Reading what is known and what was predicted about each case: the case table against ``classification.csv``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nnduet.cells import is_missing, number_or_nan
from nnduet.datasets.case_tables import read_table
from nnduet.errors import DatasetError, TableError
from nnduet.evaluation.bootstrap import FloatArray
from nnduet.schema import CASE_COLUMN, GROUP_COLUMN, Task
from nnduet.tasks import type_of_classes

__all__ = ["PREDICTIONS_FILE", "Row", "TaskAnswers", "answer_columns", "collect_answers", "patients_of", "read_rows"]

PREDICTIONS_FILE = "classification.csv"


@dataclass(frozen=True)
class Row:
    """One line of a table; ``place`` names file and line for messages."""

    place: str
    cells: Mapping[str, str]


@dataclass(frozen=True)
class TaskAnswers:
    """The N cases of one task whose truth is known.

    ``reference`` (N,) and ``prediction`` (N,) are answers as :mod:`nnduet.tasks.base` says, NaN for a case without a
    prediction; ``probabilities`` (N, K), K = 0 for regression, of equal odds for a case without a prediction. ``groups`` are
    patients.
    """

    task: Task
    case_ids: tuple[str, ...]
    groups: tuple[str, ...]
    reference: FloatArray
    prediction: FloatArray
    probabilities: FloatArray

    @property
    def outputs(self) -> FloatArray:
        """Probabilities (N, K), or predicted values (N, 1)."""
        return self.probabilities if self.task.is_classification else self.prediction[:, None]

    def of_label(self, index: int) -> TaskAnswers:
        """Whether the label ``index`` holds, as a task of its own with the classes ``no`` and ``yes``."""
        task = Task(self.task.name, type_of_classes(2), ("no", "yes"))
        held, told = (self.task.kind.memberships(self.task, a)[:, index] for a in (self.reference, self.prediction))
        answered, holds = ~np.isnan(self.prediction), self.probabilities[:, index]
        return replace(
            self,
            task=task,
            reference=held.astype(float),
            prediction=np.where(answered, told, np.nan),
            probabilities=np.stack([1 - holds, holds], axis=1),
        )

    @property
    def missing(self) -> tuple[str, ...]:
        """Cases without a prediction."""
        return tuple(case_id for case_id, value in zip(self.case_ids, self.prediction, strict=True) if math.isnan(value))


def answer_columns(task: Task) -> list[str]:
    """Columns of ``classification.csv`` that every answer to a task has, see :class:`~nnduet.schema.Task`."""
    return list(task.answer_columns)


def read_rows(path: Path, columns: Sequence[str], id_column: str | None = None) -> dict[str, Row]:
    """Read a table by case, as ``datasets.case_tables`` does; cells stand as in the file, under the names of ``columns``.

    The case's name stands under ``case_id``; columns are matched without regard to letter case. A file with only a header gives
    no rows.

    Raises:
        UnreadableFileError: the file is missing or no text.
        TableError: a column is missing, a case is empty or comes twice, a line has too few or too many cells, or commas of
            numbers in ``columns`` can be read in two ways.
    """
    read = read_table(path, id_column)
    table = read.renamed({read.id_column: CASE_COLUMN}).named_as([*columns, GROUP_COLUMN])
    absent = [column for column in columns if column not in table.columns]
    if absent:
        raise TableError(f"{path}, line 1: expected columns {absent}, got {list(table.columns)}")
    for column in columns:
        table.check_decimal_signs(column)
    return {case_id: Row(f"{path}, line {table.lines[case_id]}", cells) for case_id, cells in table.rows.items()}


def patients_of(case_ids: Sequence[str], table: Mapping[str, Row]) -> tuple[str, ...]:
    """Resampling unit of each case: its ``patient_id``, or the case itself where the table has none for it."""
    cells = (table[case_id].cells.get(GROUP_COLUMN, "") if case_id in table else "" for case_id in case_ids)
    return tuple(f"case {c}" if is_missing(cell) else f"patient {cell}" for c, cell in zip(case_ids, cells, strict=True))


def collect_answers(
    task: Task, case_ids: Sequence[str], table: Mapping[str, Row], predictions: Mapping[str, Row]
) -> TaskAnswers:
    """Put truth and prediction of one task side by side, for the cases whose cell in the table is not missing.

    A case without a row in ``predictions``, or with a missing cell, has no prediction.

    Raises:
        TableError: a cell names no class, is no finite number, or probabilities are impossible; names the line.
    """
    truth = {case_id: _encode(task, table[case_id]) for case_id in case_ids}
    labelled = [case_id for case_id, value in truth.items() if not math.isnan(value)]
    answered = [predictions.get(case_id) for case_id in labelled]
    values = [_encode(task, row) if row else math.nan for row in answered]
    probabilities = [_probabilities(task, row, value) for row, value in zip(answered, values, strict=True)]
    return TaskAnswers(
        task,
        tuple(labelled),
        patients_of(labelled, table),
        np.array([truth[case_id] for case_id in labelled], dtype=float),
        np.array(values, dtype=float),
        np.array(probabilities, dtype=float).reshape(len(labelled), len(task.classes)),
    )


def _encode(task: Task, row: Row) -> float:
    try:
        return task.encode(row.cells[task.name])
    except DatasetError as error:
        raise TableError(f"{row.place}: {error}") from error


def _probabilities(task: Task, row: Row | None, answer: float) -> list[float]:
    if row is None or math.isnan(answer):
        return [float(p) for p in task.kind.constant_outputs(task, np.zeros(0))[: len(task.classes)]]
    cells = [row.cells[column] for column in task.answer_columns[1:]]
    values = [number_or_nan(cell) for cell in cells]
    expected = task.kind.check_probabilities(values)
    if expected:
        raise TableError(f"{row.place}: task {task.name}: expected {expected}, got {cells}")
    return values
