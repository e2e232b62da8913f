"""Which configurations are refused by name before any work, and which work."""

from __future__ import annotations

from typing import Any

import pytest
from tiny import tiny_plans

from nnduet.errors import SettingsError
from nnduet.training.plan_checks import check_configuration


def plans_with(**entries: Any) -> dict[str, Any]:
    """The tiny 3d plans with other entries of their configuration; None removes one."""
    plans = tiny_plans(3)
    configuration = plans["configurations"]["3d_fullres"]
    configuration |= entries
    for name in [name for name, value in entries.items() if value is None]:
        del configuration[name]
    return plans


def refuse(plans: dict[str, Any], match: str, configuration: str = "3d_fullres") -> None:
    with pytest.raises(SettingsError, match=match):
        check_configuration(plans, configuration)


def test_a_sound_configuration_is_returned_with_its_entries() -> None:
    assert check_configuration(tiny_plans(3), "3d_fullres") == tiny_plans(3)["configurations"]["3d_fullres"]


def test_row_102_a_configuration_has_what_it_inherits() -> None:
    plans = tiny_plans(3)
    plans["configurations"]["mine"] = {"inherits_from": "3d_fullres", "patch_size": [12, 8, 8]}
    found = check_configuration(plans, "mine")
    assert found["patch_size"] == [12, 8, 8]
    assert found["data_identifier"] == plans["configurations"]["3d_fullres"]["data_identifier"]


@pytest.mark.parametrize("parent", ["nothing", "mine", "other"])
def test_row_102_inheriting_from_nothing_or_in_a_circle_is_refused_by_name(parent: str) -> None:
    plans = tiny_plans(3)
    plans["configurations"] |= {"mine": {"inherits_from": parent}, "other": {"inherits_from": "mine"}}
    refuse(plans, f"configuration mine: cannot inherit from '{parent}'", "mine")


def test_row_102_the_second_stage_of_a_cascade_is_refused_by_name() -> None:
    plans = tiny_plans(3)
    plans["configurations"]["3d_cascade_fullres"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    refuse(
        plans, "3d_cascade_fullres: needs the masks of 3d_lowres as input, and nnDuet trains no cascades", "3d_cascade_fullres"
    )


@pytest.mark.parametrize("patch", [[13, 8, 8], [8, 8, 10], [2, 8, 8]])
def test_row_102_a_patch_that_the_stages_cannot_halve_is_refused_with_what_divides_it(patch: list[int]) -> None:
    refuse(plans_with(patch_size=patch), r"3d_fullres: patch_size expected a multiple of 4, the strides, on axis \d, got")


@pytest.mark.parametrize("patch", [[0, 8, 8], [-4, 8, 8], [8.5, 8, 8], "888", None, [True, 8, 8], [2**14] * 3])
def test_row_102_a_patch_of_nonsense_is_refused(patch: Any) -> None:
    refuse(plans_with(patch_size=patch), "patch_size")


@pytest.mark.parametrize("spacing", [[0, 1, 1], [-2, 1, 1], [1, 1], ["1", 1, 1], None])
def test_an_impossible_spacing_is_refused(spacing: Any) -> None:
    refuse(plans_with(spacing=spacing), "spacing")


@pytest.mark.parametrize("batch", [0, 2.5, "2", None])
def test_an_impossible_batch_is_refused(batch: Any) -> None:
    refuse(plans_with(batch_size=batch), "batch_size")


@pytest.mark.parametrize("strides", [[], [[1, 1], [2, 2, 2]], [[0, 1, 1]], "no", [["a"]]])
def test_strides_of_nonsense_are_refused(strides: Any) -> None:
    plans = tiny_plans(3)
    plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["strides"] = strides
    refuse(plans, "strides")


@pytest.mark.parametrize("configurations", [None, [], {"3d_fullres": 3}, {"3d_fullres": None}])
def test_plans_without_sound_configurations_are_refused(configurations: Any) -> None:
    refuse({**tiny_plans(3), "configurations": configurations}, "configuration")
