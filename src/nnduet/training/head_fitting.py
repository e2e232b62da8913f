"""Fit the case heads of one fold from the stored features of its training cases, and answer its validation cases with them.

No network is needed: ``nnduet fit-head`` does the same that the end of ``nnduet train`` does.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from nnduet.case_head.feature_table import FeatureTable
from nnduet.case_head.fit import fit_case_head
from nnduet.case_head.head import CaseHead
from nnduet.case_head.outliers import OutlierModel, fit_outlier_model
from nnduet.case_head.stored_heads import StoredHeads
from nnduet.inference.task_predictions import CaseAnswers, TaskPrediction, answer
from nnduet.io.files import write_text_atomically
from nnduet.model_store.folder_files import read_case_heads
from nnduet.model_store.model_files import CASE_HEAD_FILE
from nnduet.model_store.model_folder import Member
from nnduet.schema import Task
from nnduet.training.labels import CaseLabels

__all__ = ["TRAINING_FEATURES", "VALIDATION_FEATURES", "answer_table", "fit_heads"]

TRAINING_FEATURES = "features_training.npz"
VALIDATION_FEATURES = "features_validation.npz"


def fit_heads(folder: Path, labels: CaseLabels, seed: int = 0, output: Path | None = None) -> StoredHeads:
    """Fit a case head per task and the outlier model; writes ``case_head.json`` and returns what it holds.

    Args:
        folder: ``fold_K`` with ``features_training.npz``.
        labels: of the training cases; tasks with too few labels get no head, and the network head answers.
        output: where ``case_head.json`` goes; None is ``folder``.

    Raises:
        ModelError: the features are missing or damaged.
    """
    table = FeatureTable.load(folder / TRAINING_FEATURES)
    features = table.values.astype(float)
    patients = labels.patients(table.case_ids)
    fitted = {}
    for task in labels.tasks:
        network = table.network[task.name].astype(float) if task.name in table.network else None
        targets = labels.column(task, table.case_ids)
        fitted[task.name] = fit_case_head(task, features, targets, patients, blocks=table.blocks, network=network, seed=seed)
    outliers = fit_outlier_model(features, patients)
    stored: dict[str, Any] = {
        "descriptors": table.descriptors,
        "tasks": {name: head.to_json() for name, head in fitted.items() if head},
        "outliers": outliers.to_json() if outliers else None,
    }
    path = (output or folder) / CASE_HEAD_FILE
    write_text_atomically(path, json.dumps(stored))  # one line: thousands of numbers
    return read_case_heads(path, labels.tasks)


def answer_table(
    table: FeatureTable,
    tasks: tuple[Task, ...],
    heads: dict[str, CaseHead],
    outliers: OutlierModel | None,
    error_rate: float = 0.1,
) -> dict[str, CaseAnswers]:
    """{case id: answers} of one fold from stored features; without the spread over mirrored passes."""
    member = Member("", {}, heads)
    values = table.values.astype(float)
    answers: dict[str, dict[str, TaskPrediction]] = {case_id: {} for case_id in table.case_ids}
    for task in tasks:
        network = table.network[task.name].astype(float)
        outputs = heads[task.name](values, network) if task.name in heads else network
        for case_id, row in zip(table.case_ids, outputs, strict=True):
            answers[case_id][task.name] = answer(task, [member], [np.asarray(row)[None]], error_rate)
    scores = outliers.score(values).tolist() if outliers else [None] * len(values)
    return {case_id: CaseAnswers(answers[case_id], score) for case_id, score in zip(table.case_ids, scores, strict=True)}
