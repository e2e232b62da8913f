"""A trained model folder with the stored features of its cases and their labels, for what needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnduet.case_head.feature_table import FeatureTable
from nnduet.errors import ModelError, TableError
from nnduet.model_store.model_files import fold_names
from nnduet.names import check_name
from nnduet.nnunet_types import DatasetJson
from nnduet.records import convert_json, read_json
from nnduet.schema import Task, Workspace, folds_with
from nnduet.task_list import tasks_from_json
from nnduet.training.fold_metrics import FINAL_METRICS_FILE
from nnduet.training.freshness import check_fold_cases
from nnduet.training.head_fitting import TRAINING_FEATURES, VALIDATION_FEATURES
from nnduet.training.ingredients import labels_digest
from nnduet.training.labels import CaseLabels, find_label_table, read_label_table

__all__ = ["TrainedFolds", "read_trained_folds"]


@dataclass(frozen=True)
class TrainedFolds:
    """Finished folds of a model.

    Attributes:
        folds: names behind ``fold_``, e.g. ("0", "1").
        dataset: name of the dataset that it was trained on.
        table: the table that the labels were read from; ``id_column`` is its column with the cases, if not found by name.
    """

    model: Path
    folds: tuple[str, ...]
    dataset: str
    dataset_json: DatasetJson
    table: Path
    labels: CaseLabels
    id_column: str | None = None

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks that the model answers."""
        return self.labels.tasks

    def folder(self, fold: str) -> Path:
        """Where the fold's files are."""
        return self.model / f"fold_{fold}"

    def labels_digest(self) -> str:
        """Digest of what a training would learn from the table, to compare with that of the fold's."""
        return labels_digest(read_label_table(self.table, self.tasks, self.dataset_json.get("covariates", []), self.id_column))

    def features(self, fold: str) -> tuple[FeatureTable, FeatureTable]:
        """Features of the training and of the validation cases.

        Raises:
            ModelError: a file is missing or damaged, or the two do not fit each other or the tasks.
            TableError: the labels lack a case.
        """
        training, validation = (
            FeatureTable.load(self.folder(fold) / name) for name in (TRAINING_FEATURES, VALIDATION_FEATURES)
        )
        absent = sorted({task.name for task in self.tasks} - set(validation.network))
        same = dict(training.blocks) == dict(validation.blocks) and training.descriptors == validation.descriptors
        if not same or absent:
            raise ModelError(
                f"{self.folder(fold)}: expected features of the same blocks with network answers to every task, got blocks "
                f"{list(training.blocks)} and {list(validation.blocks)}, descriptors of versions {training.descriptors} and "
                f"{validation.descriptors}, no answers to {absent}"
            )
        unknown = [c for c in (*training.case_ids, *validation.case_ids) if c not in self.labels.values]
        if unknown:
            raise TableError(f"{self.table}: {len(unknown)} cases of fold {fold} have no row: {', '.join(unknown[:10])}")
        return training, validation


@dataclass(frozen=True)
class _PlansFile:
    dataset_name: str


@dataclass(frozen=True)
class _DatasetFile:
    classification: dict[str, Any] = field(default_factory=dict)
    covariates: list[str] = field(default_factory=list)
    labels: dict[str, int | list[int]] = field(default_factory=dict)
    channel_names: dict[str, str] = field(default_factory=dict)


def read_trained_folds(
    model: Path,
    workspace: Workspace,
    folds: Sequence[int | str] | None = None,
    table: Path | None = None,
    id_column: str | None = None,
) -> TrainedFolds:
    """Read what a model folder says of itself, and the labels.

    Args:
        model: folder that ``train`` wrote.
        workspace: where ``classification_labels.csv`` of the model's dataset is looked for, raw before preprocessed.
        folds: names behind ``fold_``; None takes every fold that was validated.
        table: another table of labels, with the same columns.
        id_column: its column with the case ids, if it is not found by its name.

    Raises:
        ModelError: no model folder of nnDuet, a model without tasks, or a fold that is not there.
        DatasetError: no table of labels.
        TableError: the table lacks a column, or a cell names no class.
        StaleError: images or masks of the dataset changed after a fold was trained: its stored features are of the old ones.
    """
    planned: _PlansFile = read_json(model / "plans.json", _PlansFile, error=ModelError)
    dataset_json: DatasetJson = read_json(model / "dataset.json", dict[str, Any], error=ModelError)
    described = convert_json(dataset_json, _DatasetFile, str(model / "dataset.json"), error=ModelError)
    tasks = tasks_from_json(described.classification, str(model / "dataset.json"), error=ModelError)
    if not tasks:
        raise ModelError(f"{model / 'dataset.json'}: expected a model with tasks, got none")
    dataset = check_name(planned.dataset_name, f"{model / 'plans.json'}: dataset_name", ModelError)
    names = fold_names(folds) if folds else folds_with(model, FINAL_METRICS_FILE)
    absent = [name for name in names if not (model / f"fold_{name}").is_dir()]
    if absent or not names:
        found = sorted(path.name for path in model.glob("fold_*"))
        remedy = "name folds that are there, or finish the training with `nnduet train … --resume`"
        raise ModelError(f"{model}: expected validated folds {absent or ''}, found {found}", remedy=remedy)
    for name in names:
        check_fold_cases(model / f"fold_{name}", workspace, dataset)
    path = table or find_label_table(workspace.folders_of(dataset))
    labels = read_label_table(path, tasks, (), id_column)
    return TrainedFolds(model, tuple(dict.fromkeys(names)), dataset, dataset_json, path, labels, id_column)
