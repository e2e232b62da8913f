"""The class loss by hand: masked, gated, finite for every batch."""

from __future__ import annotations

import math

import pytest
import torch

from nnduet.network.losses import class_loss, evidence_gate
from nnduet.schema import Task
from nnduet.tasks.ordinal import ordinal_targets

GRADE = Task("grade", "binary", ("a", "b"))
STAGE = Task("stage", "ordinal", ("I", "II", "III"))
AGE = Task("age", "regression")
NAN = float("nan")
ONE = torch.ones(1)


def test_ordinal_targets_count_the_thresholds_below_the_label() -> None:
    assert ordinal_targets(torch.tensor([0.0, 1.0, 2.0]), 2).tolist() == [[0, 0], [1, 0], [1, 1]]


def test_a_patch_with_one_of_two_regions_has_half_the_evidence() -> None:
    assert evidence_gate(torch.tensor([[True, False]]), torch.tensor([[True, True]])).tolist() == [0.5]


def test_a_region_outside_the_case_adds_no_evidence() -> None:
    assert evidence_gate(torch.tensor([[True, True]]), torch.tensor([[True, False]])).tolist() == [1.0]


def test_a_case_without_foreground_counts_fully() -> None:
    assert evidence_gate(torch.tensor([[False]]), torch.tensor([[False]])).tolist() == [1.0]


def test_undecided_binary_logits_cost_log_two() -> None:
    loss, values = class_loss((GRADE,), {"grade": torch.zeros(1, 2)}, {"grade": torch.tensor([1.0])}, ONE)
    assert loss.item() == pytest.approx(math.log(2))
    assert values == {"grade": pytest.approx(math.log(2))}


def test_undecided_ordinal_logits_cost_log_two() -> None:
    loss, _ = class_loss((STAGE,), {"stage": torch.zeros(1, 2)}, {"stage": torch.tensor([2.0])}, ONE)
    assert loss.item() == pytest.approx(math.log(2))


def test_a_regression_error_of_two_costs_one_and_a_half() -> None:
    loss, _ = class_loss((AGE,), {"age": torch.tensor([[3.0]])}, {"age": torch.tensor([1.0])}, ONE)
    assert loss.item() == pytest.approx(1.5)  # smooth L1: |2| - 0.5


def test_a_missing_label_leaves_the_other_samples_alone() -> None:
    outputs = {"age": torch.tensor([[3.0], [100.0]])}
    loss, _ = class_loss((AGE,), outputs, {"age": torch.tensor([1.0, NAN])}, torch.ones(2))
    assert loss.item() == pytest.approx(1.5)


def test_gates_weigh_the_samples() -> None:
    outputs, targets = {"age": torch.tensor([[1.5], [0.5]])}, {"age": torch.zeros(2)}
    loss, _ = class_loss((AGE,), outputs, targets, torch.tensor([0.25, 0.75]))
    assert loss.item() == pytest.approx(0.25 * 1.0 + 0.75 * 0.125)


def test_two_tasks_are_averaged() -> None:
    outputs = {"grade": torch.zeros(1, 2), "age": torch.tensor([[3.0]])}
    loss, _ = class_loss((GRADE, AGE), outputs, {"grade": torch.tensor([0.0]), "age": torch.tensor([1.0])}, ONE)
    assert loss.item() == pytest.approx((math.log(2) + 1.5) / 2)


@pytest.mark.parametrize(("label", "gate"), [(NAN, 1.0), (1.0, 0.0)])
def test_a_batch_without_evidence_costs_nothing_but_keeps_the_head_in_the_graph(label: float, gate: float) -> None:
    output = torch.zeros(1, 2, requires_grad=True)
    loss, values = class_loss((GRADE,), {"grade": output}, {"grade": torch.tensor([label])}, torch.tensor([gate]))
    loss.backward()
    assert loss.item() == 0
    assert math.isnan(values["grade"])
    assert output.grad is not None
    assert output.grad.abs().sum() == 0


def test_no_tasks_cost_nothing() -> None:
    loss, values = class_loss((), {}, {}, ONE)
    assert (loss.item(), values) == (0.0, {})
