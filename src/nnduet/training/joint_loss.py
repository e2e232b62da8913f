"""The loss of one batch: nnU-Net's own for the masks, and the weighted class loss; and what each task answered."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor

from nnduet.network.hardware import autocast_dtype
from nnduet.network.heads import task_probabilities
from nnduet.network.losses import class_loss
from nnduet.training.labels import inner_fold
from nnduet.training.trainer_protocol import Batch, Trainer

__all__ = ["joint_loss"]


def joint_loss(trainer: Trainer, batch: Batch) -> tuple[Tensor, dict[str, float]]:
    """nnU-Net's segmentation loss plus the weighted class loss of one batch, and the terms apart.

    Answers are counted in ``trainer.collapse``.

    Returns:
        The loss, a scalar; and ``segmentation_loss``, ``class_loss`` and ``task_<name>_loss``, all before their weights.
    """
    device = trainer.device
    data = batch["data"].to(device, non_blocking=True)
    target = [t.to(device, non_blocking=True) for t in batch["target"]]
    dtype = autocast_dtype(device)
    with nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype):
        *segmentations, (outputs, *inner) = trainer.network(data)
        segmentation_loss = trainer.loss(segmentations, target)
    case_ids = [str(key) for key in batch["keys"]]
    gates, targets = trainer.evidence.gates(target[0], case_ids), _class_targets(trainer, case_ids)
    class_term, values = class_loss(trainer.tasks, outputs, targets, gates)
    parts = torch.tensor([inner_fold(patient) for patient in trainer.labels.patients(case_ids)], device=device)
    inner_terms = [class_loss(trainer.tasks, out, targets, gates * (parts != k))[0] for k, out in enumerate(inner)]
    _watch(trainer, case_ids, outputs, gates)
    weight = trainer.settings.class_weight_at(trainer.current_epoch)
    loss: Tensor = segmentation_loss + weight * (class_term + sum(inner_terms))
    if not trainer.tasks:
        heads = (trainer.joint_network().heads, trainer.joint_network().inner_heads)
        loss = loss + 0.0 * sum(p.sum() for module in heads for p in module.parameters())
    terms = {"segmentation_loss": float(segmentation_loss.detach()), "class_loss": float(class_term.detach())}
    return loss, {**terms, **{f"task_{name}_loss": value for name, value in values.items()}}


def _class_targets(trainer: Trainer, case_ids: list[str]) -> dict[str, Tensor]:
    """Targets (B,) or (B, K) per task, see :meth:`~nnduet.tasks.base.TaskKind.targets`, NaN where missing."""
    heads = trainer.joint_network().heads
    out = {}
    for task in trainer.tasks:
        targets = task.kind.targets(task, trainer.labels.column(task, case_ids))
        column = torch.tensor(targets, dtype=torch.float32, device=trainer.device)
        out[task.name] = heads.target_scale(task)(column) if task.kind.standardised else column
    return out


def _watch(trainer: Trainer, case_ids: list[str], outputs: dict[str, Tensor], gates: Tensor) -> None:
    """Count which classes were shown and answered, over labelled samples that bear evidence."""
    shown = (gates > 0).cpu().numpy()
    for task in trainer.tasks:
        if task.is_classification:
            truth = trainer.labels.column(task, case_ids)
            counted = shown & np.isfinite(truth)
            probabilities = task_probabilities(task, outputs[task.name].detach()).cpu().numpy()
            trainer.collapse.add(task.name, truth[counted].tolist(), task.kind.answers(probabilities)[counted].tolist())
