"""Preprocess the cases of a configuration with nnU-Net's own class; old ones stay until the new ones are complete."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sized
from functools import partial
from pathlib import Path

import numpy as np
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from numpy.typing import NDArray

from nnduet.errors import OutputExistsError, SettingsError
from nnduet.io.files import naming_disk_errors, sync_folder
from nnduet.names import check_name
from nnduet.nnunet_types import CaseEntry, DatasetJson, Plans
from nnduet.progress import Progress
from nnduet.training.freshness import ingredients_file
from nnduet.training.ingredients import ingredients_of, write_ingredients
from nnduet.training.plan_checks import check_configuration
from nnduet.training.preprocessed import checksums_of, write_checksums
from nnduet.training.raw_dataset import RawDataset
from nnduet.training.workers import CaseRunner

__all__ = ["foreground_counts", "preprocess", "preprocess_case"]

_PREPROCESSED_ENDINGS = (".b2nd", ".pkl", ".npz", ".npy")

LabelKey = int | tuple[int, ...]
"""A label's value or those of a region; with -1 among them, what stands for voxels that are ignored."""


def preprocess(data: RawDataset, plans: Plans, configuration: str, run_cases: CaseRunner, progress: Progress | None) -> None:
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


def preprocess_case(
    plans: Plans,
    configuration: str,
    dataset_json: DatasetJson,
    folder: str,
    case_id: str,
    entry: CaseEntry,
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


def foreground_counts(class_locations: Mapping[LabelKey, Sized]) -> NDArray[np.bool_]:
    """Whether each foreground label or region has voxels, bool (R,), in the order nnU-Net stores them."""
    return np.array([len(voxels) > 0 for key, voxels in class_locations.items() if not _is_ignore_key(key)])


def _is_ignore_key(key: LabelKey) -> bool:
    return isinstance(key, tuple) and -1 in key
