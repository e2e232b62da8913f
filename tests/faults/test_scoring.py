"""Scoring survives rows 48 and 60 of the list of faults: what is missing or undefined is listed, never left out in silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from nnduet.cli import app
from nnduet.io.geometry import Geometry
from nnduet.io.images import write_segmentation

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
            "mcc": (2 * 4 - (1 * 2 + 2 * 2)) / (10 * 8) ** 0.5,  # 2 right; answered 1, 2, 1 times; true 2, 2, 0 times
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


def scored(folder: Path, *options: str, code: int = 0) -> tuple[dict[str, Any], str, str]:
    """metrics.json, the table on stdout and the notes on stderr of the command with the folder's predictions."""
    arguments = ["evaluate", "-p", str(folder / "predictions"), "-r", str(folder / "references"), "-o", str(folder / "out")]
    result = CliRunner().invoke(app, [*arguments, *options])
    assert result.exit_code == code, result.stderr
    written = folder / "out" / "metrics.json"
    return json.loads(written.read_text()) if not code else {}, result.stdout, result.stderr


def write_model(folder: Path, training: list[str]) -> Path:
    """What ``evaluate`` reads of a model of one fold that was trained on these cases."""
    (folder / "fold_0").mkdir(parents=True)
    dataset = {"labels": {"background": 0, "organ": 1}, "classification": TASKS}
    (folder / "dataset.json").write_text(json.dumps(dataset))
    (folder / "fold_0" / "training_cases.json").write_text(json.dumps(training))
    return folder


def test_row_79_scored_cases_that_the_model_was_trained_on_are_told_everywhere(folder: Path) -> None:
    model = write_model(folder / "model", ["b", "d", "not scored"])
    metrics, table, notes = scored(folder, "-m", str(model))
    sentence = "2 of 4 scored cases are those that the model was trained on (b, d): their scores say nothing of new cases"
    assert metrics["trained_on"] == ["b", "d"] and metrics["warnings"] == [sentence]
    assert sentence in notes
    row = next(line for line in table.splitlines() if "trained on" in line)
    assert row.split() == ["WARNING:", "cases", "trained", "on", "2", "4"]
    (folder / "images").mkdir()
    CliRunner().invoke(app, ["report", str(folder / "out"), "-o", str(folder / "page")])
    assert sentence in (folder / "page" / "index.html").read_text()


def test_row_79_the_model_is_taken_from_the_run_of_the_predictions_with_its_folds(folder: Path) -> None:
    model = write_model(folder / "model", ["a"])
    (model / "fold_1").mkdir()
    (model / "fold_1" / "training_cases.json").write_text('["b", "c"]')
    for folds, expected in ((["0"], ["a"]), (["1"], ["b", "c"]), (["0", "1"], ["a", "b", "c"])):
        run = {"folds": folds, "model": str(model)}
        (folder / "predictions" / "run.json").write_text(json.dumps(run))
        assert scored(folder, "--dataset-json", str(folder / "dataset.json"))[0]["trained_on"] == expected
    (folder / "predictions" / "run.json").unlink()
    metrics, _, notes = scored(folder, "--dataset-json", str(folder / "dataset.json"))
    assert metrics["trained_on"] == metrics["warnings"] == [] and "trained on" not in notes


def test_row_80_missing_predictions_are_told_on_the_console_and_in_the_table(folder: Path) -> None:
    (folder / "predictions" / "d.nii.gz").unlink()
    _, table, notes = scored(folder, "--dataset-json", str(folder / "dataset.json"))
    assert "1 of 4 cases count as the worst answer, for lack of a usable one: d: no mask in" in notes
    row = next(line for line in table.splitlines() if "no usable prediction" in line)
    assert row.split()[-2:] == ["1", "4"]


def test_row_80_a_prediction_on_another_grid_is_that_cases_worst_and_the_others_are_scored(folder: Path) -> None:
    shifted = Geometry(GRID.shape, GRID.spacing_mm, (5.0, 0.0, 0.0))
    write_segmentation(folder / "predictions" / "d.nii.gz", SOME, shifted)
    write_segmentation(folder / "predictions" / "b.nii.gz", NONE, GRID)
    metrics, _, notes = scored(folder, "--dataset-json", str(folder / "dataset.json"))
    (entry,) = metrics["missing_predictions"]
    assert entry["case_id"] == "d" and entry["error"].startswith("GEOMETRY: d: ")
    assert "d: GEOMETRY: " in notes
    organ = metrics["segmentation"]["organ"]
    assert organ["case_reasons"] == {"both_empty": 2, "empty_prediction": 1, "missing_prediction": 1}
    assert (organ["dsc"]["value"], organ["avd_ml"]["value"]) == (0.0, pytest.approx(0.016 / 4))


