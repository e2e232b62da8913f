"""One or two optimisers that nnU-Net's trainer can hold as one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from nnduet.training.settings import TrainingSettings

__all__ = ["JointOptimizer", "PolynomialDecay", "build_optimizer"]

CLIP_NORMS = {"segmentation": 12.0, "heads": 1.0}
"""Largest gradient norm: nnU-Net's 12 (T: train_step), and 1 for heads of their own (docs/explanation-evidence.md, 2)."""


class JointOptimizer:
    """The optimisers of the segmentation network and of the heads behind the interface of one.

    nnU-Net's SGD blows heads up or collapses them to one class (docs/explanation-evidence.md, 2), so the heads have
    their own AdamW, unless an ablation asks for the shared one. Offers what trainer, checkpoint and GradScaler use:
    ``param_groups``, ``zero_grad``, ``step``, ``state_dict``.
    """

    def __init__(self, segmentation: torch.optim.Optimizer, heads: torch.optim.Optimizer | None = None) -> None:
        self.parts = {"segmentation": segmentation}
        if heads is not None:
            self.parts["heads"] = heads

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The live parameter groups, segmentation first."""
        return [group for part in self.parts.values() for group in part.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear all gradients."""
        for part in self.parts.values():
            part.zero_grad(set_to_none=set_to_none)

    def clip_gradients(self) -> None:
        """Clip the gradient norm of each part, as in CLIP_NORMS."""
        for name, part in self.parts.items():
            torch.nn.utils.clip_grad_norm_([p for group in part.param_groups for p in group["params"]], CLIP_NORMS[name])

    def step(self) -> None:
        """Step every part."""
        for part in self.parts.values():
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """{"segmentation": ..., "heads": ...}, the latter where the heads have their own."""
        return {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""
        for name, part in self.parts.items():
            part.load_state_dict(state[name])


class PolynomialDecay:
    """Every group's rate is its initial rate times (1 - epoch / num_epochs) ** 0.9.

    nnU-Net's PolyLRScheduler gives all groups one rate, which would undo the heads' own. Source: nnunetv2
    training/lr_scheduler/polylr.py.
    """

    def __init__(self, optimizer: JointOptimizer, num_epochs: int) -> None:
        self.optimizer, self.num_epochs = optimizer, num_epochs
        self.initial = [group["lr"] for group in optimizer.param_groups]

    def step(self, epoch: int) -> None:
        """Set the rates of an epoch in 0..num_epochs - 1."""
        factor = (1 - epoch / self.num_epochs) ** 0.9
        for group, rate in zip(self.optimizer.param_groups, self.initial, strict=True):
            group["lr"] = rate * factor


def build_optimizer(network: nn.Module, settings: TrainingSettings) -> JointOptimizer:
    """SGD or AdamW for everything but ``heads``, AdamW for ``heads``; or the former for everything."""
    if settings.head_optimizer == "shared":
        return JointOptimizer(_segmentation_optimizer(network.parameters(), settings))
    heads = [p for name, p in network.named_parameters() if _is_head(name)]
    others = [p for name, p in network.named_parameters() if not _is_head(name)]
    return JointOptimizer(
        _segmentation_optimizer(others, settings),
        torch.optim.AdamW(heads, settings.head_learning_rate, weight_decay=settings.head_weight_decay, fused=_fuses(heads)),
    )


def _is_head(name: str) -> bool:
    return name.removeprefix("_orig_mod.").startswith(("heads.", "inner_heads."))


def _fuses(parameters: Sequence[nn.Parameter]) -> bool:
    """Whether torch has one kernel for a whole step there instead of several for each parameter: CPUs and CUDA."""
    return all(parameter.device.type in ("cpu", "cuda") for parameter in parameters)


def _segmentation_optimizer(parameters: Iterable[nn.Parameter], settings: TrainingSettings) -> torch.optim.Optimizer:
    of = list(parameters)
    common: dict[str, Any] = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay, "fused": _fuses(of)}
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(of, **common)
    return torch.optim.SGD(of, momentum=0.99, nesterov=True, **common)
