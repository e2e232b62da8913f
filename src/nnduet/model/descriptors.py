"""Shape, volume and intensity descriptors of the predicted regions of a case, and of pairs of regions.

Hand-made features of masks alone reach 90 % on ACDC where an end-to-end joint network reached 78 % (shared/EVIDENCE.md item 6).
numpy and scipy only; everything is measured in mm on the preprocessed grid.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["describe_regions", "descriptor_names"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

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
    """Names of the descriptors in the order of :func:`describe_regions`, e.g. ``"lesion sphericity"``."""
    intensities = [f"{name} of channel {c}" for c in range(num_channels) for name in _INTENSITY]
    single = [f"{region} {name}" for region in regions for name in (*_SHAPE, *intensities)]
    pairs = [f"{a} to {b} {name}" for a, b in itertools.combinations(regions, 2) for name in _PAIR]
    return (*single, *pairs)


def describe_regions(image: NDArray[np.float32], masks: Mask, spacing_mm: Sequence[float]) -> Array:
    """Describe every region and every pair of regions.

    Args:
        image: (C, Z, Y, X), preprocessed intensities.
        masks: (R, Z, Y, X) bool; regions may overlap.
        spacing_mm: (Z, Y, X) of this grid.

    Returns:
        (F,) in the order of :func:`descriptor_names`. The volume of an empty region is 0 (as log(1 + mm³)); its other
        descriptors, and those of its pairs, are NaN.
    """
    spacing = np.asarray(spacing_mm, dtype=float)
    regions = [_Region.measure(image, mask, spacing) for mask in masks]
    single = [region.descriptors for region in regions]
    pairs = [_pair(a, b, spacing) for a, b in itertools.combinations(regions, 2)]
    return np.concatenate([*single, *pairs]) if regions else np.zeros(0)


@dataclass(frozen=True)
class _Region:
    mask: Mask
    descriptors: Array
    centroid_mm: Array

    @classmethod
    def measure(cls, image: NDArray[np.float32], mask: Mask, spacing: Array) -> _Region:
        size = len(_SHAPE) + len(_INTENSITY) * len(image)
        if not mask.any():
            values = np.full(size, np.nan)
            values[0] = 0.0
            return cls(mask, values, np.full(3, np.nan))
        box = _bounding_box(mask, margin=3)
        inside = np.pad(mask[box], 1)  # the image's border is a border of the region too
        depth = _depth(inside, spacing)
        shape, centroid = _shape(inside, depth, spacing)
        grey = [_intensity(channel[box], inside[1:-1, 1:-1, 1:-1], depth[1:-1, 1:-1, 1:-1]) for channel in image]
        offset = np.array([s.start - 1 for s in box]) * spacing
        return cls(mask, np.concatenate([shape, *grey]), centroid + offset)


def _bounding_box(mask: Mask, margin: int) -> tuple[slice, ...]:
    """The smallest box around a mask (Z, Y, X) with a voxel in it, grown by ``margin`` voxels within the mask's array."""
    (found,) = ndimage.find_objects(mask.astype(np.uint8))
    return tuple(slice(max(s.start - margin, 0), s.stop + margin) for s in found)


def _depth(mask: Mask, spacing: Array) -> Array:
    """Distance in mm to the outside, 0 outside; within slices where these are far apart."""
    if mask.shape[0] == 3 or spacing[0] > THIN_SLICES * max(spacing[1:]):  # 3: one slice and its padding
        return np.stack([ndimage.distance_transform_edt(plane, sampling=spacing[1:]) for plane in mask])
    return np.asarray(ndimage.distance_transform_edt(mask, sampling=spacing))


def _shape(mask: Mask, depth: Array, spacing: Array) -> tuple[Array, Array]:
    """The descriptors of ``_SHAPE`` and the centroid in mm from the corner of the mask."""
    volume = float(mask.sum() * spacing.prod())
    surface = _surface(mask, spacing)
    points = np.argwhere(mask) * spacing
    spread = np.cov(points.T) if len(points) > 1 else np.zeros((3, 3))
    axes = np.sqrt(np.maximum(np.linalg.eigvalsh(spread)[::-1], (spacing**2).min() / 12))  # 1/12: variance within a voxel
    thickness = _thickness(mask, depth)
    areas = mask.sum(axis=(1, 2))[mask.any(axis=(1, 2))]
    parts, count = ndimage.label(mask)
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
        np.log1p(count),
        np.bincount(parts.ravel())[1:].max() / mask.sum(),
    ]
    return np.array(values), points.mean(axis=0)


def _surface(mask: Mask, spacing: Array) -> float:
    """Area in mm² of the voxel faces between inside and outside."""
    faces = spacing.prod() / spacing
    return float(sum(np.diff(mask, axis=axis).sum() * area for axis, area in enumerate(faces)))


def _thickness(mask: Mask, depth: Array) -> Array:
    """Twice the depth in mm along the ridge: the voxels that are the deepest of their neighbourhood in the slice."""
    ridge = mask & (depth >= ndimage.maximum_filter(depth, size=(1, 3, 3)))
    return np.asarray(2 * depth[ridge])


def _intensity(channel: NDArray[np.float32], mask: Mask, depth: Array) -> Array:
    """The descriptors of ``_INTENSITY`` of one channel; the shell is two voxels wide, the core deeper than half the depth."""
    inside = channel[mask].astype(float)
    shell = ndimage.binary_dilation(mask, iterations=2) & ~mask
    outside = channel[shell].mean() if shell.any() else np.nan
    core = depth[mask] > depth.max() / 2
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
    return touching / _surface(inside, spacing)
