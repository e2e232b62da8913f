"""Read what a finished run left on the disk: scores, answers, masks, images, training curves, and what it was made of."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnduet.cells import is_missing, number_or_nan
from nnduet.datasets.mask_codes import MaskCodes
from nnduet.errors import DatasetError
from nnduet.evaluation.answer_tables import PREDICTIONS_FILE, Row, answer_columns, read_rows
from nnduet.evaluation.evaluate import METRICS_FILE, PER_CASE_FILE
from nnduet.evaluation.stored_metrics import (
    RUN_FILE,
    Metrics,
    PredictionRun,
    TaskMetrics,
    read_metrics,
    read_prediction_run,
)
from nnduet.io.case_names import find_case_file
from nnduet.report.stored_model import PROGRESS, StoredModel, find_model, folds_of, read_model
from nnduet.schema import Task, folds_with
from nnduet.tasks import kind_of, type_in_table

__all__ = ["CROSS_VALIDATION", "Run", "TaskCases", "read_run"]

Array = NDArray[np.float64]
CROSS_VALIDATION = "cross_validation"
_UNIONS = ("foreground", "any_foreground")
_DATASET = re.compile(r"Dataset\d{3}_[A-Za-z0-9_]+")


@dataclass(frozen=True)
class TaskCases:
    """The cases of one task: ``reference`` and ``prediction`` (N,) class indices or values, NaN where there is none.

    ``probabilities`` is (N, K), rows of NaN without an answer; K = 0 for a regression.
    """

    task: Task
    reference: Array
    prediction: Array
    probabilities: Array


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: what the command was given.
        metrics: ``metrics.json``; None for predictions without references.
        rows: ``per_case.csv``, or ``classification.csv`` without references, by case.
        tasks: what was answered, in the order of the table.
        predictions, references, images: folders, None where they are not known or not there.
        model: the trained model, None where the run is not inside one.
        answered_by: the model that ``predict`` noted, where it is still there.
        folds: fold folders with a ``progress.csv``, by name.
        prediction_run: ``run.json``, empty where there is none.
    """

    folder: Path
    metrics: Metrics | None
    rows: Mapping[str, Mapping[str, str]]
    tasks: tuple[TaskCases, ...]
    predictions: Path | None
    references: Path | None
    images: Path | None
    model: StoredModel | None
    folds: Mapping[str, Path] = field(default_factory=dict)
    prediction_run: PredictionRun = field(default_factory=PredictionRun)
    answered_by: StoredModel | None = None

    @property
    def codes(self) -> MaskCodes | None:
        """How several masks of a case are one map of codes; None for a single mask."""
        model = self.model or self.answered_by
        return model.codes if model else None

    @property
    def cases(self) -> tuple[str, ...]:
        """Names of the cases, as in the table."""
        return tuple(self.rows)

    @property
    def regions(self) -> tuple[str, ...]:
        """Scored regions, e.g. ``("organ", "lesion", "foreground")``; the union of a single region is left out."""
        found = self.metrics.segmentation if self.metrics else {}
        union = [name for name in found if name in _UNIONS and len(found) > 1]
        alone = union and any(found[name].labels == found[union[0]].labels for name in found if name not in union)
        return tuple(name for name in found if not (alone and name in union))

    @property
    def labels(self) -> dict[str, int]:
        """Names of the mask values, for pictures and legends; a value of several regions has the names of all of them."""
        found = self.metrics.segmentation if self.metrics else {}
        parts = {name: entry.labels for name, entry in found.items() if name not in _UNIONS} or {
            name: entry.labels for name, entry in found.items()
        }
        values = sorted({value for labels in parts.values() for value in labels if value > 0})
        return {" + ".join(name for name, labels in parts.items() if value in labels): value for value in values}

    def scores(self, region: str, metric: str) -> Array:
        """(N,) values of a column ``<region>_<metric>``; NaN where undefined or not written."""
        return np.array([number_or_nan(row.get(f"{region}_{metric}", "")) for row in self.rows.values()])


