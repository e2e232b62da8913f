"""Fitting a case head: what it learns, what it chooses, and when there is too little to learn from."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.neural_network import MLPClassifier, MLPRegressor

from nnduet.case_head.calibration import fit_temperature
from nnduet.case_head.families import ABSENT, Layers, apply_layers, average_models, families, fit_family, linear_families
from nnduet.case_head.fit import feature_sets, fit_case_head, out_of_fold
from nnduet.case_head.head import CaseHead, best_model
from nnduet.schema import Task

GRADE = Task("grade", "binary", ("a", "b"))
SUBTYPE = Task("subtype", "multiclass", ("0", "1", "2"))
AGE = Task("age", "regression")


def separable(labels: list[int], *, seed: int = 0) -> np.ndarray:
    """Features (N, 3) whose first column is twice the label plus a little noise."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(len(labels), 3))
    features[:, 0] = 2.0 * np.array(labels) + 0.1 * features[:, 0]
    return features


def patients(count: int) -> list[str]:
    return [f"p{i}" for i in range(count)]


@pytest.mark.parametrize("family", families(SUBTYPE))
def test_every_family_learns_three_classes(family: str) -> None:
    labels = np.array([i % 3 for i in range(60)], float)
    x = separable([i % 3 for i in range(60)])
    for layers in fit_family(family, SUBTYPE, x, labels).values():
        assert (apply_layers(layers, x).argmax(1) == labels).mean() > 0.6


@pytest.mark.parametrize("family", families(AGE))
def test_every_family_learns_a_value_in_its_own_unit(family: str) -> None:
    ages = 40 + 10 * np.linspace(-1, 1, 40)
    x = np.stack([np.linspace(-1, 1, 40), np.zeros(40)], axis=1)
    best = min(np.abs(apply_layers(layers, x)[:, 0] - ages).mean() for layers in fit_family(family, AGE, x, ages).values())
    assert best < 2


@pytest.mark.parametrize("features", [5, 200])
@pytest.mark.parametrize("task", [GRADE, SUBTYPE])
def test_shrinkage_lda_is_that_of_scikit_learn(task: Task, features: int) -> None:
    rng = np.random.default_rng(0)
    y = np.arange(60.0) % len(task.classes)
    x = rng.normal(size=(60, features)) @ rng.normal(size=(features, features)) + y[:, None]
    x[:, 0] = 3.0  # a constant feature
    oracle = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(x, y.astype(int))
    logits = apply_layers(fit_family("shrinkage LDA", task, x, y)[0.0], x)
    assert softmax(logits, axis=1) == pytest.approx(oracle.predict_proba(x), abs=1e-5)


def test_wide_logistic_regression_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 200)), np.arange(30.0) % 3
    for c, layers in fit_family("ridge logistic regression", SUBTYPE, x, y).items():
        oracle = LogisticRegression(C=c, max_iter=2000, tol=1e-8).fit(x, y.astype(int))
        assert softmax(apply_layers(layers, x), axis=1) == pytest.approx(oracle.predict_proba(x), abs=0.02)


@pytest.mark.parametrize("linear, hidden", [(1, ()), (3, ()), (0, (4,)), (0, (4, 3)), (1, (4,)), (3, (4, 3))])
def test_the_average_answers_with_the_mean(linear: int, hidden: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)

    def layer(inputs: int, outputs: int) -> tuple[np.ndarray, np.ndarray]:
        return rng.normal(size=(outputs, inputs)), rng.normal(size=outputs)

    models: list[tuple[list[int], Layers]] = [([5, 0, 7], (layer(3, 2),)) for _ in range(linear)]
    models += [([2, 5], (layer(2, units), layer(units, 2))) for units in hidden]
    x = rng.normal(size=(9, 10))
    columns, layers = average_models(models)
    mean = np.mean([apply_layers(own, x[:, read]) for read, own in models], axis=0)
    assert set(columns.tolist()) == {c for read, _ in models for c in read}
    assert apply_layers(layers, x[:, columns]) == pytest.approx(mean)


