"""Margins of masks and images whose outline, edge and surroundings are known by construction."""

from __future__ import annotations

import numpy as np
import pytest

from nnduet.model.margins import describe_margins, margin_names

SHAPE = (5, 40, 40)
SPACING = (2.0, 1.0, 1.0)
Z, Y, X = np.meshgrid(*[np.arange(n, dtype=float) - n // 2 for n in SHAPE], indexing="ij")


def describe(mask: np.ndarray, image: np.ndarray | None = None, spacing: tuple[float, ...] = SPACING) -> dict[str, float]:
    """{name: value} of one region in an image of one channel."""
    image = np.zeros(mask.shape) if image is None else image
    values = describe_margins(image[None].astype(np.float32), mask[None].astype(bool), spacing)
    names = (name.removeprefix("a ").removesuffix(" of channel 0") for name in margin_names(["a"], 1))
    return dict(zip(names, values.tolist(), strict=True))


def rod(height: int, width: int, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[2:3, 10 : 10 + height, 10 : 10 + width] = True
    return mask


def star(lobes: int, depth: float) -> np.ndarray:
    """A disk of radius 12 whose radius swings so many times."""
    return (abs(Z) < 2) & (np.hypot(Y, X) <= 12 * (1 + depth * np.cos(lobes * np.arctan2(Y, X))))


def test_a_box_is_solid_and_a_cross_lacks_its_corners() -> None:
    cross = rod(9, 3) | np.roll(rod(3, 9), (3, -3), axis=(1, 2))
    assert describe(rod(6, 9))["solidity"] == pytest.approx(1.0)
    assert describe(cross)["solidity"] == pytest.approx((9 * 3 + 2 * 3 * 3) / (9 * 9 - 4 * 3 * 3 / 2))


def test_a_region_that_lies_is_oriented_and_one_that_stands_is_not() -> None:
    assert describe(rod(4, 16))["orientation"] == pytest.approx(1 - (4**2 - 1) / (16**2 - 1))
    assert describe(rod(16, 4))["orientation"] == pytest.approx(0.0, abs=1e-6)


def test_millimetres_decide_which_axis_is_long() -> None:
    assert describe(rod(4, 8), spacing=(1.0, 3.0, 1.0))["orientation"] == pytest.approx(0.0, abs=1e-6)


def test_the_outline_is_that_of_the_border_pixels() -> None:
    assert describe(rod(10, 10))["outline_length"] == pytest.approx(np.log(36 / 10))


def test_lobes_make_an_outline_rough_and_spikes_make_it_less_lobulated() -> None:
    disk, lobed, spiked = (describe(star(lobes, depth)) for lobes, depth in ((5, 0.0), (5, 0.3), (12, 0.3)))
    assert disk["roughness"] < lobed["roughness"] - 0.5
    assert lobed["lobulation"] > spiked["lobulation"] + 1


def test_holes_do_not_change_the_outline() -> None:
    ring = rod(12, 12) & ~np.roll(rod(4, 4), (4, 4), axis=(1, 2))
    assert describe(ring)["outline_length"] == describe(rod(12, 12))["outline_length"]


def test_a_stray_voxel_changes_nothing() -> None:
    stray = rod(6, 9)
    stray[0, 39, 39] = True
    image = np.hypot(Y, X)
    assert describe(stray, image) == describe(rod(6, 9), image)


def test_a_sharp_edge_is_steeper_than_a_blurred_one_and_falls_outward_from_a_bright_region() -> None:
    mask = star(5, 0.0)
    sharp, blurred = (describe(mask, 1 / (1 + np.exp((np.hypot(Y, X) - 12) / width))) for width in (0.1, 3.0))
    assert sharp["edge"] > 1.5 * blurred["edge"]
    assert sharp["edge_outward"] == pytest.approx(-sharp["edge"], rel=0.1)


def test_the_gradient_is_per_millimetre() -> None:
    ramp, mask = X * 3.0, star(5, 0.0)
    assert describe(mask, ramp)["edge"] == pytest.approx(3.0, rel=1e-3)
    assert describe(mask, ramp, spacing=(2.0, 2.0, 2.0))["edge"] == pytest.approx(1.5, rel=1e-3)


def test_an_even_edge_varies_less_than_one_that_is_open_on_a_side() -> None:
    mask = star(5, 0.0)
    half = np.where(mask | (X > 0), 1.0, 0.0)
    assert describe(mask, half)["edge_variation"] > describe(mask, np.where(mask, 1.0, 0.0))["edge_variation"] + 0.3


def test_a_shadow_below_is_dark_beyond_along_y_only() -> None:
    mask = star(5, 0.0)
    found = describe(mask, np.where((Y > 0) & (abs(X) < 15), -2.0, 1.0))
    assert found["beyond_y"] == pytest.approx(-3.0, abs=0.05)
    assert found["beyond_x"] == pytest.approx(0.0, abs=0.1)


def test_beyond_the_image_nothing_is_known() -> None:
    found = describe(np.ones(SHAPE, bool), X)
    assert all(np.isnan(found[f"beyond_{axis}"]) for axis in "zyx") and np.isnan(found["edge"])
    assert found["solidity"] == pytest.approx(1.0)


def test_a_single_slice_has_edges_but_nothing_beyond_across_it() -> None:
    disk = star(5, 0.0)[2:3]
    found = describe(disk, np.where(disk, 1.0, 0.0))
    assert np.isnan(found.pop("beyond_z")) and np.isfinite(list(found.values())).all()


def test_one_voxel_is_described_without_warnings() -> None:
    mask = np.zeros(SHAPE, bool)
    mask[2, 20, 20] = True
    assert np.isfinite(list(describe(mask, X).values())).all()


def test_channels_follow_each_other() -> None:
    mask = star(5, 0.0)[None]
    both = describe_margins(np.stack([X, 2 * X]).astype(np.float32), mask, SPACING)
    first, second = both[5:12], both[12:]
    assert second[[0, 2, 3, 5, 6]] == pytest.approx(2 * first[[0, 2, 3, 5, 6]], abs=1e-5)


def test_an_empty_region_is_undefined_and_no_region_has_no_descriptors() -> None:
    assert np.isnan(list(describe(np.zeros(SHAPE, bool)).values())).all()
    assert describe_margins(np.zeros((1, 2, 2, 2), np.float32), np.zeros((0, 2, 2, 2), bool), SPACING).size == 0
