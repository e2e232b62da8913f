"""Fingerprint, plan and preprocess a dataset with nnU-Net's own classes, in this process where that is faster."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props
from nnunetv2.experiment_planning.experiment_planners.resencUNet_planner import ResEncUNetPlanner
from nnunetv2.experiment_planning.experiment_planners.residual_unets.residual_encoder_unet_planners import (
    nnUNetPlannerResEncL,
    nnUNetPlannerResEncM,
)
from nnunetv2.experiment_planning.plan_and_preprocess_api import plan_experiment_dataset
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

from nnduet.data.files import copy_atomically, naming_disk_errors, write_json_atomically
from nnduet.errors import DatasetError, SettingsError, WorkerError
from nnduet.interrupts import starting_children
from nnduet.model.network import PLANS_KEY
from nnduet.schema import LABELS_FILE, SPLITS_FILE, Workspace
from nnduet.training.host import host_environment
from nnduet.training.preprocessed import checksums_of, write_checksums
from nnduet.training.settings import CPU_SETTINGS, TrainingSettings

__all__ = ["PRESETS", "CpuPlanner", "PlanSummary", "patch_within", "plan", "plans_name_of", "preprocess_case"]

Progress = Callable[[int, int, str], None]

FINGERPRINT_SAMPLES_PER_CASE = 20_000
"""Same percentiles as nnU-Net's 1e8 / cases at a fifth of the time (shared/NNUNET.md)."""


