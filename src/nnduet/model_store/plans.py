"""What ``plans.json`` and ``dataset.json`` of a model may say, checked before nnU-Net or torch builds anything of them.

nnU-Net trusts both files: it imports what they name, allocates what they ask for and asserts the rest. Anybody may have edited
them, so only the entries that prediction uses are read, by type and range; others are passed over.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Annotated, Any, Literal

from msgspec import Meta

from nnduet.datasets.descriptions import check_label_values, check_regions
from nnduet.datasets.mask_codes import MaskCodes
from nnduet.errors import ModelError, NNDuetError
from nnduet.names import check_name
from nnduet.nnunet_types import Configuration, DatasetJson, Plans
from nnduet.records import convert_json
from nnduet.task_list import tasks_from_json

__all__ = ["MAX_PATCH_VOXELS", "check_configuration", "check_dataset", "check_plans"]

MAX_PATCH_VOXELS = 2**28
"""16 times nnU-Net's largest presets; a patch of that size needs tens of gigabytes."""

Count = Annotated[int, Meta(ge=1, le=2**14)]
Depth = Annotated[int, Meta(ge=1, le=64)]
Label = Annotated[int, Meta(ge=0, le=2**16 - 1)]
SpacingMm = Annotated[float, Meta(gt=0, le=1e4)]
Order = Annotated[int, Meta(ge=0, le=5)]
Permutation = Annotated[list[Annotated[int, Meta(ge=0, le=2)]], Meta(min_length=3, max_length=3)]
PerStage = Depth | list[Depth]
PerStageAndAxis = Annotated[int, Meta(ge=1, le=32)] | list[int | list[Annotated[int, Meta(ge=1, le=32)]]]
Arguments = dict[str, bool | int | float | None]
Resampling = Literal["resample_data_or_seg_to_shape", "resample_torch_fornnunet", "resample_torch_simple", "no_resampling_hack"]
Normalization = Literal[
    "CTNormalization", "ZScoreNormalization", "NoNormalization", "RescaleTo01Normalization", "RGBTo01Normalization"
]


@dataclass(frozen=True)
class _Own:
    """``plans["nnduet"]``."""

    tasks: dict[str, dict[str, Any]]
    overlapping: bool
    head: dict[str, Any]


@dataclass(frozen=True)
class _Intensities:
    mean: float
    std: Annotated[float, Meta(ge=0)]
    percentile_00_5: float
    percentile_99_5: float


@dataclass(frozen=True)
class _Plans:
    plans_name: str
    transpose_forward: Permutation
    transpose_backward: Permutation
    image_reader_writer: str
    configurations: dict[str, dict[str, Any]]
    dataset_name: str | None = None
    label_manager: Literal["LabelManager"] = "LabelManager"
    foreground_intensity_properties_per_channel: dict[str, _Intensities] = field(default_factory=dict)
    foreground_intensity_properties_by_modality: dict[str, _Intensities] = field(default_factory=dict)
    """As the former, in plans of older versions."""
    nnduet: _Own | None = None


@dataclass(frozen=True)
class _Network:
    """``arch_kwargs``; nnU-Net's classes take numbers, or lists with one entry per stage."""

    n_stages: Annotated[int, Meta(ge=1, le=16)]
    features_per_stage: Count | list[Count]
    conv_op: str
    kernel_sizes: PerStageAndAxis
    strides: PerStageAndAxis
    n_conv_per_stage_decoder: PerStage
    n_blocks_per_stage: PerStage = 1
    n_conv_per_stage: PerStage = 1
    norm_op: str | None = None
    dropout_op: str | None = None
    nonlin: str | None = None
    norm_op_kwargs: Arguments | None = None
    dropout_op_kwargs: Arguments | None = None
    nonlin_kwargs: Arguments | None = None


@dataclass(frozen=True)
class _Architecture:
    network_class_name: str
    arch_kwargs: _Network
    _kw_requires_import: list[Literal["conv_op", "norm_op", "dropout_op", "nonlin"]]


