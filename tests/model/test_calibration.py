"""Temperature and conformal sets on numbers that can be checked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from nnduet.model.calibration import conformal_set, conformal_threshold, cross_entropy, fit_temperature


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
