"""Temperature and conformal sets on numbers that can be checked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from nnduet.case_head.calibration import conformal_threshold, fit_temperature
from nnduet.schema import Task
from nnduet.tasks.one_class import conformal_set, cross_entropy


def test_the_cross_entropy_of_a_constant_guess_is_the_logarithm_of_the_number_of_classes() -> None:
    assert cross_entropy(np.zeros((4, 3)), np.array([0, 1, 2, 0])) == pytest.approx(np.log(3))


def test_the_temperature_undoes_an_exaggeration() -> None:
    """Three of four labels follow the sign: the honest logit difference is log 3, whatever the model claims."""
    logits = np.tile([[10.0, 0.0]], (4, 1))
    temperature = fit_temperature(logits, np.array([0, 0, 0, 1]))
    assert 10 / temperature == pytest.approx(np.log(3), rel=1e-3)


def test_the_threshold_is_the_score_of_the_promised_rank() -> None:
    scores = np.arange(1, 10) / 10  # n = 9: ceil(10 * 0.8) = 8th smallest
    assert conformal_threshold(scores, 0.2) == pytest.approx(0.8)


def test_too_few_scores_promise_nothing() -> None:
    assert conformal_threshold(np.array([0.1, 0.2]), 0.1) == float("inf")


def test_the_set_holds_every_class_within_the_threshold_and_always_the_likeliest() -> None:
    probabilities = np.array([0.2, 0.5, 0.3])
    assert conformal_set(probabilities, 0.75) == [1, 2]
    assert conformal_set(probabilities, 0.1) == [1]
    assert conformal_set(probabilities, float("inf")) == [1, 2, 0]


def test_sets_cover_what_they_promise_on_new_cases() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(3), 4000)
    labels = np.array([rng.choice(3, p=p) for p in probabilities])
    threshold = conformal_threshold(1 - probabilities[np.arange(2000), labels[:2000]], 0.1)
    covered = [labels[i] in conformal_set(probabilities[i], threshold) for i in range(2000, 4000)]
    assert np.mean(covered) == pytest.approx(0.9, abs=0.02)


def test_the_nonconformity_of_a_class_is_what_its_probability_lacks() -> None:
    probabilities = np.array([[0.25, 0.5, 0.25], [0.0, 1.0, 0.0]])
    task = Task("subtype", "multiclass", ("a", "b", "c"))
    assert task.kind.nonconformity(task, probabilities, np.array([2.0, 1.0])).tolist() == [0.75, 0.0]


def test_the_nonconformity_of_a_value_is_its_absolute_error() -> None:
    age = Task("age", "regression")
    assert age.kind.nonconformity(age, np.array([[3.0], [5.0]]), np.array([5.0, 4.0])).tolist() == [2.0, 1.0]


def test_the_cross_entropy_reads_the_class_of_each_case() -> None:
    """Probabilities 3/4 and 1/4: the first case is right, the second wrong."""
    assert cross_entropy(np.array([[np.log(3), 0.0]] * 2), np.array([0.0, 1.0])) == pytest.approx(
        -(np.log(3 / 4) + np.log(1 / 4)) / 2
    )


@pytest.mark.parametrize("truth, bound", [(0, 0.05), (1, 20.0)])
def test_answers_that_are_always_right_or_always_wrong_bring_the_temperature_to_its_bounds(truth: int, bound: float) -> None:
    temperature = fit_temperature(np.array([[0.1, 0.0]] * 4), np.full(4, truth))
    assert temperature == pytest.approx(bound, rel=0.01)
    assert 0.05 <= temperature <= 20


def test_the_scores_of_a_threshold_may_stand_in_any_order_and_its_rank_may_be_the_last() -> None:
    scores = [0.9, 0.3, 0.1, 0.8, 0.2, 0.7, 0.5, 0.4, 0.6]
    assert conformal_threshold(scores, 0.1) == 0.9  # the ceil(10 * 0.9) = 9th of 9
    assert conformal_threshold(scores, 0.7) == 0.3  # 10 * (1 - 0.7) is 3, though 3.0000000000000004 in floating point


def test_classes_of_the_same_probability_stand_in_their_own_order() -> None:
    assert conformal_set(np.full(40, 0.025), 1.0) == list(range(40))


def test_a_class_exactly_at_the_threshold_is_in_the_set() -> None:
    assert conformal_set(np.array([0.25, 0.5, 0.25]), 0.75) == [1, 0, 2]
