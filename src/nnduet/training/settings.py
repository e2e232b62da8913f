"""Everything nnDuet adds to a plans file, as one validated record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from nnduet.errors import SettingsError

__all__ = ["CPU_SETTINGS", "TrainingSettings"]

_CHOICES = {"optimizer": ("sgd", "adamw"), "pooling": ("regions", "average"), "head_optimizer": ("own", "shared")}
_SHARES = {"warmup_fraction": 0.5, "oversample_foreground": 1, "class_gradient": 1, "selection_share": 0.5}
"""Settings from 0 to a largest value."""


_CORRECT = 'correct it under "nnduet", "training" in the plans file (in Python: in TrainingSettings)'


@dataclass(frozen=True)
class TrainingSettings:
    """How one model is trained; rides in ``plans["nnduet"]["training"]`` and so in every model folder.

    The defaults are nnU-Net's own for the segmentation (T: nnUNetTrainer.__init__) and those of
    docs/explanation-evidence.md, 1, 2 and 7, for the heads.

    Attributes:
        optimizer: "sgd" (nnU-Net's Nesterov 0.99) or "adamw" for encoder and decoder; for the heads see head_optimizer.
        learning_rate: initial rate of encoder and decoder, decayed as (1 - epoch / num_epochs) ** 0.9.
        head_learning_rate: the same for the heads' own parameter group.
        class_loss_weight: weight of the class loss beside the segmentation loss, after the warm-up.
        warmup_fraction: share of the epochs without class loss; over the next equal share its weight grows linearly.
        oversample_foreground: share of each batch that is centred on foreground.
        class_gradient: share of the class loss's gradient that passes into the encoder, in [0, 1]. 0 by default: the case head
            is fitted on features of the training cases, which must not already know their labels.
        stages: encoder stages that are pooled, e.g. [-1] for the bottleneck alone; None pools all.
        pooling: "regions" (masks, rims, intensities, volumes) or "average" (plain global average pooling of the stages).
        head_optimizer: "own" (AdamW) or "shared": the heads are in the segmentation's parameter group, with its rate, decay and
            momentum. Other values of these three than the defaults are for ablations.
        save_every: epochs between checkpoints.
        selection_share: share of the fold's training cases, in [0, 0.5], that is withheld from the updates (8 to 32 of them, in
            whole patients) to choose the checkpoint by whole-case scores. 0 by default: with a few hundred cases withholding
            costs more than the choice gives, and the learning rate decays to zero, so that the last weights do as well.
        selection_every: epochs between these scores, in the last half of the training.
    """

    num_epochs: int = 1000
    iterations_per_epoch: int = 250
    validation_iterations: int = 50
    optimizer: str = "sgd"
    learning_rate: float = 1e-2
    weight_decay: float = 3e-5
    head_learning_rate: float = 3e-4
    head_weight_decay: float = 1e-2
    class_loss_weight: float = 0.1
    warmup_fraction: float = 0.1
    oversample_foreground: float = 0.33
    hidden: int = 64
    dropout: float = 0.25
    class_gradient: float = 0.0
    stages: list[int] | None = None
    pooling: str = "regions"
    head_optimizer: str = "own"
    save_every: int = 1
    selection_share: float = 0.0
    selection_every: int = 10
    seed: int = 12345

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise SettingsError(f"{name}: expected one of {choices}, got {getattr(self, name)!r}", remedy=_CORRECT)
        if not (self.stages is None or _are_different_integers(self.stages)):
            raise SettingsError(
                f"stages: expected None or a list of different whole numbers, got {self.stages!r}", remedy=_CORRECT
            )
        for name in ("num_epochs", "iterations_per_epoch", "validation_iterations", "save_every", "selection_every"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name}: expected at least 1, got {getattr(self, name)}", remedy=_CORRECT)
        for name, most in _SHARES.items():
            if not 0 <= getattr(self, name) <= most:
                raise SettingsError(f"{name}: expected in [0, {most}], got {getattr(self, name)}", remedy=_CORRECT)

    def to_json(self) -> dict[str, object]:
        """A JSON object with every field."""
        return asdict(self)

    @classmethod
    def from_json(cls, json_object: Mapping[str, Any]) -> TrainingSettings:
        """Settings from an object; absent fields keep their defaults.

        Raises:
            SettingsError: an unknown field, or an impossible value.
        """
        unknown = set(json_object) - {field.name for field in fields(cls)}
        if unknown:
            raise SettingsError(f'plans["nnduet"]["training"]: unknown settings {sorted(unknown)}', remedy=_CORRECT)
        return cls(**json_object)

    def class_weight_at(self, epoch: int) -> float:
        """Weight of the class loss in an epoch: 0 during the warm-up, then a linear ramp, then ``class_loss_weight``."""
        warmup = self.warmup_fraction * self.num_epochs
        if warmup == 0:
            return self.class_loss_weight
        return self.class_loss_weight * min(max((epoch - warmup) / warmup, 0.0), 1.0)


def _are_different_integers(stages: object) -> bool:
    return isinstance(stages, list) and bool(stages) and all(type(s) is int for s in stages) and len(set(stages)) == len(stages)


CPU_SETTINGS = TrainingSettings(
    num_epochs=60,
    iterations_per_epoch=25,
    validation_iterations=4,
    optimizer="adamw",
    learning_rate=2e-3,
    weight_decay=1e-2,
    head_learning_rate=2e-3,
    oversample_foreground=0.67,
)
"""What the ``cpu`` preset writes into its plans: 1500 iterations with AdamW, which converges faster than SGD on small nets."""
