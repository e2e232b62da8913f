"""Which configurations of a plans file can be preprocessed and trained; what cannot is refused by name, before any work."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnduet.errors import SettingsError

__all__ = ["check_configuration", "check_patch"]


def check_configuration(plans: Mapping[str, Any], configuration: str) -> dict[str, Any]:
    """The entries of a configuration, with those that it inherits.

    Raises:
        SettingsError: it is not there, inherits from nothing or in a circle, is a cascade's second stage, or has a patch, batch
            or spacing that no network can take.
    """
    known = plans.get("configurations")
    if not isinstance(known, Mapping) or configuration not in known:
        raise SettingsError(f"configuration: expected one of {sorted(known or ())}, got {configuration!r}")
    found = _resolved(plans, configuration)
    if found.get("previous_stage"):
        raise SettingsError(
            f"configuration {configuration}: needs the masks of {found['previous_stage']} as input, and nnDuet trains no "
            "cascades; take 3d_fullres or 3d_lowres"
        )
    missing = [name for name in ("data_identifier", "spacing", "patch_size", "batch_size", "architecture") if name not in found]
    if missing:
        raise SettingsError(f"configuration {configuration}: expected {', '.join(missing)} in the plans, found none")
    check_patch(configuration, found)
    _check_numbers(configuration, found)
    return found


def _resolved(plans: Mapping[str, Any], configuration: str) -> dict[str, Any]:
    try:
        resolved: dict[str, Any] = PlansManager(dict(plans)).get_configuration(configuration).configuration
    except (ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        inherited = plans["configurations"][configuration]
        parent = inherited.get("inherits_from") if isinstance(inherited, Mapping) else None
        raise SettingsError(f"configuration {configuration}: cannot inherit from {parent!r}: {error}") from error
    return resolved


def check_patch(configuration: str, found: Mapping[str, Any]) -> None:
    """Refuse a patch that the network's stages cannot halve as often as they do.

    Raises:
        SettingsError: naming what each axis must be a multiple of.
    """
    patch, strides = found["patch_size"], _strides(configuration, found)
    if not isinstance(patch, Sequence) or not all(type(n) is int and n > 0 for n in patch):
        raise SettingsError(f"configuration {configuration}: patch_size expected whole numbers above 0, got {patch}")
    factors = [math.prod(axis) for axis in zip(*strides, strict=True)]
    if len(patch) != len(factors) or any(n % factor for n, factor in zip(patch, factors, strict=True)):
        raise SettingsError(
            f"configuration {configuration}: patch_size expected multiples of {factors}, because its network halves the axes "
            f"so often, got {list(patch)}"
        )


def _strides(configuration: str, found: Mapping[str, Any]) -> list[list[int]]:
    try:
        strides = [[int(s) for s in stage] for stage in found["architecture"]["arch_kwargs"]["strides"]]
    except (KeyError, TypeError, ValueError) as error:
        raise SettingsError(
            f"configuration {configuration}: expected strides in its architecture, got none: {error}"
        ) from error
    if not strides or any(len(stage) != len(strides[0]) or min(stage) < 1 for stage in strides):
        raise SettingsError(
            f"configuration {configuration}: strides expected numbers above 0 per stage and axis, got {strides}"
        )
    return strides


def _check_numbers(configuration: str, found: Mapping[str, Any]) -> None:
    batch, spacing = found["batch_size"], found["spacing"]
    if type(batch) is not int or batch < 1:
        raise SettingsError(f"configuration {configuration}: batch_size expected a whole number above 0, got {batch!r}")
    numbers = isinstance(spacing, Sequence) and all(isinstance(s, int | float) and math.isfinite(s) and s > 0 for s in spacing)
    if not numbers or len(spacing) != len(found["patch_size"]):
        raise SettingsError(
            f"configuration {configuration}: spacing expected {len(found['patch_size'])} numbers of mm above 0, got {spacing!r}"
        )