def test_a_separable_task_is_learned_from_new_cases_too() -> None:
    labels = [i % 2 for i in range(20)]
    fitted = fit_case_head(GRADE, separable(labels), np.array(labels, float), patients(20))
    assert fitted is not None
    assert fitted(separable(labels, seed=1)).argmax(1).tolist() == labels


def test_probabilities_sum_to_one() -> None:
    labels = [i % 3 for i in range(24)]
    fitted = fit_case_head(SUBTYPE, separable(labels), np.array(labels, float), patients(24))
    assert fitted is not None
    assert fitted(separable(labels)).sum(1) == pytest.approx(np.ones(24))


def test_a_class_that_training_never_saw_is_almost_impossible() -> None:
    labels = [i % 2 for i in range(20)]
    fitted = fit_case_head(SUBTYPE, separable(labels), np.array(labels, float), patients(20))
    assert fitted is not None
    assert fitted(separable(labels))[:, 2].max() < 1e-3


def test_a_regression_is_learned_though_shrunk() -> None:
    ages = np.arange(20, dtype=float)
    fitted = fit_case_head(AGE, separable(list(range(20))), ages, patients(20))
    assert fitted is not None
    assert np.corrcoef(fitted(separable(list(range(20)), seed=1))[:, 0], ages)[0, 1] > 0.95


def test_noise_gives_honest_probabilities() -> None:
    """Features that know nothing: the calibrated head is hardly surer than a coin."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 80).astype(float)
    fitted = fit_case_head(GRADE, rng.normal(size=(80, 30)), labels, patients(80))
    assert fitted is not None
    assert fitted(rng.normal(size=(200, 30))).max(1).mean() < 0.65
    assert fitted.choice["own_temperature"] > 1


def test_the_scores_are_those_of_cases_that_the_models_had_not_seen() -> None:
    """With as many features as cases a fit is perfect on what it saw; the stored scores are not."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 60).astype(float)
    fitted = fit_case_head(GRADE, rng.normal(size=(60, 60)), labels, patients(60))
    assert fitted is not None
    assert len(fitted.scores) == 60
    assert np.median(fitted.scores) > 0.3


def test_cases_without_a_label_are_left_out() -> None:
    labels = np.array([0, 1] * 5 + [np.nan] * 4)
    fitted = fit_case_head(GRADE, separable([0, 1] * 5 + [0] * 4), labels, patients(14))
    assert fitted is not None
    assert fitted.choice["num_cases"] == 10


def test_undefined_features_do_not_stop_the_fit() -> None:
    labels = [i % 2 for i in range(20)]
    features = separable(labels)
    features[::3, 1], features[:, 2] = np.nan, np.nan
    fitted = fit_case_head(GRADE, features, np.array(labels, float), patients(20))
    assert fitted is not None
    assert fitted(features).argmax(1).tolist() == labels


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


def test_a_network_that_knows_more_gets_the_larger_share_and_one_that_knows_nothing_none() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 60)
    noise, knowing = rng.normal(size=(60, 5)), np.where(labels[:, None] == [0, 1], 0.9, 0.1)
    helped = fit_case_head(GRADE, noise, labels.astype(float), patients(60), network=knowing)
    alone = fit_case_head(GRADE, separable(labels.tolist()), labels.astype(float), patients(60), network=np.full((60, 2), 0.5))
    assert helped is not None and alone is not None
    assert helped.network_share >= 0.5
    assert alone(separable(labels.tolist(), seed=1), np.full((60, 2), 0.5)).argmax(1).tolist() == labels.tolist()


def test_the_sets_are_the_described_blocks_with_and_without_each_stage() -> None:
    blocks = {"intensity": range(2), "stage 0": range(2, 3), "stage 1": range(3, 4), "shape": range(4, 5)}
    assert feature_sets(blocks) == {
        "intensity": [0, 1],
        "stage 0": [2],
        "stage 1": [3],
        "shape": [4],
        "intensity + shape": [0, 1, 4],
        "intensity + shape + stage 0": [0, 1, 4, 2],
        "intensity + shape + stage 1": [0, 1, 4, 3],
        "all": [0, 1, 2, 3, 4],
    }


