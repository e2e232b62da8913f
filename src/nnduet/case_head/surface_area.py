"""The area of a region's surface: of a smooth surface through its voxels, or, as stored heads may read it, of voxel faces."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import marching_cubes, mesh_surface_area

__all__ = ["area_of_faces", "area_of_smooth_surface"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_SMOOTHING_VOXELS, _REACH_VOXELS = 1.0, 2
"""Deviation of the Gaussian along each axis, and how many voxels it looks at on either side."""

_FEWEST_VOXELS = 10
"""Pieces of fewer voxels are taken for balls: so few do not tell another form apart."""

_BELOW_MOST = 0.999
"""Of the largest smoothed value, at which a surface is drawn at most, where hollows fill up while a piece is smoothed."""


def area_of_faces(masks: Sequence[Mask], spacing_mm: Array) -> float:
    """Area in mm² of all faces between a voxel inside and one outside, of masks (Z, Y, X) with a border outside.

    That of a ball is 1.5 times what it should be, however small the voxels are. No voxels have no area.
    """
    faces = [sum(int(np.diff(mask, axis=axis).sum()) for mask in masks) for axis in range(3)]
    return float(sum(number * area for number, area in zip(faces, spacing_mm.prod() / spacing_mm, strict=True)))


def area_of_smooth_surface(pieces: Sequence[NDArray[np.integer[Any]]], spacing_mm: Array) -> float:
    """Area in mm² of the surfaces of connected pieces.

    A piece is smoothed by a Gaussian of one voxel, and its surface drawn by marching cubes where it encloses as many voxels as
    the piece has, so that nothing shrinks or vanishes. It is never less than that of the ball of the same volume, which is the
    smallest surface there is; pieces of fewer than ten voxels have that one. Of balls of 5 voxels radius and more the result
    lies within 4 %, of 10 and more within 1 %. Corners and edges are rounded, which takes 1 % off a box of 20 voxels, and a
    tenth off a plate of a single voxel.

    Args:
        pieces: labels (Z, Y, X) of parts of a region, 0 outside and 1, 2, ... in each piece; no piece lies in two parts.
        spacing_mm: (Z, Y, X).

    Returns:
        The sum over all pieces, which does not depend on their order; 0 without any.

    Source: Lorensen and Cline, Marching Cubes, SIGGRAPH 1987, in the form of Lewiner et al., Journal of Graphics Tools 8(2),
    2003, by scikit-image.
    """
    areas = []
    for labels in pieces:
        sizes = np.bincount(labels.ravel())[1:]
        areas += [_area_of_ball(size * spacing_mm.prod()) for size in sizes[sizes < _FEWEST_VOXELS].tolist()]
        large = np.flatnonzero(sizes >= _FEWEST_VOXELS).tolist()
        boxes = ndimage.find_objects(labels) if large else []
        areas += [_area_of_piece(labels[boxes[index]] == index + 1, spacing_mm) for index in large]
    return math.fsum(areas)


def _area_of_ball(volume_mm3: float) -> float:
    return float(np.pi ** (1 / 3) * (6 * volume_mm3) ** (2 / 3))


def _area_of_piece(mask: Mask, spacing_mm: Array) -> float:
    """Area in mm² of one connected piece (Z, Y, X)."""
    size = int(np.count_nonzero(mask))
    smooth = np.pad(mask, _REACH_VOXELS + 1).astype(np.float32)
    smooth = ndimage.gaussian_filter(smooth, _SMOOTHING_VOXELS, radius=_REACH_VOXELS, mode="constant", output=smooth)
    last_inside = smooth.size - size
    inside = np.partition(smooth, (last_inside - 1, last_inside), axis=None)[last_inside - 1 : last_inside + 1]
    level = min(float(inside.mean()), _BELOW_MOST * float(smooth.max()))
    vertices, triangles, _, _ = marching_cubes(smooth, level, spacing=tuple(spacing_mm))
    return max(float(mesh_surface_area(vertices, triangles)), _area_of_ball(size * float(spacing_mm.prod())))
