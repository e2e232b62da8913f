"""Augmentation that keeps sides apart, for tasks whose answer depends on them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size

from nnduet.schema import AXES, Task
from nnduet.training.trainer_protocol import Augmentation

__all__ = ["MAX_ROTATION", "fixed_patch_axes", "keep_sides"]

MAX_ROTATION = math.radians(30)
"""nnU-Net's own limit in 3d; a rotation by 180 degrees would equal mirroring both axes of its plane."""

_SCALES = (0.85, 1.25)
"""nnU-Net's constant for the initial patch (T: configure_rotation_dummyDA_mirroring_and_inital_patch_size)."""


def fixed_patch_axes(tasks: Iterable[Task], transpose_forward: Sequence[int], dim: int) -> tuple[int, ...]:
    """Axes of a patch of ``dim`` dimensions along which some task's fixed image axis lies.

    nnU-Net moves axis ``transpose_forward[i]`` of the array (Z, Y, X) to place i; a 2d patch has the last two places.
    """
    fixed = {AXES.index(axis) for task in tasks for axis in task.fixed_axes}
    return tuple(axis for axis in range(dim) if transpose_forward[axis + 3 - dim] in fixed)


def keep_sides(augmentation: Augmentation, fixed: tuple[int, ...], patch_size: Sequence[int]) -> Augmentation:
    """nnU-Net's choice of augmentation without mirroring over ``fixed`` axes, by whatever means.

    Args:
        augmentation: (rotation in radians (low, high), dummy 2d, initial patch, mirror axes), as nnU-Net returns it.
        fixed: axes of the patch; none leave everything as it is.

    Returns:
        The same four. The rotation is limited where a fixed axis lies in a rotated plane (with dummy 2d only axes 1 and 2
        rotate), the initial patch follows, and the mirror axes are None where none is left: nnU-Net's predictor fails at ().
    """
    if not fixed:
        return augmentation
    rotation, dummy_2d, initial, mirror_axes = augmentation
    rotated = (1, 2) if dummy_2d else range(len(patch_size))
    if set(fixed) & set(rotated) and max(map(abs, rotation)) > MAX_ROTATION:
        rotation = (-MAX_ROTATION, MAX_ROTATION)
        initial = get_patch_size(list(patch_size), rotation, rotation, rotation, _SCALES)
        if dummy_2d:
            initial[0] = patch_size[0]
    return rotation, dummy_2d, initial, tuple(axis for axis in mirror_axes or () if axis not in fixed) or None
