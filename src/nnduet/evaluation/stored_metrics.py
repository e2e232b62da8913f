"""The records behind ``metrics.json`` and ``final_metrics.json``, and the reading of them and of ``run.json``.

What ``evaluate`` computes are these records, and what it writes is their fields. Others may have cut or edited the files, or
written them with an earlier version: on reading, a part that is missing has its default; one of another type is refused with
its place in the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, make_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import UNSET, UnsetType

from nnduet.evaluation.bootstrap import Estimate
from nnduet.evaluation.metrics.metric import Metric
from nnduet.evaluation.metrics.table import CLASS_METRICS, REGION_METRICS
from nnduet.inference.prediction_run import PredictionRun
from nnduet.records import left_out_when, read_json
from nnduet.schema import Task, TaskType

__all__ = [
    "METRICS_FILE",
    "PER_CASE_FILE",
    "RUN_FILE",
    "Alarm",
    "ClassMetrics",
    "CrossValidationPart",
    "Estimate",
    "IntervalQuality",
    "Metrics",
    "MissingPrediction",
    "PredictionRun",
    "RegionMetrics",
    "SetQuality",
    "Settings",
    "Sources",
    "TaskMetrics",
    "TaskUncertainty",
    "read_metrics",
    "read_prediction_run",
]

METRICS_FILE, PER_CASE_FILE = "metrics.json", "per_case.csv"
FOLD_METRICS_FILE, RUN_FILE = "final_metrics.json", "run.json"
T = TypeVar("T")
H = TypeVar("H", bound="_HoldsEstimates")


@dataclass(frozen=True)
class _HoldsEstimates:
    """A record with a field per metric, None where a file of an earlier version lacks it: files hold them side by side."""

    @classmethod
    def of(cls: type[H], estimates: Mapping[str, Estimate], **others: Any) -> H:
        """A record with these metrics, and the other fields by name."""
        return cls(**others, **estimates)

    @property
    def estimates(self) -> dict[str, Estimate]:
        """Every metric by its key, as far as the file has it."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Estimate)}


@dataclass(frozen=True)
class _RegionMetrics(_HoldsEstimates):
    """A region: the values of its labels, how many cases have a special score, and the mean over cases of every metric."""

    labels: tuple[int, ...]
    case_reasons: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _ClassMetrics(_HoldsEstimates):
    """A class against the rest: how many references are of it, and every metric."""

    support: int = 0


def _with_fields(name: str, base: type, metrics: Sequence[Metric]) -> type:
    """``base`` with the fields that the rows of the table make."""
    fields = [(metric.key, Estimate | None, left_out_when(None)) for metric in metrics]
    about = {"__doc__": base.__doc__, "__module__": __name__}
    return make_dataclass(name, fields, bases=(base,), frozen=True, namespace=about)


if TYPE_CHECKING:
    RegionMetrics = _RegionMetrics
    ClassMetrics = _ClassMetrics
else:
    RegionMetrics = _with_fields("RegionMetrics", _RegionMetrics, REGION_METRICS)
    ClassMetrics = _with_fields("ClassMetrics", _ClassMetrics, CLASS_METRICS)


@dataclass(frozen=True)
class TaskMetrics:
    """A task. What only classifications have is None of a regression, and the other way round.

    Attributes:
        metrics: of the whole task, by key.
        confusion_matrix: (K, K), rows are the reference.
        no_prediction_per_reference_class: (K,) cases without a prediction.
        majority_baseline: ``class``, ``accuracy`` and ``macro_f1`` of always naming the most frequent class.
        beats_majority_baseline: by macro-F1; None where that is undefined.
        collapsed: the references hold several classes, but only one is ever predicted.
    """

    type: TaskType
    num_cases: int = 0
    num_resampling_units: int = 0
    num_missing_predictions: int = 0
    unit: str | None = left_out_when(None)
    classes: tuple[str, ...] = left_out_when(())
    absent_classes: tuple[str, ...] | None = left_out_when(None)
    metrics: Mapping[str, Estimate] = field(default_factory=dict)
    per_class: Mapping[str, ClassMetrics] | None = left_out_when(None)
    confusion_matrix: tuple[tuple[int, ...], ...] | None = left_out_when(None)
    no_prediction_per_reference_class: tuple[int, ...] | None = left_out_when(None)
    majority_baseline: Mapping[str, float | str | None] | None = left_out_when(None)
    beats_majority_baseline: bool | UnsetType | None = left_out_when(UNSET)
    collapsed: bool | None = left_out_when(None)

    def task(self, name: str) -> Task:
        """The task itself. SettingsError for classes that no task can have."""
        return Task(name, self.type, self.classes, self.unit or "")


