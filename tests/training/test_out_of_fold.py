"""Answers of two folds, written by hand, come together once each and are measured with their folds' own scores."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from tiny import TASKS, tiny_head

from nnduet.errors import DatasetError, TableError
from nnduet.evaluation.reference_sets import ReferenceSet
from nnduet.io.images import Geometry, write_segmentation
from nnduet.records import to_plain
from nnduet.schema import Task
from nnduet.training.out_of_fold import gather_predictions, measure_predictions

PARTS = {0: ["a", "c"], 1: ["b"]}
HEADER = "case_id,grade,grade_p_high,grade_p_low,grade_set,grade_spread,age,age_low,age_high,age_spread,outlier_score"
ANSWERS = {
    0: ["a,high,0.8,0.2,high,,50,,,,0.5", "c,low,0.4,0.6,low|high,,61,,,,"],
    1: ["b,low,0.1,0.9,low,,55,,,,1"],
}
TRUTH = "case_id,grade,age,patient_id\na,high,48,p\nb,low,55,p\nc,high,,q\n"
FIVE = [0.1, 0.2, 0.3, 0.4, 0.5]  # at error rate 0.2 the threshold is 0.5


def write_mask(folder: Path, case_id: str, label: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    mask = np.zeros((1, 8, 8), np.uint8)
    mask[0, 2:6, 2:6] = label
    write_segmentation(folder / f"{case_id}.png", mask, Geometry((1, 8, 8), (1.0, 1.0, 1.0)))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Two validated folds of a model; every mask is right."""
    for fold, cases in PARTS.items():
        folder = tmp_path / "model" / f"fold_{fold}"
        for case_id in cases:
            write_mask(folder / "validation", case_id, 1)
        (folder / "validation" / "classification.csv").write_text("\n".join([HEADER, *ANSWERS[fold]]) + "\n")
        head = {**tiny_head([0.0, 0.0]), "scores": FIVE}
        (folder / "case_head.json").write_text(json.dumps({"tasks": {"grade": head}}))
    return tmp_path / "model"


@pytest.fixture
def truth(tmp_path: Path) -> ReferenceSet:
    for case_id in "abc":
        write_mask(tmp_path / "references", case_id, 1)
    (tmp_path / "cases.csv").write_text(TRUTH)
    return ReferenceSet(tmp_path / "references", {"background": 0, "organ": 1}, TASKS, tmp_path / "cases.csv")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def test_every_case_comes_once_with_its_fold_and_its_answers(model: Path, tmp_path: Path) -> None:
    gather_predictions(model, PARTS, TASKS, tmp_path / "out")
    table = rows(tmp_path / "out" / "classification.csv")
    assert [(row["case_id"], row["fold"], row["grade"]) for row in table] == [
        ("a", "0", "high"),
        ("b", "1", "low"),
        ("c", "0", "low"),
    ]
    assert list(table[0]) == [*HEADER.split(","), "fold"]
    assert (tmp_path / "out" / "grade_results.csv").read_text() == "Names,Grade\na,high\nb,low\nc,low\n"
    assert (tmp_path / "out" / "age_results.csv").read_text() == "Names,Age\na,50\nb,55\nc,61\n"
    for fold, cases in PARTS.items():
        for case_id in cases:
            source = model / f"fold_{fold}" / "validation" / f"{case_id}.png"
            assert (tmp_path / "out" / f"{case_id}.png").read_bytes() == source.read_bytes()


def test_row_136_results_name_files_where_the_dataset_does(model: Path, tmp_path: Path) -> None:
    gather_predictions(model, PARTS, TASKS, tmp_path / "out", ending=".png")
    assert (tmp_path / "out" / "grade_results.csv").read_text() == "Names,Grade\na.png,high\nb.png,low\nc.png,low\n"
    assert [row["case_id"] for row in rows(tmp_path / "out" / "classification.csv")] == ["a", "b", "c"]


def test_masks_of_an_earlier_gathering_go(model: Path, tmp_path: Path) -> None:
    gather_predictions(model, PARTS, TASKS, tmp_path / "out")
    gather_predictions(model, {1: ["b"]}, TASKS, tmp_path / "out")
    assert [path.name for path in sorted((tmp_path / "out").glob("*.png"))] == ["b.png"]
    assert [row["case_id"] for row in rows(tmp_path / "out" / "classification.csv")] == ["b"]


def test_without_tasks_masks_alone_are_gathered(model: Path, tmp_path: Path) -> None:
    gather_predictions(model, PARTS, (), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "b.png", "c.png"]


