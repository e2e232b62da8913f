"""Shape, volume and intensity descriptors of the predicted regions of a case, and of pairs of regions.

On ACDC hand-made features of masks alone are far above an end-to-end joint network (docs/explanation-evidence.md, 6).
numpy and scipy only; everything is measured in mm on the preprocessed grid.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nnduet.case_head.surface_area import area_of_faces, area_of_smooth_surface

__all__ = ["DESCRIPTORS_VERSION", "KNOWN_VERSIONS", "describe_regions", "descriptor_names"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
_Box = tuple[slice, ...]

DESCRIPTORS_VERSION = 2
"""What descriptors mean: 2, the surface of a region is smooth; 1, it is that of its voxels. Stored features and heads carry the
number of what they were made of, none for 1, and go on with it."""
KNOWN_VERSIONS = (1, 2)

_BLOCK = 8
"""Voxels; parts of a region that are farther apart are measured each in their own box."""

THIN_SLICES = 2.5
"""Above this ratio of slice to pixel spacing, thickness is measured within the slices: steps between them are too coarse."""

_SHAPE = (
    "log_volume",
    "log_surface",
    "sphericity",
    "log_axis_1",
    "log_axis_2",
    "log_axis_3",
    "elongation",
    "flatness",
    "thickness_p10",
    "thickness_p50",
    "thickness_p90",
    "thickness_max",
    "area_variation",
    "log_components",
    "largest_share",
)
_INTENSITY = ("mean", "deviation", "p05", "p50", "p95", "skewness", "contrast", "core_minus_rim")
_PAIR = ("log_volume_ratio", "thickness_ratio", "contact", "centroid_distance")


def descriptor_names(regions: Sequence[str], num_channels: int) -> tuple[str, ...]:
    """Names of the descriptors in the order of :func:`describe_regions`, e.g. ``"lesion sphericity"``.

    Examples:
        >>> names = descriptor_names(["lesion"], num_channels=1)
        >>> names[0], all(name.startswith("lesion ") for name in names)
        ('lesion log_volume', True)
    """
    intensities = [f"{name} of channel {c}" for c in range(num_channels) for name in _INTENSITY]
    single = [f"{region} {name}" for region in regions for name in (*_SHAPE, *intensities)]
    pairs = [f"{a} to {b} {name}" for a, b in itertools.combinations(regions, 2) for name in _PAIR]
    return (*single, *pairs)


def describe_regions(
    image: NDArray[np.float32], masks: Mask, spacing_mm: Sequence[float], version: int = DESCRIPTORS_VERSION
) -> Array:
    """Describe every region and every pair of regions.

    Args:
        image: (C, Z, Y, X), preprocessed intensities.
        masks: (R, Z, Y, X) bool; regions may overlap.
        spacing_mm: (Z, Y, X) of this grid.
        version: one of :data:`KNOWN_VERSIONS`.

    Returns:
        (F,) in the order of :func:`descriptor_names`. The volume of an empty region is 0 (as log(1 + mm³)); its other
        descriptors, and those of its pairs, are NaN.
    """
    spacing = np.asarray(spacing_mm, dtype=float)
    regions = [_Region.measure(image, mask, spacing, version) for mask in masks]
    single = [region.descriptors for region in regions]
    pairs = [_pair(a, b, spacing) for a, b in itertools.combinations(regions, 2)]
    return np.concatenate([*single, *pairs]) if regions else np.zeros(0)


@dataclass(frozen=True)
class _Region:
    mask: Mask
    descriptors: Array
    centroid_mm: Array

    @classmethod
    def measure(cls, image: NDArray[np.float32], mask: Mask, spacing: Array, version: int) -> _Region:
        size = len(_SHAPE) + len(_INTENSITY) * len(image)
        if not mask.any():
            values = np.full(size, np.nan)
            values[0] = 0.0
            return cls(mask, values, np.full(3, np.nan))
        box = _bounding_box(mask, margin=3)
        inside = np.pad(mask[box], 1)  # the image's border is a border of the region too
        boxes = _boxes(inside)
        depth = _depth(inside, spacing, boxes)
        shape, centroid = _shape(inside, depth, spacing, boxes, version)
        shell = _shell(inside, boxes)[1:-1, 1:-1, 1:-1]
        grey = [_intensity(channel[box], mask[box], shell, depth[inside]) for channel in image]
        offset = np.array([s.start - 1 for s in box]) * spacing
        return cls(mask, np.concatenate([shape, *grey]), centroid + offset)


def _bounding_box(mask: Mask, margin: int) -> tuple[slice, ...]:
    """The smallest box around a mask (Z, Y, X) with a voxel in it, grown by ``margin`` voxels within the mask's array."""
    (found,) = ndimage.find_objects(mask.astype(np.uint8))
    return tuple(slice(max(s.start - margin, 0), s.stop + margin) for s in found)


