"""Matrices zoom as nnU-Net's own resampling does."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape
from nnunetv2.preprocessing.resampling.resample_torch import resample_torch_fornnunet

from nnduet.inference.resampling import Resampling, axis_matrix, is_default

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


@pytest.mark.parametrize("separate", [True, False])
def test_the_coarse_axis_can_be_forced_and_have_an_order_of_its_own(separate: bool) -> None:
    found, expected = both((6, 12, 12), (15, 20, 9), THICK, 3, force_separate_z=separate, order_z=1)
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
