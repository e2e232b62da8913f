"""The planners behind the presets: nnU-Net's own, and one for two cores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props
from nnunetv2.experiment_planning.experiment_planners.resencUNet_planner import ResEncUNetPlanner
from nnunetv2.experiment_planning.experiment_planners.residual_unets.residual_encoder_unet_planners import (
    nnUNetPlannerResEncL,
    nnUNetPlannerResEncM,
)
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
from nnunetv2.utilities.json_export import recursive_fix_for_json_export

from nnduet.errors import DatasetError, SettingsError
from nnduet.io.case_images import NNUNET_READERS
from nnduet.io.formats import image_endings, listed_endings
from nnduet.nnunet_types import Configuration, DatasetJson, Plans
from nnduet.training.settings import CPU_SETTINGS, TrainingSettings

__all__ = ["PRESETS", "CpuPlanner", "patch_within", "plans_name_of", "preset_of", "reader_of"]


class _OwnPlans:
    """In front of a planner of nnU-Net: plans are returned, not written, and preprocessed data have a folder of their own.

    The stock planners write over a plans file that a user may have edited, and share one folder of data, which each empties.
    """

    plans_identifier: str
    dataset_json: DatasetJson

    def determine_reader_writer(self) -> type:
        """The reader of the file ending. nnU-Net's tries an image, and takes another one after any error of the disk."""
        return reader_of(self.dataset_json)

    def save_plans(self, plans: Plans) -> None:
        """Make them plain JSON; :func:`nnduet.training.planning.plan` decides what file they may replace."""
        recursive_fix_for_json_export(plans)

    def generate_data_identifier(self, configuration_name: str) -> str:
        """The folder of a configuration."""
        return f"{self.plans_identifier}_{configuration_name}"


def reader_of(dataset_json: DatasetJson) -> type:
    """nnU-Net's reader for a dataset: the one that its ``dataset.json`` names, else the first for its file ending.

    Raises:
        DatasetError: there is none, or one that sees other arrays than prediction, e.g. turned ones; or files that
            nnU-Net reads and prediction does not.
    """
    try:
        reader: type = determine_reader_writer_from_dataset_json(dict(dataset_json), verbose=False)
    except (RuntimeError, KeyError, AttributeError) as error:
        raise DatasetError(f"dataset.json: expected a file_ending that nnU-Net reads: {error}") from error
    if reader.__name__ not in NNUNET_READERS:
        raise DatasetError(
            f"dataset.json: expected files that nnDuet predicts from, by {' or '.join(NNUNET_READERS)}, got {reader.__name__}",
            remedy="`nnduet convert` the cases; it reads them in the orientation in which they are stored",
        )
    ending = str(dataset_json["file_ending"])
    if ending.lower() not in image_endings():
        raise DatasetError(
            f"dataset.json: file_ending expected {listed_endings()}, which nnDuet predicts from, got {ending}",
            remedy="write images and masks in one of these formats, then `nnduet convert` them",
        )
    return reader


class MediumPlanner(_OwnPlans, nnUNetPlannerResEncM):  # type: ignore[misc]
    """nnU-Net's ResEnc-M."""


class LargePlanner(_OwnPlans, nnUNetPlannerResEncL):  # type: ignore[misc]
    """nnU-Net's ResEnc-L."""


class CpuPlanner(_OwnPlans, ResEncUNetPlanner):  # type: ignore[misc]
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

    def __init__(self, dataset_name_or_id: str | int, plans_name: str = "nnDuetCpuPlans", **kwargs: object) -> None:
        kwargs.pop("gpu_memory_target_in_gb", None)
        super().__init__(dataset_name_or_id, gpu_memory_target_in_gb=1, plans_name=plans_name, **kwargs)
        self.UNet_base_num_features = self.base_features
        self.UNet_blocks_per_stage_encoder = (1, *(2,) * 11)

    def get_plans_for_configuration(
        self,
        spacing: Sequence[float],
        median_shape: Sequence[float],
        data_identifier: str,
        approximate_n_voxels_dataset: float,
        _cache: dict[str, object],
    ) -> Configuration:
        """nnU-Net's plan for one configuration, with the patch, batch and network of this preset."""
        plan: Configuration = super().get_plans_for_configuration(
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
    "resenc-m": (MediumPlanner, TrainingSettings()),
    "resenc-l": (LargePlanner, TrainingSettings()),
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


def preset_of(plans_name: str) -> str | None:
    """The preset that writes plans of this name; None for plans of another origin."""
    return next((preset for preset, name in PLANS_NAMES.items() if name == plans_name), None)
