"""How the predicted regions of a case are bounded: outline, edge, and what lies beyond on either side.

The shapes of :mod:`nnduet.model.descriptors` say how large and how round a region is; these say how jagged and how sharp its
margin is, how it lies in the image, and whether it casts a shadow: what a reader of ultrasound looks at (margin, orientation
and posterior features of the lexicon of ACR BI-RADS Ultrasound, 5th edition, 2013). All are of the largest connected piece, so
that a stray voxel far away does not change them. numpy and scipy only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull

from nnduet.model.descriptors import bounding_box

__all__ = ["describe_margins", "margin_names"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

ANGLES = 64
"""Directions in which the radius of an outline is read."""
LOBES, SPIKES = slice(3, 8), slice(8, None)
"""Harmonics of the radius: 0 to 2 are its size, its centre and an ellipse; then lobes, then what is finer than a lobe."""
EDGE_PIXELS = 1.5
"""The edge are the voxels at most so many pixels from the border, on either side."""
TINY = 1e-6

_OUTLINE = ("solidity", "orientation", "outline_length", "roughness", "lobulation")
_SURROUNDINGS = ("edge", "edge_variation", "edge_outward", "edge_outward_deviation", "beyond_z", "beyond_y", "beyond_x")


def margin_names(regions: Sequence[str], num_channels: int) -> tuple[str, ...]:
    """Names of the descriptors in the order of :func:`describe_margins`, e.g. ``"lesion solidity"``."""
    surroundings = [f"{name} of channel {c}" for c in range(num_channels) for name in _SURROUNDINGS]
    return tuple(f"{region} {name}" for region in regions for name in (*_OUTLINE, *surroundings))


def describe_margins(image: NDArray[np.float32], masks: Mask, spacing_mm: Sequence[float]) -> Array:
    """Describe the margin of every region.

    For each region, of its largest slice unless said otherwise:

    - solidity: area over the area of the convex hull, summed over the slices; in (0, 1], 1 is convex.
    - orientation: |cos| of the angle between the long axis and x, times 1 - the ratio of the variances across and along; in
      [0, 1], 0 is round or upright (taller than wide).
    - outline_length: log of the pixels of the border over the root of those of the area.
    - roughness, lobulation: logs of the amplitude of the harmonics of the radius from the third on, over its mean, and of the
      share of the lobes (harmonics 3 to 7) in relation to what is finer. Fourier descriptors of a contour: Zahn and Roskies,
      IEEE Trans. Computers 21 (1972).

    and for each channel:

    - edge, edge_variation: mean, and deviation over mean, of the gradient's magnitude per mm along the edge, in all slices.
    - edge_outward and its deviation: of the gradient along the outward normal; below 0 for a bright region.
    - beyond_z, beyond_y, beyond_x: mean intensity just beyond the region in the positive direction of the axis less that in the
      negative direction, half the region's extent deep; below 0 along y for a shadow under an ultrasound lesion.

    Args:
        image: (C, Z, Y, X), preprocessed intensities.
        masks: (R, Z, Y, X) bool; regions may overlap.
        spacing_mm: (Z, Y, X) of this grid.

    Returns:
        (F,) in the order of :func:`margin_names`; NaN for an empty region, and beyond one that ends at the image's border.
    """
    spacing = np.asarray(spacing_mm, dtype=float)
    described = [_margin(image, mask, spacing) for mask in masks]
    return np.concatenate(described) if described else np.zeros(0)


def _margin(image: NDArray[np.float32], mask: Mask, spacing: Array) -> Array:
    if not mask.any():
        return np.full(len(_OUTLINE) + len(_SURROUNDINGS) * len(image), np.nan)
    found = bounding_box(mask)
    piece, within = _largest_piece(mask[found])
    extent = tuple(slice(f.start + w.start, f.start + w.stop) for f, w in zip(found, within, strict=True))
    edges = _edges(image, piece, extent, spacing)
    beyond = np.array([_beyond(image, piece, extent, axis) for axis in range(3)])
    return np.concatenate([_outline(piece, spacing), *np.concatenate([edges, beyond]).T])


def _largest_piece(mask: Mask) -> tuple[Mask, tuple[slice, ...]]:
    """The largest connected piece, cropped to it, and where it is in the mask."""
    parts, _ = ndimage.label(mask)
    largest = int(np.bincount(parts.ravel())[1:].argmax()) + 1
    within = ndimage.find_objects(parts)[largest - 1]
    return parts[within] == largest, within


def _outline(piece: Mask, spacing: Array) -> Array:
    """The descriptors of ``_OUTLINE`` of a cropped piece."""
    areas = piece.sum(axis=(1, 2))
    solidity = areas.sum() / sum(_hull_area(plane) for plane in piece if plane.any())
    filled = ndimage.binary_fill_holes(np.pad(piece[areas.argmax()], 1))
    points = np.argwhere(filled) * spacing[1:]
    variances, axes = np.linalg.eigh(np.cov(points.T) if len(points) > 1 else np.eye(2))
    border = np.argwhere(filled & ~ndimage.binary_erosion(filled)) * spacing[1:]
    amplitudes = _harmonics(border - points.mean(axis=0))
    lobes, spikes = amplitudes[LOBES].sum(), amplitudes[SPIKES].sum()
    return np.array(
        [
            solidity,
            abs(axes[1, 1]) * (1 - variances[0] / max(variances[1], TINY)),
            np.log(len(border) / np.sqrt(len(points))),
            np.log(lobes + spikes + 1e-4),  # a circle of some hundred pixels has about 1e-2
            np.log(lobes / (spikes + 1e-4) + 1e-4),
        ]
    )


def _hull_area(plane: Mask) -> float:
    """Area in pixels of the convex hull of the corners of the pixels of a plane (Y, X) that are set."""
    rows = np.flatnonzero(plane.any(axis=1))
    first, last = plane[rows].argmax(axis=1), plane.shape[1] - plane[rows, ::-1].argmax(axis=1)
    corners = [np.stack([rows + side, ends], axis=1) for side in (0, 1) for ends in (first, last)]
    return float(ConvexHull(np.concatenate(corners)).volume)


def _harmonics(border: Array) -> Array:
    """Amplitudes (ANGLES / 2 + 1,) of the radius, over its mean, of border points (N, 2) around the centre."""
    angles, radius = np.arctan2(border[:, 0], border[:, 1]), np.linalg.norm(border, axis=1)
    directions = np.linspace(-np.pi, np.pi, ANGLES, endpoint=False)
    read = np.interp(directions, angles, radius, period=2 * np.pi)
    return np.asarray(np.abs(np.fft.rfft(read / max(read.mean(), TINY))) / ANGLES)


def _edges(image: NDArray[np.float32], piece: Mask, extent: tuple[slice, ...], spacing: Array) -> Array:
    """(4, C): the descriptors of the edge, from gradients of the slices smoothed by one pixel."""
    margin = 6  # the smoothing reaches four pixels beyond the edge
    box = tuple(slice(max(s.start - margin, 0), min(s.stop + margin, n)) for s, n in zip(extent, image.shape[1:], strict=True))
    inside = np.zeros([b.stop - b.start for b in box], bool)
    inside[tuple(slice(s.start - b.start, s.stop - b.start) for s, b in zip(extent, box, strict=True))] = piece
    near = _ball(EDGE_PIXELS * spacing[1:].min(), spacing)
    edge = ndimage.binary_dilation(inside, near) & ndimage.binary_dilation(~inside, near)
    if not edge.any():
        return np.full((4, len(image)), np.nan)
    normal = -_gradient(inside.astype(np.float32), spacing, edge)
    normal /= np.linalg.norm(normal, axis=0) + TINY
    measured = []
    for channel in image:
        slope = _gradient(channel[box], spacing, edge)
        steepness, along = np.linalg.norm(slope, axis=0), (slope * normal).sum(axis=0)
        measured.append([steepness.mean(), steepness.std() / (steepness.mean() + TINY), along.mean(), along.std()])
    return np.array(measured).T


def _ball(radius: float, spacing: Array) -> Mask:
    """The offsets of at most ``radius`` mm on a grid, as a structuring element."""
    reach = (radius / spacing).astype(int)
    offsets = np.stack(np.meshgrid(*[np.arange(-r, r + 1) for r in reach], indexing="ij"), axis=-1) * spacing
    return np.asarray(np.linalg.norm(offsets, axis=-1) <= radius)


def _gradient(volume: NDArray[np.float32], spacing: Array, where: Mask) -> Array:
    """(3, N) gradient per mm at some voxels of a volume (Z, Y, X) smoothed within its slices; 0 across a single slice."""
    smooth = ndimage.gaussian_filter(volume, (0, 1, 1))
    at, slopes = np.nonzero(where), []
    for axis, step in enumerate(spacing):
        ahead, behind = list(at), list(at)
        ahead[axis], behind[axis] = np.minimum(at[axis] + 1, volume.shape[axis] - 1), np.maximum(at[axis] - 1, 0)
        steps = np.maximum(ahead[axis] - behind[axis], 1)
        slopes.append((smooth[tuple(ahead)].astype(float) - smooth[tuple(behind)]) / (steps * step))
    return np.stack(slopes)


def _beyond(image: NDArray[np.float32], piece: Mask, extent: tuple[slice, ...], axis: int) -> Array:
    """(C,): mean intensity beyond the region along an axis less that before it; NaN where the image ends."""
    here = extent[axis]
    depth = max(1, (here.stop - here.start) // 2)
    box = list(extent)
    box[axis] = slice(max(here.start - depth, 0), min(here.stop + depth, image.shape[axis + 1]))
    before, after = here.start - box[axis].start, box[axis].stop - here.stop
    inside = np.moveaxis(np.pad(piece, [(before, after) if a == axis else (0, 0) for a in range(3)]), axis, 0)
    first, last = inside.argmax(axis=0), len(inside) - 1 - inside[::-1].argmax(axis=0)
    index = np.arange(len(inside))[:, None, None]
    met = inside.any(axis=0)
    above, below = met & (index > last) & (index <= last + depth), met & (index < first) & (index >= first - depth)
    if not (above.any() and below.any()):
        return np.full(len(image), np.nan)
    crops = [np.moveaxis(channel[tuple(box)], axis, 0) for channel in image]
    return np.array([float(crop[above].mean()) - float(crop[below].mean()) for crop in crops])
