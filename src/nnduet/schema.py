"""Frozen records that cross stages, and their JSON form.

``dataset.json["classification"]`` holds the tasks, ``dataset.json["covariates"]`` the names of the covariate columns and
``classification_labels.csv`` one row per case: ``case_id``, a column per task, optional ``patient_id``, covariates. An empty
cell is a missing label.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

from nnduet.errors import DatasetError, NNDuetError, SettingsError
from nnduet.records import convert_json

__all__ = [
    "AXES",
    "CASE_COLUMN",
    "GROUP_COLUMN",
    "LABELS_FILE",
    "SPLITS_FILE",
    "Task",
    "TaskType",
    "Workspace",
    "tasks_from_json",
    "tasks_to_json",
]

TaskType = Literal["binary", "multiclass", "ordinal", "regression"]

LABELS_FILE = "classification_labels.csv"
SPLITS_FILE = "splits_final.json"
CASE_COLUMN = "case_id"
GROUP_COLUMN = "patient_id"

AXES = ("z", "y", "x")
"""Names of the axes of an array as nnU-Net reads it. x, the last, is left-right in images stored LPS or RAS."""


@dataclass(frozen=True)
class Task:
    """One thing to say about a case.

    ``classes`` are the labels as they stand in the case table, in the order of the output units (ascending for ordinal
    tasks); empty for regression. ``unit`` is only shown, e.g. ``"y"``. ``fixed_axes`` are image axes that must not be mirrored
    because the answer depends on the side, e.g. ``("x",)`` for left and right; see AXES.
    """

    name: str
    type: TaskType
    classes: tuple[str, ...] = ()
    unit: str = ""
    fixed_axes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.type not in get_args(TaskType):
            raise SettingsError(f"task {self.name}: type expected one of {get_args(TaskType)}, got {self.type!r}")
        if self.type == "regression" and self.classes:
            raise SettingsError(f"task {self.name}: a regression has no classes, got {self.classes}")
        if self.type == "binary" and len(self.classes) != 2:
            raise SettingsError(f"task {self.name}: binary expected 2 classes, got {self.classes}")
        if self.type in ("multiclass", "ordinal") and len(self.classes) < 2:
            raise SettingsError(f"task {self.name}: expected at least 2 classes, got {self.classes}")
        if len(set(self.classes)) != len(self.classes):
            raise SettingsError(f"task {self.name}: classes must differ, got {self.classes}")
        if len(set(self.fixed_axes)) != len(self.fixed_axes) or not set(self.fixed_axes) <= set(AXES):
            raise SettingsError(f"task {self.name}: fixed axes expected some of {AXES}, each once, got {self.fixed_axes}")

    @property
    def is_classification(self) -> bool:
        """Whether the task has classes (binary, multiclass, ordinal) rather than a number."""
        return self.type != "regression"

    @property
    def num_outputs(self) -> int:
        """Number of output units of a head: K logits, K-1 thresholds for ordinal, 1 for regression."""
        if self.type == "regression":
            return 1
        return len(self.classes) - 1 if self.type == "ordinal" else len(self.classes)

    def encode(self, cell: str) -> float:
        """Turn a table cell into a class index or a value; NaN for an empty cell.

        Raises:
            DatasetError: the cell names no class of the task, or is no finite number for a regression.
        """
        if cell == "":
            return float("nan")
        if self.type == "regression":
            return _finite(cell, self.name)
        if cell not in self.classes:
            raise DatasetError(f"task {self.name}: expected one of {list(self.classes)}, got {cell!r}")
        return float(self.classes.index(cell))


def _finite(cell: str, name: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = float("nan")
    if value != value or value in (float("inf"), float("-inf")):
        raise DatasetError(f"{name}: expected a finite number, got {cell!r}")
    return value


def tasks_to_json(tasks: tuple[Task, ...]) -> dict[str, dict[str, Any]]:
    """The ``dataset.json["classification"]`` object: ``{name: {type, classes?, unit?, fixed_axes?}}``."""
    out: dict[str, dict[str, Any]] = {}
    for task in tasks:
        entry: dict[str, Any] = {"type": task.type}
        if task.classes:
            entry["classes"] = list(task.classes)
        if task.unit:
            entry["unit"] = task.unit
        if task.fixed_axes:
            entry["fixed_axes"] = list(task.fixed_axes)
        out[task.name] = entry
    return out


@dataclass(frozen=True)
class _TaskEntry:
    type: str
    classes: tuple[str, ...] = ()
    unit: str = ""
    fixed_axes: tuple[str, ...] = ()


def tasks_from_json(value: Any, place: str = "classification", *, error: type[NNDuetError] = SettingsError) -> tuple[Task, ...]:
    """Inverse of :func:`tasks_to_json`; an empty object gives no tasks.

    Args:
        value: a JSON object, whoever wrote it.
        place: what messages begin with, as a rule the path of the file.
        error: what is raised.

    Raises:
        error: an entry is no valid task.
    """
    entries = convert_json(value, dict[str, _TaskEntry], place, error=error)
    try:
        return tuple(Task(name, cast(TaskType, e.type), e.classes, e.unit, e.fixed_axes) for name, e in entries.items())
    except SettingsError as reason:
        raise error(f"{place}: {reason}") from reason


@dataclass(frozen=True)
class Workspace:
    """The three folders of nnU-Net (``nnUNet_raw``, ``nnUNet_preprocessed``, ``nnUNet_results``)."""

    raw: Path
    preprocessed: Path
    results: Path

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], default: Path) -> Workspace:
        """Folders named by the nnU-Net variables; each unset one becomes a folder of that name below ``default``."""
        return cls(
            *(Path(environment.get(name) or default / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"))
        )

    def environment(self) -> dict[str, str]:
        """The variables that make nnU-Net use these folders."""
        return {
            "nnUNet_raw": str(self.raw),
            "nnUNet_preprocessed": str(self.preprocessed),
            "nnUNet_results": str(self.results),
        }

    def dataset_name(self, dataset_id: int) -> str:
        """The ``DatasetNNN_Name`` folder name of an id, looked up in raw, then preprocessed, then results.

        Raises:
            DatasetError: no folder, or more than one, carries the id.
        """
        prefix = f"Dataset{dataset_id:03d}_"
        found = sorted({p.name for folder in (self.raw, self.preprocessed, self.results) for p in folder.glob(prefix + "*")})
        if len(found) != 1:
            raise DatasetError(f"dataset {dataset_id}: expected one folder {prefix}* in {self.raw}, got {found or 'none'}")
        return found[0]