@dataclass(frozen=True)
class _ResamplingArguments:
    is_seg: bool = False
    order: Order = 3
    order_z: Order = 0
    force_separate_z: bool | None = None
    separate_z_anisotropy_threshold: Annotated[float, Meta(gt=0)] = 3
    memefficient_seg_resampling: bool = False
    num_threads: Depth = 4
    mode: Literal["linear", "nearest", "nearest-exact"] = "linear"
    aniso_axis_mode: Literal["linear", "nearest", "nearest-exact"] = "nearest-exact"


@dataclass(frozen=True)
class _Configuration:
    patch_size: Annotated[list[Annotated[int, Meta(ge=1, le=2**14)]], Meta(min_length=2, max_length=3)]
    spacing: Annotated[list[SpacingMm], Meta(min_length=2, max_length=3)]
    normalization_schemes: list[Normalization]
    use_mask_for_norm: list[bool]
    resampling_fn_data: Resampling
    resampling_fn_probabilities: Resampling
    resampling_fn_data_kwargs: _ResamplingArguments
    resampling_fn_probabilities_kwargs: _ResamplingArguments
    architecture: _Architecture
    preprocessor_name: Literal["DefaultPreprocessor"] = "DefaultPreprocessor"
    previous_stage: str | None = None


@dataclass(frozen=True)
class _Dataset:
    channel_names: dict[str, str]
    labels: dict[str, Label | list[Label]]
    file_ending: Annotated[str, Meta(pattern=r"^(\.[A-Za-z0-9]{1,8}){1,2}$")]
    regions_class_order: list[Label] | None = None
    covariates: list[str] = field(default_factory=list)
    classification: dict[str, dict[str, Any]] = field(default_factory=dict)


def check_plans(value: Plans, num_channels: int, place: str) -> Plans:
    """The object of a ``plans.json`` as it is, if its entries outside of the configurations can be what they are taken for.

    Args:
        num_channels: of the images.

    Raises:
        ModelError: an entry is missing or impossible; the message begins with ``place``.
    """
    plans = convert_json(value, _Plans, place, error=ModelError)
    axes = sorted(plans.transpose_forward)
    if axes != [0, 1, 2] or [plans.transpose_backward[axis] for axis in plans.transpose_forward] != [0, 1, 2]:
        raise ModelError(
            f"{place}: transpose_forward and transpose_backward expected an order of the axes 0, 1, 2 and its inverse, got "
            f"{plans.transpose_forward} and {plans.transpose_backward}"
        )
    known = plans.foreground_intensity_properties_per_channel or plans.foreground_intensity_properties_by_modality
    if not set(map(str, range(num_channels))) <= set(known):
        what, found = "foreground_intensity_properties_per_channel", sorted(known)
        raise ModelError(f"{place}: {what} expected channels 0 to {num_channels - 1}, got {found}")
    for what, name in (
        ("plans_name", plans.plans_name),
        ("dataset_name", plans.dataset_name),
        *(("configuration", name) for name in plans.configurations),
        *(("data_identifier", entry.get("data_identifier")) for entry in plans.configurations.values()),
    ):
        if name is not None:  # each becomes a folder of a training
            check_name(_text(name, f"{place}: {what}"), f"{place}: {what}", ModelError)
    return dict(value)


