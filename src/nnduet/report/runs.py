"""Read what a finished run left on the disk: scores, answers, masks, images, training curves, and what it was made of."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnduet.data.images import FILE_ENDINGS
from nnduet.data.mask_codes import MaskCodes
from nnduet.errors import DatasetError
from nnduet.evaluation.answers import PREDICTIONS_FILE, Row, answer_columns, read_rows
from nnduet.evaluation.evaluate import METRICS_FILE, PER_CASE_FILE
from nnduet.schema import Task, tasks_from_json

__all__ = ["CROSS_VALIDATION", "Run", "TaskCases", "find_file", "is_finished", "read_progress", "read_run", "region_names"]

Array = NDArray[np.float64]
CROSS_VALIDATION, FOLD_METRICS, PROGRESS, RUN_FILE = "cross_validation", "final_metrics.json", "progress.csv", "run.json"
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
        model: folder of the trained model, None where the run is not inside one.
        folds: fold folders with a ``progress.csv``, by name.
        codes: how several masks of a case are one map of codes; None for a single mask.
        prediction_run: ``run.json``, empty where there is none.
    """

    folder: Path
    metrics: Mapping[str, Any] | None
    rows: Mapping[str, Mapping[str, str]]
    tasks: tuple[TaskCases, ...]
    predictions: Path | None
    references: Path | None
    images: Path | None
    model: Path | None
    folds: Mapping[str, Path] = field(default_factory=dict)
    codes: MaskCodes | None = None
    prediction_run: Mapping[str, Any] = field(default_factory=dict)

    @property
    def cases(self) -> tuple[str, ...]:
        """Names of the cases, as in the table."""
        return tuple(self.rows)

    @property
    def regions(self) -> tuple[str, ...]:
        """Scored regions, e.g. ``("organ", "lesion", "foreground")``; the union of a single region is left out."""
        found = dict(self.metrics["segmentation"]) if self.metrics else {}
        union = [name for name in found if name in _UNIONS and len(found) > 1]
        alone = union and any(found[name]["labels"] == found[union[0]]["labels"] for name in found if name not in union)
        return tuple(name for name in found if not (alone and name in union))

    @property
    def labels(self) -> dict[str, int]:
        """Names of the mask values, for pictures and legends; a value of several regions has the names of all of them."""
        found = self.metrics["segmentation"] if self.metrics else {}
        parts = {name: entry["labels"] for name, entry in found.items() if name not in _UNIONS} or {
            name: entry["labels"] for name, entry in found.items()
        }
        values = sorted({value for labels in parts.values() for value in labels if value > 0})
        return {" + ".join(name for name, labels in parts.items() if value in labels): value for value in values}

    def scores(self, region: str, metric: str) -> Array:
        """(N,) values of a column ``<region>_<metric>``; NaN where undefined or not written."""
        return np.array([_number(row.get(f"{region}_{metric}", "")) for row in self.rows.values()])


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
    folds = _folds_of(path)
    folder = _results_of(path)
    if folder is None and folds:
        return Run(path, None, {}, (), None, None, None, _model_of(path), folds)
    if folder is None:
        raise DatasetError(
            f"{path}: expected {METRICS_FILE} with {PER_CASE_FILE}, {PREDICTIONS_FILE} or {PROGRESS}, there or in "
            f"{CROSS_VALIDATION}/ or validation/, found none; run `nnduet evaluate` first, or name a single fold"
        )
    metrics = _metrics_of(folder)
    sources = (metrics or {}).get("sources", {})
    predictions = _folder(sources.get("predictions"), folder) or folder
    run = _json(predictions / RUN_FILE) or _json(folder / RUN_FILE) or {}
    if metrics and (folder / PER_CASE_FILE).is_file():
        rows = {case: row.cells for case, row in read_rows(folder / PER_CASE_FILE, []).items()}
        tasks = tuple(_scored_task(name, entry, rows) for name, entry in metrics["tasks"].items())
    else:
        answered = read_rows(folder / PREDICTIONS_FILE, [])
        rows = {case: row.cells for case, row in answered.items()}
        tasks = tuple(_answered_task(task, answered) for task in _tasks_of(folder, answered))
        metrics = None
    found_references = references or _folder(sources.get("references"), folder) or _masks_beside(folder)
    dataset = _DATASET.search(str(found_references or folder))
    training_images = raw / dataset[0] / "imagesTr" if raw and dataset else None
    return Run(
        folder=path,
        metrics=metrics,
        rows=rows,
        tasks=tasks,
        predictions=predictions if any(find_file(predictions, case) for case in list(rows)[:20]) else None,
        references=found_references if metrics else references,
        images=images
        or _folder(run.get("images"), folder)
        or (training_images if training_images and training_images.is_dir() else None),
        model=_model_of(folder),
        folds=folds,
        codes=_codes_of(_model_of(folder)),
        prediction_run=run,
    )


def find_file(folder: Path, case_id: str) -> Path | None:
    """The mask ``<case>`` or first channel ``<case>_0000`` in a folder; None where there is none."""
    for name in (case_id, f"{case_id}_0000"):
        for ending in FILE_ENDINGS:
            if (path := folder / f"{name}{ending}").is_file():
                return path
    return None


