"""The case head: what it learns, what it refuses, and that its JSON gives the same answers."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from nnduet.errors import ModelError
from nnduet.model.case_head import CaseHead, fit_case_head, standardise
from nnduet.schema import Task

GRADE = Task("grade", "binary", ("a", "b"))
SUBTYPE = Task("subtype", "multiclass", ("0", "1", "2"))
AGE = Task("age", "regression")


def head(task: Task = GRADE, **changes: Any) -> dict[str, Any]:
    """The JSON of a head over two features, with arrays replaced."""
    rows = 1 if task.type == "regression" else len(task.classes)
    arrays = {"mean": [0.0, 0.0], "scale": [1.0, 1.0], "weights": [[0.0, 0.0]] * rows, "bias": [0.0] * rows}
    return {"choice": {}, **arrays, **changes}


def separable(labels: list[int], *, seed: int = 0) -> np.ndarray:
    """Features (N, 3) whose first column is twice the label plus a little noise."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(len(labels), 3))
    features[:, 0] = 2.0 * np.array(labels) + 0.1 * features[:, 0]
    return features


def patients(count: int) -> list[str]:
    return [f"p{i}" for i in range(count)]


def test_zero_weights_answer_by_the_bias_alone() -> None:
    answer = CaseHead.from_json(GRADE, head(bias=[np.log(3.0), 0.0]))(np.array([[5.0, -2.0]]))
    assert answer[0].tolist() == pytest.approx([0.75, 0.25])


def test_features_are_standardised_and_clipped_at_six() -> None:
    out = standardise(np.array([[3.0, 1e6]]), np.array([1.0, 0.0]), np.array([2.0, 1.0]))
    assert out.tolist() == [[1.0, 6.0]]


def test_a_separable_task_is_learned() -> None:
    labels = [i % 2 for i in range(20)]
    fitted = fit_case_head(GRADE, separable(labels), np.array(labels, float), patients(20))
    assert fitted is not None
    assert fitted(separable(labels, seed=1)).argmax(1).tolist() == labels


def test_three_classes_are_learned_and_their_probabilities_sum_to_one() -> None:
    labels = [i % 3 for i in range(24)]
    features = np.eye(3)[labels]
    fitted = fit_case_head(SUBTYPE, features, np.array(labels, float), patients(24))
    assert fitted is not None
    answer = fitted(features)
    assert answer.argmax(1).tolist() == labels
    assert answer.sum(1) == pytest.approx(np.ones(24))


def test_a_class_that_training_never_saw_is_almost_impossible() -> None:
    labels = [i % 2 for i in range(20)]
    fitted = fit_case_head(SUBTYPE, separable(labels), np.array(labels, float), patients(20))
    assert fitted is not None
    assert fitted(separable(labels))[:, 2].max() < 1e-6


def test_a_regression_is_learned_though_shrunk() -> None:
    ages = np.arange(20, dtype=float)
    fitted = fit_case_head(AGE, separable(list(range(20))), ages, patients(20))
    assert fitted is not None
    assert np.corrcoef(fitted(separable(list(range(20)), seed=1))[:, 0], ages)[0, 1] > 0.99


def test_cases_without_a_label_are_left_out() -> None:
    labels = np.array([0, 1] * 5 + [np.nan] * 4)
    fitted = fit_case_head(GRADE, separable([0, 1] * 5 + [0] * 4), labels, patients(14))
    assert fitted is not None
    assert fitted.choice["num_cases"] == 10


@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 0, 0, 1, 1], [np.nan] * 6])
def test_too_few_cases_of_a_class_give_no_head(labels: list[float]) -> None:
    assert fit_case_head(GRADE, np.zeros((len(labels), 2)), np.array(labels, float), patients(len(labels))) is None


@pytest.mark.parametrize("ages", [[1.0, 2, 3, 4], [5.0] * 6])
def test_too_few_or_equal_values_give_no_regression_head(ages: list[float]) -> None:
    assert fit_case_head(AGE, np.zeros((len(ages), 2)), np.array(ages), patients(len(ages))) is None


@pytest.mark.parametrize("task", [GRADE, AGE])
def test_one_patient_is_no_cross_validation_but_also_no_crash(task: Task) -> None:
    labels = np.array([0.0, 1.0] * 4)
    assert fit_case_head(task, separable([0, 1] * 4), labels, ["same"] * 8) is None


def test_a_head_read_from_json_gives_the_same_answers() -> None:
    labels = [i % 2 for i in range(12)]
    fitted = fit_case_head(GRADE, separable(labels), np.array(labels, float), patients(12))
    assert fitted is not None
    again = CaseHead.from_json(GRADE, json.loads(json.dumps(fitted.to_json())))
    np.testing.assert_array_equal(again(separable(labels)), fitted(separable(labels)))


@pytest.mark.parametrize(
    "changes",
    [
        {"mean": [0.0]},
        {"bias": [0.0]},
        {"weights": [[0.0, 0.0]]},
        {"weights": "x"},
        {"scale": [1.0, float("nan")]},
        {"mean": None},
    ],
)
def test_an_array_of_the_wrong_shape_or_not_finite_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="case head of task grade"):
        CaseHead.from_json(GRADE, head(**changes))


@pytest.mark.parametrize("stored", [{}, [], None])
def test_a_head_without_its_arrays_is_refused(stored: Any) -> None:
    with pytest.raises(ModelError, match="case head of task grade"):
        CaseHead.from_json(GRADE, stored)


def test_the_inner_cross_validation_finds_the_block_that_tells_the_classes_apart() -> None:
    labels = [0, 1] * 12
    noise = np.random.default_rng(0).normal(size=(24, 40))
    features = np.concatenate([noise[:, :2], noise[:, 2:], separable(labels)], axis=1)
    blocks = {"descriptors": range(2), "stage 0": range(2, 40), "stage 1": range(40, features.shape[1])}
    fitted = fit_case_head(GRADE, features, np.array(labels, float), patients(24), blocks=blocks)
    assert fitted is not None
    assert fitted.choice["features"] == "descriptors and stage 1"
    assert not fitted.weights[:, 2:40].any()
