"""The plans file: what the planner chose, what a user changed in it, and that neither is lost.

Beside ``NAME.json``, which users may edit, ``.NAME.planned`` keeps what ``plan`` wrote there, and with which options.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nnduet.errors import OutputExistsError, SettingsError
from nnduet.io.files import write_json_atomically
from nnduet.nnunet_types import Plans
from nnduet.records import read_json
from nnduet.training.plan_checks import check_configuration

__all__ = ["NO_CHANGES", "PlanChanges", "apply_changes", "check_replaceable", "keep_own_configurations", "write_planned"]

_SHOWN = 5
_ABSENT = "nothing"


@dataclass(frozen=True)
class PlanChanges:
    """What a user wants otherwise than the planner; None leaves its choice.

    Attributes:
        spacing: in mm along the axes (Z, Y, X) of the stored images, of which a 2d configuration takes the last two; (Y, X) for
            2d configurations alone.
        patch_size: voxels along the same axes; three for 3d configurations, two (Y, X) for 2d ones.
        batch_size: patches per step.
    """

    spacing: tuple[float, ...] | None = None
    patch_size: tuple[int, ...] | None = None
    batch_size: int | None = None

    def given(self) -> dict[str, object]:
        """The options that are not None, as JSON has them."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items() if v is not None}


NO_CHANGES = PlanChanges()
"""The planner's choice as it is."""


def apply_changes(plans: Plans, configurations: Sequence[str], changes: PlanChanges) -> Plans:
    """The plans with the changes in the wanted configurations.

    Raises:
        SettingsError: a patch that fits none of them, or that the network cannot take.
    """
    transpose = plans["transpose_forward"]
    resolved = {name: check_configuration(plans, name) for name in configurations}
    dims = {name: len(found["patch_size"]) for name, found in resolved.items()}
    if changes.patch_size and len(changes.patch_size) not in dims.values():
        raise SettingsError(f"patch size {list(changes.patch_size)}: expected as many numbers as axes, which are {dims}")
    if changes.spacing and len(changes.spacing) < min(dims.values()):
        raise SettingsError(f"spacing {list(changes.spacing)}: expected as many numbers as axes, which are {dims}")
    edited = {name: dict(entries) for name, entries in plans["configurations"].items()}
    for name, dim in dims.items():
        if changes.spacing and len(changes.spacing) >= dim:
            order = transpose if len(changes.spacing) == 3 else range(dim)
            edited[name]["spacing"] = [float(changes.spacing[axis]) for axis in order][-dim:]
        if changes.patch_size and len(changes.patch_size) == dim:
            order = transpose if dim == 3 else range(dim)
            edited[name]["patch_size"] = [int(changes.patch_size[axis]) for axis in order]
        if changes.batch_size:
            edited[name]["batch_size"] = changes.batch_size
    changed = {**plans, "configurations": edited}
    for name in configurations:
        check_configuration(changed, name)
    return changed


def keep_own_configurations(plans: Plans, existing: Plans | None) -> Plans:
    """New plans with the configurations that a user added to the existing ones, as nnU-Net's planner keeps them."""
    added = {name: v for name, v in (existing or {}).get("configurations", {}).items() if name not in plans["configurations"]}
    return {**plans, "configurations": {**plans["configurations"], **added}}


def write_planned(plans_file: Path, plans: Plans, changes: PlanChanges) -> None:
    """Write the plans, and beside them what tells later whether a user has edited them."""
    write_json_atomically(plans_file, plans)
    write_json_atomically(_planned(plans_file), {"plans": plans, "options": changes.given()})


def _planned(plans_file: Path) -> Path:
    return plans_file.with_name(f".{plans_file.stem}.planned")


def check_replaceable(plans_file: Path, plans: Plans, changes: PlanChanges) -> None:
    """Refuse new plans where the existing ones hold edits that would be lost.

    Raises:
        OutputExistsError: they were edited since ``plan`` wrote them, or planned with options that are not given now.
    """
    if not plans_file.is_file():
        return
    existing: Plans = read_json(plans_file, dict[str, Any])
    if existing == _as_json(plans):
        return
    stored: dict[str, Any] = read_json(_planned(plans_file), dict[str, Any]) if _planned(plans_file).is_file() else {}
    edits = _differences(stored.get("plans", _as_json(plans)), existing)
    lost = [name for name in stored.get("options", {}) if name not in changes.given()]
    if not edits and not lost:
        return
    what = f"was edited since it was planned: {_listed(edits)}" if edits else f"was planned with {_options(lost)}"
    raise OutputExistsError(
        f"{plans_file}: {what}; --keep preprocesses with these plans as they are, --replace plans anew without the changes"
    )


def _options(names: Sequence[str]) -> str:
    return " and ".join(f"--{name.replace('_', '-')}" for name in names)


def _as_json(plans: Plans) -> Plans:
    plain: Plans = json.loads(json.dumps(plans))
    return plain


def _listed(edits: Sequence[str]) -> str:
    return ", ".join(edits[:_SHOWN]) + (f" and {len(edits) - _SHOWN} more" if len(edits) > _SHOWN else "")


def _differences(before: object, now: object, place: str = "") -> list[str]:
    return [f"{place} {old} -> {new}" for place, old, new in _pairs(before, now, place)]


def _pairs(before: object, now: object, place: str) -> Iterator[tuple[str, object, object]]:
    """Every entry that differs: (dotted place, old, new). Configurations that were added are no edit, for they are kept."""
    if not (isinstance(before, Mapping) and isinstance(now, Mapping)):
        if before != now:
            yield place, before, now
        return
    for key in dict.fromkeys([*before, *now]):
        if place == "configurations" and key not in before:
            continue
        yield from _pairs(before.get(key, _ABSENT), now.get(key, _ABSENT), f"{place}.{key}" if place else str(key))
