from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from data_builders import AFFINE, GRID

from nnduet.errors import GeometryError
from nnduet.io.geometry import Geometry, check_same_geometry, geometries_match


def test_the_affine_goes_from_voxels_to_ras_millimetres() -> None:
    np.testing.assert_allclose(GRID.affine_ras(), AFFINE)


def test_an_equal_grid_matches_up_to_the_stated_tolerances() -> None:
    near = replace(GRID, spacing_mm=(4.003, 3.0, 2.0), origin_mm=(-10.009, -20.0, 30.0))
    assert geometries_match(GRID, near)
    check_same_geometry(GRID, near, "case", "mask")


@pytest.mark.parametrize(
    ("other", "fields"),
    [
        (replace(GRID, shape=(4, 5, 7)), "shape"),
        (replace(GRID, spacing_mm=(4.0, 3.0, 2.1)), "spacing"),
        (replace(GRID, origin_mm=(-10.0, -20.0, 30.02)), "origin"),
        (replace(GRID, direction=Geometry(GRID.shape).direction), "direction"),
    ],
)
def test_another_grid_is_refused_with_both_headers_and_the_field(other: Geometry, fields: str) -> None:
    assert not geometries_match(GRID, other)
    with pytest.raises(GeometryError) as raised:
        check_same_geometry(GRID, other, "case7", "mask")
    message = str(raised.value)
    assert message.startswith(f"case7: mask differs in {fields}:") and str(GRID) in message and str(other) in message