def read_progress(fold: Path) -> dict[str, Array]:
    """Columns of ``progress.csv``, (epochs,), NaN for empty cells; empty where there is no file or no epoch yet."""
    try:
        with (fold / PROGRESS).open(newline="", encoding="utf-8") as stream:
            lines = list(csv.DictReader(stream))
    except OSError:
        return {}
    return {name: np.array([_number(line[name]) for line in lines]) for name in (lines[0] if lines else {})}


def is_finished(path: Path) -> bool:
    """Whether no fold of a model, nor a fold itself, is being trained: each with epochs has its ``final_metrics.json``."""
    return all((folder / FOLD_METRICS).is_file() for folder in _folds_of(path).values())


def region_names(dataset_json: Mapping[str, Any]) -> list[str]:
    """Names of the foreground labels or regions in the order of the network's outputs, as nnU-Net's label manager has them."""
    found = {name: value for name, value in dataset_json.get("labels", {}).items() if value != 0 and name != "ignore"}
    return sorted(found, key=lambda name: found[name] if isinstance(found[name], int) else 0)


def _results_of(path: Path) -> Path | None:
    """The folder with the tables; None without any, or where several folds have some and no cross-validation joins them."""
    validated = sorted(path.glob("fold_*/validation"))
    for folder in (path / CROSS_VALIDATION, path / "validation", path, *(validated if len(validated) == 1 else [])):
        if any((folder / name).is_file() for name in (METRICS_FILE, PER_CASE_FILE, PREDICTIONS_FILE)):
            return folder
    return None


def _metrics_of(folder: Path) -> dict[str, Any] | None:
    """``metrics.json``; of a fold with what ``final_metrics.json`` beside it adds: the fold, its heads, alarms."""
    own = _json(folder / METRICS_FILE)
    of_fold = _json(folder.parent / FOLD_METRICS) if folder.name == "validation" else None
    return {**(of_fold or {}), **(own or {})} or None


def _json(path: Path) -> dict[str, Any] | None:
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return loaded if isinstance(loaded, dict) else None


def _folder(name: object, base: Path) -> Path | None:
    """A noted folder, a relative one from ``base`` or from here; None where it is not there any more."""
    places = (base / name, Path(name)) if isinstance(name, str) else ()
    return next((place for place in places if place.is_dir()), None)


def _masks_beside(folder: Path) -> Path | None:
    """Reference masks of a model that lies in nnU-Net's results: those of the preprocessed dataset beside."""
    match = _DATASET.search(str(folder))
    if match is None:
        return None
    results = Path(str(folder)[: match.start()])
    masks = results.parent / "nnUNet_preprocessed" / match[0] / "gt_segmentations"
    return masks if masks.is_dir() else None


def _model_of(folder: Path) -> Path | None:
    return next(
        (p for p in (folder, *folder.parents[:3]) if (p / "plans.json").is_file() and (p / "dataset.json").is_file()), None
    )


def _codes_of(model: Path | None) -> MaskCodes | None:
    return MaskCodes.from_json(_json(model / "dataset.json") or {}) if model else None


def _folds_of(path: Path) -> dict[str, Path]:
    if (path / PROGRESS).is_file():
        return {path.name: path}
    model = path if (path / "plans.json").is_file() else path.parent
    return {fold.parent.name: fold.parent for fold in sorted(model.glob(f"fold_*/{PROGRESS}"))}


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan


def _scored_task(name: str, entry: Mapping[str, Any], rows: Mapping[str, Mapping[str, str]]) -> TaskCases:
    task = Task(name, entry["type"], tuple(entry.get("classes", ())))
    return _task_cases(
        task, [row.get(f"{name}_reference", "") for row in rows.values()], f"{name}_prediction", list(rows.values())
    )


def _answered_task(task: Task, rows: Mapping[str, Row]) -> TaskCases:
    return _task_cases(task, [""] * len(rows), task.name, [row.cells for row in rows.values()])


def _task_cases(task: Task, references: Sequence[str], column: str, rows: Sequence[Mapping[str, str]]) -> TaskCases:
    probabilities = [[_number(row.get(name, "")) for name in answer_columns(task)[1:]] for row in rows]
    return TaskCases(
        task,
        np.array([task.encode(cell) for cell in references], dtype=float),
        np.array([task.encode(row.get(column, "")) for row in rows], dtype=float),
        np.array(probabilities, dtype=float).reshape(len(rows), len(task.classes)),
    )


def _tasks_of(folder: Path, rows: Mapping[str, Row]) -> tuple[Task, ...]:
    """Tasks of the model that the predictions lie in, else those that the columns of the table speak of."""
    model = _model_of(folder)
    if model is not None and (content := _json(model / "dataset.json")):
        return tasks_from_json(content.get("classification", {}))
    header = list(next(iter(rows.values())).cells) if rows else []
    found = []
    for name in header:
        classes = tuple(column.removeprefix(f"{name}_p_") for column in header if column.startswith(f"{name}_p_"))
        if len(classes) > 1:
            found.append(Task(name, "binary" if len(classes) == 2 else "multiclass", classes))
    return tuple(found)