@pytest.mark.parametrize("part", [["a"], ["a", "c", "d"]])
def test_a_fold_that_validated_other_cases_is_refused(model: Path, tmp_path: Path, part: list[str]) -> None:
    with pytest.raises(DatasetError, match=r"fold_0/validation: expected masks .* the fold must be trained again"):
        gather_predictions(model, {0: part, 1: ["b"]}, TASKS, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_case_without_an_answer_is_refused(model: Path, tmp_path: Path) -> None:
    (model / "fold_0" / "validation" / "classification.csv").write_text(f"{HEADER}\n{ANSWERS[0][0]}\n")
    with pytest.raises(DatasetError, match=r"classification\.csv: expected answers .* none for \['c'\]"):
        gather_predictions(model, PARTS, TASKS, tmp_path / "out")


def test_tables_with_different_columns_are_refused(model: Path, tmp_path: Path) -> None:
    (model / "fold_1" / "validation" / "classification.csv").write_text(f"{HEADER},extra\n{ANSWERS[1][0]},1\n")
    with pytest.raises(DatasetError, match=r"fold_1.*line 2: expected the columns"):
        gather_predictions(model, PARTS, TASKS, tmp_path / "out")


def test_all_cases_are_measured_together_by_patient(model: Path, truth: ReferenceSet, tmp_path: Path) -> None:
    gather_predictions(model, PARTS, TASKS, tmp_path / "out")
    metrics = to_plain(measure_predictions(model, PARTS, truth, tmp_path / "out", not_validated=["d"], num_bootstrap=20))
    assert metrics == json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["cross_validation"] == {"folds": [0, 1], "cases_per_fold": {"0": 2, "1": 1}, "not_validated": ["d"]}
    assert (metrics["num_cases"], metrics["num_resampling_units"]) == (3, 2)
    assert metrics["segmentation"]["organ"]["dsc"]["value"] == 1
    assert metrics["tasks"]["grade"]["metrics"]["accuracy"]["value"] == pytest.approx(2 / 3)
    assert metrics["definitions"].keys() > {"dsc", "coverage"}
    assert len(rows(tmp_path / "out" / "per_case.csv")) == 3


def test_uncertainty_is_that_of_each_folds_own_scores(model: Path, truth: ReferenceSet, tmp_path: Path) -> None:
    gather_predictions(model, PARTS, TASKS, tmp_path / "out")
    found = to_plain(measure_predictions(model, PARTS, truth, tmp_path / "out", num_bootstrap=20).uncertainty)
    sets = found["grade"]["prediction_sets"]["0.2"]
    assert sets["coverage"]["value"] == pytest.approx(2 / 3)  # c lacks "high": 1 - 0.4 is above 0.5
    assert sets["singleton_share"]["value"] == 1
    outliers = found["grade"]["auroc_of_being_wrong"]["outlier_score"]
    assert (outliers["value"], outliers["reason"]) == (None, "every_answer_is_right")  # c, the wrong one, has no score
    assert found["age"]["num_cases"] == 2
    assert found["age"]["folds_without_scores"] == ["0", "1"]
    assert found["age"]["intervals"]["0.1"]["coverage"]["reason"] == "no_conformal_scores"


def test_scores_for_the_ensemble_are_those_of_all_labelled_cases(model: Path, truth: ReferenceSet, tmp_path: Path) -> None:
    gather_predictions(model, PARTS, TASKS, tmp_path / "out")
    measure_predictions(model, PARTS, truth, tmp_path / "out", num_bootstrap=0)
    stored = json.loads((tmp_path / "out" / "conformal.json").read_text())
    assert stored == {
        "grade": {"folds": [0, 1], "scores": pytest.approx([0.1, 0.2, 0.6])},
        "age": {"folds": [0, 1], "scores": [0, 2]},
    }


def test_without_tasks_there_is_no_uncertainty_and_no_scores(model: Path, truth: ReferenceSet, tmp_path: Path) -> None:
    gather_predictions(model, PARTS, (), tmp_path / "out")
    masks_only = ReferenceSet(truth.masks, truth.labels, (), None)
    metrics = to_plain(measure_predictions(model, PARTS, masks_only, tmp_path / "out", num_bootstrap=0))
    assert (metrics["tasks"], metrics["uncertainty"]) == ({}, {})
    assert not (tmp_path / "out" / "conformal.json").exists()


def test_a_task_that_nobody_labelled_has_no_scores(model: Path, truth: ReferenceSet, tmp_path: Path) -> None:
    unlabelled = tmp_path / "unlabelled.csv"
    unlabelled.write_text("case_id,grade,age\na,,48\nb,,55\nc,,\n")
    gather_predictions(model, PARTS, TASKS, tmp_path / "out")
    found = ReferenceSet(truth.masks, truth.labels, TASKS, unlabelled)
    metrics = to_plain(measure_predictions(model, PARTS, found, tmp_path / "out", num_bootstrap=0))
    assert metrics["uncertainty"]["grade"]["prediction_sets"]["0.1"]["coverage"]["reason"] == "no_labelled_cases"
    assert list(json.loads((tmp_path / "out" / "conformal.json").read_text())) == ["age"]


def test_a_task_of_another_name_than_its_columns_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(TableError, match="expected columns"):
        gather_predictions(model, PARTS, (Task("size", "regression"),), tmp_path / "out")
