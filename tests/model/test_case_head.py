"""The case head as it is stored: what it answers, and what it refuses to be read from."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from tiny import tiny_head

from nnduet.errors import ModelError
from nnduet.model.case_head import CaseHead, describe_head, standardise
from nnduet.schema import Task

GRADE = Task("grade", "binary", ("a", "b"))
AGE = Task("age", "regression")


def head(task: Task = GRADE, **changes: Any) -> CaseHead:
    bias = [0.0] if task is AGE else [0.0, 0.0]
    return CaseHead.from_json(task, json.loads(json.dumps({**tiny_head(bias, columns=2), **changes})))


def layer(weights: list[list[float]], bias: list[float]) -> dict[str, Any]:
    return {"weights": weights, "bias": bias}


def test_zero_weights_answer_by_the_bias_alone() -> None:
    answer = head(layers=[layer([[0.0, 0.0]] * 2, [np.log(3.0), 0.0])])(np.array([[5.0, -2.0]]))
    assert answer[0].tolist() == pytest.approx([0.75, 0.25])


def test_a_temperature_of_two_halves_the_log_odds() -> None:
    answer = head(layers=[layer([[0.0, 0.0]] * 2, [np.log(9.0), 0.0])], temperature=2.0)(np.zeros((1, 2)))
    assert answer[0].tolist() == pytest.approx([0.75, 0.25])


def test_only_its_columns_are_read() -> None:
    """Column 3 is the logit of the first class, column 0 of the second."""
    found = head(columns=[3, 0], layers=[layer([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0])])(np.array([[0.0, 9.0, 9.0, np.log(3)]]))
    assert found[0].tolist() == pytest.approx([0.75, 0.25])


def test_negative_values_stop_between_two_layers() -> None:
    layers = [layer([[1.0, 0.0], [-1.0, 0.0]], [0.0, 0.0]), layer([[1.0, 1.0]], [0.0])]
    assert head(AGE, layers=layers)(np.array([[-2.0, 0.0]]))[0, 0] == pytest.approx(2.0)


def test_the_network_has_its_share_of_the_log_probabilities() -> None:
    """Own answer 1:1, network 9:1, half each: 3:1."""
    answer = head(network_share=0.5)(np.zeros((1, 2)), np.array([[0.9, 0.1]]))
    assert answer[0].tolist() == pytest.approx([0.75, 0.25])


def test_a_regression_is_averaged_with_the_network() -> None:
    assert head(AGE, network_share=0.25)(np.zeros((1, 2)), np.array([[40.0]]))[0, 0] == pytest.approx(10.0)


def test_features_are_standardised_clipped_at_six_and_undefined_ones_are_usual() -> None:
    out = standardise(np.array([[3.0, 1e6, np.nan]]), np.array([1.0, 0.0, 5.0]), np.array([2.0, 1.0, 1.0]))
    assert out.tolist() == [[1.0, 6.0, 0.0]]


def test_the_threshold_is_that_of_its_scores() -> None:
    assert head().threshold(0.25) == pytest.approx(0.3)


def test_a_head_read_from_json_gives_the_same_answers() -> None:
    first = head(layers=[layer([[0.1, 0.2], [0.3, -0.4]], [0.5, 0.0])], temperature=1.3)
    again = CaseHead.from_json(GRADE, json.loads(json.dumps(first.to_json())))
    features = np.array([[1.0, 2.0], [-3.0, 0.5]])
    np.testing.assert_array_equal(again(features), first(features))
    assert again.to_json() == first.to_json()


@pytest.mark.parametrize(
    "changes",
    [
        {"mean": [0.0]},
        {"mean": None},
        {"scale": [1.0, float("nan")]},
        {"columns": [-1, 0]},
        {"layers": []},
        {"layers": [layer([[0.0, 0.0]], [0.0])]},
        {"layers": [layer([[0.0, 0.0]] * 2, [0.0])]},
        {"layers": [layer([[0.0, 0.0]] * 3, [0.0] * 3), layer([[0.0] * 2] * 2, [0.0] * 2)]},
        {"layers": "x"},
        {"network_share": 1.5},
        {"temperature": 0.0},
        {"scores": ["x"]},
    ],
)
def test_an_array_of_the_wrong_shape_or_not_finite_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="case head of task grade"):
        head(**changes)


@pytest.mark.parametrize("stored", [{}, [], None])
def test_a_head_without_its_arrays_is_refused(stored: Any) -> None:
    with pytest.raises(ModelError, match="case head of task grade"):
        CaseHead.from_json(GRADE, stored)


def test_a_head_is_described_by_its_model_its_features_and_the_network() -> None:
    assert describe_head(None) == describe_head(head(network_share=1.0)) == "network head"
    assert describe_head(head()) == "case head (constant on nothing)"
    assert describe_head(head(network_share=0.25)) == "case head (constant on nothing) with 25% network head"
