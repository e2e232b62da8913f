"""The task type of ranked classes: a threshold between each two neighbours.

The network's head says for each threshold whether the rank lies above it; the case head answers as for unranked classes.
Source: cumulative link model, Frank and Hall 2001.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from nnduet.tasks.one_class import OneClass

if TYPE_CHECKING:
    from torch import Tensor

    from nnduet.schema import Task

__all__ = ["Ordinal", "ordinal_targets"]


class Ordinal(OneClass):
    """Classes in ascending order."""

    name = "ordinal"
    ranked = True
    scopes = ("classification", "ranks")

    def num_outputs(self, task: Task) -> int:
        """K - 1 thresholds."""
        return len(task.classes) - 1

    def guessed_from(self, values: Sequence[str]) -> bool:
        """Never: that an order means something has to be said."""
        return False

    def seen_in(self, classes: Sequence[str], ends: Collection[str], answers: Collection[str]) -> bool:
        """Never, for the same reason."""
        return False

    def loss(self, head_outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean binary cross-entropy over the thresholds."""
        from torch.nn import functional

        goals = ordinal_targets(targets, head_outputs.shape[1])
        return functional.binary_cross_entropy_with_logits(head_outputs, goals, reduction="none").mean(1)

    def uninformed_loss(self, task: Task) -> float:
        """ln 2: that of every threshold."""
        return math.log(2)

    def probabilities(self, task: Task, head_outputs: Tensor) -> Tensor:
        """Threshold logits give P(y > k); they are made non-increasing by a running minimum, then differenced."""
        import torch

        above = _running_minimum(torch.sigmoid(head_outputs.float()))
        ones = torch.ones_like(above[:, :1])
        return torch.cat([ones, above], dim=1) - torch.cat([above, torch.zeros_like(ones)], dim=1)

    def class_score(self, head_outputs: Tensor, index: int) -> Tensor:
        """The log odds of being above the threshold below the class, plus those of not being above the next one."""
        from torch.nn import functional

        edges = functional.pad(head_outputs, (1, 1))
        return edges[:, index] - edges[:, index + 1]


def ordinal_targets(labels: Tensor, num_thresholds: int) -> Tensor:
    """Rank labels (B,) in 0..K-1 to threshold targets (B, K - 1): entry k is 1 where the label exceeds k.

    Examples:
        >>> import torch
        >>> ordinal_targets(torch.tensor([0, 1, 2]), num_thresholds=2).tolist()
        [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]
    """
    import torch

    return (labels[:, None] > torch.arange(num_thresholds, device=labels.device)).float()


def _running_minimum(values: Tensor) -> Tensor:
    """(B, N) whose column k is the least of columns 0 to k: ``torch.cummin``, which no ONNX operator computes."""
    import torch

    columns = [values[:, :1]]
    for k in range(1, values.shape[1]):
        columns.append(torch.minimum(columns[-1], values[:, k : k + 1]))
    return torch.cat(columns, dim=1)
