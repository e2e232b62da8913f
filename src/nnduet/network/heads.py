"""Heads that turn pooled features into task outputs, and the joint network that owns them.

Plain torch: nothing here knows nnU-Net. :class:`JointNetwork` takes any network with an ``encoder`` that returns its stages
and a ``decoder`` with a ``deep_supervision`` switch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from nnduet.errors import SettingsError
from nnduet.network.pooling import PooledSums, Pooling, RegionPooling, feature_blocks, num_features, sum_channels
from nnduet.schema import Task

__all__ = ["FeatureNorm", "JointNetwork", "TaskHeads", "task_probabilities"]

INNER_FOLDS = 3
"""Parts of the training patients. Inner head k learns from all but part k, so that its answers to part k are out of fold: they
tell how far the network head can be trusted beside the case head. That holds where the encoder does not know the labels either,
that is without class gradient."""


class FeatureNorm(nn.Module):
    """Standardise features (B, F) by running statistics, the same in training and in evaluation.

    Batch normalisation over two cases is noise; these statistics are exponential averages over many batches (half-life of
    about 70 batches) that start from the first batch.
    """

    mean: Tensor
    variance: Tensor
    batches: Tensor

    def __init__(self, size: int, momentum: float = 0.01) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("variance", torch.ones(size))
        self.register_buffer("batches", torch.zeros(()))

    def forward(self, features: Tensor) -> Tensor:
        """(B, F) to (B, F), about zero mean and unit variance; values are clipped to 6 deviations."""
        if self.training:
            self._update(features.detach())
        return ((features - self.mean) / (self.variance + 1e-5).sqrt()).clamp(-6, 6)

    @torch.no_grad()
    def _update(self, features: Tensor) -> None:
        self.batches += 1
        step = max(self.momentum, 1.0 / float(self.batches))
        difference = features.mean(0) - self.mean
        self.mean += step * difference
        spread = ((features - self.mean) ** 2).mean(0)
        self.variance += step * (spread - self.variance)


class TaskHeads(nn.Module):
    """One shared hidden layer and a linear output per task: (B, F) to {task: (B, outputs)}, float32."""

    def __init__(self, tasks: tuple[Task, ...], size: int, *, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm = FeatureNorm(size)
        self.trunk = nn.Sequential(nn.Dropout(dropout), nn.Linear(size, hidden), nn.GELU(), nn.Dropout(dropout))
        self.outputs = nn.ModuleDict({task.module_name: nn.Linear(hidden, task.num_outputs) for task in tasks})
        self.names = {task.name: task.module_name for task in tasks}
        self.targets = nn.ModuleDict({t.module_name: TargetScale() for t in tasks if t.kind.standardised})

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Task logits (B, K), ordinal threshold logits (B, K - 1) or standardised regression values (B, 1)."""
        with torch.autocast(features.device.type, enabled=False):
            hidden = self.trunk(self.norm(features.float()))
            return {name: self.outputs[key](hidden) for name, key in self.names.items()}

    def target_scale(self, task: Task) -> TargetScale:
        """The standardisation of a regression task's values."""
        return self.targets[task.module_name]  # type: ignore[return-value]


class TargetScale(nn.Module):
    """Mean and deviation of a regression task over the training cases; identity until :meth:`fit`."""

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("deviation", torch.ones(()))

    def fit(self, values: Tensor) -> None:
        """Take mean and deviation of the finite entries of ``values`` (N,); fewer than two leave the identity.

        Examples:
            >>> scale = TargetScale()
            >>> scale.fit(torch.tensor([40.0, 60.0, float("nan")]))
            >>> scale(torch.tensor([50.0])).tolist(), scale.inverse(torch.tensor([0.0])).tolist()
            ([0.0], [50.0])
        """
        values = values[torch.isfinite(values)].float()
        if len(values) > 1:
            self.mean.copy_(values.mean())
            self.deviation.copy_(values.std().clamp_min(1e-6))

    def forward(self, values: Tensor) -> Tensor:
        """Values in their own unit to standardised values."""
        return (values - self.mean) / self.deviation

    def inverse(self, standardised: Tensor) -> Tensor:
        """Standardised values back to their own unit."""
        return standardised * self.deviation + self.mean


def task_probabilities(task: Task, outputs: Tensor) -> Tensor:
    """Class probabilities (B, K) from head outputs (B, task.num_outputs).

    Raises:
        ValueError: the task has no classes.
    """
    return task.kind.probabilities(task, outputs)


