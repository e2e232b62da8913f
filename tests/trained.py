"""A model folder as training leaves it, with stored features but without a network: for what works on features alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from tiny import DATASET, tiny_dataset_json

from nnduet.case_head.feature_table import FeatureTable
from nnduet.io.images import Geometry, write_segmentation
from nnduet.schema import LABELS_FILE, Workspace

NUM_CASES = 48
CASES = tuple(f"case_{index:02d}" for index in range(NUM_CASES))
BLOCKS = {"intensity": range(2), "stage 0": range(2, 5), "stage 1": range(5, 8), "shape": range(8, 10)}
"""Stage 1 carries the grade, shape the age; the others are noise."""


def is_low(index: int) -> bool:
    return index % 3 == 0


def age_of(index: int) -> float:
    return 30.0 + index


def held_out(fold: int) -> tuple[str, ...]:
    """Every fourth case, from the fold's number on."""
    return CASES[fold::4]


def write_trained_folder(folder: Path, num_folds: int = 2) -> tuple[Path, Workspace]:
    """Model folder and workspace with labels and reference masks (8 x 8 PNG); answers and metrics are placeholders."""
    workspace = Workspace(folder / "raw", folder / "preprocessed", folder / "results")
    data = workspace.preprocessed / DATASET
    for case_id in CASES:
        _write_mask(data / "gt_segmentations" / f"{case_id}.png", 4)
    write_labels(data / LABELS_FILE)
    model = workspace.results / DATASET / "model"
    model.mkdir(parents=True)
    (model / "plans.json").write_text(json.dumps({"dataset_name": DATASET}), encoding="utf-8")
    (model / "dataset.json").write_text(json.dumps(tiny_dataset_json(2)), encoding="utf-8")
    for fold in range(num_folds):
        _write_fold(model / f"fold_{fold}", held_out(fold))
    return model, workspace


def write_labels(path: Path, *, swapped: bool = False, cases: tuple[str, ...] = CASES, labelled: int = NUM_CASES) -> Path:
    """A table of the cases; ``swapped`` grades, only the first ``labelled`` cases with labels."""
    lines = ["case_id,grade,age"]
    for index, case_id in enumerate(cases):
        grade = "low" if is_low(index) != swapped else "high"
        lines.append(f"{case_id},{grade},{age_of(index)}" if index < labelled else f"{case_id},,")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def features_of(cases: tuple[str, ...]) -> FeatureTable:
    """Features (N, 10): noise, but for column 5, +-3 by the grade, and column 8, which is the age without noise."""
    values = np.random.default_rng(7).normal(size=(NUM_CASES, 10)).astype(np.float32)
    values[:, 5] += np.where([is_low(index) for index in range(NUM_CASES)], 3, -3)
    values[:, 8] = [age_of(index) for index in range(NUM_CASES)]
    network = {"grade": np.full((NUM_CASES, 2), 0.5, np.float32), "age": np.full((NUM_CASES, 1), 50, np.float32)}
    return FeatureTable(CASES, values, BLOCKS, network).rows(cases)


def _write_fold(folder: Path, validation: tuple[str, ...]) -> None:
    training = features_of(tuple(case_id for case_id in CASES if case_id not in validation))
    FeatureTable(training.case_ids, training.values, training.blocks, {}).save(folder / "features_training.npz")
    features_of(validation).save(folder / "features_validation.npz")
    for case_id in validation:
        _write_mask(folder / "validation" / f"{case_id}.png", 5)
    for name in ("case_head.json", "final_metrics.json", "validation/classification.csv"):
        (folder / name).write_text(f"old {name}", encoding="utf-8")


def _write_mask(path: Path, size: int) -> None:
    mask = np.zeros((1, 8, 8), np.uint8)
    mask[0, :size, :4] = 1
    path.parent.mkdir(parents=True, exist_ok=True)
    write_segmentation(path, mask, Geometry((1, 8, 8), (1.0, 1.0, 1.0)))