class CpuPlanner(ResEncUNetPlanner):  # type: ignore[misc]
    """A residual-encoder plan that trains in minutes on two cores.

    nnU-Net chooses spacing, normalisation and resampling; only patch, batch and network are smaller. The patch follows the
    median shape of the data set, isotropic in mm where the budget binds; anisotropic axes keep their flat kernels.
    """

    voxel_budget: ClassVar[dict[int, tuple[int, int]]] = {2: (160 * 160, 9 * 128 * 128), 3: (16 * 100 * 100, 16 * 100 * 100)}
    """Voxels of the largest patch and of a batch, by dimension; a batch holds at least two patches."""
    max_batch: ClassVar[dict[int, int]] = {2: 16, 3: 8}
    base_features = 8
    """Channels of the first stage; multiples of 8 are what the CPU's convolutions are fast at."""
    max_pooling: ClassVar[dict[int, int]] = {2: 5, 3: 3}
    """Stages after the first, by dimension: in 2d depth, and with it the view of a whole lesion, costs little."""

    def __init__(self, dataset_name_or_id: str | int, plans_name: str = "nnDuetCpuPlans", **kwargs: Any) -> None:
        kwargs.pop("gpu_memory_target_in_gb", None)
        super().__init__(dataset_name_or_id, gpu_memory_target_in_gb=1, plans_name=plans_name, **kwargs)
        self.UNet_base_num_features = self.base_features
        self.UNet_blocks_per_stage_encoder = (1, *(2,) * 11)

    def generate_data_identifier(self, configuration_name: str) -> str:
        """A folder of its own: the stock planners share one and remove each other's data."""
        return f"{self.plans_identifier}_{configuration_name}"

    def get_plans_for_configuration(
        self, spacing: Any, median_shape: Any, data_identifier: str, approximate_n_voxels_dataset: float, _cache: dict[str, Any]
    ) -> dict[str, Any]:
        """nnU-Net's plan for one configuration, with the patch, batch and network of this preset."""
        plan: dict[str, Any] = super().get_plans_for_configuration(
            spacing, median_shape, data_identifier, approximate_n_voxels_dataset, _cache
        )
        dim = len(spacing)
        patch_budget, batch_budget = self.voxel_budget[dim]
        wanted = patch_within(patch_budget, [float(s) for s in spacing], [float(m) for m in median_shape[:dim]])
        _, strides, kernels, patch, _ = get_pool_and_conv_props(spacing, wanted, 4, self.max_pooling[dim])
        stages = len(strides)
        plan["architecture"]["arch_kwargs"].update(
            n_stages=stages,
            features_per_stage=[self.base_features * 2**i for i in range(stages)],
            kernel_sizes=kernels,
            strides=strides,
            n_blocks_per_stage=[1, *[2] * (stages - 1)],
            n_conv_per_stage_decoder=[1] * (stages - 1),
        )
        plan["patch_size"] = [int(p) for p in patch]
        plan["batch_size"] = int(min(max(batch_budget // math.prod(plan["patch_size"]), 2), self.max_batch[dim]))
        return plan


def patch_within(budget: int, spacing_mm: Sequence[float], median_shape: Sequence[float]) -> list[int]:
    """Largest patch of at most ``budget`` voxels: the median shape, or a cube in mm clipped to the median shape.

    The edge of the cube is found by bisection; each axis keeps at least 4 voxels or its median, whichever is less.
    """
    low, high = 0.0, max(s * m for s, m in zip(spacing_mm, median_shape, strict=True))

    def patch(edge_mm: float) -> list[int]:
        return [max(round(min(m, max(edge_mm / s, 4))), 1) for s, m in zip(spacing_mm, median_shape, strict=True)]

    if math.prod(patch(high)) <= budget:
        return patch(high)
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if math.prod(patch(middle)) <= budget else (low, middle)
    return patch(low)


PRESETS: dict[str, tuple[type, TrainingSettings]] = {
    "resenc-m": (nnUNetPlannerResEncM, TrainingSettings()),
    "resenc-l": (nnUNetPlannerResEncL, TrainingSettings()),
    "cpu": (CpuPlanner, CPU_SETTINGS),
}
"""Preset name to planner class and training settings."""

PLANS_NAMES = {"resenc-m": "nnUNetResEncUNetMPlans", "resenc-l": "nnUNetResEncUNetLPlans", "cpu": "nnDuetCpuPlans"}


def plans_name_of(preset: str) -> str:
    """The plans identifier that a preset writes.

    Raises:
        SettingsError: unknown preset.
    """
    if preset not in PLANS_NAMES:
        raise SettingsError(f"preset: expected one of {sorted(PLANS_NAMES)}, got {preset!r}")
    return PLANS_NAMES[preset]


@dataclass(frozen=True)
class PlanSummary:
    """What ``plan`` decided: patch, batch, spacing and network of every configuration."""

    dataset: str
    plans_name: str
    plans_file: str
    configurations: dict[str, dict[str, Any]]
    num_cases: int

    def to_json(self) -> dict[str, Any]:
        """A JSON object with every field."""
        return asdict(self)


def plan(
    dataset_id: int,
    preset: str,
    *,
    workspace: Workspace,
    configurations: Sequence[str] = ("2d", "3d_fullres"),
    num_processes: int | None = None,
    progress: Progress | None = None,
) -> PlanSummary:
    """Extract the fingerprint, write the plans, preprocess every case of the wanted configurations.

    Args:
        num_processes: workers; None takes one process on up to two cores, else half the cores up to eight. One process works
            in this one, which avoids the workers' imports (about 7 CPU-seconds each).
        progress: called with (done, total, text) per preprocessed case.

    Raises:
        DatasetError: the dataset is not there or was not converted completely.
        SettingsError: unknown preset, or none of the configurations fits the data.
        WorkerError: a worker process died.
    """
    plans_name = plans_name_of(preset)
    dataset = workspace.dataset_name(dataset_id)
    if not (workspace.raw / dataset / "dataset.json").is_file():
        raise DatasetError(f"{workspace.raw / dataset}: expected dataset.json; run `nnduet convert` to its end first")
    workers = num_processes or _default_processes()
    planner, settings = PRESETS[preset]
    # the planner takes nnUNet_n_proc_DA as a number of threads and fails at 0, which is a good value in training
    with host_environment(workspace.environment() | {"nnUNet_n_proc_DA": "1"}):
        _fingerprint(workspace.preprocessed / dataset, DatasetFingerprintExtractor(dataset), progress)
        plan_experiment_dataset(dataset_id, planner, overwrite_plans_name=plans_name)
    plans_file = workspace.preprocessed / dataset / f"{plans_name}.json"
    plans = load_json(str(plans_file))
    plans[PLANS_KEY] = {"training": settings.to_json()}
    write_json_atomically(plans_file, plans)
    chosen = [c for c in configurations if c in plans["configurations"]]
    if not chosen:
        raise SettingsError(f"configurations: expected some of {sorted(plans['configurations'])}, got {list(configurations)}")
    with host_environment(workspace.environment()):
        cases = _preprocess(workspace, dataset, PlansManager(plans), chosen, workers, progress)
    return PlanSummary(dataset, plans_name, str(plans_file), {c: _outline(plans, c) for c in chosen}, cases)


def _default_processes() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return 1 if cores <= 2 else min(8, cores // 2)


def _outline(plans: dict[str, Any], configuration: str) -> dict[str, Any]:
    settings = plans["configurations"][configuration]
    architecture = settings["architecture"]["arch_kwargs"]
    return {
        "patch_size": settings["patch_size"],
        "batch_size": settings["batch_size"],
        "spacing_mm": settings["spacing"],
        "features_per_stage": architecture["features_per_stage"],
    }


def _fingerprint(target: Path, extractor: Any, progress: Progress | None) -> None:
    """Write ``dataset_fingerprint.json`` as nnU-Net's extractor does, in this process.

    nnU-Net's own ``run`` spawns workers, each importing everything, and dies in scripts without a ``__main__`` guard. Cases
    are analysed by its ``analyze_case``; the summary repeats nnunetv2 fingerprint_extractor.py, lines 169-200.
    """
    example = next(iter(extractor.dataset.values()))["images"][0]
    reader = determine_reader_writer_from_dataset_json(extractor.dataset_json, example)
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
    workspace: Workspace,
    dataset: str,
    plans: PlansManager,
    configurations: Sequence[str],
    workers: int,
    progress: Progress | None,
) -> int:
    raw, target = workspace.raw / dataset, workspace.preprocessed / dataset
    dataset_json = load_json(str(raw / "dataset.json"))
    files = get_filenames_of_train_images_and_targets(str(raw), dataset_json)
    total, done = len(files) * len(configurations), 0
    for configuration in configurations:
        folder = target / plans.get_configuration(configuration).data_identifier
        partial_folder = folder.with_name(folder.name + ".partial")
        for old in (folder, partial_folder):
            shutil.rmtree(old, ignore_errors=True)
        checksums_of(folder).unlink(missing_ok=True)
        partial_folder.mkdir(parents=True)
        work = partial(preprocess_case, plans.plans, configuration, dataset_json, str(partial_folder))
        for case_id in _each(work, files, workers):
            done += 1
            if progress:
                progress(done, total, f"preprocess {configuration} {case_id}")
        partial_folder.rename(folder)
        write_checksums(folder)
    _copy_references(files, target, dataset_json["file_ending"])
    for name in (SPLITS_FILE, LABELS_FILE):
        if (raw / name).is_file():
            copy_atomically(raw / name, target / name)
    return len(files)


def _copy_references(files: dict[str, Any], target: Path, ending: str) -> None:
    (target / "gt_segmentations").mkdir(exist_ok=True)
    for case_id, entry in files.items():
        copy_atomically(Path(entry["label"]), target / "gt_segmentations" / f"{case_id}{ending}")


def _each(work: Callable[[str, dict[str, Any]], None], files: dict[str, Any], workers: int) -> Any:
    """Run ``work`` per case, here or in spawned workers, and yield the case ids as they finish."""
    if workers == 1:
        for case_id, entry in files.items():
            work(case_id, entry)
            yield case_id
        return
    finished: set[str] = set()
    others = active_children()
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        try:
            with starting_children():
                futures = {pool.submit(work, case_id, entry): case_id for case_id, entry in files.items()}
            for future in as_completed(futures):
                future.result()
                finished.add(futures[future])
                yield futures[future]
        except (BrokenProcessPool, OSError) as error:  # OSError: it died while cases were being handed out
            for worker in active_children():
                if worker not in others:  # the pool waits for ever for one that it started while it broke
                    worker.terminate()
            pending = [str(case_id) for case_id in files if case_id not in finished][:workers]
            raise WorkerError(f"a preprocessing worker died, perhaps out of memory, near cases {pending}") from error


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
