"""Which patch axes a fixed image axis becomes, and what is left of nnU-Net's mirroring and rotation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import CONFIGURATIONS, tiny_dataset_json, tiny_plans

from nnduet.schema import Task
from nnduet.training.mirroring import fixed_patch_axes, keep_sides
from nnduet.training.trainer import nnUNetTrainerMultitask

HALF_TURN = (-math.pi, math.pi)
THIRTY = math.radians(30)


def side(*axes: str) -> Task:
    return Task("side", "binary", ("left", "right"), fixed_axes=axes)


@pytest.mark.parametrize(
    ("axes", "transpose_forward", "dim", "expected"),
    [
        ("x", (0, 1, 2), 3, (2,)),
        ("x", (2, 0, 1), 3, (0,)),  # x comes first
        ("y", (2, 0, 1), 3, (2,)),
        ("zy", (1, 2, 0), 3, (0, 2)),
        ("x", (0, 1, 2), 2, (1,)),
        ("z", (0, 1, 2), 2, ()),  # slices lie across z
        ("x", (2, 0, 1), 2, ()),  # slices lie across x
        ("z", (2, 0, 1), 2, (0,)),
        ("", (0, 1, 2), 3, ()),
    ],
)
def test_an_image_axis_is_found_in_the_patch(
    axes: str, transpose_forward: tuple[int, ...], dim: int, expected: tuple[int, ...]
) -> None:
    assert fixed_patch_axes((side(*axes), Task("age", "regression")), transpose_forward, dim) == expected


def test_the_fixed_axes_of_several_tasks_add_up() -> None:
    tasks = (side("x"), Task("top", "binary", ("no", "yes"), fixed_axes=("z",)))
    assert fixed_patch_axes(tasks, (0, 1, 2), 3) == (0, 2)


def test_without_fixed_axes_nothing_changes() -> None:
    augmentation = (HALF_TURN, False, np.array([20, 20]), (0, 1))
    assert keep_sides(augmentation, (), [16, 16]) is augmentation


def test_a_half_turn_in_a_plane_with_a_fixed_axis_becomes_thirty_degrees() -> None:
    rotation, dummy_2d, initial, mirror_axes = keep_sides((HALF_TURN, False, np.array([18, 18]), (0, 1)), (1,), [16, 16])
    assert rotation == (-THIRTY, THIRTY)
    assert (dummy_2d, mirror_axes) == (False, (0,))
    corner = 16 * (math.cos(THIRTY) + math.sin(THIRTY)) / 0.85  # a turned corner reaches further out
    assert max(initial) == int(corner)


def test_slices_of_dummy_2d_may_turn_freely_about_a_fixed_axis() -> None:
    rotation, _, initial, mirror_axes = keep_sides((HALF_TURN, True, np.array([4, 18, 18]), (0, 1, 2)), (0,), [4, 16, 16])
    assert (rotation, initial.tolist(), mirror_axes) == (HALF_TURN, [4, 18, 18], (1, 2))


def test_dummy_2d_with_a_fixed_axis_in_the_slice_keeps_its_number_of_slices() -> None:
    rotation, _, initial, _ = keep_sides((HALF_TURN, True, np.array([4, 18, 18]), (0, 1, 2)), (2,), [4, 16, 16])
    assert rotation == (-THIRTY, THIRTY)
    assert initial[0] == 4


def test_small_rotations_are_kept() -> None:
    rotation, dummy_2d, initial, mirror_axes = keep_sides(((-0.2, 0.2), False, np.array([18, 30]), (0, 1)), (0,), [16, 28])
    assert (rotation, dummy_2d, initial.tolist(), mirror_axes) == ((-0.2, 0.2), False, [18, 30], (1,))


def test_no_axis_left_is_none_because_the_stock_predictor_takes_the_largest_axis() -> None:
    assert keep_sides(((-0.2, 0.2), False, np.array([18, 18]), (0, 1)), (0, 1), [16, 16])[-1] is None


@pytest.mark.parametrize(
    ("dim", "transpose_forward", "axes", "expected"),
    [
        (3, [0, 1, 2], "x", (0, 1)),
        (3, [2, 0, 1], "x", (1, 2)),
        (3, [0, 1, 2], "", (0, 1, 2)),
        (3, [0, 1, 2], "xyz", None),
        (2, [0, 1, 2], "x", (0,)),
        (2, [2, 0, 1], "x", (0, 1)),
    ],
)
def test_the_trainer_neither_mirrors_nor_predicts_over_a_fixed_axis(
    dim: int, transpose_forward: list[int], axes: str, expected: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    plans, dataset_json = {**tiny_plans(dim), "transpose_forward": transpose_forward}, tiny_dataset_json(dim)
    if axes:
        dataset_json["classification"]["grade"]["fixed_axes"] = list(axes)
    trainer = nnUNetTrainerMultitask(plans, CONFIGURATIONS[dim], 0, dataset_json, torch.device("cpu"))
    rotation, _, _, mirror_axes = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    assert mirror_axes == expected
    assert trainer.inference_allowed_mirroring_axes == expected
    limited = dim == 3 or expected != (0, 1)
    assert max(rotation) == pytest.approx(THIRTY if limited else math.pi)