@dataclass(frozen=True)
class SetQuality:
    """Prediction sets at one error rate."""

    coverage: Estimate
    mean_set_size: Estimate
    singleton_share: Estimate


@dataclass(frozen=True)
class IntervalQuality:
    """Intervals of a regression at one error rate."""

    coverage: Estimate
    mean_width: Estimate
    unit: str = ""


@dataclass(frozen=True)
class TaskUncertainty:
    """What a task's statements about its own certainty are worth, see :mod:`nnduet.evaluation.uncertainty`."""

    num_cases: int
    num_resampling_units: int
    folds_without_scores: tuple[str, ...] = ()
    intervals: Mapping[str, IntervalQuality] | None = left_out_when(None)
    prediction_sets: Mapping[str, SetQuality] | None = left_out_when(None)
    accuracy_when_abstaining: Mapping[str, Estimate] | None = left_out_when(None)
    auroc_of_being_wrong: Mapping[str, Estimate] | None = left_out_when(None)


@dataclass(frozen=True)
class Settings:
    """With which settings the metrics were computed."""

    tolerance_mm: float | None = None
    num_bootstrap: int = 0
    seed: int = 0
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
    """A sign that a task's head has given up.

    Attributes:
        kind: "one_class", "uninformed_loss" or "never_armed".
        num_cases: validation cases that show it.
        sentence: for a person.
    """

    task: str
    kind: str
    num_cases: int
    sentence: str


@dataclass(frozen=True)
class CrossValidationPart:
    """Which folds were measured together, how many cases each validates, and the cases that none of them does."""

    folds: tuple[int, ...] = ()
    cases_per_fold: Mapping[str, int] = field(default_factory=dict)
    not_validated: tuple[str, ...] = ()


@dataclass(frozen=True)
class Metrics:
    """``metrics.json``, and ``final_metrics.json`` of a fold, with what only folds or cross-validations have, else None.

    Attributes:
        not_used: what else lies in the folder of the references.
        trained_on: scored cases that bear the name of a training case of the model.
        segmentation: by region.
        tasks: by name.
        heads: what answers each task.
        made_by: versions, commit, processor.
        uncertainty: by task.
    """

    settings: Settings = field(default_factory=Settings)
    sources: Sources = field(default_factory=Sources)
    definitions: Mapping[str, str] = field(default_factory=dict)
    num_cases: int = 0
    num_resampling_units: int = 0
    missing_predictions: tuple[MissingPrediction, ...] = ()
    not_used: tuple[str, ...] = ()
    trained_on: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    segmentation: Mapping[str, RegionMetrics] = field(default_factory=dict)
    tasks: Mapping[str, TaskMetrics] = field(default_factory=dict)
    fold: int | str | None = left_out_when(None)
    validated_on: str = left_out_when("")
    num_validation_cases: int | None = left_out_when(None)
    alarms: tuple[Alarm, ...] | None = left_out_when(None)
    made_by: Mapping[str, str] | None = left_out_when(None)
    heads: Mapping[str, str] | None = left_out_when(None)
    cross_validation: CrossValidationPart | None = left_out_when(None)
    uncertainty: Mapping[str, TaskUncertainty] | None = left_out_when(None)


def read_metrics(folder: Path) -> Metrics | None:
    """``metrics.json`` of a folder; of a fold's ``validation/`` with what ``final_metrics.json`` beside it adds. None without.

    Raises:
        DatasetError: a file is unreadable, or a part of it has another type; names the file and the place.
    """
    own = folder / METRICS_FILE
    of_fold = folder.parent / FOLD_METRICS_FILE
    beside = _read(of_fold, Metrics) if folder.name == "validation" else None
    found = _read(own, Metrics)
    if found is None or beside is None:
        return found or beside
    return replace(
        found,
        fold=beside.fold,
        validated_on=beside.validated_on,
        alarms=beside.alarms,
        heads=beside.heads,
        made_by=beside.made_by,
    )


def read_prediction_run(folder: Path) -> PredictionRun | None:
    """``run.json`` of a folder, None without. Raises as :func:`read_metrics`."""
    return _read(folder / RUN_FILE, PredictionRun)


def _read(path: Path, kind: type[T]) -> T | None:
    return read_json(path, kind) if path.exists() else None
