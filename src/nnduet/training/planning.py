"""Fingerprint, plan and preprocess a dataset with nnU-Net's own classes, in this process where that is faster."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.experiment_planning.plan_and_preprocess_api import plan_experiment_dataset
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnduet.errors import DatasetError, OutputExistsError, SettingsError
from nnduet.io.files import copy_atomically, locked, naming_disk_errors, sync_folder, write_json_atomically
from nnduet.names import check_name
from nnduet.network.network import PLANS_KEY
from nnduet.nnunet_types import Plans
from nnduet.progress import Progress, part_of
from nnduet.records import read_json, record_object
from nnduet.schema import LABELS_FILE, SPLITS_FILE, Workspace
from nnduet.training.freshness import check_copies, ingredients_file
from nnduet.training.ingredients import ingredients_of, raw_entries, write_ingredients
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
from nnduet.training.planners import PRESETS, plans_name_of, reader_of
from nnduet.training.prepared import find_plans, read_plans
from nnduet.training.preprocessed import checksums_of, write_checksums
from nnduet.training.workers import CaseRunner, case_runner, refuse_in_a_starting_worker

__all__ = ["ConfigurationOutline", "PlanSummary", "foreground_counts", "plan", "preprocess_case"]


FINGERPRINT_SAMPLES_PER_CASE = 20_000
"""Same percentiles as nnU-Net's 1e8 / cases at a fifth of the time (docs/explanation-evidence.md)."""

_DEFAULT_CONFIGURATIONS = ("2d", "3d_fullres")
_PREPROCESSED_ENDINGS = (".b2nd", ".pkl", ".npz", ".npy")


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


@dataclass(frozen=True)
class _Data:
    """A converted dataset: its ``dataset.json``, and {case id: {"images": [...], "label": ...}}."""

    workspace: Workspace
    dataset: str
    dataset_json: dict[str, Any]
    entries: dict[str, dict[str, Any]]

    @property
    def raw(self) -> Path:
        return self.workspace.raw / self.dataset

    @property
    def target(self) -> Path:
        return self.workspace.preprocessed / self.dataset


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
    data = _read_data(workspace, workspace.dataset_name(dataset_id))
    if not replace:
        check_copies(workspace, data.dataset, (SPLITS_FILE,))
    workers = num_processes or _default_processes()
    with locked(data.target), case_runner(workers, list(data.entries)) as run_cases:
        _copy_tables(data)
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
                _preprocess(data, plans, configuration, run_cases, part_of(progress, index, len(chosen)))
        _copy_references(data)
    outlines = {configuration: _outline(plans, configuration) for configuration in chosen}
    return PlanSummary(data.dataset, name, str(data.target / f"{name}.json"), outlines, len(data.entries))


def _read_data(workspace: Workspace, dataset: str) -> _Data:
    raw = workspace.raw / dataset
    if not (raw / "dataset.json").is_file():
        raise DatasetError(f"{raw}: expected dataset.json; run `nnduet convert` to its end first")
    dataset_json: dict[str, Any] = read_json(raw / "dataset.json", dict[str, Any])
    entries = raw_entries(raw, dataset_json)
    if not entries:
        raise DatasetError(f"{raw}: expected training cases, found none; run `nnduet convert` to its end first")
    return _Data(workspace, dataset, dataset_json, entries)


def _copy_tables(data: _Data) -> None:
    data.target.mkdir(parents=True, exist_ok=True)
    for name in ("dataset.json", SPLITS_FILE, LABELS_FILE):
        if (data.raw / name).is_file():
            copy_atomically(data.raw / name, data.target / name)


def _new_plans(data: _Data, preset: str, changes: PlanChanges, progress: Progress | None) -> dict[str, Any]:
    planner, settings = PRESETS[preset]
    name = plans_name_of(preset)
    # the planner takes nnUNet_n_proc_DA as a number of threads and fails at 0, which is a good value in training
    with host_environment(data.workspace.environment() | {"nnUNet_n_proc_DA": "1"}):
        _fingerprint(data.target, DatasetFingerprintExtractor(data.dataset), progress)
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


def _chosen(plans: dict[str, Any], configurations: Sequence[str] | None) -> list[str]:
    known = plans["configurations"]
    chosen = [c for c in _DEFAULT_CONFIGURATIONS if c in known] if configurations is None else list(configurations)
    if not chosen or not set(chosen) <= set(known):
        raise SettingsError(f"configurations: expected some of {sorted(known)}, got {list(configurations or ())}")
    return chosen


def _store_plans(plans_file: Path, plans: dict[str, Any], changes: PlanChanges, *, keep: bool, replace: bool) -> None:
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


