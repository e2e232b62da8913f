"""The runs that are compared: what ``evaluate`` wrote of each, typed and checked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnduet.cells import is_missing, parse_number
from nnduet.errors import DatasetError, SettingsError, TableError
from nnduet.evaluation.answer_tables import Row, read_rows
from nnduet.evaluation.bootstrap import FloatArray
from nnduet.evaluation.evaluate import METRICS_FILE, PER_CASE_FILE
from nnduet.evaluation.stored_metrics import Metrics, read_metrics
from nnduet.schema import Task, folds_with

__all__ = ["ComparedRun", "find_scores", "read_compared_run", "scores_of"]


@dataclass(frozen=True)
class ComparedRun:
    """What ``evaluate`` wrote of one run."""

    folder: Path
    metrics: Metrics
    tasks: Mapping[str, Task]
    rows: Mapping[str, Row]


def find_scores(path: Path) -> Path:
    """The folder that holds ``metrics.json`` and ``per_case.csv`` of a run.

    Args:
        path: such a folder; or a model folder, then its ``cross_validation/``; or a fold's, then its ``validation/``.

    Raises:
        DatasetError: there is none; says where both files were looked for, and which folds of a model have them.
    """
    looked = [path, path / "cross_validation", path / "validation"]
    for folder in looked:
        if (folder / METRICS_FILE).is_file() and (folder / PER_CASE_FILE).is_file():
            return folder
    scored = [f"fold_{name}" for name in folds_with(path, f"validation/{METRICS_FILE}")]
    hint = f"; name one of its folds ({', '.join(scored)}), or run `nnduet cross-validate`" if scored else ""
    places = ", ".join(str(folder) for folder in looked)
    raise DatasetError(f"{path}: expected {METRICS_FILE} and {PER_CASE_FILE} together in one of {places}{hint}")


def read_compared_run(path: Path) -> ComparedRun:
    """Read the metrics and the table of a run.

    Raises:
        DatasetError: as :func:`find_scores`; a part of the metrics is missing or has another type.
        TableError, UnreadableFileError: the table cannot be read.
    """
    folder = find_scores(path)
    metrics = read_metrics(folder)
    if metrics is None or not (metrics.segmentation or metrics.tasks):
        raise DatasetError(f"{folder / METRICS_FILE}: expected settings, segmentation and tasks, as evaluate writes them")
    try:
        tasks = {name: entry.task(name) for name, entry in metrics.tasks.items()}
    except SettingsError as error:
        raise DatasetError(f"{folder / METRICS_FILE}: {error}") from error
    return ComparedRun(folder, metrics, tasks, read_rows(folder / PER_CASE_FILE, []))


def scores_of(column: str, cases: Sequence[str], run: ComparedRun) -> FloatArray:
    """A column of numbers (N,); NaN where a cell is empty, or the column is missing because no case has a value."""
    return np.array([_number(run.rows[case_id], column) for case_id in cases])


def _number(row: Row, column: str) -> float:
    cell = row.cells.get(column, "")
    value = parse_number(cell)
    if value is None and not is_missing(cell):
        raise TableError(f"{row.place}: {column} expected a number, got {cell!r}")
    return math.nan if value is None else value
