"""Which cases are withheld, when they are scored, and which epoch wins, by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nnduet.errors import SettingsError
from nnduet.schema import Task
from nnduet.training.selection import Best, best_epoch, choose_withheld, foreground_dice, is_due, mean_macro_f1, region_masks

NAN = math.nan
GRADE = Task("grade", "binary", ("low", "high"))
STAGE = Task("stage", "ordinal", ("I", "II", "III"))
AGE = Task("age", "regression")


def cases(number: int, per_patient: int = 1) -> tuple[list[str], list[str]]:
    return [f"c{i:03d}" for i in range(number)], [f"p{i // per_patient}" for i in range(number)]


@pytest.mark.parametrize(("number", "share", "expected"), [(100, 0.2, 20), (100, 0.01, 8), (1000, 0.1, 32), (16, 0.1, 8)])
def test_a_share_of_the_cases_is_withheld_but_eight_to_thirty_two(number: int, share: float, expected: int) -> None:
    chosen = choose_withheld(*cases(number), share, seed=1)
    assert len(set(chosen)) == len(chosen) == expected


def test_patients_are_withheld_whole() -> None:
    case_ids, patients = cases(60, per_patient=3)
    chosen = choose_withheld(case_ids, patients, 0.2, seed=1)
    of = dict(zip(case_ids, patients, strict=True))
    kept = [case_id for case_id in case_ids if case_id not in chosen]
    assert {of[c] for c in chosen}.isdisjoint(of[c] for c in kept)
    assert len(chosen) == 12


def test_a_patient_with_more_cases_than_may_be_withheld_is_passed_over() -> None:
    case_ids, patients = cases(80)
    patients[:40] = ["large"] * 40
    assert set(choose_withheld(case_ids, patients, 0.1, seed=3)) <= set(case_ids[40:])


def test_the_seed_decides_and_the_order_of_the_cases_stays() -> None:
    case_ids, patients = cases(100)
    first, again, other = (choose_withheld(case_ids, patients, 0.2, seed) for seed in (1, 1, 2))
    assert first == again == sorted(first)
    assert first != other


@pytest.mark.parametrize(("number", "per_patient"), [(15, 1), (100, 50)])
def test_too_few_cases_or_too_large_patients_are_refused(number: int, per_patient: int) -> None:
    with pytest.raises(SettingsError, match="selection_share: expected at least 16 training cases"):
        choose_withheld(*cases(number, per_patient), 0.2, seed=1)


@pytest.mark.parametrize(
    ("num_epochs", "every", "expected"), [(60, 10, [39, 49, 59]), (25, 10, [19, 24]), (4, 1, [2, 3]), (3, 10, [2]), (1, 1, [0])]
)
def test_cases_are_scored_in_the_last_half_and_at_the_end(num_epochs: int, every: int, expected: list[int]) -> None:
    assert [epoch for epoch in range(num_epochs) if is_due(epoch, num_epochs, every)] == expected


@pytest.mark.parametrize(
    ("dice", "macro_f1", "expected"),
    [
        ([], [], None),
        ([NAN, NAN], [NAN, NAN], None),
        ([NAN, 0.6], [NAN, 0.2], Best(1, 0.4)),
        ([0.5, 0.7], [NAN, NAN], Best(1, 0.6)),  # Dice alone; 0.5, then half of 0.5 and half of 0.7
        ([0.8, 0.2, 0.9], [NAN] * 3, Best(0, 0.8)),  # 0.8, 0.5, 0.7: one lucky score does not win
        ([0.8, 0.2, 0.9, 0.95], [NAN] * 4, Best(3, 0.825)),
        ([0.5, NAN, 0.5], [0.5, NAN, 0.5], Best(0, 0.5)),  # the earliest of equals
        ([NAN, 0.4], [0.2, NAN], Best(1, 0.3)),
    ],
)
def test_the_best_moving_average_wins(dice: Sequence[float], macro_f1: Sequence[float], expected: Best | None) -> None:
    best = best_epoch(dice, macro_f1)
    if expected is None:
        assert best is None
    else:
        assert best is not None
        assert best.epoch == expected.epoch and best.average == pytest.approx(expected.average)


def masks(*rows: str) -> np.ndarray:
    """Bool (R, N) from rows of 0 and 1."""
    return np.array([[cell == "1" for cell in row] for row in rows])


def test_the_dice_of_a_case_is_the_mean_over_the_regions_that_either_shows() -> None:
    reference, prediction = masks("1100", "0010", "0000", "0000"), masks("1000", "0000", "0000", "0001")
    assert foreground_dice(reference, prediction) == pytest.approx((2 / 3 + 0 + 0) / 3)


def test_a_case_without_foreground_has_no_dice() -> None:
    assert math.isnan(foreground_dice(masks("000", "000"), masks("000", "000")))


def test_labels_are_told_by_the_largest_logit() -> None:
    labels = SimpleNamespace(has_regions=False, foreground_labels=[1, 2], ignore_label=None)
    logits = torch.tensor([[5.0, 0, 0, 0], [0, 5, 0, 0], [0, 0, 5, 5]]).reshape(3, 1, 1, 4)
    reference, prediction = region_masks(np.array([-1, 1, 1, 2]).reshape(1, 1, 4), logits, labels)
    assert np.array_equal(reference, masks("0110", "0001"))
    assert np.array_equal(prediction, masks("0100", "0011"))


def test_regions_may_overlap_and_ignored_voxels_are_left_out() -> None:
    labels = SimpleNamespace(has_regions=True, foreground_regions=[(1, 2), 2], ignore_label=3)
    logits = torch.tensor([[1.0, 1, -1, 1], [-1, 1, -1, 1]]).reshape(2, 1, 1, 4)
    reference, prediction = region_masks(np.array([1, 2, 0, 3]).reshape(1, 1, 4), logits, labels)
    assert np.array_equal(reference, masks("110", "010"))
    assert np.array_equal(prediction, masks("110", "010"))


def test_macro_f1_is_averaged_over_the_tasks_with_labels() -> None:
    labels = {"grade": np.array([0.0, 1, NAN]), "stage": np.array([0.0, 1, 2]), "age": np.array([40.0, 50, 60])}
    sure = np.eye(3)
    probabilities = {"grade": [[0.9, 0.1]] * 3, "stage": [sure[0], sure[1], sure[2]], "age": [[1.0]] * 3}
    one_class = (2 / 3 + 0) / 2  # "low" has precision 1/2 and recall 1, "high" is never answered
    assert mean_macro_f1((GRADE, STAGE, AGE), labels, probabilities) == pytest.approx((one_class + 1) / 2)


def test_without_a_labelled_classification_there_is_no_macro_f1() -> None:
    labels = {"grade": np.array([NAN]), "age": np.array([40.0])}
    assert math.isnan(mean_macro_f1((GRADE, AGE), labels, {"grade": [np.array([0.5, 0.5])], "age": [np.array([1.0])]}))