def _fingerprint(target: Path, extractor: Any, progress: Progress | None) -> None:
    """Write ``dataset_fingerprint.json`` as nnU-Net's extractor does, in this process.

    nnU-Net's own ``run`` spawns workers, each importing everything, and dies in scripts without a ``__main__`` guard. Cases
    are analysed by its ``analyze_case``; the summary repeats nnunetv2 fingerprint_extractor.py, lines 169-200.
    """
    reader = reader_of(extractor.dataset_json)
    results = []
    for index, (case_id, entry) in enumerate(extractor.dataset.items()):
        with naming_disk_errors(target, str(case_id)):
            results.append(extractor.analyze_case(entry["images"], entry["label"], reader, FINGERPRINT_SAMPLES_PER_CASE))
        if progress:
            progress(index + 1, len(extractor.dataset), f"fingerprint {case_id}")
    channels = range(len(extractor.dataset_json["channel_names"]))
    target.mkdir(parents=True, exist_ok=True)
    write_json_atomically(
        target / "dataset_fingerprint.json",
        {
            "spacings": [[float(s) for s in result[1]] for result in results],
            "shapes_after_crop": [[int(n) for n in result[0]] for result in results],
            "foreground_intensity_properties_per_channel": {
                str(c): _intensity_properties(np.concatenate([result[2][c] for result in results])) for c in channels
            },
            "median_relative_size_after_cropping": float(np.median([result[4] for result in results])),
        },
    )


def _intensity_properties(values: np.ndarray) -> dict[str, float]:
    low, median, high = np.percentile(values, (0.5, 50.0, 99.5))
    return {
        "mean": float(np.mean(values)),
        "median": float(median),
        "std": float(np.std(values)),
        "min": float(np.min(values)),
        "max": float(np.max(values)),
        "percentile_99_5": float(high),
        "percentile_00_5": float(low),
    }


def _preprocess(
    data: _Data, plans: dict[str, Any], configuration: str, run_cases: CaseRunner, progress: Progress | None
) -> None:
    """Preprocess all cases beside the folder that takes them, write what they are made of, and swap."""
    identifier = check_name(check_configuration(plans, configuration)["data_identifier"], "data_identifier", SettingsError)
    folder = data.target / identifier
    _check_swappable(folder)
    made_of = ingredients_of(plans, configuration, data.dataset_json, data.entries)
    partial_folder = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial_folder, ignore_errors=True)
    partial_folder.mkdir(parents=True)
    work = partial(preprocess_case, plans, configuration, data.dataset_json, str(partial_folder))
    for done, case_id in enumerate(run_cases(work, data.entries), 1):
        if progress:
            progress(done, len(data.entries), f"preprocess {configuration} {case_id}")
    write_checksums(partial_folder, checksums_of(folder))
    write_ingredients(ingredients_file(folder), made_of)
    _swap(partial_folder, folder)


def _check_swappable(folder: Path) -> None:
    """Raises OutputExistsError where a folder holds anything but preprocessed cases, for it would be deleted."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise OutputExistsError(f"{folder}: expected a folder of preprocessed cases, got a link or a file; move it away")
    foreign = [path.name for path in folder.iterdir() if path.suffix not in _PREPROCESSED_ENDINGS] if folder.is_dir() else []
    if foreign:
        raise OutputExistsError(f"{folder}: holds other files than preprocessed cases ({sorted(foreign)[0]}); move them away")


def _swap(new: Path, folder: Path) -> None:
    """Put a complete folder in the place of an old one, which is deleted only then."""
    old = folder.with_name(f"{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _copy_references(data: _Data) -> None:
    ending = data.dataset_json["file_ending"]
    (data.target / "gt_segmentations").mkdir(exist_ok=True)
    for case_id, entry in data.entries.items():
        copy_atomically(Path(entry["label"]), data.target / "gt_segmentations" / f"{case_id}{ending}")


def preprocess_case(
    plans: dict[str, Any],
    configuration: str,
    dataset_json: dict[str, Any],
    folder: str,
    case_id: str,
    entry: dict[str, Any],
) -> None:
    """Write one case, {"images": [path per channel], "label": path}, preprocessed into ``folder``."""
    manager = PlansManager(plans)
    preprocessor = DefaultPreprocessor(verbose=False)
    with naming_disk_errors(Path(folder), case_id):
        preprocessor.run_case_save(
            str(Path(folder) / case_id),
            entry["images"],
            entry["label"],
            manager,
            manager.get_configuration(configuration),
            dataset_json,
        )


def foreground_counts(class_locations: dict[Any, Any]) -> np.ndarray:
    """Whether each foreground label or region has voxels, bool (R,), in the order nnU-Net stores them."""
    return np.array([len(voxels) > 0 for key, voxels in class_locations.items() if not _is_ignore_key(key)])


def _is_ignore_key(key: Any) -> bool:
    return isinstance(key, tuple) and -1 in key
