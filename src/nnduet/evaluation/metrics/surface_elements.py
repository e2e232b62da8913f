"""How large the piece of a surface is that passes between eight voxels, or four pixels, given which of them are inside.

Copied from DeepMind's surface-distance (Apache License 2.0), as MONAI has it: marching cubes makes up to four triangles for
each of the 256 neighbourhoods. MONAI itself is the oracle of the tests and no dependency: importing it takes longer than
scoring a case.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["contour_lengths", "surface_areas"]

FloatArray = npt.NDArray[np.float64]

_TRIANGLES = (
    "000000000000111000000000111000000000220220000000111000000000202202000000111111000000400222111000111000000000111111000000"
    "202202000000400222111000220220000000400222111000400222111000400400000000111000000000022022000000111111000000040222111000"
    "111111000000004222111000111111111000111222222111111111000000022022111000202202111000111333022202111220220000333022111220"
    "400111222111400111222000111000000000111111000000022022000000040111222000111111000000111202202000022022111000333022111202"
    "111111000000111111111000004222111000222222111111111220220000400222111111022333111220400222111000220220000000040222111000"
    "040111222000040040000000220220111000333202111220111040222111040222111000111220220000040222111111333220111202040222111000"
    "220220220220220220111000111220220000220220000000111000000000111111000000111111000000111220220000022022000000004222111000"
    "022022111000333022111220111111000000111111111000111202202000400222111111040222111000222222111111202333022111400222111000"
    "202202000000004222111000111202202000202333220111004222111000004004000000111111222004111222004000202202111000004222111111"
    "202202202202111202202000202333220111004222111000111202202000202202000000111111000000111111111000111022022000040111222111"
    "022022111000004222111111022022022022022022111000111111111000111111111111004222111111111111111000040222111111111111111000"
    "022022111000111111000000400222111000222111222111333022111202040222111000333220022111111222004000111022022000022022000000"
    "400222111111111111111000202202111000111111000000220220111000111111000000111111000000111000000000"
)
"""Normals of the triangles of codes 0 to 127, four of three components (z, y, x) each, without their signs, in eighths of a
voxel; their length is the area. Code 255 - c has those of c: what is inside and outside has changed places."""


def surface_areas(spacing_mm: Sequence[float]) -> FloatArray:
    """Areas in mm² (256,) of the surface elements by neighbourhood code, for voxels of a size (Z, Y, X).

    In float32, the sums of squares fused, and only then float64: so does torch, and the areas are MONAI's to the last digit.

    Source: Nikolov et al., JMIR 23 (2021), https://github.com/google-deepmind/surface-distance.
    """
    half = np.array([int(digit) for digit in _TRIANGLES], np.float32).reshape(128, 4, 3) / np.float32(8)
    z, y, x = spacing_mm
    squares = (np.concatenate([half, half[::-1]]) * np.array([y * x, z * x, z * y]).astype(np.float32)).astype(float) ** 2
    total = squares[..., 0].astype(np.float32)
    for axis in (1, 2):
        total = (squares[..., axis] + total).astype(np.float32)
    triangles = np.sqrt(total)
    areas = triangles[:, 0]
    for triangle in (1, 2, 3):
        areas = areas + triangles[:, triangle]
    return areas.astype(float)


def contour_lengths(spacing_mm: Sequence[float]) -> FloatArray:
    """Lengths in mm (16,) of the contour elements by neighbourhood code, for pixels of a size (Y, X)."""
    y, x = spacing_mm
    corner = 0.5 * float(np.linalg.norm(spacing_mm))
    lengths = np.full(16, corner)  # one pixel is unlike the other three
    lengths[[0b0000, 0b1111]] = 0.0
    lengths[[0b0011, 0b1100]] = x
    lengths[[0b0101, 0b1010]] = y
    lengths[[0b0110, 0b1001]] = 2 * corner
    return lengths