def test_the_inner_cross_validation_finds_the_block_that_tells_the_classes_apart() -> None:
    labels = [0, 1] * 20
    noise = np.random.default_rng(0).normal(size=(40, 60))
    features = np.concatenate([noise, separable(labels)[:, :1]], axis=1)
    blocks = {"intensity": range(20), "stage 0": range(20, 60), "stage 1": range(60, 61)}
    fitted = fit_case_head(GRADE, features, np.array(labels, float), patients(40), blocks=blocks, averaged=[1])
    assert fitted is not None
    assert best_model(fitted)[1] == "stage 1"
    assert fitted.columns.tolist() == [60]


def test_the_mean_of_several_models_is_surer_of_new_cases_than_the_best_one() -> None:
    """Each of three blocks knows a little; the best model reads one of them, or all and much noise."""
    labels = np.arange(60) % 2

    def cases(seed: int) -> np.ndarray:
        noise = np.random.default_rng(seed).normal(size=(60, 60))
        noise[:, ::20] += labels[:, None]
        return noise

    blocks = {f"stage {i}": range(20 * i, 20 * i + 20) for i in range(3)}
    losses = []
    for averaged in (1, 4):
        fitted = fit_case_head(GRADE, cases(0), labels.astype(float), patients(60), blocks=blocks, averaged=[averaged])
        assert fitted is not None and len(fitted.choice["models"]) == averaged
        new = np.concatenate([fitted(cases(seed)) for seed in range(1, 9)])
        losses.append(-np.log(new[np.arange(480), np.tile(labels, 8)]).mean())
    assert losses[1] < losses[0]
    assert fitted is not None and best_model(fitted)[0].endswith(" and 3 others")


def test_only_the_named_models_compete() -> None:
    labels = [i % 2 for i in range(40)]
    features = separable(labels)
    head = fit_case_head(GRADE, features, np.array(labels, float), patients(40), models=["ridge logistic regression"])
    assert head is not None
    assert [model["model"] for model in head.choice["models"]] == ["ridge logistic regression"]
    everything = fit_case_head(GRADE, features, np.array(labels, float), patients(40))
    assert everything is not None
    assert sorted(everything.choice["inner_loss_of_models"]) == sorted(f"{family} on all" for family in families(GRADE))
    assert list(everything.choice["inner_loss_of_models"].values()) == sorted(
        everything.choice["inner_loss_of_models"].values()
    )


def signatures(count: int, cases_each: int, *, seed: int = 0) -> tuple[np.ndarray, list[str]]:
    """Features (N, 30) that tell patients apart and nothing else, several cases of each, and the patient of each case."""
    rng = np.random.default_rng(seed)
    of_patients = np.repeat(rng.normal(size=(count, 30)), cases_each, axis=0)
    return of_patients + 0.01 * rng.normal(size=of_patients.shape), [f"p{i}" for i in range(count) for _ in range(cases_each)]


def labels_of_patients(count: int, cases_each: int) -> np.ndarray:
    """A class per patient that has nothing to do with the features."""
    return np.repeat(np.random.default_rng(9).permutation(np.arange(float(count)) % 2), cases_each)


def test_the_other_cases_of_a_patient_do_not_tell_its_label_in_the_inner_cross_validation() -> None:
    x, of_patients = signatures(20, 4)
    y = labels_of_patients(20, 4)
    apart = fit_case_head(GRADE, x, y, of_patients, models=["shrinkage LDA"])
    leaking = fit_case_head(GRADE, x, y, patients(80), models=["shrinkage LDA"])
    assert apart is not None and leaking is not None
    assert leaking.choice["inner_loss"] < 0.2 and np.median(leaking.scores) < 0.2  # what a leak would look like
    assert apart.choice["inner_loss"] > 0.6 and np.median(apart.scores) > 0.4


