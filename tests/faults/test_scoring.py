"""Scoring survives rows 48 and 60 of the list of faults: what is missing or undefined is listed, never left out in silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from nnduet.cli import app
from nnduet.data.geometry import Geometry
from nnduet.data.images import write_segmentation

NONE = np.zeros((4, 4, 4), np.uint8)
SOME = NONE.copy()
SOME[:2, :2, :2] = 1  # 8 voxels of 1 mm: 0.008 ml
GRID = Geometry(NONE.shape)
MASKS = {"a": (NONE, NONE), "b": (NONE, SOME), "c": (SOME, NONE), "d": (SOME, SOME)}
"""Reference and prediction: both empty, one empty, the other empty, equal."""
TASKS = {"grade": {"type": "multiclass", "classes": ["x", "y", "z"]}, "sick": {"type": "binary", "classes": ["no", "yes"]}}
TRUTH = {"a": "x,no", "b": "x,no", "c": "y,yes", "d": "y,yes"}
ANSWERS = {
    "a": "x,0.8,0.1,0.1,no,0.9,0.1",
    "b": "y,0.3,0.6,0.1,no,0.8,0.2",
    "c": "y,0.2,0.8,0.0,yes,0.4,0.6",
    "d": "z,0.1,0.3,0.6,no,0.7,0.3",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """References, predictions, their tables and dataset.json for the four cases of MASKS."""
    for case_id, masks in MASKS.items():
        for name, mask in zip(("references", "predictions"), masks, strict=True):
            (tmp_path / name).mkdir(exist_ok=True)
            write_segmentation(tmp_path / name / f"{case_id}.nii.gz", mask, GRID)
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "organ": 1}, "classification": TASKS}))
    (tmp_path / "table.csv").write_text("case_id,grade,sick\n" + "".join(f"{c},{t}\n" for c, t in TRUTH.items()))
    write_answers(tmp_path, ANSWERS)
    return tmp_path


def write_answers(folder: Path, answers: dict[str, str]) -> None:
    header = "case_id,grade,grade_p_x,grade_p_y,grade_p_z,sick,sick_p_no,sick_p_yes\n"
    (folder / "predictions" / "classification.csv").write_text(header + "".join(f"{c},{a}\n" for c, a in answers.items()))


def metrics_of(folder: Path) -> dict[str, Any]:
    """metrics.json of the command."""
    options = {"-p": "predictions", "-r": "references", "--dataset-json": "dataset.json", "--table": "table.csv", "-o": "out"}
    arguments = [text for name, value in options.items() for text in (name, str(folder / value))]
    result = CliRunner().invoke(app, ["evaluate", *arguments])
    assert result.exit_code == 0, result.stderr
    metrics: dict[str, Any] = json.loads((folder / "out" / "metrics.json").read_text())
    return metrics


def values_of(scores: dict[str, Any]) -> dict[str, Any]:
    """{metric: its value, or its reason}."""
    return {name: score["value"] if score["value"] is not None else score["reason"] for name, score in scores.items()}


def test_row_48_a_missing_prediction_is_the_worst_answer_and_listed(folder: Path) -> None:
    (folder / "predictions" / "d.nii.gz").unlink()
    write_answers(folder, {case_id: answer for case_id, answer in ANSWERS.items() if case_id != "a"})
    metrics = metrics_of(folder)
    missing = [(entry["case_id"], entry["part"]) for entry in metrics["missing_predictions"]]
    assert sorted(missing) == [("a", "grade"), ("a", "sick"), ("d", "segmentation")]
    organ = metrics["segmentation"]["organ"]
    assert organ["dsc"]["value"] == 0.0 and organ["dsc"]["n_defined"] == 3
    assert organ["case_reasons"]["missing_prediction"] == 1
    assert metrics["tasks"]["grade"]["metrics"]["accuracy"]["value"] == 0.25
    assert metrics["tasks"]["sick"]["metrics"]["accuracy"]["value"] == 0.5


def test_row_60_empty_masks_give_the_values_by_hand(folder: Path) -> None:
    organ = metrics_of(folder)["segmentation"]["organ"]
    assert organ["case_reasons"] == {"both_empty": 1, "empty_reference": 1, "empty_prediction": 1}
    assert (organ["dsc"]["value"], organ["dsc"]["n_defined"]) == (pytest.approx(1 / 3), 3)  # 0, 0, 1; a is undefined
    assert (organ["nsd"]["value"], organ["nsd"]["n_defined"]) == (pytest.approx(1 / 3), 3)
    assert (organ["avd_ml"]["value"], organ["avd_ml"]["n_defined"]) == (pytest.approx(0.004), 4)  # 0, 8, 8, 0 voxels
    assert (organ["avd_ratio"]["value"], organ["avd_ratio"]["n_defined"]) == (0.5, 2)  # 1 and 0; a and b divide by 0


def test_row_60_an_absent_class_is_named_and_what_it_leaves_undefined_has_its_reason(folder: Path) -> None:
    grade = metrics_of(folder)["tasks"]["grade"]
    assert grade["absent_classes"] == grade["metrics"]["balanced_accuracy"]["absent_classes"] == ["z"]
    assert values_of(grade["metrics"]) == pytest.approx(
        {
            "accuracy": 0.5,
            "balanced_accuracy": 0.5,  # of x and y
            "macro_f1": (2 / 3 + 1 / 2 + 0) / 3,  # z was answered once
            "auroc": "absent_class: z",
            "brier": (0.06 + 0.86 + 0.08 + 0.86) / 4,
            "ece": 0.5 * 0.6 + 0.5 * 0.2,  # sure to 0.6: never right; to 0.8: always
        }
    )
    assert values_of(grade["per_class"]["z"] | {"support": {"value": 0}}) == {
        "support": 0,
        "precision": 0.0,
        "recall": "absent_class",
        "specificity": 0.75,
        "f1": 0.0,
        "auroc": "absent_class",
        "lr_plus": "absent_class",
    }
    assert grade["per_class"]["y"]["auroc"]["value"] == 0.75  # c before a and b, d before a only


def test_row_60_the_likelihood_ratio_at_perfect_specificity_has_a_reason(folder: Path) -> None:
    sick = metrics_of(folder)["tasks"]["sick"]
    assert values_of(sick["per_class"]["yes"] | {"support": {"value": 2}})["lr_plus"] == "perfect_specificity"
    assert sick["per_class"]["no"]["lr_plus"]["value"] == 1.0 / 0.5
    assert sick["metrics"]["auroc"]["value"] == 1.0
