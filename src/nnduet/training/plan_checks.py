"""Which configurations of a plans file can be preprocessed and trained; what cannot is refused by name, before any work."""

from __future__ import annotations

from collections.abc import Mapping

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnduet.errors import ModelError, SettingsError
from nnduet.model_store import plans as model_plans
from nnduet.nnunet_types import Configuration, Plans

__all__ = ["check_configuration"]


def check_configuration(plans: Plans, configuration: str) -> Configuration:
    """The entries of a configuration, with those that it inherits.

    Raises:
        SettingsError: it is not there, inherits from nothing or in a circle, is a cascade's second stage, or cannot be that of
            a network, see :func:`nnduet.model_store.plans.check_configuration`.
    """
    known = plans.get("configurations")
    if not isinstance(known, Mapping) or configuration not in known:
        raise SettingsError(f"configuration: expected one of {sorted(known or ())}, got {configuration!r}")
    found, place = _resolved(plans, configuration), f"configuration {configuration}"
    if found.get("previous_stage"):
        raise SettingsError(
            f"{place}: needs the masks of {found['previous_stage']} as input, and nnDuet trains no cascades; take 3d_fullres "
            "or 3d_lowres"
        )
    if not isinstance(found.get("data_identifier"), str) or type(found.get("batch_size")) is not int or found["batch_size"] < 1:
        raise SettingsError(
            f"{place}: expected a text as data_identifier and a batch_size of at least 1, got {found.get('data_identifier')!r} "
            f"and {found.get('batch_size')!r}"
        )
    schemes = found.get("normalization_schemes")
    try:
        model_plans.check_configuration(found, len(schemes) if isinstance(schemes, list) else 1, place)
    except ModelError as error:
        raise SettingsError(str(error)) from error
    return found


def _resolved(plans: Plans, configuration: str) -> Configuration:
    try:
        resolved: Configuration = PlansManager(dict(plans)).get_configuration(configuration).configuration
    except (ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        inherited = plans["configurations"][configuration]
        parent = inherited.get("inherits_from") if isinstance(inherited, Mapping) else None
        raise SettingsError(f"configuration {configuration}: cannot inherit from {parent!r}: {error}") from error
    return resolved