def test_row_80_references_of_0_and_255_are_mapped_as_in_convert(folder: Path) -> None:
    expected = scored(folder, "--dataset-json", str(folder / "dataset.json"))[0]["segmentation"]
    for case_id, (reference, _) in MASKS.items():
        write_segmentation(folder / "references" / f"{case_id}.nii.gz", 255 * reference, GRID)
    _, _, notes = scored(folder, "--dataset-json", str(folder / "dataset.json"), code=1)
    assert "--map-label 255=1" in notes
    mapped = scored(folder, "--dataset-json", str(folder / "dataset.json"), "--map-label", "255=1")[0]
    assert mapped["segmentation"] == expected


def test_row_80_references_in_another_format_than_the_predictions_are_scored(folder: Path) -> None:
    expected = scored(folder, "--dataset-json", str(folder / "dataset.json"))[0]["segmentation"]
    for case_id, (reference, _) in MASKS.items():
        (folder / "references" / f"{case_id}.nii.gz").unlink()
        write_segmentation(folder / "references" / f"{case_id}.nii", reference, GRID)
    assert scored(folder, "--dataset-json", str(folder / "dataset.json"))[0]["segmentation"] == expected


def test_row_80_labels_and_tasks_come_from_the_model_and_cases_from_any_column(folder: Path) -> None:
    model = write_model(folder / "model", [])
    table = (folder / "table.csv").read_text().replace("case_id", "Pseudonym", 1)
    (folder / "table.csv").write_text(table)
    found, _, _ = scored(folder, "-m", str(model), "--table", str(folder / "table.csv"), "--id-column", "Pseudonym")
    assert list(found["tasks"]) == ["grade", "sick"] and list(found["segmentation"]) == ["organ", "foreground"]
    only_masks, _, _ = scored(folder, "-m", str(model))
    assert only_masks["tasks"] == {} and only_masks["segmentation"] == found["segmentation"]


def test_row_81_a_case_that_is_ignored_everywhere_has_no_score_not_0(folder: Path) -> None:
    labels = {"background": 0, "organ": 1, "ignore": 2}
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))
    for case_id in ("a", "b"):
        write_segmentation(folder / "references" / f"{case_id}.nii.gz", np.full_like(NONE, 2), GRID)
    metrics, _, _ = scored(folder, "--dataset-json", str(folder / "dataset.json"))
    organ = metrics["segmentation"]["organ"]
    assert organ["case_reasons"] == {"all_ignored": 2, "empty_prediction": 1}
    assert {name: organ[name]["n_defined"] for name in ("dsc", "nsd", "avd_ml", "avd_ratio")} == dict.fromkeys(
        ("dsc", "nsd", "avd_ml", "avd_ratio"), 2
    )
    assert organ["avd_ml"]["value"] == pytest.approx(0.008 / 2)  # c misses 8 voxels, d none; a and b say nothing
    rows = dict(line.split(",", 1) for line in (folder / "out" / "per_case.csv").read_text().splitlines()[1:])
    assert rows["a"].startswith(",,,,,all_ignored,,")
    for case_id in ("c", "d"):
        write_segmentation(folder / "references" / f"{case_id}.nii.gz", np.full_like(NONE, 2), GRID)
    entry = scored(folder, "--dataset-json", str(folder / "dataset.json"))[0]["segmentation"]["organ"]["avd_ml"]
    assert (entry["value"], entry["reason"]) == (None, "all_ignored")


@pytest.mark.parametrize("name", ["metrics.json", "per_case.csv"])
def test_row_133_evaluate_replaces_its_own_files_and_no_others(folder: Path, name: str) -> None:
    scored(folder, "--dataset-json", str(folder / "dataset.json"), "--table", str(folder / "table.csv"))
    scored(folder, "--dataset-json", str(folder / "dataset.json"), "--table", str(folder / "table.csv"))
    mine = '{"loss": 0.5}' if name.endswith("json") else "case_id,grade,weight\na,x,7\n"
    (folder / "out" / name).write_text(mine)
    _, _, notes = scored(folder, "--dataset-json", str(folder / "dataset.json"), code=1)
    assert "OUTPUT_EXISTS" in notes and name in notes
    assert (folder / "out" / name).read_text() == mine
