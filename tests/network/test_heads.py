"""Heads, standardisation and the joint network's two ways forward."""

from __future__ import annotations

import pytest
import torch
from tiny import tiny_network

from nnduet.network.heads import INNER_FOLDS, FeatureNorm, TargetScale, TaskHeads, task_probabilities
from nnduet.schema import Task

ORDINAL = Task("stage", "ordinal", ("I", "II", "III"))
BINARY = Task("grade", "binary", ("a", "b"))
AGE = Task("age", "regression")


def test_the_first_batch_sets_the_statistics() -> None:
    norm = FeatureNorm(1)
    out = norm(torch.tensor([[1.0], [3.0]]))
    assert norm.mean.tolist() == [2.0]
    assert norm.variance.tolist() == [1.0]
    assert out[:, 0].tolist() == pytest.approx([-1.0, 1.0], abs=1e-4)


def test_after_many_batches_the_statistics_move_by_one_percent() -> None:
    norm = FeatureNorm(1)
    norm.batches += 1000
    norm(torch.tensor([[10.0], [10.0]]))
    assert norm.mean.item() == pytest.approx(0.1)


def test_in_evaluation_the_statistics_stay() -> None:
    norm = FeatureNorm(1).eval()
    assert norm(torch.tensor([[2.0]])).item() == pytest.approx(2.0, abs=1e-4)
    assert norm.mean.item() == 0


def test_standardised_features_are_clipped_at_six_deviations() -> None:
    assert FeatureNorm(1).eval()(torch.tensor([[1e9], [-1e9]]))[:, 0].tolist() == [6.0, -6.0]


def test_a_constant_feature_stays_finite() -> None:
    assert torch.isfinite(FeatureNorm(2)(torch.full((2, 2), 7.0))).all()


@pytest.mark.parametrize(("task", "outputs"), [(BINARY, 2), (ORDINAL, 2), (AGE, 1)])
def test_every_task_has_its_number_of_outputs(task: Task, outputs: int) -> None:
    heads = TaskHeads((task,), 5, hidden=4, dropout=0.0)
    assert heads(torch.rand(3, 5))[task.name].shape == (3, outputs)


def test_a_task_name_with_a_dot_is_kept_in_the_outputs() -> None:
    heads = TaskHeads((Task("who.grade", "binary", ("a", "b")),), 5, hidden=4, dropout=0.0)
    assert list(heads(torch.rand(1, 5))) == ["who.grade"]


def test_equal_logits_give_equal_probabilities() -> None:
    assert task_probabilities(BINARY, torch.zeros(1, 2)).tolist() == [[0.5, 0.5]]


def test_ordinal_probabilities_are_differences_of_the_thresholds() -> None:
    above = torch.tensor([[0.8, 0.3]])
    assert task_probabilities(ORDINAL, torch.logit(above))[0].tolist() == pytest.approx([0.2, 0.5, 0.3])


def test_crossing_thresholds_give_no_negative_probability() -> None:
    above = torch.tensor([[0.4, 0.9]])
    assert task_probabilities(ORDINAL, torch.logit(above))[0].tolist() == pytest.approx([0.6, 0.0, 0.4])


def test_a_regression_has_no_probabilities() -> None:
    with pytest.raises(ValueError, match="age"):
        task_probabilities(AGE, torch.zeros(1, 1))


def test_target_scale_uses_the_finite_values_and_inverts() -> None:
    scale = TargetScale()
    scale.fit(torch.tensor([1.0, 3.0, float("nan")]))
    assert scale.mean.item() == 2.0
    assert scale.inverse(scale(torch.tensor(5.0))).item() == pytest.approx(5.0)


def test_one_value_leaves_the_target_scale_the_identity() -> None:
    scale = TargetScale()
    scale.fit(torch.tensor([7.0, float("nan")]))
    assert (scale.mean.item(), scale.deviation.item()) == (0.0, 1.0)


def test_without_deep_supervision_the_network_returns_plain_logits() -> None:
    network = tiny_network(2)
    assert network(torch.rand(1, 1, 16, 16)).shape == (1, 3, 16, 16)


def test_with_deep_supervision_task_outputs_follow_the_segmentations() -> None:
    network = tiny_network(2)
    network.decoder.deep_supervision = True
    *segmentations, answers = network(torch.rand(2, 1, 16, 16))
    assert [tuple(s.shape) for s in segmentations] == [(2, 3, 16, 16), (2, 3, 8, 8)]
    assert len(answers) == 1 + INNER_FOLDS
    for outputs in answers:
        assert {name: tuple(o.shape) for name, o in outputs.items()} == {"grade": (2, 2), "age": (2, 1)}


@torch.inference_mode()
def test_joint_logits_and_head_outputs_equal_those_of_forward() -> None:
    network, image = tiny_network(2), torch.rand(1, 1, 16, 16)
    logits, sums = network.forward_joint(image)
    network.decoder.deep_supervision = True
    expected, *_, (outputs, *_inner) = network(image)
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(network.heads(sums.features()), outputs)


@pytest.mark.parametrize(("share", "reached"), [(0.0, False), (1.0, True)])
def test_the_class_loss_reaches_the_encoder_only_as_far_as_it_is_let(share: float, reached: bool) -> None:
    network = tiny_network(2)
    network.class_gradient = share
    network.decoder.deep_supervision = True
    network(torch.rand(2, 1, 16, 16))[-1][0]["grade"][:, 0].sum().backward()
    touched = any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in network.encoder.parameters())
    assert touched is reached
    own = [p for name, p in network.decoder.named_parameters() if not name.startswith("encoder.")]
    assert own
    assert all(p.grad is None for p in own)


def test_ordinal_probabilities_are_those_of_torchs_running_minimum() -> None:
    """Thresholds that cross, tie or are not finite."""
    outputs = torch.randn(50, 2, generator=torch.Generator().manual_seed(0)) * 3
    outputs[1] = outputs[0, 0]
    outputs[2, 0] = float("nan")
    above = torch.cummin(torch.sigmoid(outputs), dim=1).values
    expected = torch.stack([1 - above[:, 0], above[:, 0] - above[:, 1], above[:, 1]], dim=1)
    torch.testing.assert_close(task_probabilities(ORDINAL, outputs), expected, rtol=0, atol=0, equal_nan=True)
