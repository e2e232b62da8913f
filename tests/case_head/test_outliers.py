"""Cases far from the training cases score high, usual ones do not."""

from __future__ import annotations

import json

import numpy as np
import pytest

from nnduet.case_head.outliers import OutlierModel, fit_outlier_model
from nnduet.errors import ModelError


def usual(count: int, *, seed: int = 0) -> np.ndarray:
    """Cases (N, 6) on a plane with a little noise around it."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, 2)) @ np.ones((2, 6)) + 0.1 * rng.normal(size=(count, 6)) + 5.0


@pytest.fixture(scope="module")
def model() -> OutlierModel:
    fitted = fit_outlier_model(usual(60), [f"p{i}" for i in range(60)])
    assert fitted is not None
    return fitted


def test_new_usual_cases_spread_over_all_scores(model: OutlierModel) -> None:
    scores = model.score(usual(200, seed=1))
    assert 0.3 < scores.mean() < 0.7


def test_a_case_off_the_plane_is_further_than_all_training_cases(model: OutlierModel) -> None:
    strange = usual(1, seed=2) + np.array([0, 0, 0, 3.0, -3.0, 0])
    assert model.score(strange)[0] == 1.0


def test_an_undefined_feature_counts_as_the_mean(model: OutlierModel) -> None:
    assert np.isfinite(model.score(np.full((1, 6), np.nan)))
    assert model.distance(np.full((1, 6), np.nan))[0] == pytest.approx(0.0)


@pytest.mark.parametrize("count, patients", [(19, 19), (30, 4)])
def test_too_few_cases_or_patients_give_no_model(count: int, patients: int) -> None:
    assert fit_outlier_model(usual(count), [f"p{i % patients}" for i in range(count)]) is None


def test_a_model_read_from_json_gives_the_same_scores(model: OutlierModel) -> None:
    again = OutlierModel.from_json(json.loads(json.dumps(model.to_json())))
    np.testing.assert_array_equal(again.distance(usual(5, seed=3)), model.distance(usual(5, seed=3)))


@pytest.mark.parametrize("changes", [{"noise": None}, {"mean": [0.0]}, {"distances": []}, {"scale": [float("nan")] * 6}])
def test_damaged_numbers_are_refused(model: OutlierModel, changes: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="outlier model"):
        OutlierModel.from_json({**model.to_json(), **changes})


def test_new_patients_are_usual_although_the_cases_of_a_patient_are_alike() -> None:
    """Distances to a model that knows the other cases of a patient would be short, and every new patient an outlier."""
    rng = np.random.default_rng(0)
    known, new = (np.repeat(rng.normal(size=(count, 40)), 4, axis=0) for count in (20, 20))
    known = known + 0.01 * rng.normal(size=known.shape)
    apart = fit_outlier_model(known, [f"p{i // 4}" for i in range(80)])
    leaking = fit_outlier_model(known, [f"p{i}" for i in range(80)])
    assert apart is not None and leaking is not None
    assert leaking.score(new).mean() > 0.95
    assert 0.2 < apart.score(new).mean() < 0.8


def by_hand() -> OutlierModel:
    """Two features of mean 1 and deviation 2; one direction, along the first, of variance 4, else a noise of 1/4."""
    return OutlierModel(
        np.ones(2), np.full(2, 2.0), np.array([[1.0, 0.0]]), np.array([4.0]), 0.25, np.array([1.0, 2.0, 3.0, 4.0])
    )


def test_the_distance_is_the_mean_over_the_features_of_squared_deviations_by_their_variance() -> None:
    """(5, 3) is (2, 1) in deviations: 2² / 4 + 1² / (1/4) = 5, over two features."""
    assert by_hand().distance(np.array([[5.0, 3.0], [1.0, 1.0]])).tolist() == pytest.approx([np.sqrt(2.5), 0.0])


def test_a_feature_counts_as_at_most_twenty_deviations() -> None:
    assert by_hand().distance(np.array([[1e9, 1.0]]))[0] == pytest.approx(np.sqrt(20**2 / 4 / 2))


def test_the_score_is_the_share_of_training_cases_that_are_nearer() -> None:
    cases = np.array([[1.0, 1.0], [1.0, 1.0 + 2 * 0.75 * np.sqrt(2)], [1.0, 99.0]])  # distances 0, 1.5 and far
    assert by_hand().score(cases).tolist() == [0.0, 0.25, 1.0]


def test_a_model_is_fitted_from_twenty_cases_of_five_patients_on() -> None:
    fitted = fit_outlier_model(usual(20), [f"p{i % 5}" for i in range(20)])
    assert fitted is not None
    assert fitted.components.shape == (4, 6)  # a fifth of the cases
    assert fitted.distances.shape == (20,) and (np.diff(fitted.distances) >= 0).all()


def test_a_fitted_model_keeps_the_variance_of_its_directions_and_the_mean_of_the_others() -> None:
    """20 cases give four directions of six; the other two are noise."""
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(20, 6)) @ rng.normal(size=(6, 6))
    fitted = fit_outlier_model(mixed, [f"p{i}" for i in range(20)])
    assert fitted is not None
    z = (mixed - mixed.mean(axis=0)) / (mixed.std(axis=0) + 1e-6)
    variances = np.linalg.eigvalsh(z.T @ z / 20)[::-1]
    np.testing.assert_allclose(fitted.variances, variances[:4], rtol=1e-6)
    assert fitted.noise == pytest.approx(variances[4:].mean() + 1e-3)
    np.testing.assert_allclose(fitted.distance(mixed[:1]) ** 2 * 6, _mahalanobis(z[0], fitted), rtol=1e-6)


def _mahalanobis(z: np.ndarray, model: OutlierModel) -> float:
    """z' C⁻¹ z with the covariance written out."""
    covariance = model.noise * np.eye(len(z)) + model.components.T @ np.diag(model.variances - model.noise) @ model.components
    return float(z @ np.linalg.solve(covariance, z))


def test_at_most_sixteen_directions_are_kept() -> None:
    features = np.random.default_rng(0).normal(size=(100, 30))
    fitted = fit_outlier_model(features, [f"p{i}" for i in range(100)])
    assert fitted is not None and fitted.components.shape == (16, 30)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"scale": [0.0] * 6}, "above 0"),
        ({"variances": [0.0] * 6}, "above 0"),
        ({"distances": [2.0, 1.0]}, "ascend"),
        ({"components": [[1.0] * 6, [1.0]]}, "components"),
        ({"components": [[1.0] * 6]}, "shapes"),
        ({"scale": [1.0] * 5}, "shapes"),
        ({"distances": []}, "shapes"),
    ],
)
def test_numbers_that_no_fit_gives_are_refused(model: OutlierModel, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=f"outlier model.*{message}"):
        OutlierModel.from_json({**model.to_json(), **changes})


def test_equal_distances_ascend_and_a_small_scale_is_one() -> None:
    stored = by_hand().to_json() | {"distances": [1.0, 1.0, 2.0], "scale": [1.0, 0.5]}
    assert OutlierModel.from_json(stored).distances.tolist() == [1.0, 1.0, 2.0]


def test_a_training_case_far_out_counts_up_to_twenty_deviations() -> None:
    """One of a hundred cases is nearly ten deviations out, which the variance of one takes in."""
    features = np.random.default_rng(0).normal(size=(100, 1))
    features[0] = 1e6
    fitted = fit_outlier_model(features, [f"p{i}" for i in range(100)])
    assert fitted is not None and fitted.variances.tolist() == pytest.approx([1.0], rel=1e-3)
