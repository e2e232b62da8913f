"""Frozen records that cross stages.

``dataset.json["classification"]`` holds the tasks, see :mod:`nnduet.task_list`, ``dataset.json["covariates"]`` the names of the
covariate columns and ``classification_labels.csv`` one row per case: ``case_id``, a column per task, optional ``patient_id``,
covariates. An empty cell is a missing label.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nnduet.cells import is_missing
from nnduet.errors import DatasetError, SettingsError
from nnduet.names import check_name, printable
from nnduet.tasks import TaskKind, TaskType, kind_of

__all__ = [
    "AXES",
    "CASE_COLUMN",
    "FOLD_COLUMN",
    "FOLD_NAME",
    "GROUP_COLUMN",
    "LABELS_FILE",
    "OUTLIER_COLUMN",
    "RESULT_NAMES_KEY",
    "SPLITS_FILE",
    "Task",
    "TaskType",
    "Workspace",
    "folds_with",
]

LABELS_FILE = "classification_labels.csv"
SPLITS_FILE = "splits_final.json"
CASE_COLUMN = "case_id"
GROUP_COLUMN = "patient_id"
OUTLIER_COLUMN = "outlier_score"
FOLD_COLUMN = "fold"

RESULT_NAMES_KEY = "names_in_results"
"""Key of ``dataset.json``: whether ``<task>_results.csv`` names ``cases`` (as without it) or ``files``, with their ending."""

FOLD_NAME = re.compile(r"[0-9]{1,3}|all")
"""What may stand behind ``fold_``."""

AXES = ("z", "y", "x")
"""Names of the axes of an array as nnU-Net reads it. x, the last, is left-right in images stored LPS or RAS."""


@dataclass(frozen=True)
class Task:
    """One thing to say about a case. What its type means, ``kind`` says, see :mod:`nnduet.tasks`.

    ``classes`` are the labels as they stand in the case table, in the order of the output units (ascending for ordinal
    tasks); empty for regression. ``unit`` is only shown, e.g. ``"y"``. ``fixed_axes`` are image axes that must not be mirrored
    because the answer depends on the side, e.g. ``("x",)`` for left and right; see AXES.

    The name becomes part of file names, see ``names``. A class may hold any printable sign.
    """

    name: str
    type: TaskType
    classes: tuple[str, ...] = ()
    unit: str = ""
    fixed_axes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_name(self.name, "task")
        self.kind.check(self)
        if len(set(self.classes)) != len(self.classes):
            raise SettingsError(f"task {self.name}: classes must differ, got {self.classes}")
        if any(not label.strip() or printable(label) != label or "\n" in label for label in self.classes):
            raise SettingsError(f"task {self.name}: classes expected printable texts of one line, got {self.classes!a}")
        if len(set(self.fixed_axes)) != len(self.fixed_axes) or not set(self.fixed_axes) <= set(AXES):
            raise SettingsError(f"task {self.name}: fixed axes expected some of {AXES}, each once, got {self.fixed_axes}")

    @property
    def kind(self) -> TaskKind:
        """The object of the task's type. SettingsError for a type that there is not."""
        return kind_of(self.type, f"task {self.name}")

    @property
    def is_classification(self) -> bool:
        """Whether the task has classes rather than a number."""
        return self.kind.has_classes

    @property
    def num_outputs(self) -> int:
        """Number of output units of a network's head."""
        return self.kind.num_outputs(self)

    @property
    def module_name(self) -> str:
        """Name of the task's layers in a network."""
        return "task_" + self.name.replace(".", "_")

    @property
    def answer_columns(self) -> tuple[str, ...]:
        """Columns of ``classification.csv`` with the answer: ``<task>``, then ``<task>_p_<class>`` by class.

        Examples:
            >>> Task("malignant", "binary", ("no", "yes")).answer_columns
            ('malignant', 'malignant_p_no', 'malignant_p_yes')
        """
        return (self.name, *(f"{self.name}_p_{label}" for label in self.classes))

    @property
    def certainty_columns(self) -> tuple[str, ...]:
        """Columns of ``classification.csv`` that follow: what cannot be excluded, and the spread."""
        return tuple(f"{self.name}_{name}" for name in (*self.kind.certainty, "spread"))

    @property
    def abstain_column(self) -> str:
        """Column of ``classification.csv`` with the reason why a case is left to a person."""
        return f"{self.name}_abstain"

    def spelling(self, cell: str) -> str:
        """A table's cell as this task writes it: a class as in ``classes``, a number with a decimal point, ``""`` if missing.

        A class is found by its own text first, so that a class may be called ``None``; then without regard to letter case
        and blanks, then as a number (``1.0`` is the class ``1``).

        Raises:
            DatasetError: the cell names no class of the task, or is no finite number for a regression.

        Examples:
            >>> Task("malignant", "binary", ("no", "yes")).spelling(" Yes ")
            'yes'
        """
        if cell in self.classes:
            return cell
        if is_missing(cell):
            return ""
        return self.kind.spelling(self, cell)

    def encode(self, cell: str) -> float:
        """Turn a table cell into an answer: a class index, a value or what the type makes of it; NaN for a missing cell.

        Raises:
            DatasetError: the cell names no class of the task, or is no finite number for a regression.

        Examples:
            >>> malignant = Task("malignant", "binary", ("no", "yes"))
            >>> malignant.encode("yes"), malignant.encode("n/a"), Task("age", "regression").encode("40,5")
            (1.0, nan, 40.5)
        """
        text = self.spelling(cell)
        if not text:
            return float("nan")
        return self.kind.encode(self, text)

    def decode(self, answer: float) -> str | float:
        """The inverse of :meth:`encode`: a class as in ``classes``, a number as it is; of an answer that is not NaN."""
        return self.kind.decode(self, answer)


def folds_with(model: Path, entry: str) -> list[str]:
    """Names after ``fold_`` of the folds of a model that hold a file or folder; ``""`` asks for the folds themselves.

    ``["0", "1"]`` or ``["all"]``, sorted as text; other names, as ``fold_0 (copy)``, are what somebody put aside.
    """
    names = ((path, path.name.removeprefix("fold_")) for path in sorted(model.glob("fold_*")))
    return [name for path, name in names if FOLD_NAME.fullmatch(name) and (path / entry).exists()]


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

    def folders_of(self, dataset: str) -> tuple[Path, Path]:
        """Where the tables of a dataset are looked for by every command: the raw folder, then the preprocessed one."""
        return self.raw / dataset, self.preprocessed / dataset

    def dataset_name(self, dataset_id: int) -> str:
        """The ``DatasetNNN_Name`` folder name of an id, looked up in raw, then preprocessed, then results.

        Raises:
            DatasetError: no folder, or more than one, carries the id.
        """
        prefix = f"Dataset{dataset_id:03d}_"
        found = sorted({p.name for folder in (self.raw, self.preprocessed, self.results) for p in folder.glob(prefix + "*")})
        if len(found) != 1:
            several = "keep one of them; one id is one dataset"
            none = f"`nnduet convert … --dataset-id {dataset_id}` makes it; if it lies elsewhere, name its --workspace"
            raise DatasetError(
                f"dataset {dataset_id}: expected one folder {prefix}* in {self.raw}, got {found or 'none'}",
                remedy=several if found else none,
            )
        return found[0]