def test_the_other_cases_of_a_patient_do_not_tell_its_value_in_the_inner_cross_validation() -> None:
    x, of_patients = signatures(20, 4)
    y = np.repeat(np.random.default_rng(9).normal(size=20), 4)
    apart, leaking = (fit_case_head(AGE, x, y, groups, models=["ridge regression"]) for groups in (of_patients, patients(80)))
    assert apart is not None and leaking is not None
    assert leaking.choice["inner_loss"] < 0.2
    assert apart.choice["inner_loss"] > 0.8


def test_the_linear_families_come_before_the_perceptron() -> None:
    assert linear_families(GRADE) == ("shrinkage LDA", "ridge logistic regression")
    assert families(GRADE) == ("shrinkage LDA", "ridge logistic regression", "perceptron")
    assert linear_families(AGE) == ("ridge regression",)
    assert families(AGE) == ("ridge regression", "perceptron")


def test_ridge_regression_is_that_of_scikit_learn_with_one_over_its_strength() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 3)), rng.normal(size=12) + 5
    fitted = fit_family("ridge regression", AGE, x, y)
    assert list(fitted) == [1e-3, 1e-2, 1e-1, 1.0, 10.0]
    for c, layers in fitted.items():
        np.testing.assert_allclose(apply_layers(layers, x)[:, 0], Ridge(alpha=1 / c).fit(x, y).predict(x))


@pytest.mark.parametrize("task", [GRADE, SUBTYPE])
def test_narrow_logistic_regression_is_that_of_scikit_learn(task: Task) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 4)), np.arange(30.0) % len(task.classes)
    fitted = fit_family("ridge logistic regression", task, x, y)
    assert list(fitted) == [1e-3, 1e-2, 1e-1, 1.0, 10.0]
    for c, layers in fitted.items():
        oracle = LogisticRegression(C=c, max_iter=2000, tol=1e-8).fit(x, y.astype(int))
        assert softmax(apply_layers(layers, x), axis=1) == pytest.approx(oracle.predict_proba(x), abs=1e-3)


@pytest.mark.parametrize("task", [GRADE, SUBTYPE, AGE])
def test_the_perceptron_is_that_of_scikit_learn(task: Task) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 3))
    y = 50 + 10 * x[:, 0] if task is AGE else np.arange(20.0) % len(task.classes)
    fitted = fit_family("perceptron", task, x, y, seed=3)
    assert list(fitted) == [1.0, 10.0]
    for alpha, layers in fitted.items():
        assert layers[0][0].shape == (16, 3)
        options = {"hidden_layer_sizes": (16,), "solver": "lbfgs", "alpha": alpha, "max_iter": 200, "random_state": 3}
        if task is AGE:
            oracle = MLPRegressor(**options).fit(x, (y - y.mean()) / y.std())
            np.testing.assert_allclose(apply_layers(layers, x)[:, 0], oracle.predict(x) * y.std() + y.mean(), rtol=1e-5)
        else:
            oracle = MLPClassifier(**options).fit(x, y.astype(int))
            np.testing.assert_allclose(softmax(apply_layers(layers, x), axis=1), oracle.predict_proba(x), atol=1e-9)


@pytest.mark.parametrize("family", families(SUBTYPE))
def test_a_class_that_no_case_has_gets_a_logit_of_about_nothing_whatever_the_features(family: str) -> None:
    x = separable([0, 2] * 10)
    for layers in fit_family(family, SUBTYPE, x, np.array([0.0, 2.0] * 10)).values():
        logits = apply_layers(layers, x)
        assert logits[:, 1].tolist() == [ABSENT] * 20
        assert logits.argmax(1).tolist() == [0, 2] * 10


def test_a_hidden_layer_stops_negative_values_and_the_input_is_left_as_it_is() -> None:
    hidden, last = (np.array([[1.0], [-1.0]]), np.array([0.0, 1.0])), (np.array([[1.0, 10.0]]), np.array([100.0]))
    assert apply_layers((hidden, last), np.array([[2.0], [-3.0]]))[:, 0].tolist() == [102.0, 140.0]


