"""nnU-Net's default resampling as one small matrix per axis.

Zooming by splines is linear and acts on each axis by itself, so zooming the identity once gives a matrix (new, old) that zooms
every line of voxels by a matrix product. nnU-Net's ``resample_data_or_seg_to_shape`` is the oracle of the tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from nnunetv2.preprocessing.resampling.default_resampling import (
    ANISO_THRESHOLD,
    determine_do_sep_z_and_axis,
    resample_data_or_seg_to_shape,
)
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

__all__ = ["Resampling", "apply_matrix", "axis_matrix", "is_default"]

NEGLIGIBLE = 1e-9
"""Smaller weights of far voxels become 0; as denormal numbers they would make the product several times slower."""


@dataclass(frozen=True)
class Resampling:
    """How to bring a grid from one shape to another.

    Attributes:
        matrices: per spatial axis (new, old) float32, or None where nothing changes.
        coarse: the axis that is resampled apart from the others, or None; where there is one, each of its slices keeps its own
            range of values.
        linear: every new voxel is a weighted mean of old ones, with weights in [0, 1].
    """

    matrices: tuple[Tensor | None, Tensor | None, Tensor | None]
    coarse: int | None
    linear: bool

    @classmethod
    def of(
        cls,
        old_shape: Sequence[int],
        new_shape: Sequence[int],
        old_spacing: Sequence[float],
        new_spacing: Sequence[float],
        *,
        order: int,
        order_z: int,
        force_separate_z: bool | None,
        separate_z_anisotropy_threshold: float = ANISO_THRESHOLD,
    ) -> Resampling:
        """The resampling that nnU-Net's default function does with the same arguments.

        Args:
            old_shape, new_shape, old_spacing, new_spacing: of the three spatial axes.
            order, order_z: of the splines, 0 to 3; ``order_z`` for the coarse axis, if there is one.
            force_separate_z: whether there is a coarse axis; None decides by the spacing.
        """
        apart, coarse = determine_do_sep_z_and_axis(force_separate_z, old_spacing, new_spacing, separate_z_anisotropy_threshold)
        axis = int(coarse) if apart else None
        orders = [order_z if a == axis else order for a in range(3)]
        matrices = tuple(
            None if old == new else axis_matrix(int(old), int(new), o)
            for old, new, o in zip(old_shape, new_shape, orders, strict=True)
        )
        assert len(matrices) == 3
        return cls(matrices, axis, max(orders) <= 1)

    @classmethod
    def standing_in_for(
        cls,
        function: Any,
        old_shape: Sequence[int],
        new_shape: Sequence[int],
        old_spacing: Sequence[float],
        new_spacing: Sequence[float],
    ) -> Resampling | None:
        """What a resampling function of a configuration does, as matrices; None for others than nnU-Net's default."""
        if not is_default(function):
            return None
        options = {name: value for name, value in function.keywords.items() if name != "is_seg"}
        return cls.of(old_shape, new_shape, old_spacing, new_spacing, **options)

    def __call__(self, data: Tensor) -> Tensor:
        """(C, *old shape) to (C, *new shape), clipped to the range of the old values as nnU-Net's does."""
        if self.matrices == (None, None, None):
            return data
        within = [a for a in range(3) if a != self.coarse]
        zoomed = data
        for a in sorted(within, key=self._growth):
            zoomed = apply_matrix(zoomed, self.matrices[a], 1 + a)
        if not self.linear:
            axes = [1 + a for a in within]
            zoomed = torch.clamp(zoomed, data.amin(axes, keepdim=True), data.amax(axes, keepdim=True))
        return zoomed if self.coarse is None else apply_matrix(zoomed, self.matrices[self.coarse], 1 + self.coarse)

    def _growth(self, axis: int) -> float:
        matrix = self.matrices[axis]
        return 1.0 if matrix is None else matrix.shape[0] / matrix.shape[1]


def is_default(function: Any) -> bool:
    """Whether a resampling function of a configuration is the one that :class:`Resampling` stands in for."""
    return getattr(function, "func", None) is resample_data_or_seg_to_shape and not function.keywords.get("is_seg")


@lru_cache(maxsize=64)
def axis_matrix(old: int, new: int, order: int) -> Tensor:
    """(new, old) float32 that zooms a line of voxels by splines of an order as skimage's ``resize`` with mode "edge" does.

    On its coarse axis nnU-Net calls ``map_coordinates`` with mode "nearest" instead, which comes to the same.

    Examples:
        >>> axis_matrix(2, 4, order=1).tolist()
        [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]
    """
    columns = [ndimage.zoom(line, new / old, order=order, mode="nearest", grid_mode=True) for line in np.eye(old)]
    matrix: NDArray[np.float64] = np.stack(columns, axis=1)
    matrix[np.abs(matrix) < NEGLIGIBLE] = 0
    return torch.from_numpy(matrix.astype(np.float32))


def apply_matrix(data: Tensor, matrix: Tensor | None, axis: int) -> Tensor:
    """Multiply every line along ``axis`` (1 to 3) of (C, Z, Y, X) by ``matrix`` (new, old).

    Examples:
        >>> halves = torch.tensor([[0.5, 0.5]])  # two voxels become their mean
        >>> apply_matrix(torch.tensor([1.0, 3.0]).reshape(1, 1, 1, 2), halves, axis=3).tolist()
        [[[[2.0]]]]
    """
    if matrix is None:
        return data
    matrix = matrix.to(data.device, data.dtype)
    if axis == 3:
        return data @ matrix.T
    if axis == 2:
        return matrix @ data
    flat = matrix @ data.reshape(data.shape[0], data.shape[1], -1)
    return flat.reshape(data.shape[0], matrix.shape[0], *data.shape[2:])
