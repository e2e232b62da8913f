"""Descriptors of masks whose sizes can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from nnduet.case_head import descriptors
from nnduet.case_head.descriptors import describe_regions, descriptor_names

SPACING = (2.0, 1.0, 1.0)


def describe(
    *masks: np.ndarray,
    image: np.ndarray | None = None,
    spacing: tuple[float, ...] = SPACING,
    version: int = 2,
) -> dict[str, float]:
    """{name: value} of regions called a, b, ... in an image of zeros."""
    stacked = np.stack(masks).astype(bool)
    image = np.zeros((1, *stacked.shape[1:]), np.float32) if image is None else image[None].astype(np.float32)
    names = descriptor_names("abc"[: len(masks)], 1)
    return dict(zip(names, describe_regions(image, stacked, spacing, version).tolist(), strict=True))


def box(shape: tuple[int, int, int] = (8, 12, 12), z: int = 4, y: int = 6, x: int = 6, start: int = 1) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[start : start + z, start : start + y, start : start + x] = True
    return mask


def test_the_volume_is_in_cubic_millimetres() -> None:
    assert np.expm1(describe(box())["a log_volume"]) == pytest.approx(4 * 6 * 6 * 2.0)


FACES = 2 * (8 * 6 + 8 * 6 + 6 * 6)
"""Of a box of 4 x 6 x 6 voxels."""


def test_the_surface_of_a_box_is_nearly_the_sum_of_its_faces() -> None:
    assert 0.88 * FACES < np.expm1(describe(box())["a log_surface"]) < FACES


def test_a_region_at_the_border_of_the_image_has_the_same_surface_there() -> None:
    assert describe(np.ones((4, 6, 6)))["a log_surface"] == pytest.approx(describe(box())["a log_surface"])


def test_the_surface_of_the_first_version_is_the_sum_of_the_faces_of_voxels() -> None:
    for mask in (box(), np.ones((4, 6, 6))):
        assert np.expm1(describe(mask, version=1)["a log_surface"]) == pytest.approx(FACES)


def test_versions_differ_in_the_surface_and_the_sphericity_alone() -> None:
    new, old = describe(box()), describe(box(), version=1)
    assert {name for name, value in new.items() if value != old[name]} == {"a log_surface", "a sphericity"}


def test_nothing_is_rounder_than_a_ball() -> None:
    for mask in (box(z=1, y=1, x=1), box(z=1, y=1, x=2), box(z=3, y=3, x=3), box()):
        assert 0 < describe(mask, spacing=(1, 1, 1))["a sphericity"] <= 1 + 1e-12


def test_a_cube_is_equally_long_along_all_axes_and_a_rod_is_not() -> None:
    cube = describe(box(z=3, y=6, x=6))
    rod = describe(box(z=1, y=1, x=10))
    assert cube["a elongation"] == pytest.approx(1.0, abs=0.05)
    assert rod["a elongation"] < 0.2


def test_a_ball_is_rounder_than_a_plate() -> None:
    grid = np.stack(np.meshgrid(*[np.arange(15) - 7.0] * 3, indexing="ij"))
    ball = describe((grid**2).sum(0) <= 36, spacing=(1, 1, 1))
    plate = describe(box((15, 15, 15), z=2, y=12, x=12), spacing=(1, 1, 1))
    assert ball["a sphericity"] > plate["a sphericity"] + 0.1


def test_the_thickness_of_a_wide_plate_is_that_across_it() -> None:
    plate = describe(box((20, 24, 24), z=5, y=20, x=20), spacing=(1, 1, 1))
    assert plate["a thickness_max"] == pytest.approx(6.0)  # the distance is to the centre of the next voxel outside


def test_thick_slices_are_measured_one_by_one() -> None:
    thin = describe(box(z=1, y=5, x=10), spacing=(8.0, 1.0, 1.0))
    assert thin["a thickness_max"] == pytest.approx(6.0)


def test_two_pieces_are_counted_and_the_larger_has_its_share() -> None:
    mask = box(z=1, y=1, x=3) | box(z=1, y=1, x=1, start=6)
    found = describe(mask)
    assert np.expm1(found["a log_components"]) == pytest.approx(2)
    assert found["a largest_share"] == pytest.approx(0.75)


def test_intensities_are_those_inside_against_those_around() -> None:
    mask = box()
    found = describe(mask, image=np.where(mask, 3.0, 1.0))
    assert found["a mean of channel 0"] == pytest.approx(3.0)
    assert found["a deviation of channel 0"] == pytest.approx(0.0)
    assert found["a contrast of channel 0"] == pytest.approx(2.0)


def test_a_bright_core_in_a_dark_rim_shows() -> None:
    mask, core = box((9, 9, 9), z=7, y=7, x=7), box((9, 9, 9), z=3, y=3, x=3, start=3)
    assert describe(mask, image=np.where(core, 5.0, 0.0), spacing=(1, 1, 1))["a core_minus_rim of channel 0"] > 1


def test_an_empty_region_has_no_volume_and_nothing_else() -> None:
    found = describe(np.zeros((4, 6, 6)), box((4, 6, 6), 2, 2, 2))
    assert found["a log_volume"] == 0
    others = [value for name, value in found.items() if name.startswith("a ") and name != "a log_volume"]
    assert np.isnan(others).all()
    assert np.isfinite([value for name, value in found.items() if name.startswith("b ")]).all()


def test_the_volume_ratio_of_a_pair_is_a_difference_of_logarithms() -> None:
    found = describe(box(z=4), box(z=2))
    assert found["a to b log_volume_ratio"] == pytest.approx(np.log1p(288) - np.log1p(144))


def test_contact_is_the_share_of_the_first_surface_that_faces_the_second() -> None:
    left, right = np.zeros((6, 6, 6), bool), np.zeros((6, 6, 6), bool)
    left[2:4, 2:4, 1:3], right[2:4, 2:4, 3:5] = True, True
    assert describe(left, right, spacing=(1, 1, 1))["a to b contact"] == pytest.approx(1 / 6)


def test_centroids_are_apart_in_millimetres_over_the_larger_diameter() -> None:
    left, right = np.zeros((1, 4, 20), bool), np.zeros((1, 4, 20), bool)
    left[0, 1, 2], right[0, 1, 12] = True, True
    assert describe(left, right, spacing=(1, 1, 1))["a to b centroid_distance"] == pytest.approx(10.0)


def test_no_region_gives_no_descriptor() -> None:
    assert describe_regions(np.zeros((1, 2, 2, 2), np.float32), np.zeros((0, 2, 2, 2), bool), SPACING).size == 0


def scattered(rng: np.random.Generator, shape: tuple[int, ...], kind: str) -> np.ndarray:
    masks = np.zeros((2, *shape), bool)
    if kind == "noise":
        noise: np.ndarray = rng.random((2, *shape)) < rng.choice([0.0005, 0.01, 0.3])
        return noise
    if kind == "full":
        masks[:, 0, 0, 0] = masks[0] = True
        return masks
    for _ in range(6):
        corner = [int(rng.integers(0, size)) for size in shape]
        masks[int(rng.integers(0, 2))][tuple(slice(max(c - 3, 0), c + 4) for c in corner)] = True
    return masks


@pytest.mark.parametrize("kind", ["noise", "full", "blobs"])
def test_row_95_descriptors_measured_in_local_boxes_are_the_same_to_the_last_digit(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    cases = []
    for shape in ((40, 50, 60), (1, 60, 50), (30, 9, 70), (5, 33, 34)):
        image = rng.normal(size=(2, *shape)).astype(np.float32)
        cases.append((image, scattered(rng, shape, kind), rng.choice([0.5, 0.7, 1.0, 3.0], 3).tolist()))
    local = [describe_regions(*case) for case in cases]
    monkeypatch.setattr(descriptors, "_boxes", lambda mask: [(slice(None),) * 3])
    for found, case in zip(local, cases, strict=True):
        np.testing.assert_array_equal(found, describe_regions(*case))


def test_row_95_distant_parts_have_boxes_of_their_own_that_do_not_touch() -> None:
    mask = np.zeros((64, 64, 64), bool)
    mask[5:9, 5:9, 5:9] = mask[50, 50, 50] = mask[5, 5, 60] = True
    boxes = descriptors._boxes(mask)
    counts = np.zeros(mask.shape, int)
    for box in boxes:
        counts[box] += 1
    assert len(boxes) == 3 and counts.max() == 1 and counts[mask].min() == 1
    assert counts.sum() < 0.05 * counts.size
