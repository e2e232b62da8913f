"""Where voxels lie in the world, and whether two images lie in the same place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nnduet.errors import GeometryError

__all__ = [
    "DIRECTION_TOLERANCE",
    "ORIGIN_TOLERANCE_MM",
    "SPACING_TOLERANCE",
    "Geometry",
    "check_same_geometry",
    "farthest_corner_mm",
    "geometries_match",
]

SPACING_TOLERANCE = 1e-3  # relative, per axis
DIRECTION_TOLERANCE = 1e-3  # absolute, per cosine
ORIGIN_TOLERANCE_MM = 1e-2  # per axis


@dataclass(frozen=True)
class Geometry:
    """Grid of an image. A PNG has shape (1, Y, X), spacing 1 mm, origin 0 and the identity for lack of anything better.

    ``shape`` and ``spacing_mm`` are (Z, Y, X). ``origin_mm`` is the (x, y, z) of voxel 0 in LPS and ``direction`` the nine
    cosines, row-major, both as ITK gives them.
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    origin_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

    def affine_ras(self) -> npt.NDArray[np.float64]:
        """The 4x4 matrix from voxel (x, y, z) to RAS millimetres, as NIfTI headers want it.

        Examples:
            >>> Geometry((4, 5, 6), spacing_mm=(3.0, 2.0, 1.0), origin_mm=(10.0, 0.0, 5.0)).affine_ras().tolist()
            [[-1.0, 0.0, 0.0, -10.0], [0.0, -2.0, 0.0, 0.0], [0.0, 0.0, 3.0, 5.0], [0.0, 0.0, 0.0, 1.0]]
        """
        to_ras = np.diag([-1.0, -1.0, 1.0])
        affine = np.eye(4)
        affine[:3, :3] = to_ras @ np.reshape(self.direction, (3, 3)) @ np.diag(self.spacing_mm[::-1])
        affine[:3, 3] = to_ras @ np.asarray(self.origin_mm)
        return affine

    def __str__(self) -> str:
        spacing = ", ".join(f"{value:.6g}" for value in self.spacing_mm)
        origin = ", ".join(f"{value:.6g}" for value in self.origin_mm)
        direction = ", ".join(f"{value:.4g}" for value in self.direction)
        return f"shape (Z,Y,X) {self.shape}, spacing_mm ({spacing}), origin_mm ({origin}), direction ({direction})"


def geometries_match(first: Geometry, second: Geometry) -> bool:
    """Same shape, and spacing within 0.1 %, direction cosines within 1e-3, origin within 0.01 mm.

    Examples:
        >>> thin, thick = Geometry((4, 5, 6)), Geometry((4, 5, 6), spacing_mm=(2.0, 1.0, 1.0))
        >>> geometries_match(thin, thin), geometries_match(thin, thick)
        (True, False)
        >>> geometries_match(thin, Geometry((4, 5, 6), origin_mm=(0.005, 0.0, 0.0)))
        True
    """
    return (
        first.shape == second.shape
        and bool(np.allclose(first.spacing_mm, second.spacing_mm, rtol=SPACING_TOLERANCE, atol=0.0))
        and bool(np.allclose(first.direction, second.direction, rtol=0.0, atol=DIRECTION_TOLERANCE))
        and bool(np.allclose(first.origin_mm, second.origin_mm, rtol=0.0, atol=ORIGIN_TOLERANCE_MM))
    )


def check_same_geometry(expected: Geometry, got: Geometry, case_id: str, what: str) -> None:
    """Refuse ``what`` (e.g. "mask") of a case when it does not lie on the grid of the image.

    Raises:
        GeometryError: with both headers and the names of the fields that differ.
    """
    if geometries_match(expected, got):
        return
    fields = [
        name
        for name, differs in (
            ("shape", expected.shape != got.shape),
            ("spacing", not np.allclose(expected.spacing_mm, got.spacing_mm, rtol=SPACING_TOLERANCE, atol=0.0)),
            ("origin", not np.allclose(expected.origin_mm, got.origin_mm, rtol=0.0, atol=ORIGIN_TOLERANCE_MM)),
            ("direction", not np.allclose(expected.direction, got.direction, rtol=0.0, atol=DIRECTION_TOLERANCE)),
        )
        if differs
    ]
    raise GeometryError(f"{case_id}: {what} differs in {', '.join(fields)}: expected {expected}; got {got}")


def farthest_corner_mm(first: Geometry, second: Geometry) -> float:
    """How far the corners of two grids lie apart at most, which no other voxel exceeds; infinity for other shapes.

    Examples:
        >>> farthest_corner_mm(Geometry((4, 5, 6)), Geometry((4, 5, 6), origin_mm=(3.0, 4.0, 0.0)))
        5.0
        >>> farthest_corner_mm(Geometry((4, 5, 6)), Geometry((4, 5, 7)))
        inf
    """
    if first.shape != second.shape:
        return float("inf")
    ends = [(0, size - 1) for size in first.shape[::-1]]
    corners = np.array([(x, y, z, 1) for x in ends[0] for y in ends[1] for z in ends[2]], dtype=np.float64)
    apart = corners @ (first.affine_ras() - second.affine_ras()).T
    return float(np.linalg.norm(apart[:, :3], axis=1).max())