def test_inner_predictions_come_from_models_that_had_not_seen_the_fold() -> None:
    """Ridge regression with one case to train on answers with that case's value."""
    x, y = np.zeros((2, 1)), np.array([1.0, 5.0])
    folds = [(np.array([0]), np.array([1])), (np.array([1]), np.array([0]))]
    found = out_of_fold(AGE, x, y, folds, "ridge regression")
    assert [values.tolist() for values in found.values()] == [[[5.0], [1.0]]] * 5


def test_cases_in_no_fold_get_the_logit_of_an_absent_class() -> None:
    x, y = separable([0, 1] * 3), np.array([0.0, 1.0] * 3)
    found = out_of_fold(GRADE, x, y, [(np.arange(4), np.array([4]))], "shrinkage LDA")
    assert found[0.0].shape == (6, 2)
    assert found[0.0][5].tolist() == [ABSENT, ABSENT] and found[0.0][4, 0] > found[0.0][4, 1]


def test_one_block_is_one_set_and_stages_alone_compete_alone_and_all_together() -> None:
    assert feature_sets({"all": range(3)}) == {"all": [0, 1, 2]}
    assert feature_sets({"stage 0": [0], "stage 1": [1]}) == {"stage 0": [0], "stage 1": [1], "all": [0, 1]}
    assert feature_sets({"shape": [0], "stage 0": [1]}) == {"shape": [0], "stage 0": [1], "shape + stage 0": [0, 1]}
    assert feature_sets({"a": [0], "b": [2]}) == {"a": [0], "b": [2], "a + b": [0, 2]}
    assert list(feature_sets({"backstage": [0], "stage 0": [1]})) == ["backstage", "stage 0", "backstage + stage 0"]


def test_three_cases_of_two_classes_are_enough_and_five_values(recwarn: pytest.WarningsRecorder) -> None:
    labels = np.array([0.0, 1.0] * 3)
    assert fit_case_head(GRADE, separable([0, 1] * 3), labels, patients(6), models=["shrinkage LDA"]) is not None
    assert fit_case_head(GRADE, separable([0, 1] * 3)[:5], labels[:5], patients(5), models=["shrinkage LDA"]) is None
    ages = np.arange(5.0)
    for values in (ages, ages / 100):
        assert fit_case_head(AGE, separable([0, 1, 2, 3, 4]), values, patients(5), models=["ridge regression"]) is not None
    assert not recwarn.list


def test_two_patients_are_enough_and_a_fold_without_a_second_class_is_not() -> None:
    labels = np.array([0.0, 1.0] * 4)
    mixed, pure = [f"p{i // 4}" for i in range(8)], [f"p{i % 2}" for i in range(8)]
    assert fit_case_head(GRADE, separable([0, 1] * 4), labels, mixed, models=["shrinkage LDA"]) is not None
    assert fit_case_head(GRADE, separable([0, 1] * 4), labels, pure, models=["shrinkage LDA"]) is None


@pytest.fixture(scope="module")
def chosen() -> tuple[CaseHead, np.ndarray, np.ndarray]:
    """A head that is the mean of two linear models on a hard task, its features and its labels."""
    rng = np.random.default_rng(1)
    labels = np.arange(60) % 2
    features = rng.normal(size=(60, 4)) * 3 + 7
    features[:, 0] += 2.0 * labels
    models = linear_families(GRADE)
    fitted = fit_case_head(GRADE, features, labels.astype(float), patients(60), models=models, averaged=[2])
    assert fitted is not None
    return fitted, features, labels


def test_the_choice_tells_models_losses_and_temperature(chosen: tuple[CaseHead, np.ndarray, np.ndarray]) -> None:
    fitted, _, _ = chosen
    assert set(fitted.choice) == {
        "models",
        "network_share",
        "own_temperature",
        "inner_loss",
        "inner_loss_of_models",
        "num_cases",
    }
    assert {model["model"] for model in fitted.choice["models"]} == set(linear_families(GRADE))
    assert all(set(model) == {"model", "features", "strength"} for model in fitted.choice["models"])
    losses = fitted.choice["inner_loss_of_models"]
    assert [f"{model['model']} on all" for model in fitted.choice["models"]] == list(losses)
    assert list(losses.values()) == sorted(losses.values()) == [round(loss, 5) for loss in losses.values()]
    assert 0.4 < fitted.choice["inner_loss"] < np.log(2) and 0.4 < min(losses.values()) < np.log(2)
    assert fitted.choice["num_cases"] == 60 and fitted.choice["network_share"] == fitted.network_share == 0.0