def read_run(path: Path, *, images: Path | None = None, references: Path | None = None, raw: Path | None = None) -> Run:
    """Read a run.

    Args:
        path: a model folder (its cross-validation, else its one validated fold), a fold, or a folder that ``cross-validate``,
            ``evaluate`` or ``predict`` wrote. A training that is not finished has no cases yet.
        images: folder of the images; None looks at what ``predict`` noted, else at the training images of the dataset.
        references: folder of the masks; None looks at what was scored.
        raw: nnU-Net's folder of raw datasets, to look for the training images.

    Raises:
        DatasetError: there is nothing to report.
        UnreadableFileError, TableError: a table is missing or malformed.
    """
    path = path.absolute()
    folds, folder, place = folds_of(path), _results_of(path), find_model(path)
    model = read_model(place) if place else None
    if folder is None and folds:
        return Run(path, None, {}, (), None, None, None, model, folds)
    if folder is None:
        raise DatasetError(
            f"{path}: expected {METRICS_FILE} with {PER_CASE_FILE}, {PREDICTIONS_FILE} or {PROGRESS}, there or in "
            f"{CROSS_VALIDATION}/ or validation/, found none; run `nnduet evaluate` first, or name a single fold"
        )
    metrics = read_metrics(folder)
    predictions = _folder(metrics.sources.predictions if metrics else None, folder) or folder
    run = read_prediction_run(predictions) or read_prediction_run(folder) or PredictionRun()
    noted = run.model_path()
    answered_by = read_model(noted) if noted and find_model(noted) == noted else None
    if metrics and (folder / PER_CASE_FILE).is_file():
        rows = {case: row.cells for case, row in read_rows(folder / PER_CASE_FILE, []).items()}
        tasks = tuple(_scored_task(name, entry, rows) for name, entry in metrics.tasks.items())
    else:
        answered = _answered_rows(folder, run)
        rows = {case: row.cells for case, row in answered.items()}
        tasks = tuple(_answered_task(task, answered) for task in _tasks_of(model or answered_by, answered))
        metrics = None
    found_references = references or _folder(metrics.sources.references if metrics else None, folder) or _masks_beside(folder)
    return Run(
        folder=path,
        metrics=metrics,
        rows=rows,
        tasks=tasks,
        predictions=predictions if any(find_case_file(predictions, case) for case in list(rows)[:20]) else None,
        references=found_references if metrics else references,
        images=images or _folder(run.images, folder) or _training_images(raw, found_references or folder),
        model=model,
        folds=folds,
        prediction_run=run,
        answered_by=answered_by,
    )


def _results_of(path: Path) -> Path | None:
    """The folder with the tables; None without any, or where several folds have some and no cross-validation joins them."""
    validated = [path / f"fold_{name}" / "validation" for name in folds_with(path, "validation")]
    for folder in (path / CROSS_VALIDATION, path / "validation", path, *(validated if len(validated) == 1 else [])):
        if any((folder / name).is_file() for name in (METRICS_FILE, PER_CASE_FILE, PREDICTIONS_FILE, RUN_FILE)):
            return folder
    return None


def _folder(name: str | None, base: Path) -> Path | None:
    """A noted folder, a relative one from ``base`` or from here; None where it is not there any more."""
    places = (base / name, Path(name)) if name and "\0" not in name else ()
    return next((place for place in places if os.path.isdir(place)), None)  # which is False for an impossible path


def _masks_beside(folder: Path) -> Path | None:
    """Reference masks of a model that lies in nnU-Net's results: those of the preprocessed dataset beside."""
    match = _DATASET.search(str(folder))
    if match is None:
        return None
    results = Path(str(folder)[: match.start()])
    masks = results.parent / "nnUNet_preprocessed" / match[0] / "gt_segmentations"
    return masks if masks.is_dir() else None


def _answered_rows(folder: Path, run: PredictionRun) -> dict[str, Row]:
    """The table of answers; of a model without tasks, which writes none, the finished cases."""
    if run.cases and not (folder / PREDICTIONS_FILE).is_file():
        return {case_id: Row(str(folder / RUN_FILE), {}) for case_id in run.cases}
    return read_rows(folder / PREDICTIONS_FILE, [])


def _training_images(raw: Path | None, place: Path) -> Path | None:
    """The training images of the dataset whose name stands in a path, in nnU-Net's folder of raw datasets."""
    dataset = _DATASET.search(str(place))
    images = raw / dataset[0] / "imagesTr" if raw and dataset else None
    return images if images and images.is_dir() else None


def _scored_task(name: str, entry: TaskMetrics, rows: Mapping[str, Mapping[str, str]]) -> TaskCases:
    return _task_cases(
        entry.task(name), [row.get(f"{name}_reference", "") for row in rows.values()], f"{name}_prediction", list(rows.values())
    )


def _answered_task(task: Task, rows: Mapping[str, Row]) -> TaskCases:
    return _task_cases(task, [""] * len(rows), task.name, [row.cells for row in rows.values()])


def _task_cases(task: Task, references: Sequence[str], column: str, rows: Sequence[Mapping[str, str]]) -> TaskCases:
    probabilities = [[number_or_nan(row.get(name, "")) for name in answer_columns(task)[1:]] for row in rows]
    return TaskCases(
        task,
        np.array([task.encode(cell) for cell in references], dtype=float),
        np.array([task.encode(row.get(column, "")) for row in rows], dtype=float),
        np.array(probabilities, dtype=float).reshape(len(rows), len(task.classes)),
    )


def _tasks_of(model: StoredModel | None, rows: Mapping[str, Row]) -> tuple[Task, ...]:
    """Tasks of the model that predicted, as far as it has answers, else those that the columns of the table speak of."""
    header = list(next(iter(rows.values())).cells) if rows else []
    if model is not None:
        return tuple(task for task in model.tasks if task.name in header)
    found = []
    for name in header:
        own = [column.removeprefix(f"{name}_") for column in header if column.startswith(f"{name}_")]
        classes = tuple(end.removeprefix("p_") for end in own if end.startswith("p_"))
        kind = type_in_table(classes, own, {row.cells[name] for row in rows.values() if not is_missing(row.cells[name])})
        if kind is not None:
            found.append(Task(name, kind, classes if kind_of(kind, name).has_classes else ()))
    return tuple(found)
