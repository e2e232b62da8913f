"""What folds are checked for, and what they are for: patients apart, classes spread."""

from __future__ import annotations

import json

import pytest
from data_builders import shared

from nnduet.datasets.folds import check_folds, choose_strata, make_folds, parse_folds
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
    labels: dict[str, dict[str, tuple[str, ...]]] = {"grade": {"a": ("low",), "b": ("high",), "c": ("low",)}}
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


def test_five_folds_of_nnunets_seed_are_the_default() -> None:
    assert make_folds(CASES) == make_folds(CASES, num_folds=5, seed=12345)


def test_two_folds_of_two_patients_are_the_fewest() -> None:
    assert [fold["val"] for fold in sorted(make_folds(["a", "b"], num_folds=2), key=lambda fold: fold["val"])] == [["a"], ["b"]]
    with pytest.raises(DatasetError, match="1 folds need at least 2 folds and as many patients; there are 20 patients"):
        make_folds(CASES, num_folds=1)
    with pytest.raises(DatasetError, match="2 folds need at least 2 folds and as many patients; there are 1 patients"):
        make_folds(["a", "b"], {"a": "p", "b": "p"}, num_folds=2)


def test_classes_with_as_many_cases_as_folds_are_spread(recwarn: pytest.WarningsRecorder) -> None:
    strata = {case: str(i // 5) for i, case in enumerate(CASES)}
    for fold in make_folds(CASES, strata=strata):
        assert sorted(strata[case] for case in fold["val"]) == ["0", "1", "2", "3"]
    assert not recwarn.list


def test_a_class_that_is_too_small_to_be_spread_brings_no_warning(recwarn: pytest.WarningsRecorder) -> None:
    folds = make_folds(CASES, strata={case: str(i > 1) for i, case in enumerate(CASES)})
    assert [len(fold["val"]) for fold in folds] == [4] * 5
    assert not recwarn.list


def test_a_case_without_a_class_counts_as_one_of_its_own() -> None:
    strata = dict.fromkeys(CASES[:10], "known")
    for fold in make_folds(CASES, strata=strata):
        assert sum(case in strata for case in fold["val"]) == 2


def test_validation_and_training_cases_are_sorted() -> None:
    for fold in make_folds(CASES[::-1]):
        assert fold["val"] == sorted(fold["val"]) and fold["train"] == sorted(fold["train"])


def test_the_first_classification_task_is_spread_where_there_is_one() -> None:
    tasks = [Task("age", "regression"), Task("b", "binary", ("x", "y"))]
    assert choose_strata(tasks, {"c0": {"age": "3", "b": "x"}}, 5) == {"c0": "x"}
    two = [Task("a", "binary", ("0", "1")), Task("b", "binary", ("x", "y"))]
    assert choose_strata(two, {}, 5) == {}


def test_folds_are_copied_as_they_are_parsed() -> None:
    value = [{"train": ["a"], "val": ["b"], "test": ["c"]}]
    assert parse_folds(value, "splits.json") == [{"train": ["a"], "val": ["b"]}]


def test_the_refusal_of_a_fold_names_it_and_what_it_needs() -> None:
    sound = {"train": ["a"], "val": ["b"]}
    for broken in ({"train": ["a"]}, {"train": [], "val": ["b"]}, {"train": ["a"], "val": "b"}, ["a"]):
        with pytest.raises(DatasetError, match=r"^s: fold 1 needs non-empty lists of case ids under 'train' and 'val'$"):
            parse_folds([sound, broken], "s")
    with pytest.raises(DatasetError, match=r"^s: expected a list of folds, got dict$"):
        parse_folds(sound, "s")


def test_at_most_ten_cases_or_patients_are_named() -> None:
    ten = ", ".join(CASES[:10])
    with pytest.raises(DatasetError, match=f"fold 0 train: 19 unknown cases: {ten}$"):
        check_folds([{"train": CASES[:-1], "val": CASES[-1:]}], CASES[-1:])
    with pytest.raises(DatasetError, match=f"fold 0 train: cases are repeated: {ten}$"):
        check_folds([{"train": CASES[:15] * 2, "val": CASES[15:]}], CASES)
    with pytest.raises(LeakError, match=f"fold 0: 20 cases in train and val: {ten}$"):
        check_folds([{"train": CASES, "val": CASES}], CASES)
    with pytest.raises(DatasetError, match=f"no fold holds 18 cases: {', '.join(CASES[1:11])}$"):
        check_folds([{"train": CASES[:1], "val": CASES[-1:]}], CASES)
    patients = {case: f"p{i % 11:02d}" for i, case in enumerate([*CASES, "d0", "d1"])}
    named = ", ".join(f"p{i:02d}" for i in range(10))
    with pytest.raises(LeakError, match=f"fold 0: patients in train and val: {named}; e.g. cases c00, c11$"):
        check_folds([{"train": CASES[:11], "val": [*CASES[11:], "d0", "d1"]}], [*CASES, "d0", "d1"], patients)


def test_the_second_fold_is_checked_like_the_first() -> None:
    folds = [{"train": ["a"], "val": ["b", "c"]}, {"train": ["a", "b"], "val": ["b", "c"]}]
    with pytest.raises(LeakError, match="fold 1: 1 cases in train and val: b"):
        check_folds(folds, ["a", "b", "c"])


def test_classes_that_a_side_lacks_are_told_by_fold_side_and_task() -> None:
    folds = [{"train": ["a", "b"], "val": ["c", "d"]}]
    labels: dict[str, dict[str, tuple[str, ...]]] = {
        "grade": {"a": ("low",), "b": (), "c": ("high",), "d": ("mid",)},
        "site": {"a": ("x",), "c": ("x",)},
    }
    assert check_folds(folds, ["a", "b", "c", "d"], None, labels) == [
        "fold 0 train has no case of grade class high, mid",
        "fold 0 val has no case of grade class low",
    ]


def test_where_spreading_the_classes_would_leave_a_fold_empty_the_cases_are_balanced_alone() -> None:
    """Four patients of 1, 2, 5 and 1 cases, a fold for each; the large one has both classes."""
    cases = ["0a", "1a", "1b", "2a", "2b", "2c", "2d", "2e", "3a"]
    folds = make_folds(cases, {case: case[0] for case in cases}, dict(zip(cases, "bbbbbbaaa", strict=True)), num_folds=4)
    assert sorted(len(fold["val"]) for fold in folds) == [1, 1, 2, 5]


def test_folds_of_classes_that_are_too_small_to_spread_are_the_same_each_time() -> None:
    own = {case: case for case in CASES}
    assert make_folds(CASES, strata=own) == make_folds(CASES, strata=own) == make_folds(CASES)


def test_only_the_cases_that_are_repeated_are_named() -> None:
    with pytest.raises(DatasetError, match=r"fold 0 train: cases are repeated: b$"):
        check_folds([{"train": ["a", "b", "b"], "val": ["c"]}], ["a", "b", "c"])