def test_the_stored_mean_and_scale_are_those_of_the_cases(chosen: tuple[CaseHead, np.ndarray, np.ndarray]) -> None:
    fitted, features, _ = chosen
    np.testing.assert_allclose(fitted.mean, features.mean(axis=0))
    np.testing.assert_allclose(fitted.scale, features.std(axis=0), rtol=1e-5)
    assert fitted.columns.tolist() == [0, 1, 2, 3]


def test_the_scores_ascend_and_agree_with_the_inner_loss(chosen: tuple[CaseHead, np.ndarray, np.ndarray]) -> None:
    """1 - p(true class) of each case: the mean of -log p is the inner loss."""
    fitted, _, _ = chosen
    assert (np.diff(fitted.scores) >= 0).all()
    assert -np.log(1 - fitted.scores).mean() == pytest.approx(fitted.choice["inner_loss"], rel=1e-3)


def test_the_head_is_about_as_sure_as_its_held_out_answers(chosen: tuple[CaseHead, np.ndarray, np.ndarray]) -> None:
    """Temperatures of models and of their mean are in the layers: on what it saw it is a little better than held out."""
    fitted, features, labels = chosen
    seen = -np.log(fitted(features)[np.arange(60), labels]).mean()
    assert fitted.choice["inner_loss"] - 0.15 < seen < fitted.choice["inner_loss"]


def test_the_inner_loss_of_a_regression_is_the_share_of_the_variance_that_is_left() -> None:
    """Noise alone leaves all of it, a plain line nothing."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 1))
    noise = fit_case_head(AGE, x, 100 * rng.normal(size=60), patients(60), models=["ridge regression"])
    line = fit_case_head(AGE, x, 100 * x[:, 0] + 7, patients(60), models=["ridge regression"])
    assert noise is not None and line is not None
    assert noise.choice["inner_loss"] == pytest.approx(1.0, abs=0.1)
    assert line.choice["inner_loss"] < 0.001 and line.temperature == 1.0
    assert line.choice["models"] == [{"model": "ridge regression", "features": "all", "strength": 10.0}]
    assert np.median(line.scores) < 1 < 30 < np.median(noise.scores)


def test_the_network_replaces_a_head_that_knows_nothing_and_is_left_out_where_it_knows_nothing() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 2)), 50 + 10 * rng.normal(size=40)
    helped = fit_case_head(AGE, x, y, patients(40), network=y[:, None], models=["ridge regression"])
    alone = fit_case_head(AGE, y[:, None], y, patients(40), network=x[:, :1], models=["ridge regression"])
    assert helped is not None and alone is not None
    assert helped.network_share == helped.choice["network_share"] == 1.0
    assert alone.network_share == 0.0
    assert helped.scores == pytest.approx(np.zeros(40))


def test_the_network_answers_of_cases_without_a_label_are_left_out_with_them() -> None:
    rng = np.random.default_rng(0)
    y = np.r_[np.full(5, np.nan), np.arange(20.0)]
    network = np.r_[np.full(5, 1e6), np.arange(20.0)][:, None]
    fitted = fit_case_head(AGE, rng.normal(size=(25, 2)), y, patients(25), network=network, models=["ridge regression"])
    assert fitted is not None and fitted.network_share == 1.0


def test_the_number_of_models_is_chosen_by_the_inner_loss_and_is_at_most_all() -> None:
    """Two blocks tell half each: the model that reads both is better alone than any mean with the others."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 2))
    y, blocks = x.sum(axis=1), {"stage 0": [0], "stage 1": [1]}
    fitted = fit_case_head(AGE, x, y, patients(80), blocks=blocks, models=["ridge regression"])
    assert fitted is not None
    assert [model["features"] for model in fitted.choice["models"]] == ["all"]
    every = fit_case_head(AGE, x, y, patients(80), blocks=blocks, models=["ridge regression"], averaged=[99])
    assert every is not None and len(every.choice["models"]) == 3
    assert every.columns.tolist() == [0, 1]


