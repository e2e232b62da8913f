"""Sets, intervals and abstention on cases that are counted by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import sklearn.metrics as oracle
from tiny import tiny_head

from nnduet.case_head.head import CaseHead
from nnduet.errors import DatasetError
from nnduet.evaluation.answer_tables import TaskAnswers
from nnduet.evaluation.uncertainty import kept_weights, measure_uncertainty, nonconformity
from nnduet.records import record_object
from nnduet.schema import Task

GRADE = Task("grade", "binary", ("low", "high"))
AGE = Task("age", "regression", unit="y")
PROBABILITIES = [(0.85, 0.15), (0.85, 0.15), (0.6, 0.4), (0.05, 0.95)]
REFERENCE = [0, 1, 1, 1]  # right, wrong, wrong, right
UNKNOWN = math.nan


def grades(reference: Sequence[float], probabilities: Any, groups: tuple[str, ...] = ()) -> TaskAnswers:
    shaped = np.array(probabilities, dtype=float).reshape(len(reference), 2)
    ids = tuple(f"case{i}" for i in range(len(reference)))
    return TaskAnswers(GRADE, ids, groups or ids, np.array(reference, float), shaped.argmax(1).astype(float), shaped)


def ages(reference: Sequence[float], prediction: Sequence[float]) -> TaskAnswers:
    ids = tuple(f"case{i}" for i in range(len(reference)))
    return TaskAnswers(AGE, ids, ids, np.array(reference), np.array(prediction), np.zeros((len(ids), 0)))


def head(task: Task, scores: list[float]) -> CaseHead:
    return CaseHead.from_json(task, {**tiny_head([0.0] * max(len(task.classes), 1)), "scores": scores})


NINE_TENTHS = head(GRADE, [k / 10 for k in range(1, 10)])  # thresholds: 0.8 at error rate 0.2, 0.9 at 0.1, infinite at 0.05


def measure(answers: TaskAnswers, **changes: Any) -> dict[str, Any]:
    count = len(answers.case_ids)
    options: dict[str, Any] = {"folds": ["0"] * count, "heads": {"0": NINE_TENTHS}, "outlier_scores": np.full(count, np.nan)}
    result = record_object(measure_uncertainty(answers, **{**options, **changes}, num_resamples=50, seed=0))
    json.dumps(result, allow_nan=False)
    return result


def values(entries: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: pytest.approx(entry[name]["value"]) for key, entry in entries.items()}


def test_nonconformity_is_what_the_true_class_lacks_or_the_absolute_error() -> None:
    assert nonconformity(grades(REFERENCE, PROBABILITIES)).tolist() == pytest.approx([0.15, 0.85, 0.6, 0.05])
    assert nonconformity(ages([50, 60], [52, 51])).tolist() == [2, 9]


def test_the_prediction_sets_of_four_cases_are_counted() -> None:
    sets = measure(grades(REFERENCE, PROBABILITIES))["prediction_sets"]
    assert values(sets, "coverage") == {"0.05": 1, "0.1": 1, "0.2": 3 / 4}
    assert values(sets, "mean_set_size") == {"0.05": 2, "0.1": 7 / 4, "0.2": 5 / 4}
    assert values(sets, "singleton_share") == {"0.05": 0, "0.1": 1 / 4, "0.2": 3 / 4}
    assert sets["0.2"]["coverage"]["n_defined"] == 4
    low, high = sets["0.2"]["coverage"]["ci95"]
    assert 0 <= low < 3 / 4 < high <= 1


def test_every_case_has_the_threshold_of_the_fold_that_answered_it() -> None:
    strict = head(GRADE, [0.01] * 9)  # only the likeliest class is ever kept
    result = measure(grades(REFERENCE, PROBABILITIES), folds=["0", "0", "1", "1"], heads={"0": NINE_TENTHS, "1": strict})
    assert values(result["prediction_sets"], "coverage")["0.1"] == 3 / 4  # the third case is lost
    assert values(result["prediction_sets"], "mean_set_size")["0.1"] == (2 + 2 + 1 + 1) / 4


def test_a_fold_without_scores_is_left_out_and_listed() -> None:
    result = measure(grades(REFERENCE, PROBABILITIES), folds=["0", "0", "1", "1"])
    assert result["folds_without_scores"] == ["1"]
    coverage = result["prediction_sets"]["0.2"]["coverage"]
    assert (coverage["value"], coverage["n_defined"]) == (1 / 2, 2)


def test_without_any_scores_there_are_no_sets_but_a_reason() -> None:
    result = measure(grades(REFERENCE, PROBABILITIES), heads={})
    coverage = result["prediction_sets"]["0.1"]["coverage"]
    assert (coverage["value"], coverage["n_defined"], coverage["reason"]) == (None, 0, "no_conformal_scores")
    assert result["accuracy_when_abstaining"]["0"]["value"] == 1 / 2


def test_the_least_confident_abstain_and_equals_count_in_part() -> None:
    accuracy = measure(grades(REFERENCE, PROBABILITIES))["accuracy_when_abstaining"]
    expected = {"0": 2 / 4, "0.1": 2 / 4, "0.2": 2 / 4, "0.3": 2 / 3, "0.5": (0.5 * 1 + 0.5 * 0 + 1) / 2}
    assert {share: entry["value"] for share, entry in accuracy.items()} == pytest.approx(expected)
    assert [entry["n_defined"] for entry in accuracy.values()] == [4, 4, 4, 3, 2]


def test_the_order_of_equally_confident_cases_does_not_matter() -> None:
    confidence = np.array([0.7, 0.9, 0.7, 0.7, 0.6])
    assert kept_weights(confidence, 0.4).tolist() == pytest.approx([2 / 3, 1, 2 / 3, 2 / 3, 0])
    assert kept_weights(confidence, 0.0).tolist() == [1, 1, 1, 1, 1]


def test_three_tenths_of_ten_cases_are_three() -> None:
    assert kept_weights(np.arange(10.0), 0.3).sum() == 7  # 0.3 * 10 is a little below 3 in floating point


def test_wrong_answers_are_ranked_by_lack_of_confidence_and_by_outlier_score() -> None:
    result = measure(grades(REFERENCE, PROBABILITIES), outlier_scores=np.array([0.1, 0.9, UNKNOWN, 0.2]))
    areas = result["auroc_of_being_wrong"]
    assert areas["one_minus_confidence"]["value"] == (0.5 + 1 + 1 + 1) / 4  # two wrong against two right, one tie
    assert (areas["outlier_score"]["value"], areas["outlier_score"]["n_defined"]) == (1, 3)


def test_the_area_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet((1, 1), size=40)
    reference = rng.integers(0, 2, 40)
    wrong = probabilities.argmax(1) != reference
    found = measure(grades(reference.tolist(), probabilities))["auroc_of_being_wrong"]["one_minus_confidence"]
    assert found["value"] == pytest.approx(oracle.roc_auc_score(wrong, 1 - probabilities.max(1)))


@pytest.mark.parametrize(
    ("reference", "outlier_scores", "reason"),
    [
        ([0, 0, 0, 1], [0.1] * 4, "every_answer_is_right"),
        ([1, 1, 1, 0], [0.1] * 4, "every_answer_is_wrong"),
        (REFERENCE, [UNKNOWN] * 4, "no_scores"),
    ],
)
def test_an_area_that_cannot_be_given_has_a_reason(reference: list[float], outlier_scores: list[float], reason: str) -> None:
    result = measure(grades(reference, PROBABILITIES), outlier_scores=np.array(outlier_scores))
    area = result["auroc_of_being_wrong"]["outlier_score"]
    assert (area["value"], area["n_defined"], area["reason"]) == (None, 0, reason)


def test_cases_of_one_patient_are_one_unit() -> None:
    result = measure(grades(REFERENCE, PROBABILITIES, groups=("p", "p", "p", "p")))
    assert (result["num_cases"], result["num_resampling_units"]) == (4, 1)
    coverage = result["prediction_sets"]["0.2"]["coverage"]
    assert (coverage["ci95"], coverage["ci95_reason"]) == (None, "fewer_than_2_cases_or_patients")


def test_intervals_cover_and_an_endless_one_has_no_width() -> None:
    result = measure(ages([50, 60], [52, 51.5]), heads={"0": head(AGE, [float(k) for k in range(1, 10)])})
    intervals = result["intervals"]
    assert values(intervals, "coverage") == {"0.05": 1, "0.1": 1, "0.2": 1 / 2}  # errors 2 and 8.5 against 9 and 8
    assert (intervals["0.1"]["mean_width"]["value"], intervals["0.2"]["mean_width"]["value"]) == (18, 16)
    endless = intervals["0.05"]["mean_width"]
    assert (endless["value"], endless["reason"]) == (None, "endless_interval_for_want_of_scores")
    assert intervals["0.1"]["unit"] == "y"


@pytest.mark.parametrize("nobody", [grades([], []), ages([], [])])
def test_a_task_without_labelled_cases_has_reasons_only(nobody: TaskAnswers) -> None:
    result = measure(nobody)
    sets = result["prediction_sets" if nobody.task is GRADE else "intervals"]["0.1"]
    assert (sets["coverage"]["value"], sets["coverage"]["reason"]) == (None, "no_labelled_cases")
    if nobody.task is GRADE:
        assert result["accuracy_when_abstaining"]["0.5"]["reason"] == "no_labelled_cases"
        assert result["auroc_of_being_wrong"]["one_minus_confidence"]["reason"] == "no_labelled_cases"


def test_a_case_without_a_prediction_is_refused() -> None:
    with pytest.raises(DatasetError, match=r"age: expected a prediction for every case, got none for .*case1"):
        measure(ages([50, 60], [50, UNKNOWN]))
