"""Fingerprint, plan and preprocess a dataset with nnU-Net's own classes, in this process where that is faster."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.experiment_planning.plan_and_preprocess_api import plan_experiment_dataset

from nnduet.errors import SettingsError
from nnduet.io.files import locked, write_json_atomically
from nnduet.network.network import PLANS_KEY
from nnduet.nnunet_types import Plans
from nnduet.progress import Progress, part_of
from nnduet.records import read_json, record_object
from nnduet.schema import SPLITS_FILE, Workspace
from nnduet.training.fingerprints import write_fingerprint
from nnduet.training.freshness import check_copies
from nnduet.training.nnunet_environment import host_environment
from nnduet.training.plan_checks import check_configuration
from nnduet.training.plan_files import (
    NO_CHANGES,
    PlanChanges,
    apply_changes,
    check_replaceable,
    keep_own_configurations,
    write_planned,
)
from nnduet.training.planners import PRESETS, plans_name_of
from nnduet.training.prepared import find_plans, read_plans
from nnduet.training.preprocessing import preprocess
from nnduet.training.raw_dataset import RawDataset, copy_references, copy_tables, read_raw_dataset
from nnduet.training.workers import case_runner, refuse_in_a_starting_worker

__all__ = ["ConfigurationOutline", "PlanSummary", "plan"]


_DEFAULT_CONFIGURATIONS = ("2d", "3d_fullres")


@dataclass(frozen=True)
class ConfigurationOutline:
    """What was planned for one configuration.

    Attributes:
        patch_size: voxels along (Z, Y, X), or (Y, X) of a slice-wise one.
        batch_size: patches per step.
        spacing_mm: of the grid that cases are resampled to, along the same axes.
        features_per_stage: channels of the encoder's stages.
    """

    patch_size: list[int]
    batch_size: int
    spacing_mm: list[float]
    features_per_stage: list[int]


@dataclass(frozen=True)
class PlanSummary:
    """What ``plan`` decided and preprocessed; ``nnduet plan --json`` prints it.

    Attributes:
        dataset: e.g. Dataset007_Pancreas.
        plans_name, plans_file: how the plans are called, and the file that holds them.
        configurations: {name: outline} of those that were preprocessed.
        num_cases: preprocessed cases of each.
    """

    dataset: str
    plans_name: str
    plans_file: str
    configurations: dict[str, ConfigurationOutline]
    num_cases: int

    def to_json(self) -> dict[str, object]:
        """A JSON object with every field."""
        return record_object(self)


def plan(
    dataset_id: int,
    preset: str | None = None,
    *,
    workspace: Workspace,
    configurations: Sequence[str] | None = None,
    changes: PlanChanges = NO_CHANGES,
    keep: bool = False,
    replace: bool = False,
    plans_name: str | None = None,
    num_processes: int | None = None,
    progress: Progress | None = None,
) -> PlanSummary:
    """Extract the fingerprint, write the plans, preprocess every case of the wanted configurations.

    Old preprocessed cases stay until the new ones are complete.

    Args:
        preset: of PRESETS; may be None with ``keep``.
        configurations: None takes those of 2d and 3d_fullres that the plans have.
        changes: spacing, patch and batch size that differ from the planner's choice.
        keep: preprocess with the plans that are there, plus ``changes``.
        replace: let new plans replace edited ones, and the raw folder's tables others in the preprocessed folder.
        plans_name: with ``keep``: plans of this name, e.g. nnU-Net's own.
        num_processes: workers; None takes one process on up to two cores, else half the cores up to eight. One process works
            in this one, which avoids the workers' imports (about 7 CPU-seconds each).
        progress: called with (done, total, text) per preprocessed case.

    Raises:
        DatasetError: the dataset is not there or was not converted completely.
        SettingsError: unknown preset, or a configuration that does not fit the data or cannot be trained.
        OutputExistsError: the plans there were edited, and neither ``keep`` nor ``replace`` says what is to become of that.
        LockedError: another process plans this dataset.
        WorkerError: a worker process died.
    """
    refuse_in_a_starting_worker()
    if preset is None and not keep:
        raise SettingsError(f"plan: expected a preset, one of {sorted(PRESETS)}")
    wanted = None if preset is None else plans_name_of(preset)
    data = read_raw_dataset(workspace, workspace.dataset_name(dataset_id))
    if not replace:
        check_copies(workspace, data.dataset, (SPLITS_FILE,))
    workers = num_processes or _default_processes()
    with locked(data.target), case_runner(workers, list(data.entries)) as run_cases:
        copy_tables(data)
        if keep:
            name = find_plans(workspace, data.dataset, plans_name or wanted)
            plans = read_plans(workspace, data.dataset, name)
        else:
            assert preset is not None
            name, plans = plans_name_of(preset), _new_plans(data, preset, changes, progress)
        chosen = _chosen(plans, configurations)
        plans = apply_changes(plans, chosen, changes)
        _store_plans(data.target / f"{name}.json", plans, changes, keep=keep, replace=replace)
        with host_environment(workspace.environment()):
            for index, configuration in enumerate(chosen):
                preprocess(data, plans, configuration, run_cases, part_of(progress, index, len(chosen)))
        copy_references(data)
    outlines = {configuration: _outline(plans, configuration) for configuration in chosen}
    return PlanSummary(data.dataset, name, str(data.target / f"{name}.json"), outlines, len(data.entries))


def _new_plans(data: RawDataset, preset: str, changes: PlanChanges, progress: Progress | None) -> Plans:
    planner, settings = PRESETS[preset]
    name = plans_name_of(preset)
    # the planner takes nnUNet_n_proc_DA as a number of threads and fails at 0, which is a good value in training
    with host_environment(data.workspace.environment() | {"nnUNet_n_proc_DA": "1"}):
        write_fingerprint(data.target, DatasetFingerprintExtractor(data.dataset), progress)
        spacing = _target_spacing(data.target / "dataset_fingerprint.json", changes)
        plans, _ = plan_experiment_dataset(data.dataset, planner, overwrite_plans_name=name, overwrite_target_spacing=spacing)
    plans[PLANS_KEY] = {"training": settings.to_json()}
    existing = data.target / f"{name}.json"
    return keep_own_configurations(plans, read_json(existing, dict[str, Any]) if existing.is_file() else None)


def _target_spacing(fingerprint: Path, changes: PlanChanges) -> tuple[float, ...] | None:
    """The wanted spacing (Z, Y, X) as nnU-Net's planner takes it; pictures keep their own along Z, which says what a slice is.

    Raises:
        SettingsError: three numbers for pictures, or two for volumes.
    """
    if changes.spacing is None:
        return None
    known: dict[str, Any] = read_json(fingerprint, dict[str, Any])
    are_pictures = all(shape[0] == 1 for shape in known["shapes_after_crop"])
    if len(changes.spacing) != (2 if are_pictures else 3):
        kind = "two numbers Y,X for pictures" if are_pictures else "three numbers Z,Y,X for volumes"
        raise SettingsError(f"spacing: expected {kind}, got {list(changes.spacing)}")
    thickness = [float(np.median([spacing[0] for spacing in known["spacings"]]))] if are_pictures else []
    return (*thickness, *changes.spacing)


def _chosen(plans: Plans, configurations: Sequence[str] | None) -> list[str]:
    known = plans["configurations"]
    chosen = [c for c in _DEFAULT_CONFIGURATIONS if c in known] if configurations is None else list(configurations)
    if not chosen or not set(chosen) <= set(known):
        raise SettingsError(f"configurations: expected some of {sorted(known)}, got {list(configurations or ())}")
    return chosen


def _store_plans(plans_file: Path, plans: Plans, changes: PlanChanges, *, keep: bool, replace: bool) -> None:
    if not keep:
        if not replace:
            check_replaceable(plans_file, plans, changes)
        write_planned(plans_file, plans, changes)
    elif changes.given():
        write_json_atomically(plans_file, plans)


def _outline(plans: Plans, configuration: str) -> ConfigurationOutline:
    settings = check_configuration(plans, configuration)
    architecture = settings["architecture"]["arch_kwargs"]
    return ConfigurationOutline(
        patch_size=settings["patch_size"],
        batch_size=settings["batch_size"],
        spacing_mm=settings["spacing"],
        features_per_stage=architecture["features_per_stage"],
    )


def _default_processes() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return 1 if cores <= 2 else min(8, cores // 2)
