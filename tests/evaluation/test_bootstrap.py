"""Resamples and intervals."""

from __future__ import annotations

import numpy as np
import pytest

from nnduet.errors import SettingsError
from nnduet.evaluation.bootstrap import draw_resamples, ratio, weighted_mean
from nnduet.records import to_plain


def test_row_0_is_the_sample_and_every_resample_draws_as_many_cases() -> None:
    resamples = draw_resamples(["a", "b", "c", "d"], num_resamples=50, seed=0)
    assert resamples.weights.shape == (51, 4)
    assert (resamples.weights[0] == 1).all()
    assert (resamples.weights.sum(axis=1) == 4).all()


def test_the_same_seed_gives_the_same_resamples() -> None:
    first, second, other = (draw_resamples(list("abcdef"), num_resamples=20, seed=seed).weights for seed in (3, 3, 4))
    assert (first == second).all()
    assert (first != other).any()


def test_cases_of_one_patient_are_drawn_together() -> None:
    resamples = draw_resamples(["p", "p", "q", "q"], num_resamples=200, seed=0)
    assert resamples.num_units == 2
    assert (resamples.weights[:, 0] == resamples.weights[:, 1]).all()
    assert set(resamples.weights[1:, 0]) == {0.0, 1.0, 2.0}


def test_the_interval_of_a_mean_is_close_to_1_96_standard_errors() -> None:
    values = np.random.default_rng(0).normal(10, 2, size=400)
    resamples = draw_resamples([str(i) for i in range(400)], num_resamples=2000, seed=0)
    entry = resamples.estimate(weighted_mean(values, resamples.weights), n_defined=400, reason="")
    half_width = 1.96 * values.std() / 20
    assert entry.value == pytest.approx(values.mean())
    assert entry.ci95 == pytest.approx([values.mean() - half_width, values.mean() + half_width], abs=0.03)
    assert entry.undefined_resamples == 0


def test_patients_with_equal_cases_give_a_wider_interval_than_cases() -> None:
    values = np.repeat(np.random.default_rng(0).normal(size=50), 8)
    widths = []
    for groups in ([str(i) for i in range(400)], [str(i // 8) for i in range(400)]):
        resamples = draw_resamples(groups, num_resamples=1000, seed=0)
        entry = resamples.estimate(weighted_mean(values, resamples.weights), n_defined=400, reason="")
        assert entry.ci95 is not None
        widths.append(entry.ci95[1] - entry.ci95[0])
    assert widths[1] / widths[0] == pytest.approx(8**0.5, rel=0.15)  # 50 units instead of 400


def test_undefined_resamples_are_left_out_and_counted() -> None:
    resamples = draw_resamples(list("abcd"), num_resamples=4, seed=0)
    entry = resamples.estimate(np.array([0.5, 0.4, np.nan, 0.6, np.nan]), n_defined=4, reason="never")
    assert entry.undefined_resamples == 2
    assert entry.ci95 == pytest.approx([0.405, 0.595])


def test_an_undefined_value_is_none_with_its_reason() -> None:
    resamples = draw_resamples(list("abcd"), num_resamples=1, seed=0)
    entry = resamples.estimate(np.array([np.nan, 0.5]), n_defined=4, reason="both_empty")
    expected = {"value": None, "ci95": None, "n_defined": 0, "undefined_resamples": 0, "reason": "both_empty"}
    assert to_plain(entry) == expected


@pytest.mark.parametrize(
    ("groups", "num_resamples", "n_defined", "reason"),
    [
        (["a", "b"], 0, 2, "no_resamples_asked"),
        (["a", "b"], 5, 1, "fewer_than_2_cases_or_patients"),
        (["a", "a"], 5, 2, "fewer_than_2_cases_or_patients"),
        (["a", "b"], 5, 2, "undefined_in_every_resample"),
    ],
)
def test_an_interval_that_cannot_be_given_is_none_with_its_reason(
    groups: list[str], num_resamples: int, n_defined: int, reason: str
) -> None:
    resamples = draw_resamples(groups, num_resamples=num_resamples, seed=0)
    entry = resamples.estimate(np.array([0.5] + [np.nan] * num_resamples), n_defined=n_defined, reason="")
    assert (entry.value, entry.ci95, entry.ci95_reason) == (0.5, None, reason)


def test_no_cases_give_no_units() -> None:
    assert draw_resamples([], num_resamples=3, seed=0).weights.shape == (4, 0)


def test_a_negative_number_of_resamples_is_refused() -> None:
    with pytest.raises(SettingsError, match="num_bootstrap"):
        draw_resamples(["a"], num_resamples=-1, seed=0)


def test_a_quotient_by_zero_is_nan_without_a_warning() -> None:
    assert np.isnan(ratio(np.array([1.0, 0.0]), np.array([0.0, 0.0]))).all()


def test_a_mean_leaves_undefined_values_out_and_is_undefined_without_any() -> None:
    weights = np.array([[1.0, 1.0, 1.0], [0.0, 3.0, 0.0]])
    mean = weighted_mean(np.array([1.0, np.nan, 3.0]), weights)
    assert mean[0] == 2.0
    assert np.isnan(mean[1])