class JointNetwork(nn.Module):
    """A segmentation network that also says what the case is, from the same encoder pass.

    Args:
        network: has ``encoder(image) -> [stage features]`` with ``output_channels`` and ``decoder(stages)``.
        tasks: what to say; may be empty.
        num_image_channels: C of the input image.
        num_regions: number of foreground regions R.
        overlapping: whether the decoder's outputs are sigmoid regions instead of softmax classes.
        stages: indices of the encoder stages to pool, negative ones from the bottleneck upwards; None takes all.
        pooling: over which masks the stages, and the image if it is regional, are pooled; None takes :class:`RegionPooling`.
        class_gradient: share of the class loss's gradient that passes into the encoder, in [0, 1]. At 0 the encoder learns
            from the segmentation alone, and its features of the training cases know nothing of their class labels.

    Raises:
        SettingsError: a stage that the encoder does not have, or one named twice.
    """

    def __init__(
        self,
        network: nn.Module,
        tasks: tuple[Task, ...],
        *,
        num_image_channels: int,
        num_regions: int,
        overlapping: bool,
        stages: Sequence[int] | None = None,
        pooling: Pooling | None = None,
        hidden: int = 64,
        dropout: float = 0.25,
        class_gradient: float = 0.0,
    ) -> None:
        super().__init__()
        self.class_gradient = class_gradient
        self.encoder: nn.Module = network.encoder  # type: ignore[assignment]
        self.decoder: nn.Module = network.decoder  # type: ignore[assignment]
        self.overlapping = overlapping
        channels: list[int] = [int(c) for c in self.encoder.output_channels]  # type: ignore[union-attr]
        self.stages = _stage_indices(stages, len(channels))
        self.pooling = RegionPooling() if pooling is None else pooling
        pooled = {stage: channels[stage] for stage in self.stages}
        masks, image_channels = self.pooling.num_masks(num_regions), num_image_channels if self.pooling.regional else 0
        size = num_features(masks, image_channels, list(pooled.values()))
        self.feature_blocks = feature_blocks(masks, image_channels, pooled)
        self.heads = TaskHeads(tasks, size, hidden=hidden, dropout=dropout)
        self.inner_heads = nn.ModuleList(TaskHeads(tasks, size, hidden=hidden, dropout=dropout) for _ in range(INNER_FOLDS))

    def forward(self, image: Tensor) -> Tensor | list[Tensor | list[dict[str, Tensor]]]:
        """Image (B, C, *spatial) to the plain segmentation logits, or to ``[*deep supervision, answers]``.

        ``answers`` are the task outputs of the heads, then those of each inner head. nnU-Net's loss, validation and predictor
        read only the segmentations, so they run unchanged.
        """
        skips = self.encoder(image)
        segmentations = self.decoder(skips)
        if not self.decoder.deep_supervision:
            return segmentations  # type: ignore[no-any-return]
        with nullcontext() if self.class_gradient else torch.no_grad():  # or autograd would send zeros through all stages
            features = self._sums(image, skips, segmentations[0], None).features()
        passing = features.detach() + self.class_gradient * (features - features.detach())
        return [*segmentations, [self.heads(passing), *(heads(features.detach()) for heads in self.inner_heads)]]

    def forward_joint(self, image: Tensor, tile_weight: Tensor | None = None) -> tuple[Tensor, PooledSums]:
        """Full-resolution logits (B, K, *spatial) and pooled sums from one encoder pass; see :func:`sum_channels`."""
        skips = self.encoder(image)
        segmentations = self.decoder(skips)
        logits = segmentations[0] if self.decoder.deep_supervision else segmentations
        return logits, self._sums(image, skips, logits, tile_weight)

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Load a checkpoint's weights; those of the inner heads, which only training asks, may be absent.

        Raises:
            RuntimeError: other weights are missing, unknown, or of another shape.
        """
        found = self.load_state_dict(weights, strict=False)
        missing = [name for name in found.missing_keys if not name.startswith("inner_heads.")]
        if missing or found.unexpected_keys:
            raise RuntimeError(f"missing weights: {missing}, unknown weights: {found.unexpected_keys}")

    def masks(self, image: Tensor, logits: Tensor) -> Tensor:
        """The pooling's masks (B, W, *spatial), float32, of an image and the logits of its segmentation."""
        with torch.autocast(image.device.type, enabled=False):
            return self.pooling.masks(image.float(), logits, overlapping=self.overlapping)

    def pooled_sums(self, image: Tensor, stages: list[Tensor], masks: Tensor, tile_weight: Tensor | None = None) -> PooledSums:
        """Sums of the image, if the pooling is regional, and of the stages that are pooled; see :func:`sum_channels`."""
        pooled = image if self.pooling.regional else image[:, :0]
        with torch.autocast(image.device.type, enabled=False):
            return sum_channels(pooled.float(), stages, masks, tile_weight)

    def _sums(self, image: Tensor, skips: list[Tensor], logits: Tensor, tile_weight: Tensor | None) -> PooledSums:
        return self.pooled_sums(image, [skips[stage] for stage in self.stages], self.masks(image, logits), tile_weight)


def _stage_indices(stages: Sequence[int] | None, number: int) -> tuple[int, ...]:
    """Stages counted from 0 of an encoder that has ``number`` of them."""
    if stages is None:
        return tuple(range(number))
    indices = tuple(stage % number for stage in stages if type(stage) is int and -number <= stage < number)
    if len(set(indices)) != len(stages) or not indices:
        raise SettingsError(f"stages: expected different ones of {-number} to {number - 1}, got {list(stages)}")
    return indices
