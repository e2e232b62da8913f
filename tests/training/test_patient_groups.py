"""Several cases of a patient stay together wherever a fold divides them: case heads, outliers, probes, inner heads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tiny import DATASET, tiny_dataset_json

from nnduet.case_head.feature_table import FeatureTable
from nnduet.schema import LABELS_FILE, Task, Workspace
from nnduet.training.head_fitting import TRAINING_FEATURES, VALIDATION_FEATURES, fit_heads
from nnduet.training.labels import CaseLabels, inner_fold
from nnduet.training.probing import probe_model
from nnduet.training.trained_folds import read_trained_folds

TASK = Task("grade", "binary", ("high", "low"))
PATIENTS, CASES_EACH = 16, 4
CASES = tuple(f"p{patient:02d}_{scan}" for patient in range(PATIENTS) for scan in range(CASES_EACH))
PATIENT_OF = {case_id: case_id[:3] for case_id in CASES}
GRADES = np.random.default_rng(5).permutation(np.arange(PATIENTS) % 2)


def features() -> FeatureTable:
    """Features (N, 40) that tell patients apart, and nothing of the grade, which goes by patient."""
    rng = np.random.default_rng(0)
    values = np.repeat(rng.normal(size=(PATIENTS, 40)), CASES_EACH, axis=0) + 0.01 * rng.normal(size=(len(CASES), 40))
    network = {"grade": np.full((len(CASES), 2), 0.5, np.float32)}
    return FeatureTable(CASES, values.astype(np.float32), {"stage 0": range(40)}, network)


def labels(*, grouped: bool) -> CaseLabels:
    values = {case_id: {"grade": float(GRADES[int(case_id[1:3])])} for case_id in CASES}
    return CaseLabels((TASK,), values, PATIENT_OF if grouped else {})


@pytest.fixture
def model(tmp_path: Path) -> tuple[Path, Workspace]:
    """A model folder of one fold whose table has the patients; the last four patients are held out."""
    workspace = Workspace(tmp_path / "raw", tmp_path / "preprocessed", tmp_path / "results")
    folder = workspace.results / DATASET / "model"
    fold = folder / "fold_0"
    fold.mkdir(parents=True)
    table = features()
    table.rows(CASES[:-16]).save(fold / TRAINING_FEATURES)
    table.rows(CASES[-16:]).save(fold / VALIDATION_FEATURES)
    classification = {"classification": {"grade": {"type": "binary", "classes": ["high", "low"]}}}
    (folder / "dataset.json").write_text(json.dumps({**tiny_dataset_json(2), **classification}))
    (folder / "plans.json").write_text(json.dumps({"dataset_name": DATASET}))
    (fold / "final_metrics.json").write_text("{}")
    lines = [f"{case_id},{TASK.classes[GRADES[int(case_id[1:3])]]},{PATIENT_OF[case_id]}" for case_id in CASES]
    path = workspace.raw / DATASET / LABELS_FILE
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(["case_id,grade,patient_id", *lines]) + "\n")
    return folder, workspace


def test_the_case_heads_of_a_fold_are_chosen_with_whole_patients(tmp_path: Path) -> None:
    features().save(tmp_path / TRAINING_FEATURES)
    apart, leaking = (fit_heads(tmp_path, labels(grouped=grouped))[0]["grade"] for grouped in (True, False))
    assert leaking.choice["inner_loss"] < 0.2
    assert apart.choice["inner_loss"] > 0.6


def test_the_outlier_model_of_a_fold_is_fitted_with_whole_patients(tmp_path: Path) -> None:
    features().save(tmp_path / TRAINING_FEATURES)
    apart, leaking = (fit_heads(tmp_path, labels(grouped=grouped))[1] for grouped in (True, False))
    assert apart is not None and leaking is not None
    assert np.median(apart.distances) > 2 * np.median(leaking.distances)


def test_probes_and_refits_read_the_patients_of_the_table(model: tuple[Path, Workspace], tmp_path: Path) -> None:
    folder, workspace = model
    assert read_trained_folds(folder, workspace).labels.groups == PATIENT_OF
    (row,) = probe_model(folder, workspace=workspace, output=tmp_path / "probe").rows
    assert row.inner_loss is not None and row.inner_loss > 0.6


def test_the_cases_of_a_patient_are_in_one_part_of_the_inner_heads() -> None:
    of_cases = labels(grouped=True).patients(CASES)
    parts = {patient: {inner_fold(p) for p in of_cases if p == patient} for patient in of_cases}
    assert all(len(part) == 1 for part in parts.values())
    assert len({part for of_patient in parts.values() for part in of_patient}) == 3
    assert len({inner_fold(case_id) for case_id in CASES[:4]}) > 1  # their own names would divide them
