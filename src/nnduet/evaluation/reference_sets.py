"""What to score against: read from a ``dataset.json``, or all of it from a converted dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnduet.datasets.folds import parse_folds
from nnduet.errors import DatasetError, ModelError, NNDuetError, SettingsError
from nnduet.records import convert_json, read_json
from nnduet.schema import LABELS_FILE, SPLITS_FILE, Task, Workspace
from nnduet.task_list import tasks_from_json

__all__ = ["ReferenceSet", "references_of_dataset", "references_of_json", "references_of_model"]


@dataclass(frozen=True)
class ReferenceSet:
    """The truth: ``masks`` folder and ``labels``, ``tasks`` with their ``table``, and the cases (None: all with a mask)."""

    masks: Path | None
    labels: Mapping[str, int | Sequence[int]]
    tasks: tuple[Task, ...]
    table: Path | None
    case_ids: tuple[str, ...] | None = None


@dataclass(frozen=True)
class _DatasetFile:
    labels: dict[str, int | list[int]]
    classification: dict[str, Any] = field(default_factory=dict)


def references_of_json(dataset_json: Path, *, masks: Path | None, table: Path | None) -> ReferenceSet:
    """Labels and tasks of a ``dataset.json``; the tasks are left out where there is no table to score them against.

    Raises:
        DatasetError: the file is missing, no JSON object, or names no labels.
    """
    content: _DatasetFile = read_json(dataset_json, _DatasetFile)
    return _reference_set(content, str(dataset_json), masks, table, DatasetError)


def references_of_model(model: str, *, masks: Path | None, table: Path | None) -> ReferenceSet:
    """Labels and tasks of a trained model: a folder, a bundle, or a shipped model by its name; tasks only with a table.

    Raises:
        ModelError: there is no such model, or its ``dataset.json`` is missing or names no labels.
        CorruptFileError: a bundle is damaged.
    """
    from nnduet.model_store.shipped_models import open_model  # only here: it needs torch

    files = open_model(model)
    place = str(files.place / "dataset.json")
    content: _DatasetFile = convert_json(files.json("dataset.json"), _DatasetFile, place, error=ModelError)
    return _reference_set(content, place, masks, table, ModelError)


def _reference_set(
    content: _DatasetFile, place: str, masks: Path | None, table: Path | None, error: type[NNDuetError]
) -> ReferenceSet:
    if not any(value != 0 for name, value in content.labels.items() if name != "ignore"):
        raise error(f"{place}: labels expected at least one foreground region, got {content.labels}")
    return ReferenceSet(
        masks, content.labels, tasks_from_json(content.classification, place, error=error) if table else (), table
    )


def references_of_dataset(workspace: Workspace, dataset_id: int, *, fold: int | None = None) -> ReferenceSet:
    """Training masks, labels, tasks and table of a converted dataset; with ``fold`` only its validation cases.

    Raises:
        DatasetError: the dataset, its ``dataset.json`` or its splits are not there.
        SettingsError: no such fold.
    """
    folder = workspace.raw / workspace.dataset_name(dataset_id)
    table = folder / LABELS_FILE
    found = references_of_json(folder / "dataset.json", masks=folder / "labelsTr", table=table if table.exists() else None)
    case_ids = None if fold is None else _validation_cases(folder / SPLITS_FILE, fold)
    return ReferenceSet(found.masks, found.labels, found.tasks, found.table, case_ids)


def _validation_cases(splits_file: Path, fold: int) -> tuple[str, ...]:
    splits = parse_folds(read_json(splits_file), str(splits_file))
    if not 0 <= fold < len(splits):
        raise SettingsError(f"{splits_file}: fold expected 0 to {len(splits) - 1}, got {fold}")
    return tuple(splits[fold]["val"])