def test_the_same_seed_gives_the_same_head() -> None:
    labels = np.array([0.0, 1.0] * 10)
    x = np.random.default_rng(0).normal(size=(20, 3))
    models = ["shrinkage LDA", "perceptron"]
    fit = partial(fit_case_head, GRADE, x, labels, patients(20), models=models, averaged=[2])
    heads = [fit(seed=0), fit(), fit(seed=1)]
    first, default, other = (head.to_json() for head in heads if head is not None)
    assert first == default != other


@pytest.mark.parametrize("models", [("shrinkage LDA",), linear_families(GRADE)])
def test_the_temperatures_in_the_layers_are_those_of_the_held_out_answers(models: tuple[str, ...]) -> None:
    """Noise in half as many features as cases: what the models say of cases that they had not seen is much exaggerated."""
    x, y = np.random.default_rng(0).normal(size=(60, 30)), np.arange(60.0) % 2
    fitted = fit_case_head(GRADE, x, y, patients(60), models=models, averaged=[len(models)])
    assert fitted is not None
    z = (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-6)
    folds = list(StratifiedGroupKFold(5, shuffle=True, random_state=0).split(y, y, patients(60)))
    strengths = {model["model"]: model["strength"] for model in fitted.choice["models"]}
    held_out = {name: out_of_fold(GRADE, z, y, folds, name)[strength] for name, strength in strengths.items()}
    own = {name: fit_temperature(logits, y) for name, logits in held_out.items()}
    common = fit_temperature(np.mean([logits / own[name] for name, logits in held_out.items()], axis=0), y)
    assert own["shrinkage LDA"] > 1.5 and fitted.temperature == pytest.approx(1.0, rel=1e-3)  # nothing is left to divide by
    assert fitted.choice["own_temperature"] == pytest.approx(common * np.prod(list(own.values())) ** (1 / len(own)), rel=1e-3)
    plain = {name: fit_family(name, GRADE, z, y)[strength][0] for name, strength in strengths.items()}
    for part in range(2):
        expected = np.mean([layer[part] / own[name] / common for name, layer in plain.items()], axis=0)
        np.testing.assert_allclose(fitted.layers[0][part], expected, rtol=1e-3, atol=1e-6)


def test_the_perceptron_competes_on_the_best_set_of_the_linear_families_alone() -> None:
    labels = np.array([0.0, 1.0] * 12)
    x = np.random.default_rng(0).normal(size=(24, 2))
    x[:, 1] += labels
    blocks = {"stage 0": [0], "stage 1": [1]}
    fitted = fit_case_head(GRADE, x, labels, patients(24), blocks=blocks, models=["perceptron", "shrinkage LDA"])
    assert fitted is not None
    losses = fitted.choice["inner_loss_of_models"]
    best = min((name for name in losses if name.startswith("shrinkage")), key=losses.__getitem__).partition(" on ")[2]
    assert [name for name in losses if name.startswith("perceptron")] == [f"perceptron on {best}"]
    assert len(losses) == 4


def test_several_models_are_averaged_where_that_serves_held_out_cases_better() -> None:
    """Each of three blocks knows a little beside much noise."""
    labels = np.arange(60) % 2
    x = np.random.default_rng(0).normal(size=(60, 60))
    x[:, ::20] += labels[:, None]
    blocks = {f"stage {i}": range(20 * i, 20 * i + 20) for i in range(3)}
    heads = {
        count: fit_case_head(
            GRADE, x, labels.astype(float), patients(60), blocks=blocks, models=["shrinkage LDA"], averaged=count
        )
        for count in ((1,), (3,), (1, 3), (3, 1))
    }
    losses = {count: head.choice["inner_loss"] for count, head in heads.items() if head is not None}
    assert losses[(3,)] < losses[(1,)]
    assert losses[(1, 3)] == losses[(3, 1)] == losses[(3,)]
