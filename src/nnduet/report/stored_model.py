"""What a report reads of a model folder: its plans, its dataset and the tables of a training, each typed when it is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnduet.cells import number_or_nan
from nnduet.datasets.mask_codes import MaskCodes
from nnduet.errors import DatasetError
from nnduet.io.delimited import read_records
from nnduet.records import read_json
from nnduet.schema import Task, TaskType, folds_with

__all__ = [
    "Configuration",
    "PlansFile",
    "StoredModel",
    "find_model",
    "folds_of",
    "is_finished",
    "machine_of",
    "read_model",
    "read_progress",
    "region_names",
]

FOLD_METRICS, PROGRESS = "final_metrics.json", "progress.csv"


@dataclass(frozen=True)
class TaskEntry:
    """A task as it stands in ``dataset.json``."""

    type: TaskType
    classes: tuple[str | int | float, ...] = ()
    unit: str = ""


@dataclass(frozen=True)
class DatasetFile:
    """``dataset.json``: what nnU-Net and nnDuet read of it; a data set without tasks or covariates leaves their parts out."""

    labels: Mapping[str, int | tuple[int, ...]] = field(default_factory=dict)
    channel_names: Mapping[str, str] = field(default_factory=dict)
    classification: Mapping[str, TaskEntry] = field(default_factory=dict)
    covariates: tuple[str, ...] = ()


@dataclass(frozen=True)
class Configuration:
    """What a report shows of a configuration of the plans."""

    patch_size: tuple[int, ...] = ()
    batch_size: int | None = None
    spacing: tuple[float, ...] = ()


@dataclass(frozen=True)
class PlansFile:
    """``plans.json``; ``nnduet`` holds the training settings."""

    dataset_name: str = "–"
    plans_name: str = "–"
    configurations: Mapping[str, Configuration] = field(default_factory=dict)
    nnduet: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StoredModel:
    """A model folder without its weights; ``codes`` where several masks of a case are one map."""

    folder: Path
    dataset: DatasetFile
    plans: PlansFile
    codes: MaskCodes | None = None

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Tasks of the data set."""
        return tuple(
            Task(name, entry.type, tuple(map(str, entry.classes)), entry.unit)
            for name, entry in self.dataset.classification.items()
        )


def find_model(folder: Path) -> Path | None:
    """The model folder that a folder is or lies in, up to three levels above."""
    places = (folder, *folder.parents[:3])
    return next((p for p in places if (p / "plans.json").is_file() and (p / "dataset.json").is_file()), None)


def read_model(folder: Path) -> StoredModel:
    """Read ``plans.json`` and ``dataset.json``.

    Raises:
        DatasetError: one of them is unreadable, or a part of it has another type; names the file and the place.
    """
    content: dict[str, Any] = read_json(folder / "dataset.json", dict[str, Any])
    return StoredModel(
        folder,
        read_json(folder / "dataset.json", DatasetFile),
        read_json(folder / "plans.json", PlansFile),
        MaskCodes.from_json(content),
    )


def region_names(labels: Mapping[str, int | Sequence[int]]) -> list[str]:
    """Foreground labels or regions of ``dataset.json["labels"]`` in the order of the network's outputs, that of nnU-Net."""
    found = {name: value for name, value in labels.items() if value != 0 and name != "ignore"}
    return sorted(found, key=lambda name: value if isinstance(value := found[name], int) else 0)


def folds_of(path: Path) -> dict[str, Path]:
    """{name: folder} of the folds with a ``progress.csv``: of the model that ``path`` is or lies in, or that fold itself."""
    if (path / PROGRESS).is_file():
        return {path.name: path}
    model = path if (path / "plans.json").is_file() else path.parent
    return {f"fold_{name}": model / f"fold_{name}" for name in folds_with(model, PROGRESS)}


def is_finished(path: Path) -> bool:
    """Whether no fold of a model, nor a fold itself, is being trained: each with epochs has its ``final_metrics.json``."""
    return all((folder / FOLD_METRICS).is_file() for folder in folds_of(path).values())


def read_progress(fold: Path) -> dict[str, NDArray[np.float64]]:
    """Columns of ``progress.csv``, (epochs,), NaN for empty and cut cells; empty where there is no file or no epoch yet.

    Raises:
        UnreadableFileError: it is no CSV in UTF-8.
    """
    path = fold / PROGRESS
    if not path.is_file():
        return {}
    header, lines = read_records(path)
    names = [name for name in header if name and lines]
    return {name: np.array([number_or_nan(line.get(name, "")) for line in lines]) for name in names}


def machine_of(fold: Path) -> str:
    """Device, host and torch of a training, from nnU-Net's ``debug.json``; empty where that is missing or being written."""
    try:
        found: dict[str, Any] = read_json(fold / "debug.json", dict[str, Any])
    except DatasetError:
        return ""
    return f"{found.get('device', '?')} of {found.get('hostname', '?')}, torch {found.get('torch_version', '?')}"
