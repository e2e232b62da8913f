"""Region pooling as a ratio of sums, so that the tiles of a case add up to the case.

For an encoder stage f and a soft mask w, the pooled feature is sum(w * f) / sum(w). Every foreground region has two masks:
itself and the rim inside its boundary, where capsules and margins show; the last mask is the global context
(w = 1). Numerators and denominators are kept apart in :class:`PooledSums` and added over tiles; the division comes last.

Source: mask-guided pooling with global context, shared/EVIDENCE.md item 4. The ratio of sums and the rim are
nnDuet's own; the first makes training on one patch and sliding-window inference mean the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn import functional

__all__ = [
    "PooledSums",
    "feature_blocks",
    "num_features",
    "region_sums",
    "region_weights",
    "sum_channels",
    "sum_stages",
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
        numerators: one tensor (B, 2R + 1, C_s) per pooled source: sum(w * f). The first source is the image and its square.
        volumes: (B, 2R + 1), sum(w) in voxels of the preprocessed image: regions, their inner rims, all voxels.
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


def num_features(num_regions: int, num_image_channels: int, stage_channels: list[int]) -> int:
    """Length F of :meth:`PooledSums.features` for R foreground regions; none and no image channels for :func:`sum_stages`."""
    return 2 * num_regions + (2 * num_regions + 1) * (2 * num_image_channels + sum(stage_channels))


def feature_blocks(num_regions: int, num_image_channels: int, stage_channels: dict[int, int]) -> dict[str, range]:
    """Where in the features what stands: "intensity" (volumes, intensities) where there are any, then "stage 0", ...

    ``stage_channels`` maps the pooled encoder stages, in their order, to their channels.
    """
    weights = 2 * num_regions + 1
    lengths = {"intensity": 2 * num_regions + weights * 2 * num_image_channels}
    lengths |= {f"stage {stage}": weights * channels for stage, channels in stage_channels.items()}
    ends = dict(zip(lengths, accumulate(lengths.values()), strict=True))
    return {name: range(ends[name] - length, ends[name]) for name, length in lengths.items() if length}


def region_weights(logits: Tensor, *, overlapping: bool) -> Tensor:
    """Soft masks (B, 2R + 1, *spatial) in [0, 1] from segmentation logits, detached, float32.

    The R regions, their R inner rims (mask minus its grey erosion over one voxel), and ones. ``overlapping``: logits are
    independent regions (sigmoid, B, R, ...); else channel 0 is background (softmax, B, R + 1, ...).
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
        weights: (B, 2R + 1, *spatial) from :func:`region_weights`.
        tile_weight: (*spatial) or (B, 1, *spatial), this tile's share of every voxel in a sliding window; the shares of
            overlapping tiles add up to one. None counts every voxel once.
    """
    if tile_weight is not None:
        weights = weights * tile_weight
    sources = [torch.cat([image, image**2], dim=1), *stages]
    return PooledSums(region_sums(sources, weights), weights.flatten(2).sum(-1))


def sum_stages(image: Tensor, stages: list[Tensor], tile_weight: Tensor | None = None) -> PooledSums:
    """Pool the chosen encoder stages over all voxels alike: plain global average pooling, without regions or intensities.

    The sums are those of an image without channels and without foreground regions; the arguments are those of
    :func:`sum_channels`. For ablations.
    """
    return sum_channels(image[:, :0], stages, torch.ones_like(image[:, :1]), tile_weight)
