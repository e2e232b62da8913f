"""The class part of the joint loss: missing labels masked, patches gated by the evidence they hold."""

from __future__ import annotations

import torch
from torch import Tensor

from nnduet.schema import Task

__all__ = ["class_loss", "evidence_gate"]


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

    The loss of a sample is :meth:`~nnduet.tasks.base.TaskKind.loss` of the task's type. A task with no labelled or no gated-in
    sample adds an exact zero that keeps its parameters in the graph (DDP needs that), so the loss is finite for every batch.

    Args:
        outputs: {task: (B, outputs)}.
        targets: {task: (B,) or (B, K)} as :meth:`~nnduet.tasks.base.TaskKind.targets`, standardised where the type says so, NaN
            where missing.
        gates: (B,) weights in [0, 1].

    Returns:
        The scalar loss and {task: its value} with NaN for tasks without evidence.
    """
    total = gates.new_zeros(())
    values: dict[str, float] = {}
    for task in tasks:
        output, target = outputs[task.name].float(), targets[task.name]
        weight = gates * ~torch.isnan(target).unsqueeze(1).flatten(1).any(1)
        per_sample = task.kind.loss(output, torch.nan_to_num(target))
        loss = (weight * per_sample).sum() / weight.sum().clamp_min(1e-6)
        values[task.name] = float(loss.detach()) if float(weight.sum()) > 0 else float("nan")
        total = total + loss
    return total / max(len(tasks), 1), values
