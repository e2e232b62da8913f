"""Matrices zoom as nnU-Net's own resampling does."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape
from nnunetv2.preprocessing.resampling.resample_torch import resample_torch_fornnunet

from nnduet.inference.resampling import Resampling, apply_matrix, axis_matrix, is_default

FLAT = (1.0, 1.0, 1.0)
THICK = (5.0, 1.0, 1.0)
SHAPES = [((9, 21, 17), (13, 12, 30)), ((9, 21, 17), (5, 40, 17)), ((1, 21, 17), (1, 13, 40)), ((2, 3, 4), (7, 7, 7))]


def both(
    old_shape: tuple[int, ...], new_shape: tuple[int, ...], old_spacing: tuple[float, ...], order: int, **options: object
) -> tuple[np.ndarray, np.ndarray]:
    """What the matrices give and what nnU-Net gives for two channels of noise."""
    data = np.random.default_rng(0).normal(size=(2, *old_shape)).astype(np.float32)
    given = {"order": order, "order_z": 0, "force_separate_z": None, **options}
    expected = resample_data_or_seg_to_shape(data.copy(), new_shape, old_spacing, FLAT, is_seg=False, **given)
    found = Resampling.of(old_shape, new_shape, old_spacing, FLAT, **given)(torch.from_numpy(data))  # type: ignore[arg-type]
    return found.numpy(), expected


@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize(("old_shape", "new_shape"), SHAPES)
@pytest.mark.parametrize("spacing", [FLAT, THICK, (1.0, 1.0, 5.0)])
def test_matrices_zoom_as_nnunet_does(
    old_shape: tuple[int, ...], new_shape: tuple[int, ...], spacing: tuple[float, ...], order: int
) -> None:
    found, expected = both(old_shape, new_shape, spacing, order)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize("order_z", [0, 1, 2, 3])
@pytest.mark.parametrize("depths", [(6, 15), (15, 6), (4, 2), (3, 9)])
@pytest.mark.parametrize("separate", [True, False])
def test_the_coarse_axis_can_be_forced_and_have_an_order_of_its_own(
    separate: bool, depths: tuple[int, int], order_z: int
) -> None:
    old, new = depths
    found, expected = both((old, 12, 12), (new, 20, 9), THICK, 3, force_separate_z=separate, order_z=order_z)
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_values_stay_in_the_range_of_the_image() -> None:
    step = torch.zeros(1, 4, 8, 8)
    step[..., 4:] = 1.0
    zoomed = Resampling.of((4, 8, 8), (4, 8, 31), FLAT, FLAT, order=3, order_z=0, force_separate_z=None)(step)
    assert zoomed.min() == 0
    assert zoomed.max() == 1


def test_equal_shapes_change_nothing() -> None:
    data = torch.rand(1, 4, 5, 6)
    resampling = Resampling.of((4, 5, 6), (4, 5, 6), THICK, FLAT, order=3, order_z=0, force_separate_z=None)
    assert resampling(data) is data


@pytest.mark.parametrize("order", [0, 1])
def test_linear_orders_are_weighted_means(order: int) -> None:
    matrix = axis_matrix(7, 19, order)
    assert matrix.min() >= 0
    torch.testing.assert_close(matrix.sum(dim=1), torch.ones(19))


def test_only_the_default_is_replaced() -> None:
    assert is_default(partial(resample_data_or_seg_to_shape, is_seg=False, order=3))
    assert not is_default(partial(resample_data_or_seg_to_shape, is_seg=True, order=1))
    assert not is_default(partial(resample_torch_fornnunet, is_seg=False))


def plan(old_spacing: tuple[float, ...], **options: object) -> Resampling:
    given = {"order": 3, "order_z": 0, "force_separate_z": None, **options}
    return Resampling.of((4, 8, 8), (4, 8, 31), old_spacing, FLAT, **given)  # type: ignore[arg-type]


def test_the_coarse_axis_is_the_thickest_where_it_is_three_times_as_thick_or_where_that_is_forced() -> None:
    assert plan(FLAT).coarse is None
    assert plan(THICK).coarse == 0 and plan((1.0, 1.0, 3.1)).coarse == 2
    assert plan((2.9, 1.0, 1.0)).coarse is None
    assert plan((2.9, 1.0, 1.0), force_separate_z=True).coarse == 0 and plan(THICK, force_separate_z=False).coarse is None
    assert plan(THICK, separate_z_anisotropy_threshold=6.0).coarse is None


@pytest.mark.parametrize(("order", "order_z", "linear"), [(0, 0, True), (1, 1, True), (2, 0, False), (1, 2, False)])
def test_means_are_weighted_up_to_order_one_on_every_axis(order: int, order_z: int, linear: bool) -> None:
    assert plan(THICK, order=order, order_z=order_z).linear == linear


def test_an_axis_that_keeps_its_length_has_no_matrix() -> None:
    first, second, third = plan(FLAT).matrices
    assert first is None and second is None
    assert third is not None and third.shape == (31, 8) and third.dtype == torch.float32


def test_the_matrix_of_two_voxels_to_four_is_known() -> None:
    """New voxel centres lie at -1/4, 1/4, 3/4 and 5/4 of the old grid; outside it the border goes on."""
    between = torch.tensor([[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])
    nearest = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    torch.testing.assert_close(axis_matrix(2, 4, 1), between)
    torch.testing.assert_close(axis_matrix(2, 4, 0), nearest)


def test_far_voxels_count_nothing_at_all() -> None:
    weights = axis_matrix(60, 91, 3).abs()
    assert weights[weights > 0].min() >= 1e-9
    assert (weights == 0).float().mean() > 0.4


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_a_matrix_acts_on_the_lines_of_one_axis(axis: int) -> None:
    data = torch.arange(48, dtype=torch.float16).reshape(2, 2, 3, 4)
    length = data.shape[axis]
    first_and_sum = torch.stack([torch.eye(length)[0], torch.ones(length)])
    found = apply_matrix(data, first_and_sum, axis)
    expected = torch.stack([data.select(axis, 0), data.sum(axis)], dim=axis)
    assert found.dtype == torch.float16
    torch.testing.assert_close(found, expected)
    assert apply_matrix(data, None, axis) is data


def test_a_slice_of_the_coarse_axis_keeps_its_own_range() -> None:
    """Cubic splines overshoot at a step; here the steps of two slices differ in height."""
    step = torch.zeros(1, 2, 8, 8)
    step[0, 0, :, 4:], step[0, 1, :, 4:] = 1.0, 10.0
    apart = Resampling.of((2, 8, 8), (2, 8, 31), (9.0, 1.0, 1.0), FLAT, order=3, order_z=0, force_separate_z=None)(step)
    assert apart[0, 0].max() == 1 and apart[0, 1].max() == 10 and apart.min() == 0
    together = Resampling.of((2, 8, 8), (2, 8, 31), FLAT, FLAT, order=3, order_z=0, force_separate_z=None)(step)
    assert together[0, 0].max() > 1 and together.max() == 10


def test_each_channel_keeps_its_own_range() -> None:
    step = torch.zeros(2, 4, 8, 8)
    step[0, ..., 4:], step[1, ..., 4:] = 1.0, 10.0
    zoomed = plan(FLAT)(step)
    assert zoomed[0].max() == 1 and zoomed[1].max() == 10


def test_the_default_of_a_configuration_is_stood_in_for_with_its_options() -> None:
    function = partial(resample_data_or_seg_to_shape, is_seg=False, order=1, order_z=3, force_separate_z=True)
    found = Resampling.standing_in_for(function, (4, 8, 8), (6, 8, 31), THICK, FLAT)
    expected = Resampling.of((4, 8, 8), (6, 8, 31), THICK, FLAT, order=1, order_z=3, force_separate_z=True)
    assert found is not None and (found.coarse, found.linear) == (expected.coarse, expected.linear) == (0, False)
    for ours, theirs in zip(found.matrices, expected.matrices, strict=True):
        assert (ours is None) == (theirs is None)
        assert ours is None or theirs is None or torch.equal(ours, theirs)
    assert Resampling.standing_in_for(partial(resample_torch_fornnunet), (4,) * 3, (4,) * 3, FLAT, FLAT) is None


def test_the_default_without_options_is_the_default_and_a_plain_function_is_not() -> None:
    assert is_default(partial(resample_data_or_seg_to_shape))
    assert not is_default(resample_data_or_seg_to_shape)
