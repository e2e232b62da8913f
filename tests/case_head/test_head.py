"""The case head as it is stored: what it answers, and what it refuses to be read from."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from tiny import tiny_head

from nnduet.case_head.head import CaseHead, best_model, describe_head, mix, moments, standardise
from nnduet.errors import ModelError
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


def test_a_head_of_several_models_is_described_by_the_best_and_the_number_of_others() -> None:
    chosen = [{"model": name, "features": f"block {name}"} for name in "abcd"]
    assert best_model(head(choice={"models": chosen[:1]})) == ("a", "block a")
    assert best_model(head(choice={"models": chosen[:2]})) == ("a and 1 other", "block a")
    assert best_model(head(choice={"models": chosen[:3]})) == ("a and 2 others", "block a")
    assert best_model(head(choice={"models": chosen})) == ("a and 3 others", "block a")
    assert best_model(head(choice={})) == ("unknown", "unknown")


def test_a_head_keeps_what_it_was_chosen_by() -> None:
    choice = {"models": [{"model": "a", "features": "b", "strength": 0.1}], "inner_loss": 0.5, "num_cases": 7}
    assert head(choice=choice).choice == choice
    without = tiny_head([0.0, 0.0], columns=2)
    del without["choice"]
    assert CaseHead.from_json(GRADE, without).choice == {}


def test_a_head_of_layers_alone_answers_without_network_or_temperature_and_promises_nothing() -> None:
    plain = CaseHead(GRADE, np.array([0]), np.zeros(1), np.ones(1), ((np.zeros((2, 1)), np.array([np.log(3.0), 0.0])),))
    assert plain(np.zeros((1, 1)))[0].tolist() == pytest.approx([0.75, 0.25])
    assert plain.threshold(0.5) == float("inf") and plain.choice == {}


def test_features_are_standardised_by_the_means_and_deviations_of_the_columns() -> None:
    """Logit of the first class: (7 - 1) / 2 = 3 times log(3) / 3."""
    layers = [layer([[np.log(3.0) / 3, 0.0], [0.0, 0.0]], [0.0, 0.0])]
    found = head(layers=layers, mean=[1.0, 5.0], scale=[2.0, 1.0])(np.array([[7.0, 5.0]]))
    assert found[0].tolist() == pytest.approx([0.75, 0.25])


def test_the_moments_are_those_of_the_defined_values() -> None:
    """Of 1, 3 and nothing: mean 2, deviation 1. Of nothing at all: 0 and a deviation that is hardly one."""
    features = np.array([[1.0, np.nan], [3.0, np.nan], [np.nan, np.nan]])
    mean, scale = moments(features)
    assert mean.tolist() == [2.0, 0.0]
    assert scale.tolist() == pytest.approx([1.0 + 1e-6, 1e-6], rel=1e-9)


def test_deviations_are_clipped_on_both_sides_and_at_a_limit_that_can_be_set() -> None:
    values, mean, scale = np.array([[-99.0, 99.0, -6.0, 6.0]]), np.zeros(4), np.ones(4)
    assert standardise(values, mean, scale).tolist() == [[-6.0, 6.0, -6.0, 6.0]]
    assert standardise(values, mean, scale, 20.0).tolist() == [[-20.0, 20.0, -6.0, 6.0]]


def test_a_network_that_is_sure_does_not_decide_alone() -> None:
    """A probability of 0 counts as one in a million."""
    mixed = mix(GRADE, np.zeros((1, 2)), np.array([[1.0, 0.0]]), 0.5)
    assert mixed[0].tolist() == pytest.approx([0.0, 0.5 * np.log(1e-6)])


def test_without_a_share_the_network_is_not_asked() -> None:
    own = np.array([[1.0, 2.0]])
    assert mix(GRADE, own, None, 0.0) is own
    assert mix(AGE, np.array([[1.0]]), np.array([[3.0]]), 1.0).tolist() == [[3.0]]
    with pytest.raises(AssertionError, match="task grade: the case head needs the network head's answer"):
        mix(GRADE, own, None, 0.5)


def test_the_answers_of_each_case_sum_to_one_and_values_stay() -> None:
    found = GRADE.kind.outputs(np.log([[9.0, 1.0], [1.0, 1.0]]), 2.0)
    np.testing.assert_allclose(found, [[0.75, 0.25], [0.5, 0.5]])
    assert AGE.kind.outputs(np.array([[9.0]]), 2.0).tolist() == [[9.0]]


@pytest.mark.parametrize(
    "changes",
    [
        {"scale": [1.0, 0.0]},
        {"scale": [1.0, -1.0]},
        {"mean": [0.0, 0.0, 0.0]},
        {"columns": [], "mean": [], "scale": [], "layers": [layer([[], []], [0.0, 0.0])]},
        {"layers": [layer([[0.0, 0.0], [0.0]], [0.0, 0.0])]},
        {"layers": [layer([[0.0, 0.0]] * 3, [0.0] * 3)]},
        {"layers": [layer([[0.0, 0.0]], [0.0, 0.0])]},
        {"network_share": -0.1},
        {"temperature": 1e4},
    ],
)
def test_a_head_that_could_not_answer_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=r"^case head of task grade: "):
        head(**changes)


def test_the_refusal_of_a_head_tells_the_shapes() -> None:
    with pytest.raises(ModelError, match=r"expected finite layers from 2 features to 2 outputs, got shapes \[\(1,\), \(2,\),"):
        head(mean=[0.0])
    with pytest.raises(ModelError, match="from 2 features to 1 outputs"):
        head(AGE, layers=[layer([[0.0, 0.0]] * 2, [0.0, 0.0])])


def test_a_head_may_read_one_column_and_whole_numbers() -> None:
    stored = tiny_head([0.0, 0.0], columns=1) | {
        "layers": [layer([[1], [0]], [0, 0])],
        "mean": [1],
        "scale": [2],
        "scores": [0],
    }
    found = CaseHead.from_json(GRADE, stored)(np.array([[1 + 2 * np.log(3.0)]]))
    assert found[0].tolist() == pytest.approx([0.75, 0.25])
