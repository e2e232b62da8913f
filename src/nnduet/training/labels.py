"""Case labels as the trainer sees them: numbers per case and task, and the sampling weights that balance the classes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnduet.datasets.case_tables import read_table
from nnduet.errors import DatasetError, TableError
from nnduet.network.heads import INNER_FOLDS
from nnduet.schema import CASE_COLUMN, GROUP_COLUMN, LABELS_FILE, Task

__all__ = ["CaseLabels", "find_label_table", "inner_fold", "read_case_labels", "read_label_table"]


@dataclass(frozen=True)
class CaseLabels:
    """Encoded labels: ``values[case_id][task name]`` is an answer as :mod:`nnduet.tasks.base` says, NaN where missing.

    ``covariates[case_id]`` has the covariates that are known of the case.
    """

    tasks: tuple[Task, ...]
    values: dict[str, dict[str, float]]
    groups: dict[str, str]
    covariates: dict[str, dict[str, float]] = field(default_factory=dict)

    def column(self, task: Task, case_ids: Sequence[str]) -> NDArray[np.float64]:
        """Labels (N,) of a task for the given cases; NaN where missing or unknown."""
        return np.array([self.values.get(c, {}).get(task.name, np.nan) for c in case_ids], dtype=float)

    def patients(self, case_ids: Sequence[str]) -> list[str]:
        """Patient of each case; a case without one is its own patient."""
        return [self.groups.get(c, c) for c in case_ids]

    def balanced(self, case_ids: Sequence[str]) -> list[str]:
        """The cases, repeated so that a uniform draw shows every class of the first task with classes equally often.

        The largest class is repeated four times, which bounds the rounding error at an eighth; cases without a label are
        repeated as often as the mean. The cases as they are where there is no such task, no label, or nothing to balance.
        """
        columns = (task.kind.strata(task, self.column(task, case_ids)) for task in self.tasks)
        strata = next((column for column in columns if column is not None), np.array([]))
        known = np.isfinite(strata)
        if not known.any():
            return list(case_ids)
        classes = strata[known].astype(int)
        counts = np.bincount(classes)
        repeats = np.ones(len(case_ids))
        repeats[known] = np.rint(4 * counts.max() / counts[classes])
        repeats[~known] = np.rint(repeats[known].mean())
        if len(set(repeats)) == 1:
            return list(case_ids)
        return [case_id for case_id, times in zip(case_ids, repeats.astype(int), strict=True) for _ in range(times)]


def inner_fold(patient: str) -> int:
    """Part, from 0 to INNER_FOLDS - 1, that a patient belongs to; it depends on the name alone, so that it never changes."""
    return int.from_bytes(hashlib.sha256(patient.encode()).digest()[:8], "big") % INNER_FOLDS


def read_case_labels(folders: Sequence[Path], tasks: tuple[Task, ...], covariates: Sequence[str] = ()) -> CaseLabels:
    """Read ``classification_labels.csv`` from the first folder that has it; the first seed's ``Case_id,Subtype`` works too.

    No tasks give empty labels.

    Raises:
        DatasetError: tasks are declared but no folder has the file.
        TableError: see :func:`read_label_table`.
    """
    return read_label_table(find_label_table(folders), tasks, covariates) if tasks else CaseLabels((), {}, {})


def find_label_table(folders: Sequence[Path]) -> Path:
    """``classification_labels.csv`` in the first folder that has it.

    Raises:
        DatasetError: no folder has the file.
    """
    path = next((f / LABELS_FILE for f in folders if (f / LABELS_FILE).is_file()), None)
    if path is None:
        raise DatasetError(f"expected {LABELS_FILE} in one of {[str(f) for f in folders]}; run `nnduet convert` again")
    return path


def read_label_table(
    path: Path, tasks: tuple[Task, ...], covariates: Sequence[str] = (), id_column: str | None = None
) -> CaseLabels:
    """Read one table of labels. Columns are matched without regard to letter case; a covariate's missing cell is left out.

    Raises:
        TableError: a column is missing, a cell names no class, or a covariate is no number, with the line.
        UnreadableFileError: no readable table.
    """
    names = [*(task.name for task in tasks), *covariates]
    table = read_table(path, id_column).named_as(names)
    missing = [name for name in names if name not in table.columns]
    if missing:
        raise TableError(f"{path}: expected columns {CASE_COLUMN} and {names}, got {list(table.columns)}")
    answers = {task: table.answers(task) for task in tasks}
    numbers = {name: table.numbers(name) for name in covariates}
    groups = table.column(GROUP_COLUMN) if GROUP_COLUMN in table.columns else {}
    return CaseLabels(
        tasks,
        {case_id: {task.name: task.encode(cells[case_id]) for task, cells in answers.items()} for case_id in table.rows},
        {case_id: group for case_id, group in groups.items() if group},
        {case_id: {name: float(cells[case_id]) for name, cells in numbers.items() if cells[case_id]} for case_id in table.rows},
    )
