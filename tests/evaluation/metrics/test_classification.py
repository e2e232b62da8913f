"""Table metrics against scikit-learn, scipy and torchmetrics, on the sample and on a resample drawn out in full."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics as oracle

from nnduet.evaluation.metrics import classification as metrics
from nnduet.evaluation.metrics.calibration import brier_score, expected_calibration_error
from nnduet.evaluation.metrics.ranking import auroc, spearman

NUM_CLASSES = 4
Drawn = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def sample(seed: int, num_cases: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    reference = rng.integers(0, NUM_CLASSES, num_cases)
    logits = rng.normal(size=(num_cases, NUM_CLASSES)) + 1.5 * np.eye(NUM_CLASSES)[reference]
    probabilities = np.round(np.exp(logits) / np.exp(logits).sum(1, keepdims=True), 1)  # rounded, so that there are ties
    probabilities[:, 0] += 1 - probabilities.sum(1)
    probabilities = np.clip(probabilities, 0, 1)
    return reference, probabilities / probabilities.sum(1, keepdims=True)


@pytest.fixture(params=range(4))
def drawn(request: pytest.FixtureRequest) -> Drawn:
    """(reference, probabilities, weights (2, N), indices of the cases that row 1 stands for)."""
    reference, probabilities = sample(request.param)
    indices = np.random.default_rng(request.param).integers(0, len(reference), len(reference))
    weights = np.stack([np.ones(len(reference)), np.bincount(indices, minlength=len(reference))])
    return reference, probabilities, weights, indices


@pytest.mark.filterwarnings("ignore:.*ill-defined")
def test_confusion_metrics_equal_scikit_learn_on_sample_and_resample(drawn: Drawn) -> None:
    reference, probabilities, weights, indices = drawn
    prediction = probabilities.argmax(1)
    counts = metrics.confusion_counts(reference, prediction, weights, NUM_CLASSES)
    for row, cases in ((0, np.arange(len(reference))), (1, indices)):
        y, p = reference[cases], prediction[cases]
        assert (counts[row, :, :-1] == oracle.confusion_matrix(y, p, labels=range(NUM_CLASSES))).all()
        assert metrics.accuracy(counts)[row] == pytest.approx(oracle.accuracy_score(y, p))
        assert metrics.balanced_accuracy(counts)[row] == pytest.approx(oracle.balanced_accuracy_score(y, p))
        assert metrics.macro_f1(counts)[row] == pytest.approx(oracle.f1_score(y, p, average="macro"))
        assert metrics.quadratic_kappa(counts)[row] == pytest.approx(oracle.cohen_kappa_score(y, p, weights="quadratic"))
        assert metrics.f1_per_class(counts)[row] == pytest.approx(oracle.f1_score(y, p, average=None))
        assert metrics.precision_per_class(counts)[row] == pytest.approx(oracle.precision_score(y, p, average=None))
        assert metrics.recall_per_class(counts)[row] == pytest.approx(oracle.recall_score(y, p, average=None))
        for c in range(NUM_CLASSES):
            assert metrics.specificity_per_class(counts)[row, c] == pytest.approx(oracle.recall_score(y != c, p != c))
            expected = oracle.class_likelihood_ratios(y == c, p == c)[0]
            assert metrics.positive_likelihood_ratio_per_class(counts)[row, c] == pytest.approx(expected, nan_ok=True)


def test_auroc_with_ties_equals_scikit_learn_on_sample_and_resample(drawn: Drawn) -> None:
    reference, probabilities, weights, indices = drawn
    for c in range(NUM_CLASSES):
        values = auroc(probabilities[:, c], reference == c, weights)
        assert values[0] == pytest.approx(oracle.roc_auc_score(reference == c, probabilities[:, c]))
        assert values[1] == pytest.approx(oracle.roc_auc_score(reference[indices] == c, probabilities[indices, c]))


def test_spearman_with_ties_equals_scipy_on_sample_and_resample(drawn: Drawn) -> None:
    reference, probabilities, weights, indices = drawn
    values = spearman(reference.astype(float), probabilities[:, 1], weights)
    assert values[0] == pytest.approx(scipy.stats.spearmanr(reference, probabilities[:, 1])[0])
    assert values[1] == pytest.approx(scipy.stats.spearmanr(reference[indices], probabilities[indices, 1])[0])


def test_brier_score_equals_scikit_learn_without_halving(drawn: Drawn) -> None:
    reference, probabilities, weights, indices = drawn
    for row, cases in ((0, np.arange(len(reference))), (1, indices)):
        expected = oracle.brier_score_loss(
            reference[cases], probabilities[cases], labels=list(range(NUM_CLASSES)), scale_by_half=False
        )
        assert brier_score(probabilities, reference, weights)[row] == pytest.approx(expected)


def test_brier_score_of_two_classes_is_twice_the_one_column_form() -> None:
    probabilities = np.array([[0.8, 0.2], [0.4, 0.6]])
    value = brier_score(probabilities, np.array([0, 0]), np.ones((1, 2)))[0]
    assert value == pytest.approx(2 * (0.2**2 + 0.6**2) / 2)


TORCHMETRICS = """
import sys, numpy as np, torch
from torchmetrics.functional.classification import multiclass_calibration_error
probabilities, reference = (torch.from_numpy(np.load(path)) for path in sys.argv[1:])
print(float(multiclass_calibration_error(probabilities, reference, probabilities.shape[1], n_bins=15, norm="l1")))
"""


def test_calibration_error_equals_torchmetrics(drawn: Drawn, tmp_path: Path, torchvision_environment: dict[str, str]) -> None:
    reference = drawn[0]
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(NUM_CLASSES), size=len(reference))  # off the borders of the bins
    value = expected_calibration_error(probabilities.max(1), probabilities.argmax(1) == reference, np.ones((1, len(reference))))
    paths = [str(tmp_path / name) for name in ("probabilities.npy", "reference.npy")]
    for path, array in zip(paths, (probabilities, reference), strict=True):
        np.save(path, array)
    command = [sys.executable, "-c", TORCHMETRICS, *paths]
    printed = subprocess.run(command, env=torchvision_environment, capture_output=True, text=True, check=True).stdout
    assert value[0] == pytest.approx(float(printed), abs=1e-6)


def test_calibration_error_of_sure_answers_that_are_right_three_times_of_four_is_one_quarter() -> None:
    value = expected_calibration_error(np.ones(4), np.array([True, True, True, False]), np.ones((1, 4)))
    assert value[0] == 0.25


def test_a_case_without_a_prediction_is_wrong_but_no_false_positive() -> None:
    counts = metrics.confusion_counts(np.array([0, 0, 1, 1]), np.array([0, -1, 1, 1]), np.ones((1, 4)), 2)
    assert metrics.accuracy(counts)[0] == 0.75
    assert metrics.recall_per_class(counts)[0].tolist() == [0.5, 1.0]
    assert metrics.precision_per_class(counts)[0].tolist() == [1.0, 1.0]
    assert metrics.specificity_per_class(counts)[0].tolist() == [1.0, 1.0]
    assert metrics.macro_f1(counts)[0] == pytest.approx(
        oracle.f1_score([0, 0, 1, 1], [0, -1, 1, 1], average=None, labels=[0, 1]).mean()
    )


def test_an_absent_class_is_undefined_per_class_and_left_out_of_the_means() -> None:
    counts = metrics.confusion_counts(np.array([0, 0, 1]), np.array([0, 0, 0]), np.ones((1, 3)), 3)
    assert np.isnan(metrics.recall_per_class(counts)[0, 2])
    assert np.isnan(metrics.f1_per_class(counts)[0, 2])
    assert np.isnan(metrics.precision_per_class(counts)[0, 1])
    assert metrics.balanced_accuracy(counts)[0] == 0.5
    assert metrics.macro_f1(counts)[0] == pytest.approx(0.4)  # (4/5 + 0) / 2


def test_likelihood_ratio_at_perfect_specificity_is_undefined() -> None:
    counts = metrics.confusion_counts(np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1]), np.ones((1, 4)), 2)
    assert metrics.positive_likelihood_ratio_per_class(counts)[0, 0] == pytest.approx(2.0)  # 1 / (1 - 1/2)
    assert np.isnan(metrics.positive_likelihood_ratio_per_class(counts)[0, 1])


def test_kappa_of_one_class_only_is_undefined() -> None:
    counts = metrics.confusion_counts(np.array([1, 1]), np.array([1, 1]), np.ones((1, 2)), 3)
    assert np.isnan(metrics.quadratic_kappa(counts)[0])


def test_auroc_of_one_class_only_is_undefined() -> None:
    assert np.isnan(auroc(np.array([0.1, 0.9]), np.array([True, True]), np.ones((1, 2)))[0])


def test_spearman_of_a_constant_is_undefined() -> None:
    assert np.isnan(spearman(np.array([1.0, 2.0, 3.0]), np.full(3, 0.1), np.ones((1, 3)))[0])


def test_without_cases_everything_is_undefined() -> None:
    none, weights = np.zeros(0), np.ones((2, 0))
    counts = metrics.confusion_counts(none.astype(int), none.astype(int), weights, 3)
    values = [
        metrics.accuracy(counts),
        metrics.macro_f1(counts),
        metrics.quadratic_kappa(counts),
        auroc(none, none.astype(bool), weights),
        spearman(none, none, weights),
        brier_score(np.zeros((0, 3)), none.astype(int), weights),
        expected_calibration_error(none, none.astype(bool), weights),
    ]
    assert np.isnan(values).all()


def test_spearman_of_numbers_that_are_nearly_equal_is_that_of_their_order() -> None:
    assert spearman(np.array([1.0, 2.0, 3.0]), np.array([1e-12, 3e-12, 2e-12]), np.ones((1, 3)))[0] == pytest.approx(0.5)


def test_spearman_of_two_cases_of_many_is_one_or_minus_one() -> None:
    """A resample that draws two of five cases, one of them three times."""
    reference, prediction = np.array([5.0, 4.0, 3.0, 2.0, 1.0]), np.array([9.0, 1.0, 7.0, 2.0, 5.0])
    values = spearman(reference, prediction, np.array([[3.0, 0, 1, 0, 0], [0, 3.0, 0, 1, 0], [0, 4.0, 0, 0, 0]]))
    assert values[:2].tolist() == pytest.approx([1.0, -1.0])
    assert np.isnan(values[2])


def test_auroc_of_a_tie_is_one_half_and_of_one_pair_of_two_in_order_three_quarters() -> None:
    assert auroc(np.array([0.5, 0.5]), np.array([True, False]), np.ones((1, 2)))[0] == 0.5
    assert auroc(np.array([0.2, 0.7, 0.7]), np.array([False, True, False]), np.ones((1, 3)))[0] == 0.75


def test_auroc_follows_the_weights_of_a_resample() -> None:
    """Drawn twice, the negative that is in order counts two pairs of three."""
    scores, positive = np.array([0.1, 0.9, 0.5]), np.array([False, False, True])
    values = auroc(scores, positive, np.array([[2.0, 1, 1], [1, 0, 3], [1, 1, 0]]))
    assert values[:2].tolist() == pytest.approx([2 / 3, 1.0])
    assert np.isnan(values[2])


def test_calibration_error_has_fifteen_bins_weighted_by_their_cases() -> None:
    """Two bins: three cases of 0.65 of which one is right, one case of 0.95 that is right; 0.65 and 0.66 share a bin."""
    confidence, correct = np.array([0.64, 0.65, 0.66, 0.95]), np.array([True, False, False, True])
    value = expected_calibration_error(confidence, correct, np.ones((1, 4)))
    assert value[0] == pytest.approx((abs(1 - 1.95) + abs(1 - 0.95)) / 4)


def test_calibration_error_does_not_cancel_between_neighbouring_bins() -> None:
    """0.59 is in the ninth bin of 15, 0.61 and 0.66 in the tenth, from 9/15 to 10/15, and 0.67 in the eleventh."""
    for low, high in ((0.59, 0.61), (0.66, 0.67)):
        value = expected_calibration_error(np.array([low, high]), np.array([True, False]), np.ones((1, 2)))
        assert value[0] == pytest.approx((1 - low + high) / 2)


def test_calibration_error_follows_the_weights_of_a_resample() -> None:
    value = expected_calibration_error(np.array([0.0, 1.0]), np.array([True, True]), np.array([[1.0, 3.0], [0.0, 2.0]]))
    assert value.tolist() == [0.25, 0.0]


def test_kappa_of_ranks_that_are_turned_round_is_minus_one_and_by_chance_is_zero() -> None:
    weights = np.ones((1, 4))
    turned = metrics.confusion_counts(np.array([0, 0, 2, 2]), np.array([2, 2, 0, 0]), weights, 3)
    assert metrics.quadratic_kappa(turned)[0] == pytest.approx(-1.0)
    chance = metrics.confusion_counts(np.array([0, 0, 2, 2]), np.array([0, 2, 0, 2]), weights, 3)
    assert metrics.quadratic_kappa(chance)[0] == pytest.approx(0.0)
