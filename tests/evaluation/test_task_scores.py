"""One task from answers to JSON: reasons, baselines, missing predictions."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import sklearn.metrics as oracle

from nnduet.evaluation.answer_tables import TaskAnswers
from nnduet.evaluation.task_scores import score_task
from nnduet.records import record_object
from nnduet.schema import Task

BINARY = Task("malignant", "binary", ("no", "yes"))
SUBTYPE = Task("subtype", "multiclass", ("0", "1", "2"))
GRADE = Task("grade", "ordinal", ("1", "2", "3", "4"))
AGE = Task("age", "regression", unit="y")

NONE = math.nan


def answers(task: Task, reference: Sequence[float], prediction: Sequence[float], probabilities: Any = None) -> TaskAnswers:
    if probabilities is None:
        wanted = [None if math.isnan(p) else int(p) for p in prediction]
        k = len(task.classes)
        probabilities = [[1 / k] * k if w is None else np.eye(k)[w] for w in wanted] if k else np.zeros((len(reference), 0))
    ids = tuple(f"case{i}" for i in range(len(reference)))
    shaped = np.array(probabilities, dtype=float).reshape(len(ids), len(task.classes))
    return TaskAnswers(task, ids, ids, np.array(reference, dtype=float), np.array(prediction, dtype=float), shaped)


def score(*args: Any, num_resamples: int = 50) -> dict[str, Any]:
    return record_object(score_task(answers(*args), num_resamples=num_resamples, seed=0))


def values(entries: Mapping[str, Any]) -> dict[str, Any]:
    return {name: entry["value"] for name, entry in entries.items()}


def test_the_second_class_of_a_binary_task_is_positive() -> None:
    probabilities = [[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.2, 0.8]]
    result = score(BINARY, [0, 0, 1, 1], [0, 0, 0, 1], probabilities)
    assert result["metrics"]["auroc"]["value"] == 0.75  # 3 of 4 pairs in order
    assert result["confusion_matrix"] == [[2, 0], [1, 1]]


def test_multiclass_auroc_is_the_mean_of_one_against_the_rest() -> None:
    reference, probabilities = [0, 1, 2, 0, 1, 2], np.random.default_rng(1).dirichlet(np.ones(3), size=6)
    result = score(SUBTYPE, reference, probabilities.argmax(1), probabilities)
    expected = oracle.roc_auc_score(reference, probabilities, multi_class="ovr", average="macro")
    assert result["metrics"]["auroc"]["value"] == pytest.approx(expected)


def test_a_classifier_that_names_one_class_only_is_flagged_and_does_not_beat_the_baseline() -> None:
    result = score(SUBTYPE, [0, 0, 0, 1, 1, 2], [0] * 6)
    assert result["collapsed"] is True
    assert result["majority_baseline"] == {"class": "0", "accuracy": 0.5, "macro_f1": pytest.approx(2 / 9)}
    assert result["metrics"]["macro_f1"]["value"] == result["majority_baseline"]["macro_f1"]
    assert result["beats_majority_baseline"] is False


def test_a_perfect_classifier_beats_the_baseline_and_has_no_likelihood_ratio() -> None:
    result = score(SUBTYPE, [0, 0, 1, 2], [0, 0, 1, 2])
    assert result["collapsed"] is False
    assert result["beats_majority_baseline"] is True
    perfect = {"accuracy": 1, "balanced_accuracy": 1, "macro_f1": 1, "auroc": 1, "brier": 0, "ece": 0}
    assert perfect.items() <= values(result["metrics"]).items()
    assert result["per_class"]["0"]["lr_plus"]["reason"] == "perfect_specificity"
    assert result["per_class"]["0"]["lr_plus"]["value"] is None


def test_an_absent_class_is_named_wherever_it_leaves_a_value_undefined() -> None:
    result = score(SUBTYPE, [0, 0, 1, 1], [0, 1, 1, 1])
    assert result["absent_classes"] == ["2"]
    assert result["metrics"]["balanced_accuracy"]["value"] == 0.75
    assert result["metrics"]["balanced_accuracy"]["absent_classes"] == ["2"]
    assert result["metrics"]["auroc"]["value"] is None
    assert result["metrics"]["auroc"]["reason"] == "absent_class: 2"
    absent = result["per_class"]["2"]
    assert absent["support"] == 0
    assert absent["specificity"]["value"] == 1.0
    reasons = {name: absent[name]["reason"] for name in ("precision", "recall", "f1", "auroc", "lr_plus")}
    assert reasons == {
        "precision": "never_predicted",
        "recall": "absent_class",
        "f1": "absent_class",
        "auroc": "absent_class",
        "lr_plus": "absent_class",
    }


def test_references_of_one_class_leave_specificity_undefined() -> None:
    result = score(BINARY, [0, 0, 0], [0, 0, 1])
    assert result["per_class"]["no"]["specificity"]["reason"] == "no_other_class"
    assert result["per_class"]["no"]["lr_plus"]["reason"] == "no_other_class"
    assert result["metrics"]["auroc"]["reason"] == "absent_class: yes"
    assert result["collapsed"] is False


def test_a_missing_prediction_is_a_wrong_answer_with_uniform_probabilities() -> None:
    result = score(BINARY, [0, 1, 1], [0, 1, NONE])
    assert result["num_missing_predictions"] == 1
    assert result["no_prediction_per_reference_class"] == [0, 1]
    measured = values(result["metrics"])
    assert measured["accuracy"] == pytest.approx(2 / 3)
    assert measured["balanced_accuracy"] == 0.75
    assert measured["brier"] == pytest.approx(0.5 / 3)  # (0 + 0 + 2 * 0.25) / 3
    assert measured["ece"] == pytest.approx(0.5 / 3)  # confidence 1/2, wrong
    assert measured["auroc"] == 1.0  # 0.5 still lies above 0


def test_a_missing_ordinal_prediction_takes_the_farthest_rank() -> None:
    result = score(GRADE, [0, 1, 2, 3], [0, 1, NONE, 3])
    assert result["metrics"]["rank_mae"]["value"] == 0.5  # |2 - 0| / 4
    expected = oracle.cohen_kappa_score([0, 1, 2, 3], [0, 1, 0, 3], weights="quadratic")
    assert result["metrics"]["quadratic_kappa"]["value"] == pytest.approx(expected)


def test_ordinal_kappa_without_variation_is_none_with_a_reason() -> None:
    entry = score(GRADE, [1, 1], [1, 1])["metrics"]["quadratic_kappa"]
    assert (entry["value"], entry["reason"]) == (None, "one_class_only")


def test_regression_gives_mean_absolute_error_and_spearman() -> None:
    result = score(AGE, [10, 20, 30], [12, 20, 26])
    assert result["unit"] == "y"
    assert values(result["metrics"]) == {"mae": 2.0, "spearman": pytest.approx(1.0)}


def test_a_missing_regression_value_takes_the_reference_farthest_from_the_truth() -> None:
    result = score(AGE, [10, 20, 40], [10, NONE, 40])
    assert result["metrics"]["mae"]["value"] == pytest.approx(20 / 3)  # 40 for 20


@pytest.mark.parametrize(
    ("reference", "prediction", "reason"),
    [
        ([5, 5], [1, 2], "constant_reference"),
        ([1, 2], [5, 5], "constant_prediction"),
        ([5, 5], [5, NONE], "missing_prediction_in_a_constant_reference"),
        ([], [], "no_labelled_cases"),
    ],
)
def test_spearman_of_a_constant_is_none_with_a_reason(
    reference: Sequence[float], prediction: Sequence[float], reason: str
) -> None:
    entry = score(AGE, reference, prediction)["metrics"]["spearman"]
    assert (entry["value"], entry["reason"]) == (None, reason)


@pytest.mark.parametrize("task", [BINARY, SUBTYPE, GRADE])
def test_without_labelled_cases_every_value_is_none_with_a_reason(task: Task) -> None:
    result = score(task, [], [])
    entries = [*result["metrics"].values(), *(e for c in result["per_class"].values() for n, e in c.items() if n != "support")]
    assert {(entry["value"], entry["reason"], entry["n_defined"]) for entry in entries} == {(None, "no_labelled_cases", 0)}
    assert result["majority_baseline"]["reason"] == "no_labelled_cases"
    assert result["beats_majority_baseline"] is None


def test_694_cases_and_four_classes_take_seconds() -> None:
    rng = np.random.default_rng(0)
    reference = rng.integers(0, 4, 694)
    probabilities = rng.dirichlet(np.ones(4), size=694)
    start = time.perf_counter()
    score(GRADE, reference, probabilities.argmax(1), probabilities, num_resamples=1000)
    assert time.perf_counter() - start < 10
