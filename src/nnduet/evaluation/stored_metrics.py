"""What ``metrics.json``, ``final_metrics.json`` and ``run.json`` hold, read again: every part typed when it is read.

Others may have cut or edited the files, or written them with an earlier version. A part that is missing has its default; one of
another type is refused with its place in the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from nnduet.inference.prediction_run import PredictionRun
from nnduet.records import read_json
from nnduet.schema import Task, TaskType

__all__ = [
    "METRICS_FILE",
    "PER_CASE_FILE",
    "RUN_FILE",
    "Alarm",
    "Estimate",
    "MissingPrediction",
    "PredictionRun",
    "RegionMetrics",
    "StoredMetrics",
    "TaskMetrics",
    "read_metrics",
    "read_prediction_run",
]

METRICS_FILE, PER_CASE_FILE = "metrics.json", "per_case.csv"
FOLD_METRICS_FILE, RUN_FILE = "final_metrics.json", "run.json"
T = TypeVar("T")


@dataclass(frozen=True)
class Estimate:
    """A value with its interval; None where undefined, ``reason`` and ``ci95_reason`` say why."""

    value: float | None
    n_defined: int = 0
    ci95: tuple[float, float] | None = None
    reason: str = ""
    ci95_reason: str = ""


@dataclass(frozen=True)
class RegionMetrics:
    """A region: the values of its labels, means over cases, and how many cases have a special score."""

    labels: tuple[int, ...]
    dsc: Estimate
    nsd: Estimate
    avd_ml: Estimate
    avd_ratio: Estimate
    case_reasons: Mapping[str, int] = field(default_factory=dict)

    def undefined(self) -> dict[str, str]:
        """{metric: reason} of those without a value."""
        found = {"dsc": self.dsc, "nsd": self.nsd, "avd_ml": self.avd_ml, "avd_ratio": self.avd_ratio}
        return {name: entry.reason for name, entry in found.items() if entry.value is None}


@dataclass(frozen=True)
class TaskMetrics:
    """A task; of a regression the parts about classes are empty. ``confusion_matrix`` (K, K): rows are the reference."""

    type: TaskType
    metrics: Mapping[str, Estimate] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    unit: str = ""
    num_cases: int = 0
    confusion_matrix: tuple[tuple[int, ...], ...] = ()
    absent_classes: tuple[str, ...] = ()
    majority_baseline: Mapping[str, float | str | None] = field(default_factory=dict)
    beats_majority_baseline: bool | None = None
    collapsed: bool = False

    def task(self, name: str) -> Task:
        """The task itself. SettingsError for classes that no task can have."""
        return Task(name, self.type, self.classes, self.unit)


@dataclass(frozen=True)
class Settings:
    """With which settings the metrics were computed."""

    tolerance_mm: float | None = None
    num_bootstrap: int = 0
    resampling_unit: str = "case"


@dataclass(frozen=True)
class Sources:
    """Folders and table that were read, as they were named; ``.`` is the folder of the metrics."""

    predictions: str | None = None
    references: str | None = None
    table: str | None = None


@dataclass(frozen=True)
class MissingPrediction:
    """A case without a usable prediction of one part, ``segmentation`` or a task."""

    case_id: str
    part: str
    error: str


@dataclass(frozen=True)
class Alarm:
    """A sign of collapse, said in a sentence."""

    sentence: str


@dataclass(frozen=True)
class CrossValidationPart:
    """Which folds were measured together, and the cases that none of them validates."""

    folds: tuple[int, ...] = ()
    not_validated: tuple[str, ...] = ()


@dataclass(frozen=True)
class StoredMetrics:
    """``metrics.json``; of a fold or a cross-validation with what only those have."""

    settings: Settings = field(default_factory=Settings)
    sources: Sources = field(default_factory=Sources)
    definitions: Mapping[str, str] = field(default_factory=dict)
    num_resampling_units: int = 0
    missing_predictions: tuple[MissingPrediction, ...] = ()
    warnings: tuple[str, ...] = ()
    segmentation: Mapping[str, RegionMetrics] = field(default_factory=dict)
    tasks: Mapping[str, TaskMetrics] = field(default_factory=dict)
    fold: int | str | None = None
    validated_on: str = ""
    alarms: tuple[Alarm, ...] = ()
    heads: Mapping[str, str] = field(default_factory=dict)
    made_by: Mapping[str, str] = field(default_factory=dict)
    cross_validation: CrossValidationPart = field(default_factory=CrossValidationPart)


def read_metrics(folder: Path) -> StoredMetrics | None:
    """``metrics.json`` of a folder; of a fold's ``validation/`` with what ``final_metrics.json`` beside it adds. None without.

    Raises:
        DatasetError: a file is unreadable, or a part of it has another type; names the file and the place.
    """
    own = folder / METRICS_FILE
    of_fold = folder.parent / FOLD_METRICS_FILE
    beside = _read(of_fold, StoredMetrics) if folder.name == "validation" else None
    found = _read(own, StoredMetrics)
    if found is None or beside is None:
        return found or beside
    added = ("fold", "validated_on", "alarms", "heads", "made_by")
    return StoredMetrics(**{**vars(found), **{name: getattr(beside, name) for name in added}})


def read_prediction_run(folder: Path) -> PredictionRun | None:
    """``run.json`` of a folder, None without. Raises as :func:`read_metrics`."""
    return _read(folder / RUN_FILE, PredictionRun)


def _read(path: Path, kind: type[T]) -> T | None:
    return read_json(path, kind) if path.exists() else None