def check_configuration(value: Configuration, num_channels: int, place: str) -> None:
    """Refuse a configuration that no network can be built or run by, with its inheritance resolved.

    Args:
        num_channels: of the images.

    Raises:
        ModelError: an entry is missing or impossible; the message begins with ``place``.
    """
    found = convert_json(value, _Configuration, place, error=ModelError)
    network, dim = found.architecture.arch_kwargs, len(found.patch_size)
    if found.previous_stage is not None:
        raise ModelError(f"{place}: is the second stage of a cascade, which nnDuet does not predict with")
    if prod(found.patch_size) > MAX_PATCH_VOXELS:
        raise ModelError(f"{place}: patch_size expected at most {MAX_PATCH_VOXELS} voxels, got {found.patch_size}")
    if len(found.spacing) != dim:
        raise ModelError(f"{place}: spacing expected {dim} numbers like patch_size, got {found.spacing}")
    for name in ("normalization_schemes", "use_mask_for_norm"):
        if len(getattr(found, name)) != num_channels:
            raise ModelError(f"{place}: {name} expected one entry per channel, {num_channels}, got {getattr(found, name)}")
    _check_stages(network, place)
    _check_layers(network, dim, place)
    for name in ("kernel_sizes", "strides"):
        sizes = getattr(network, name)
        if any(isinstance(size, list) and len(size) != dim for size in (sizes if isinstance(sizes, list) else [])):
            raise ModelError(f"{place}: {name} expected {dim} numbers per stage like patch_size, got {sizes}")
    _check_divisible(found.patch_size, network, place)
    for name in ("resampling_fn_data_kwargs", "resampling_fn_probabilities_kwargs"):
        unknown = set(value[name]) - set(_ResamplingArguments.__dataclass_fields__)
        if unknown:
            raise ModelError(f"{place}: {name} has unknown entries {sorted(unknown)}")


def check_dataset(value: DatasetJson, place: str) -> DatasetJson:
    """The object of a model's ``dataset.json`` as it is, if prediction can use its channels, labels, masks and tasks.

    Raises:
        ModelError: an entry is missing or impossible; the message begins with ``place``.
    """
    found = convert_json(value, _Dataset, place, error=ModelError)
    if not found.channel_names or set(found.channel_names) != {str(i) for i in range(len(found.channel_names))}:
        raise ModelError(f"{place}: channel_names expected keys from 0 on, got {list(found.channel_names)[:20]}")
    try:
        check_label_values(found.labels)
        check_regions(found.labels, found.regions_class_order)
        MaskCodes.from_json(value)
        tasks_from_json(found.classification)
    except NNDuetError as error:
        raise ModelError(f"{place}: {error}") from error
    return dict(value)


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise ModelError(f"{what}: expected a text, got {type(value).__name__}")
    return value


def _check_stages(network: _Network, place: str) -> None:
    for name in ("features_per_stage", "kernel_sizes", "strides", "n_blocks_per_stage", "n_conv_per_stage"):
        entries = getattr(network, name)
        if isinstance(entries, list) and len(entries) != network.n_stages:
            raise ModelError(f"{place}: {name} expected {network.n_stages} entries, one per stage, got {len(entries)}")
    decoder = network.n_conv_per_stage_decoder
    if isinstance(decoder, list) and len(decoder) != network.n_stages - 1:
        raise ModelError(f"{place}: n_conv_per_stage_decoder expected {network.n_stages - 1} entries, got {len(decoder)}")


def _check_layers(network: _Network, dim: int, place: str) -> None:
    """Layers for images of that many axes. That they come from torch.nn is checked where the network is built."""
    kinds = {
        "conv_op": (f"Conv{dim}d",),
        "norm_op": (f"InstanceNorm{dim}d", f"BatchNorm{dim}d", None),
        "dropout_op": (f"Dropout{dim}d", "Dropout", None),
    }
    for key, allowed in kinds.items():
        name = getattr(network, key)
        if name is not None and name.startswith("torch.nn.") and name.rpartition(".")[2] not in allowed:
            raise ModelError(f"{place}: {key} expected one of {allowed} of torch.nn, got {name!r}")


def _check_divisible(patch_size: list[int], network: _Network, place: str) -> None:
    """The decoder joins its stages only where every stride divides what is left of the patch."""
    strides = network.strides if isinstance(network.strides, list) else [network.strides] * network.n_stages
    for axis, size in enumerate(patch_size):
        step = prod(stride[axis] if isinstance(stride, list) else stride for stride in strides)
        if size % step:
            raise ModelError(
                f"{place}: patch_size expected a multiple of {step}, the strides, on axis {axis}, got {patch_size}"
            )
