"""What folds are checked for, and what they are for: patients apart, classes spread."""

from __future__ import annotations

import json

import pytest
from data_builders import shared

from nnduet.data.folds import check_folds, choose_strata, make_folds, parse_folds
from nnduet.errors import DatasetError, LeakError
from nnduet.schema import Task

CASES = [f"c{i:02d}" for i in range(20)]
CLASSES = {case: "rare" if i < 5 else "common" for i, case in enumerate(CASES)}


def test_every_case_is_validated_once_and_trains_the_other_folds() -> None:
    folds = make_folds(CASES)
    assert sorted(case for fold in folds for case in fold["val"]) == CASES
    assert all(sorted(fold["train"] + fold["val"]) == CASES for fold in folds)


def test_each_fold_gets_its_share_of_a_rare_class() -> None:
    for fold in make_folds(CASES, strata=CLASSES):
        assert [CLASSES[case] for case in fold["val"]].count("rare") == 1


def test_the_order_of_the_cases_does_not_matter_and_the_seed_does() -> None:
    assert make_folds(CASES) == make_folds(CASES[::-1]) != make_folds(CASES, seed=1)


def test_cases_of_one_patient_stay_together() -> None:
    patients = {case: f"p{i // 2}" for i, case in enumerate(CASES)}
    folds = make_folds(CASES, patients, CLASSES)
    assert check_folds(folds, CASES, patients) == []
    for fold in folds:
        assert not {patients[c] for c in fold["train"]} & {patients[c] for c in fold["val"]}


def test_classes_that_are_all_too_small_to_spread_still_give_even_folds() -> None:
    folds = make_folds(CASES, strata={case: case for case in CASES})
    assert [len(fold["val"]) for fold in folds] == [4] * 5


def test_more_folds_than_patients_are_refused() -> None:
    with pytest.raises(DatasetError, match="there are 4 patients"):
        make_folds(CASES[:4])


def test_two_tasks_are_spread_together_where_their_combinations_are_frequent_enough() -> None:
    tasks = [Task("a", "binary", ("0", "1")), Task("age", "regression"), Task("b", "binary", ("x", "y"))]
    rows = {case: {"a": str(i % 2), "age": "3", "b": "xy"[i // 10]} for i, case in enumerate(CASES)}
    assert choose_strata(tasks, rows, 5)["c00"] == "0|x"
    assert choose_strata(tasks, rows, 6)["c00"] == "0"
    assert choose_strata(tasks[1:2], rows, 5)["c00"] == ""


def test_a_patient_on_both_sides_is_a_leak() -> None:
    folds = [{"train": ["a", "b"], "val": ["c"]}]
    with pytest.raises(LeakError, match=r"fold 0: patients in train and val: p1; e\.g\. cases a, c"):
        check_folds(folds, ["a", "b", "c"], {"a": "p1", "b": "p2", "c": "p1"})


def test_a_case_on_both_sides_is_a_leak() -> None:
    with pytest.raises(LeakError, match="1 cases in train and val: a"):
        check_folds([{"train": ["a", "b"], "val": ["a"]}], ["a", "b"])


def test_a_fold_without_a_class_is_a_warning() -> None:
    folds = [{"train": ["a", "b"], "val": ["c"]}]
    labels = {"grade": {"a": "low", "b": "high", "c": "low"}}
    assert check_folds(folds, ["a", "b", "c"], None, labels) == ["fold 0 val has no case of grade class high"]


def test_unknown_repeated_and_lost_cases_are_refused_and_left_out_ones_noted() -> None:
    with pytest.raises(DatasetError, match="fold 0 val: 1 unknown cases: z"):
        check_folds([{"train": ["a"], "val": ["z"]}], ["a"])
    with pytest.raises(DatasetError, match="repeated: a"):
        check_folds([{"train": ["a", "a"], "val": ["b"]}], ["a", "b"])
    with pytest.raises(DatasetError, match="no fold holds 1 cases: c"):
        check_folds([{"train": ["a"], "val": ["b"]}], ["a", "b", "c"])
    two = [{"train": ["a"], "val": ["b"]}, {"train": ["a"], "val": ["c"]}]
    assert check_folds(two, ["a", "b", "c"]) == ["fold 0 leaves out 1 cases", "fold 1 leaves out 1 cases"]


@pytest.mark.parametrize(
    "value", [{}, [], [{"train": ["a"]}], [{"train": ["a"], "val": []}], [{"train": ["a"], "val": [1]}], [3]]
)
def test_what_is_no_list_of_folds_is_refused(value: object) -> None:
    with pytest.raises(DatasetError, match=r"splits\.json"):
        parse_folds(value, "splits.json")


@pytest.mark.parametrize("name", ["lidc", "acdc", "busbra"])
def test_the_folds_of_the_shared_data_parse_and_hold_every_case(name: str) -> None:
    folds = parse_folds(json.loads((shared(name) / "splits_final.json").read_text()), name)
    cases = set(folds[0]["train"] + folds[0]["val"])
    assert len(folds) == 5 and check_folds(folds, cases) == []
