"""Surfaces of masks as lists of elements, so that time and memory follow the surface and not the box around it.

Between each 2 x 2 x 2 voxels lies a corner of the dual grid; where they are not all inside or all outside, a piece of surface
passes, whose area follows from which of the eight are inside. Masks are gone through slice by slice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from nnduet.evaluation.metrics.surface_elements import contour_lengths, surface_areas

__all__ = ["Surface", "distances_to", "surface_of"]

Mask = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float64]

_WEIGHTS = (8, 4, 2, 1)
"""Of the neighbours (y, x), (y, x + 1), (y + 1, x), (y + 1, x + 1) in the neighbourhood code; times 16 for the slice before."""


@dataclass(frozen=True)
class Surface:
    """N elements: places ``points_mm`` (N, 3), or (N, 2) of a contour, and areas in mm² (N,), or lengths in mm."""

    points_mm: FloatArray
    areas: FloatArray


def surface_of(mask: Mask, spacing_mm: Sequence[float]) -> Surface:
    """The surface of a mask (Z, Y, X), or the contour of a slice (Y, X); the array's border counts. No voxels, no elements.

    Source: marching cubes as in DeepMind's surface-distance, see :mod:`nnduet.evaluation.metrics.surface_elements`.
    """
    flat = mask.ndim == 2
    places, codes = _elements(iter([_slice_code(mask)]), 15) if flat else _elements(_surface_codes(mask), 255)
    areas = contour_lengths(spacing_mm) if flat else surface_areas(spacing_mm)
    return Surface((places[:, 1:] if flat else places) * np.asarray(spacing_mm, dtype=float), areas[codes])


def _surface_codes(mask: Mask) -> Iterator[Codes]:
    """Codes (Y + 1, X + 1) of the corners before the first slice, between each two, and behind the last one."""
    before = np.zeros((mask.shape[1] + 1, mask.shape[2] + 1), np.uint8)
    nothing = before
    for part in mask:
        here = _slice_code(part) if part.any() else nothing
        yield 16 * before + here
        before = here
    yield 16 * before


def _slice_code(part: Mask) -> Codes:
    """Code (Y + 1, X + 1) in 0 to 15 of the four neighbours of each corner."""
    code = np.zeros((part.shape[0] + 1, part.shape[1] + 1), np.uint8)
    corners = (code[1:, 1:], code[1:, :-1], code[:-1, 1:], code[:-1, :-1])
    for weight, corner in zip(_WEIGHTS, corners, strict=True):
        corner += np.uint8(weight) * part
    return code


def _elements(slices: Iterator[Codes], alike: int) -> tuple[npt.NDArray[np.int64], Codes]:
    """Places (N, 3) and codes (N,) of the corners whose neighbours are not all outside (0) or all inside (``alike``)."""
    places, codes = [np.zeros((0, 3), np.int64)], [np.zeros(0, np.uint8)]
    for number, code in enumerate(slices):
        rows, columns = np.nonzero((code != 0) & (code != alike))
        places.append(np.stack([np.full(rows.size, number), rows, columns], axis=1))
        codes.append(code[rows, columns])
    return np.concatenate(places), np.concatenate(codes)


def distances_to(others: FloatArray, points: FloatArray) -> FloatArray:
    """How far each of the points (N, D) is from the nearest of the others (M, D), M at least 1; (N,)."""
    tree = cKDTree(others, balanced_tree=False, compact_nodes=False)  # which is built sooner, and finds as fast
    distances, _ = tree.query(points)
    return np.asarray(distances)
