"""Cases far from the training cases score high, usual ones do not."""

from __future__ import annotations

import json

import numpy as np
import pytest

from nnduet.errors import ModelError
from nnduet.model.outliers import OutlierModel, fit_outlier_model


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
