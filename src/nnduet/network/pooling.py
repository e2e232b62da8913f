"""Region pooling as a ratio of sums, so that the tiles of a case add up to the case.

For an encoder stage f and a soft mask w, the pooled feature is sum(w * f) / sum(w). Every foreground region has two masks:
itself and the rim inside its boundary, where capsules and margins show; the last mask is the global context
(w = 1). Numerators and denominators are kept apart in :class:`PooledSums` and added over tiles; the division comes last.

A :class:`Pooling` says which masks there are. It is one object that is passed to the network; :class:`RegionPooling` is the
default, and ``examples/new_pooling.py`` passes another.

Source: masked average pooling, Zhang et al., SG-One, IEEE Transactions on Cybernetics 50, 2020. Soft masks, the ratio of sums
and the rim are nnDuet's own; the ratio makes training on one patch and sliding-window inference mean the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

__all__ = [
    "POOLINGS",
    "AveragePooling",
    "PooledSums",
    "Pooling",
    "RegionPooling",
    "feature_blocks",
    "num_features",
    "region_sums",
    "region_weights",
    "sum_channels",
]

PSEUDO_VOXELS = 1.0
"""Weight, in voxels, of the global context that stands in where a region is empty."""


SHARPNESS = 8.0
"""Factor on the logits before they become masks. A small lesion's faint probabilities all over the image otherwise outweigh the
lesion itself: on the demo's unseen cases its volume and intensities then hardly tell the subtype."""


@dataclass(frozen=True)
class PooledSums:
    """Sums over a patch, a tile or a whole case, all float32.

    Attributes:
        numerators: one tensor (B, W, C_s) per pooled source: sum(w * f). The first source is the image and its square.
        volumes: (B, W), sum(w) in voxels of the preprocessed image: W - 1 masks (by regions R regions and their R inner rims),
            then all voxels.
    """

    numerators: tuple[Tensor, ...]
    volumes: Tensor

    def __add__(self, other: PooledSums) -> PooledSums:
        pairs = zip(self.numerators, other.numerators, strict=True)
        return PooledSums(tuple(a + b for a, b in pairs), self.volumes + other.volumes)

    def mean(self) -> PooledSums:
        """The mean over the batch, with B = 1, e.g. over mirrored passes of one case."""
        return PooledSums(tuple(n.mean(0, keepdim=True) for n in self.numerators), self.volumes.mean(0, keepdim=True))

    def scatter(self, rows: Sequence[int], number: int) -> PooledSums:
        """Sums of ``number`` rows: row i of these is added to ``rows[i]`` of zeros."""
        index = torch.tensor(rows, device=self.volumes.device)
        parts = (n.new_zeros(number, *n.shape[1:]).index_add_(0, index, n) for n in (*self.numerators, self.volumes))
        *numerators, volumes = parts
        return PooledSums(tuple(numerators), volumes)

    def features(self, voxel_scale: float = 1.0) -> Tensor:
        """Finite features (B, F): log volumes of regions and rims, image mean and deviation, then stage means.

        An empty region gets the global mean instead (weight of one pseudo-voxel) and zero volume. ``voxel_scale`` multiplies
        volumes; slice-wise models of volumes pass the slice spacing in mm.

        Examples:
            >>> sums = PooledSums((torch.tensor([[[3.0, 9.0], [4.0, 10.0]]]),), torch.tensor([[1.0, 2.0]]))
            >>> sums.features()[0, -2:].tolist()  # mean 2 and square 5 of everything
            [2.0, 1.0]
        """
        parts = [torch.log1p(self.volumes[:, :-1] * voxel_scale)]
        for index, numerator in enumerate(self.numerators):
            means = _means(numerator, self.volumes)
            parts.append((_mean_and_deviation(means) if index == 0 else means).flatten(1))
        return torch.cat(parts, dim=1)


def _means(numerator: Tensor, volumes: Tensor) -> Tensor:
    context = numerator[:, -1:] / volumes[:, -1:, None].clamp_min(1.0)
    return (numerator + PSEUDO_VOXELS * context) / (volumes[..., None] + PSEUDO_VOXELS)


