"""Sliding-window inference of one preprocessed case: segmentation logits and pooled sums from the same pass.

Tiles, Gaussian and mirroring are those of nnU-Net (inference/predict_from_raw_data.py); accumulation is float32. Every tile
gets its share of each voxel (its Gaussian, outermost layer aside, over the sum of all tiles'), so that the pooled sums count
every voxel of the case exactly once.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window
from torch import Tensor

from nnduet.inference.labelling import undecided_box
from nnduet.network.pooling import PooledSums
from nnduet.runtimes.joint_pass import JointPass

__all__ = ["mirror_combinations", "predict_coarse_to_fine", "predict_tiles"]


def mirror_combinations(axes: Sequence[int]) -> list[tuple[int, ...]]:
    """Every combination of spatial axes, the empty one first: 8 for three axes, 1 for none.

    Examples:
        >>> mirror_combinations([0, 1])
        [(), (0,), (1,), (0, 1)]
    """
    return [c for size in range(len(axes) + 1) for c in itertools.combinations(axes, size)]


@torch.inference_mode()
def predict_tiles(
    run: JointPass,
    image: Tensor,
    patch_size: Sequence[int],
    *,
    step_size: float,
    mirror_axes: Sequence[int],
    device: torch.device,
    num_patches: int = 1,
    accumulator: torch.dtype = torch.float32,
    frugal: bool = False,
) -> tuple[Tensor, PooledSums]:
    """Predict a preprocessed image.

    Args:
        run: what computes patches, e.g. ``network.forward_joint``.
        image: (C, Z, Y, X) float32. It is padded with zeros up to the patch, as in training; the padding counts as part of
            the case for the global context.
        patch_size: two or three lengths; two predict slice by slice.
        step_size: distance of tiles as a share of the patch, in (0, 1].
        mirror_axes: spatial axes of the patch to mirror over; empty for no test-time augmentation.
        num_patches: how many patches ``run`` is given at once.
        accumulator: type of the logits that tiles are added to; float16 halves their memory.
        frugal: one patch at a time, added up on the CPU, so that the device holds no more than one pass.

    Returns:
        Logits (K, Z, Y, X) on the CPU, averaged over the mirrored passes, and the sums of the whole case,
        a row per pass (B = 8 for three mirrored axes, 1 for none).
    """
    padded, unpad = pad_nd_image(image, tuple(patch_size), "constant", {"value": 0}, True, None)
    place = torch.device("cpu") if frugal else device
    mirrored = mirror_combinations(mirror_axes)
    waiting = _passes(padded, patch_size, step_size, mirrored, device=device, place=place, accumulator=accumulator)
    logits: Tensor | None = None
    sums: PooledSums | None = None
    while batch := list(itertools.islice(waiting, 1 if frugal else num_patches)):
        outputs, pooled = run(torch.stack([each.patch for each in batch]), torch.stack([each.share for each in batch]))
        if logits is None:
            logits = torch.zeros((outputs.shape[1], *padded.shape[1:]), device=place, dtype=accumulator)
        for each, output in zip(batch, outputs, strict=True):
            restored = torch.flip(output, [a + 1 for a in mirrored[each.row]]).to(place, accumulator)
            logits[(slice(None), *each.tile)].addcmul_(restored, each.weight)
        by_row = pooled.scatter([each.row for each in batch], len(mirrored))
        sums = by_row if sums is None else sums + by_row
    assert logits is not None and sums is not None
    return logits[(slice(None), *unpad[1:])].cpu(), sums


class _Pass(NamedTuple):
    """A patch (C, *patch) on its way through the network with its share of each voxel (1, *patch), mirrored by the row of
    :func:`mirror_combinations`, and where its logits go: the tile, with a weight (*patch)."""

    tile: tuple[int | slice, ...]
    row: int
    patch: Tensor
    share: Tensor
    weight: Tensor


def _passes(
    padded: Tensor,
    patch_size: Sequence[int],
    step_size: float,
    mirrored: Sequence[tuple[int, ...]],
    *,
    device: torch.device,
    place: torch.device,
    accumulator: torch.dtype,
) -> Iterator[_Pass]:
    """Every tile in every mirroring; patches and shares on ``device``, weights on ``place``."""
    window = tuple(patch_size)
    gaussian = compute_gaussian(window, sigma_scale=1 / 8, value_scaling_factor=10, dtype=torch.float32, device=place)
    inner = gaussian * _inner(window, place)
    tiles = list(_tiles(tuple(padded.shape[1:]), patch_size, step_size))
    total, inner_total = (torch.zeros(padded.shape[1:], device=place) for _ in range(2))
    for tile in tiles:
        total[tile] += gaussian
        inner_total[tile] += inner
    for tile in tiles:
        patch, share = padded[(slice(None), *tile)].to(device), (inner / inner_total[tile])[None].to(device)
        weight = (gaussian / total[tile] / len(mirrored)).to(accumulator)
        for row, axes in enumerate(mirrored):
            flipped = [a + 1 for a in axes]
            yield _Pass(tile, row, torch.flip(patch, flipped), torch.flip(share, flipped), weight)


@torch.inference_mode()
def predict_coarse_to_fine(
    run: JointPass,
    image: Tensor,
    patch_size: Sequence[int],
    *,
    overlapping: bool,
    device: torch.device,
    num_patches: int = 1,
    accumulator: torch.dtype = torch.float32,
    frugal: bool = False,
) -> tuple[Tensor, PooledSums]:
    """Tiles side by side and without mirroring, then tiles at half a patch around the foreground that they found.

    The sums are those of the first tiles, which cover the whole case; other arguments and the result are as in
    :func:`predict_tiles`.

    Args:
        overlapping: whether the logits are regions that may overlap.
    """
    common = {
        "mirror_axes": (),
        "device": device,
        "num_patches": num_patches,
        "accumulator": accumulator,
        "frugal": frugal,
    }
    logits, sums = predict_tiles(run, image, patch_size, step_size=1.0, **common)  # type: ignore[arg-type]
    box = undecided_box(logits, overlapping=overlapping)
    if box is None or all(n <= p for n, p in zip(image.shape[-len(patch_size) :], patch_size, strict=True)):
        return logits, sums
    crop = (slice(None), *_grown(box, patch_size, tuple(image.shape[1:])))
    logits[crop], _ = predict_tiles(run, image[crop], patch_size, step_size=0.5, **common)  # type: ignore[arg-type]
    return logits, sums


def _grown(box: Sequence[slice], patch_size: Sequence[int], shape: Sequence[int]) -> tuple[slice, ...]:
    """The box with a quarter of the patch around it, at least as large as the patch where the image (Z, Y, X) is."""
    lengths = [*(1 for _ in range(3 - len(patch_size))), *patch_size]
    grown = []
    for part, length, end in zip(box, lengths, shape, strict=True):
        missing = max(length - (part.stop - part.start), 2 * (length // 4))
        first = min(max(part.start - missing // 2, 0), max(end - length, 0))
        grown.append(slice(first, min(max(part.stop + missing - missing // 2, first + length), end)))
    return tuple(grown)


def _inner(patch_size: tuple[int, ...], device: torch.device) -> Tensor:
    """Ones with nearly nothing in the outermost layer, where a tile cannot know the rims of its regions.

    Another tile that covers a voxel further inside then answers for it; at the border of the image the tile itself does.
    """
    weight = torch.ones(patch_size, device=device)
    for axis, length in enumerate(patch_size):  # a product, so that at the border of the image the other axes still count
        for face in (0, length - 1):
            weight.select(axis, face).mul_(1e-4)
    return weight


def _tiles(shape: tuple[int, ...], patch_size: Sequence[int], step_size: float) -> Iterator[tuple[int | slice, ...]]:
    """Index tuples of all tiles; in 2D every slice of the first axis is tiled by itself."""
    spatial = shape[-len(patch_size) :]
    starts = compute_steps_for_sliding_window(spatial, tuple(patch_size), step_size)
    slices: list[tuple[int, ...]] = [(z,) for z in range(shape[0])] if len(patch_size) < len(shape) else [()]
    for leading in slices:
        for corner in itertools.product(*starts):
            yield (*leading, *(slice(c, c + p) for c, p in zip(corner, patch_size, strict=True)))
