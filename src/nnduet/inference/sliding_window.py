"""Sliding-window inference of one preprocessed case: segmentation logits and pooled sums from the same pass.

Tiles, Gaussian and mirroring are those of nnU-Net (inference/predict_from_raw_data.py); accumulation is float32. Every tile
gets its share of each voxel (its Gaussian, outermost layer aside, over the sum of all tiles'), so that the pooled sums count
every voxel of the case exactly once.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import nullcontext

import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window
from torch import Tensor

from nnduet.model.heads import JointNetwork
from nnduet.model.pooling import PooledSums

__all__ = ["mirror_combinations", "predict_tiles"]

BATCH_VOXELS = 2**19
"""Mirrored versions of a patch go through the network together up to this many voxels; small patches alone do not fill the
processor."""


def mirror_combinations(axes: Sequence[int]) -> list[tuple[int, ...]]:
    """Every combination of spatial axes, the empty one first: 8 for three axes, 1 for none."""
    return [c for size in range(len(axes) + 1) for c in itertools.combinations(axes, size)]


@torch.inference_mode()
def predict_tiles(
    network: JointNetwork,
    image: Tensor,
    patch_size: Sequence[int],
    *,
    step_size: float,
    mirror_axes: Sequence[int],
    device: torch.device,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, PooledSums]:
    """Predict a preprocessed image.

    Args:
        image: (C, Z, Y, X) float32. It is padded with zeros up to the patch, as in training; the padding counts as part of
            the case for the global context.
        patch_size: two or three lengths; two predict slice by slice.
        step_size: distance of tiles as a share of the patch, in (0, 1].
        mirror_axes: spatial axes of the patch to mirror over; empty for no test-time augmentation.
        dtype: autocast type, None for float32.

    Returns:
        Logits (K, Z, Y, X) float32 on the CPU, averaged over the mirrored passes, and the sums of the whole case,
        a row per pass (B = 8 for three mirrored axes, 1 for none).
    """
    padded, unpad = pad_nd_image(image, tuple(patch_size), "constant", {"value": 0}, True, None)
    gaussian = compute_gaussian(
        tuple(patch_size), sigma_scale=1 / 8, value_scaling_factor=10, dtype=torch.float32, device=device
    )
    tiles = list(_tiles(tuple(padded.shape[1:]), patch_size, step_size))
    inner = gaussian * _inner(tuple(patch_size), device)
    total, inner_total = (torch.zeros(padded.shape[1:], device=device) for _ in range(2))
    for tile in tiles:
        total[tile] += gaussian
        inner_total[tile] += inner
    logits: Tensor | None = None
    sums: PooledSums | None = None
    context = nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)
    with context:
        for tile in tiles:
            patch = padded[(slice(None), *tile)][None].to(device)
            prediction, pooled = _mirrored(network, patch, inner / inner_total[tile], mirror_axes)
            if logits is None:
                logits = torch.zeros((prediction.shape[0], *padded.shape[1:]), device=device)
            logits[(slice(None), *tile)].addcmul_(prediction, gaussian)
            sums = pooled if sums is None else sums + pooled
    assert logits is not None and sums is not None
    return (logits / total)[(slice(None), *unpad[1:])].cpu(), sums


def _inner(patch_size: tuple[int, ...], device: torch.device) -> Tensor:
    """Ones with nearly nothing in the outermost layer, where a tile cannot know the rims of its regions.

    Another tile that covers a voxel further inside then answers for it; at the border of the image the tile itself does.
    """
    weight = torch.ones(patch_size, device=device)
    for axis, length in enumerate(patch_size):  # a product, so that at the border of the image the other axes still count
        for face in (0, length - 1):
            weight.select(axis, face).mul_(1e-4)
    return weight


def _mirrored(network: JointNetwork, patch: Tensor, share: Tensor, mirror_axes: Sequence[int]) -> tuple[Tensor, PooledSums]:
    """Mean logits (K, *patch) over all mirrored versions of a patch (1, C, *patch), and the sums of each."""
    combinations = mirror_combinations(mirror_axes)
    together = max(1, BATCH_VOXELS // share.numel())
    logits: Tensor | None = None
    sums: list[PooledSums] = []
    for start in range(0, len(combinations), together):
        batch = combinations[start : start + together]
        patches = torch.cat([torch.flip(patch, [a + 2 for a in axes]) for axes in batch])
        shares = torch.stack([torch.flip(share, axes) for axes in batch])[:, None]
        outputs, pooled = network.forward_joint(patches, shares)
        for axes, output in zip(batch, outputs, strict=True):
            restored = torch.flip(output, [a + 1 for a in axes]).float()
            logits = restored if logits is None else logits + restored
        sums.append(pooled)
    assert logits is not None
    return logits / len(combinations), PooledSums.stack(sums)


def _tiles(shape: tuple[int, ...], patch_size: Sequence[int], step_size: float) -> Iterator[tuple[int | slice, ...]]:
    """Index tuples of all tiles; in 2D every slice of the first axis is tiled by itself."""
    spatial = shape[-len(patch_size) :]
    starts = compute_steps_for_sliding_window(spatial, tuple(patch_size), step_size)
    slices: list[tuple[int, ...]] = [(z,) for z in range(shape[0])] if len(patch_size) < len(shape) else [()]
    for leading in slices:
        for corner in itertools.product(*starts):
            yield (*leading, *(slice(c, c + p) for c, p in zip(corner, patch_size, strict=True)))