def _mean_and_deviation(means: Tensor) -> Tensor:
    mean, square = means.chunk(2, dim=-1)
    return torch.cat([mean, (square - mean**2).clamp_min(0).sqrt()], dim=-1)


class Pooling(Protocol):
    """Over which soft masks features are averaged. One that is written elsewhere needs these three and no base class.

    It has nothing to learn: what it gives is detached from the segmentation, and by default from the encoder, too.
    """

    @property
    def regional(self) -> bool:
        """Whether intensities are pooled as well, and shapes of regions described; else the encoder's stages alone."""

    def num_masks(self, num_regions: int) -> int:
        """W, the last one of all voxels included, for R foreground regions."""

    def masks(self, image: Tensor, logits: Tensor, *, overlapping: bool) -> Tensor:
        """Weights (B, W, *spatial) in [0, 1], float32 and detached, of which the last is 1 everywhere.

        Args:
            image: (B, C, *spatial), the network's input, float32.
            logits: of the segmentation, on the same grid: (B, R, *spatial) if ``overlapping``, else (B, R + 1, *spatial).
        """


class RegionPooling:
    """Every foreground region, the rim inside each, and everything; the default."""

    regional = True

    def num_masks(self, num_regions: int) -> int:
        """2R + 1."""
        return 2 * num_regions + 1

    def masks(self, image: Tensor, logits: Tensor, *, overlapping: bool) -> Tensor:
        """See :func:`region_weights`."""
        return region_weights(logits, overlapping=overlapping)


class AveragePooling:
    """Everything alike, and the encoder's stages alone: plain global average pooling, for ablations."""

    regional = False

    def num_masks(self, num_regions: int) -> int:
        """1."""
        return 1

    def masks(self, image: Tensor, logits: Tensor, *, overlapping: bool) -> Tensor:
        """Ones (B, 1, *spatial)."""
        return torch.ones_like(image[:, :1])


POOLINGS: Mapping[str, Pooling] = MappingProxyType({"regions": RegionPooling(), "average": AveragePooling()})
"""Those that a training can be told to use, by the name that its plans keep."""


def num_features(num_masks: int, num_image_channels: int, stage_channels: Sequence[int]) -> int:
    """Length F of :meth:`PooledSums.features` for W masks, the one of all voxels included.

    Examples:
        >>> num_features(3, 1, [4])  # 2 volumes; of each of 3 masks the channel's mean and deviation and 4 stage means
        20
    """
    return num_masks - 1 + num_masks * (2 * num_image_channels + sum(stage_channels))


def feature_blocks(num_masks: int, num_image_channels: int, stage_channels: Mapping[int, int]) -> dict[str, range]:
    """Where in the features what stands: "intensity" (volumes, intensities) where there are any, then "stage 0", ...

    ``stage_channels`` maps the pooled encoder stages, in their order, to their channels.

    Examples:
        >>> feature_blocks(3, 1, {2: 4})
        {'intensity': range(0, 8), 'stage 2': range(8, 20)}
    """
    lengths = {"intensity": num_masks - 1 + num_masks * 2 * num_image_channels}
    lengths |= {f"stage {stage}": num_masks * channels for stage, channels in stage_channels.items()}
    ends = dict(zip(lengths, accumulate(lengths.values()), strict=True))
    return {name: range(ends[name] - length, ends[name]) for name, length in lengths.items() if length}


def region_weights(logits: Tensor, *, overlapping: bool) -> Tensor:
    """Soft masks (B, 2R + 1, *spatial) in [0, 1] from segmentation logits, detached, float32.

    The R regions, their R inner rims (mask minus its grey erosion over one voxel), and ones. ``overlapping``: logits are
    independent regions (sigmoid, B, R, ...); else channel 0 is background (softmax, B, R + 1, ...).

    Examples:
        >>> logits = torch.tensor([-9.0, 9, 9, 9, -9]).reshape(1, 1, 1, 5)  # a region of three pixels
        >>> region_weights(logits, overlapping=True).round()[0, :, 0].tolist()  # itself, its rim, everything
        [[0.0, 1.0, 1.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0, 1.0]]
    """
    logits = SHARPNESS * logits.detach().float()
    masks = torch.sigmoid(logits) if overlapping else torch.softmax(logits, dim=1)[:, 1:]
    return torch.cat([masks, _inner_rim(masks), torch.ones_like(masks[:, :1])], dim=1)


