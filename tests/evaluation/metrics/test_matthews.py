"""Matthews correlation over all classes: by hand, and against scikit-learn on the sample and on a resample."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sklearn.metrics as oracle

from nnduet.evaluation.answer_tables import TaskAnswers
from nnduet.evaluation.metrics.classification import confusion_counts, matthews_correlation
from nnduet.evaluation.task_scores import score_task
from nnduet.schema import Task


def mcc(reference: list[int], prediction: list[int], num_classes: int) -> float:
    weights = np.ones((1, len(reference)))
    return float(matthews_correlation(confusion_counts(np.array(reference), np.array(prediction), weights, num_classes))[0])


def test_three_of_four_right_in_two_classes_is_the_phi_of_the_table() -> None:
    """TP 1, TN 2, FP 0, FN 1: (1 * 2 - 0) / sqrt(1 * 2 * 2 * 3)."""
    assert mcc([0, 0, 1, 1], [0, 0, 0, 1], 2) == pytest.approx(2 / math.sqrt(12))


def test_right_answers_have_one_and_answers_that_are_turned_round_minus_one() -> None:
    assert mcc([0, 1, 2], [0, 1, 2], 3) == pytest.approx(1.0)
    assert mcc([0, 0, 1, 1], [1, 1, 0, 0], 2) == pytest.approx(-1.0)


@pytest.mark.parametrize("seed", range(6))
def test_the_value_is_that_of_scikit_learn_on_sample_and_resample_also_where_answers_are_missing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    reference = rng.integers(0, 4, 40)
    prediction = np.where(rng.random(40) < 0.5, reference, rng.integers(-1, 4, 40))
    drawn = rng.integers(0, 40, 40)
    weights = np.stack([np.ones(40), np.bincount(drawn, minlength=40)])
    found = matthews_correlation(confusion_counts(reference, prediction, weights, 4))
    expected = [oracle.matthews_corrcoef(reference[cases], prediction[cases]) for cases in (np.arange(40), drawn)]
    assert found.tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("reference", "prediction", "reason"),
    [([0, 0], [0, 1], "one_class_only"), ([0, 1], [1, 1], "one_class_only"), ([], [], "no_labelled_cases")],
    ids=["one class in the references", "one class in the answers", "no cases"],
)
def test_what_does_not_vary_has_no_correlation_and_the_reason_is_told(
    reference: list[int], prediction: list[int], reason: str
) -> None:
    task, cases = Task("sick", "binary", ("no", "yes")), tuple(map(str, range(len(reference))))
    probabilities = np.eye(2)[np.array(prediction, dtype=int)]
    answers = TaskAnswers(task, cases, cases, np.array(reference, float), np.array(prediction, float), probabilities)
    found = score_task(answers, num_resamples=0, seed=0).metrics["mcc"]
    assert (found.value, found.reason) == (None, reason)
