"""Areas of bodies whose surface is known."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy import ndimage

from nnduet.case_head.surface_area import area_of_faces, area_of_smooth_surface

ISOTROPIC = (1.0, 1.0, 1.0)


def area(mask: np.ndarray, spacing: tuple[float, ...] = ISOTROPIC) -> float:
    return area_of_smooth_surface([ndimage.label(mask)[0]], np.array(spacing))


def ball(radius_mm: float, spacing: tuple[float, ...] = ISOTROPIC, shift: tuple[float, ...] = (0, 0, 0)) -> np.ndarray:
    """Voxels whose centres lie in a ball, whose own centre is beside one by a share of a voxel."""
    reach = [int(np.ceil(radius_mm / step)) + 1 for step in spacing]
    axes = [(np.arange(-n, n + 1) + d) * step for n, d, step in zip(reach, shift, spacing, strict=True)]
    inside: np.ndarray = np.sum(np.stack(np.meshgrid(*axes, indexing="ij")) ** 2, axis=0) <= radius_mm**2
    return inside


@pytest.mark.parametrize("shift", [(0, 0, 0), (0.5, 0.5, 0.5), (0.3, 0.2, 0.45)])
@pytest.mark.parametrize(("radius", "most"), [(5, 0.04), (10, 0.02), (20, 0.02)])
def test_a_ball_has_the_surface_of_a_ball(radius: float, most: float, shift: tuple[float, ...]) -> None:
    assert area(ball(radius, shift=shift)) == pytest.approx(4 * np.pi * radius**2, rel=most)


def test_the_faces_of_a_ball_are_half_as_large_again() -> None:
    faces = area_of_faces([np.pad(ball(10), 1)], np.array(ISOTROPIC))
    assert faces == pytest.approx(1.5 * 4 * np.pi * 100, rel=0.02)


@pytest.mark.parametrize("spacing", [(3.0, 1.0, 1.0), (2.5, 0.7, 0.7), (1.0, 2.0, 1.0)])
def test_thick_slices_make_the_surface_of_a_ball_little_larger(spacing: tuple[float, ...]) -> None:
    assert area(ball(10, spacing), spacing) == pytest.approx(4 * np.pi * 100, rel=0.05)


def test_the_area_is_in_square_millimetres() -> None:
    assert area(ball(10), (3.0, 3.0, 3.0)) == pytest.approx(9 * area(ball(10)), rel=1e-5)


def test_a_large_box_has_the_surface_of_a_box_but_for_its_edges() -> None:
    assert area(np.ones((10, 20, 30), bool), (2.0, 1.0, 1.0)) == pytest.approx(2 * (20 * 20 + 20 * 30 + 20 * 30), rel=0.02)


def test_a_plate_of_one_slice_has_two_sides() -> None:
    assert area(np.ones((1, 20, 20), bool)) == pytest.approx(2 * 400 + 4 * 20, rel=0.1)
    assert area(np.ones((1, 20, 20), bool), (5.0, 1.0, 1.0)) == pytest.approx(2 * 400 + 4 * 20 * 5, rel=0.1)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 2), (1, 2, 2), (1, 3, 3), (1, 1, 9), (2, 2, 2)])
def test_so_few_voxels_that_no_form_shows_count_as_a_ball(shape: tuple[int, ...]) -> None:
    radius = np.cbrt(np.prod(shape) * 2 / (4 / 3 * np.pi))
    assert area(np.ones(shape, bool), (2.0, 1.0, 1.0)) == pytest.approx(4 * np.pi * radius**2)


@pytest.mark.parametrize("shape", [(1, 1, 10), (1, 1, 40), (1, 2, 5), (3, 3, 3)])
def test_rods_and_plates_have_about_the_area_of_their_faces(shape: tuple[int, ...]) -> None:
    found, faces = area(np.ones(shape, bool)), area_of_faces([np.pad(np.ones(shape, bool), 1)], np.array(ISOTROPIC))
    assert 0.65 * faces < found < 1.2 * faces


def test_no_voxel_has_no_area() -> None:
    assert area(np.zeros((3, 3, 3), bool)) == 0
    assert area_of_smooth_surface([], np.array(ISOTROPIC)) == 0


def test_what_fills_up_while_it_is_smoothed_has_an_area() -> None:
    """A ring of voxels, in whose hollow the smoothed values are the largest, and a ball that is hollow."""
    ring = np.ones((1, 4, 4), bool)
    ring[0, 1:3, 1:3] = False
    shell = ball(6) & ~np.pad(ball(4), 2)
    for mask in (ring, shell):
        assert np.isfinite(area(mask)) and area(mask) > 0
    assert area(shell) > area(ball(6))


def test_pieces_add_up_and_their_order_makes_no_difference() -> None:
    one, other = ball(4), ball(7)
    labels = [ndimage.label(mask)[0] for mask in (one, other, np.ones((1, 1, 1), bool))]
    together = area_of_smooth_surface(labels, np.array(ISOTROPIC))
    assert together == area_of_smooth_surface(labels[::-1], np.array(ISOTROPIC))
    assert together == pytest.approx(area(one) + area(other) + area(np.ones((1, 1, 1), bool)))


def test_ten_thousand_specks_take_no_second() -> None:
    specks = np.zeros((60, 60, 60), bool)
    specks[::3, ::3, ::2] = True
    started = time.process_time()
    found = area(specks)
    assert time.process_time() - started < 1
    assert found == pytest.approx(specks.sum() * (36 * np.pi) ** (1 / 3))