def _inner_rim(masks: Tensor) -> Tensor:
    eroded = masks
    for axis in range(2, masks.ndim):  # axis by axis and without max_pool, which on CPUs takes several times longer
        length = eroded.shape[axis]
        padded = torch.cat([eroded.narrow(axis, 0, 1), eroded, eroded.narrow(axis, length - 1, 1)], axis)
        eroded = torch.minimum(torch.minimum(padded.narrow(axis, 0, length), eroded), padded.narrow(axis, 2, length))
    return masks - eroded


def region_sums(sources: Sequence[Tensor], weights: Tensor) -> tuple[Tensor, ...]:
    """sum(w * f) as (B, W, C) for each of the sources (B, C, *coarse), and weights (B, W, *fine).

    Weights are averaged down to the grid of the source and scaled by the ratio of voxel counts, so that the sums are in
    voxels of the fine grid whatever the stride. Where strides divide, the weights are averaged from those of the source
    before, which is less work: means of means over equal parts are means. Channels go last, as they lie in memory where
    convolutions are fast, so that runtimes need not lay the source out anew.

    Examples:
        >>> source, masks = torch.tensor([[[1.0, 2, 3, 4]]]), torch.tensor([[[0.0, 1, 1, 0]]])
        >>> region_sums([source[..., None, :]], masks[..., None, :])[0].tolist()
        [[[5.0]]]
    """
    sums, coarse = [], weights
    for source in sources:
        grid = source.shape[2:]
        if _strides(weights, coarse.shape[2:]) is None or _strides(coarse, grid) is None:
            coarse = weights
        coarse = _average_down(coarse, grid)
        ratio = weights[0, 0].numel() / coarse[0, 0].numel()
        sums.append(ratio * torch.bmm(coarse.flatten(2).float(), source.movedim(1, -1).flatten(1, -2).float()))
    return tuple(sums)


def _average_down(weights: Tensor, grid: Sequence[int]) -> Tensor:
    """Mean over the voxels of each coarse one; plain pooling where strides divide the patch, for ONNX has no adaptive one."""
    if tuple(weights.shape[2:]) == tuple(grid):
        return weights
    strides = _strides(weights, grid)
    if strides is not None:
        return (functional.avg_pool3d if weights.ndim == 5 else functional.avg_pool2d)(weights, strides)
    pool = functional.adaptive_avg_pool3d if weights.ndim == 5 else functional.adaptive_avg_pool2d
    return pool(weights, list(grid))  # type: ignore[arg-type]


def _strides(weights: Tensor, grid: Sequence[int]) -> list[int] | None:
    """Voxels of the weights along each axis of one of the grid's; None where those are no whole numbers."""
    pairs = [(int(fine), int(coarse)) for fine, coarse in zip(weights.shape[2:], grid, strict=True)]  # int: also when traced
    return None if any(fine % coarse for fine, coarse in pairs) else [fine // coarse for fine, coarse in pairs]


def sum_channels(image: Tensor, stages: list[Tensor], weights: Tensor, tile_weight: Tensor | None = None) -> PooledSums:
    """Pool the image, its square and the chosen encoder stages.

    Args:
        image: (B, C, *spatial), the network's input.
        stages: encoder features (B, C_s, *coarse).
        weights: (B, W, *spatial), the masks of a :class:`Pooling`.
        tile_weight: (*spatial) or (B, 1, *spatial), this tile's share of every voxel in a sliding window; the shares of
            overlapping tiles add up to one. None counts every voxel once.
    """
    if tile_weight is not None:
        weights = weights * tile_weight
    sources = [torch.cat([image, image**2], dim=1), *stages]
    return PooledSums(region_sums(sources, weights), weights.flatten(2).sum(-1))
