"""The class part of the joint loss: missing labels masked, patches gated by the evidence they hold."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from nnduet.schema import Task

__all__ = ["class_loss", "evidence_gate", "ordinal_targets"]


def ordinal_targets(labels: Tensor, num_thresholds: int) -> Tensor:
    """Rank labels (B,) in 0..K-1 to threshold targets (B, K - 1): entry k is 1 where the label exceeds k.

    Examples:
        >>> ordinal_targets(torch.tensor([0, 1, 2]), num_thresholds=2).tolist()
        [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]
    """
    return (labels[:, None] > torch.arange(num_thresholds, device=labels.device)).float()


def evidence_gate(present: Tensor, expected: Tensor) -> Tensor:
    """Share of a case's foreground regions that its patch shows, (B,) in [0, 1].

    Args:
        present: (B, R) bool, regions with a reference voxel in the patch.
        expected: (B, R) bool, regions with a reference voxel in the case. A case without foreground counts fully.
    """
    total = expected.sum(1)
    share = (present & expected).sum(1) / total.clamp_min(1)
    return torch.where(total > 0, share, torch.ones_like(share))


def class_loss(
    tasks: tuple[Task, ...], outputs: dict[str, Tensor], targets: dict[str, Tensor], gates: Tensor
) -> tuple[Tensor, dict[str, float]]:
    """Mean over tasks of the gated mean loss over the labelled samples of a batch.

    Cross-entropy for binary and multiclass, mean binary cross-entropy over thresholds for ordinal, smooth L1 for regression
    (targets standardised). A task with no labelled or no gated-in sample adds an exact zero that keeps its parameters in the
    graph (DDP needs that), so the loss is finite for every batch.

    Args:
        outputs: {task: (B, outputs)}.
        targets: {task: (B,)} class indices or standardised values, NaN where missing.
        gates: (B,) weights in [0, 1].

    Returns:
        The scalar loss and {task: its value} with NaN for tasks without evidence.
    """
    total = gates.new_zeros(())
    values: dict[str, float] = {}
    for task in tasks:
        output, target = outputs[task.name].float(), targets[task.name]
        weight = gates * ~torch.isnan(target)
        per_sample = _per_sample(task, output, torch.nan_to_num(target))
        loss = (weight * per_sample).sum() / weight.sum().clamp_min(1e-6)
        values[task.name] = float(loss.detach()) if float(weight.sum()) > 0 else float("nan")
        total = total + loss
    return total / max(len(tasks), 1), values


def _per_sample(task: Task, output: Tensor, target: Tensor) -> Tensor:
    if task.type == "regression":
        return functional.smooth_l1_loss(output[:, 0], target, reduction="none")
    if task.type == "ordinal":
        goals = ordinal_targets(target, output.shape[1])
        return functional.binary_cross_entropy_with_logits(output, goals, reduction="none").mean(1)
    return functional.cross_entropy(output, target.long(), reduction="none")