def _boxes(mask: Mask, block: int = _BLOCK) -> list[_Box]:
    """Boxes that hold all voxels of a mask and are at least a block apart, each with a margin of two voxels within the array.

    What depends on the neighbourhood of a voxel, or on the way to the next voxel outside, is the same within its box: all
    voxels that are nearer than that next one are inside, and connected. So specks far from each other cost no more than their
    own boxes. No voxels give no boxes.
    """
    occupied = np.zeros([-(-size // block) for size in mask.shape], dtype=bool)
    occupied[tuple(np.argwhere(mask).T // block)] = True
    num_occupied = -1
    while num_occupied != occupied.sum():  # filled boxes may touch others, and are one with them then
        num_occupied = occupied.sum()
        found = ndimage.find_objects(ndimage.label(occupied, structure=np.ones((3, 3, 3)))[0])
        for box in found:
            occupied[box] = True
    return [tuple(slice(max(s.start * block - 2, 0), s.stop * block + 2) for s in box) for box in found]


def _depth(mask: Mask, spacing: Array, boxes: Sequence[_Box]) -> Array:
    """Distance in mm to the outside, 0 outside; within slices where these are far apart."""
    flat = mask.shape[0] == 3 or spacing[0] > THIN_SLICES * max(spacing[1:])  # 3: one slice and its padding
    depth = np.zeros(mask.shape)
    for box in boxes:
        depth[box] = _depth_within_slices(mask[box], spacing) if flat else _distances(mask[box], spacing)
    return depth


def _depth_within_slices(mask: Mask, spacing: Array) -> Array:
    return np.stack([_distances(plane, spacing[1:]) for plane in mask])


def _distances(mask: Mask, spacing: Array) -> Array:
    return np.asarray(ndimage.distance_transform_edt(mask, sampling=spacing))


def _shape(mask: Mask, depth: Array, spacing: Array, boxes: Sequence[_Box], version: int) -> tuple[Array, Array]:
    """The descriptors of ``_SHAPE`` and the centroid in mm from the corner of the mask."""
    volume = float(mask.sum() * spacing.prod())
    pieces = [ndimage.label(mask[box])[0] for box in boxes]
    surface = area_of_faces([mask[box] for box in boxes], spacing) if version == 1 else area_of_smooth_surface(pieces, spacing)
    points = np.argwhere(mask) * spacing
    spread = np.cov(points.T) if len(points) > 1 else np.zeros((3, 3))
    axes = np.sqrt(np.maximum(np.linalg.eigvalsh(spread)[::-1], (spacing**2).min() / 12))  # 1/12: variance within a voxel
    thickness = np.concatenate([_thickness(mask[box], depth[box]) for box in boxes])
    areas = mask.sum(axis=(1, 2))[mask.any(axis=(1, 2))]
    sizes = np.concatenate([np.bincount(labels.ravel())[1:] for labels in pieces])
    values = [
        np.log1p(volume),
        np.log1p(surface),
        np.pi ** (1 / 3) * (6 * volume) ** (2 / 3) / surface,
        *np.log(axes),
        axes[1] / axes[0],
        axes[2] / axes[0],
        *np.percentile(thickness, (10, 50, 90)),
        thickness.max(),
        areas.std() / areas.mean(),
        np.log1p(sizes.size),
        sizes.max() / mask.sum(),
    ]
    return np.array(values), points.mean(axis=0)


def _thickness(mask: Mask, depth: Array) -> Array:
    """Twice the depth in mm along the ridge: the voxels that are the deepest of their neighbourhood in the slice."""
    ridge = mask & (depth >= ndimage.maximum_filter(depth, size=(1, 3, 3)))
    return np.asarray(2 * depth[ridge])


def _shell(mask: Mask, boxes: Sequence[_Box]) -> Mask:
    """What lies within two steps outside a mask."""
    shell = np.zeros(mask.shape, dtype=bool)
    for box in boxes:
        shell[box] = ndimage.binary_dilation(mask[box], iterations=2) & ~mask[box]
    return shell


def _intensity(channel: NDArray[np.float32], mask: Mask, shell: Mask, depth: Array) -> Array:
    """The descriptors of ``_INTENSITY`` of one channel; ``depth`` (N,) of the voxels inside, the core is deeper than half."""
    inside = channel[mask].astype(float)
    outside = channel[shell].mean() if shell.any() else np.nan
    core = depth > depth.max() / 2
    deviation = inside.std()
    difference = inside[core].mean() - inside[~core].mean() if core.any() and not core.all() else 0.0
    skewness = ((inside - inside.mean()) ** 3).mean() / deviation**3 if deviation > 1e-6 else 0.0
    quantiles = np.percentile(inside, (5, 50, 95))
    return np.array([inside.mean(), deviation, *quantiles, skewness, inside.mean() - outside, difference])


def _pair(a: _Region, b: _Region, spacing: Array) -> Array:
    """The descriptors of ``_PAIR``; NaN where one of the regions is empty."""
    if not (a.mask.any() and b.mask.any()):
        return np.full(len(_PAIR), np.nan)
    volume, thickness = _SHAPE.index("log_volume"), _SHAPE.index("thickness_p50")
    diameter = np.cbrt(np.expm1(max(a.descriptors[volume], b.descriptors[volume])))
    return np.array(
        [
            a.descriptors[volume] - b.descriptors[volume],
            np.log(a.descriptors[thickness] / b.descriptors[thickness]),
            _contact(a.mask, b.mask, spacing),
            np.linalg.norm(a.centroid_mm - b.centroid_mm) / diameter,
        ]
    )


def _contact(a: Mask, b: Mask, spacing: Array) -> float:
    """Share of the first region's surface that faces the second, in [0, 1]."""
    box = _bounding_box(a, margin=1)
    inside, other = np.pad(a[box], 1), np.pad(b[box], 1) & ~np.pad(a[box], 1)
    faces = spacing.prod() / spacing
    touching = 0.0
    for axis, area in enumerate(faces):
        first, second = [slice(None)] * 3, [slice(None)] * 3
        first[axis], second[axis] = slice(None, -1), slice(1, None)
        ahead = inside[tuple(first)] & other[tuple(second)]
        behind = inside[tuple(second)] & other[tuple(first)]
        touching += float((ahead.sum() + behind.sum()) * area)
    return touching / area_of_faces([inside], spacing)
