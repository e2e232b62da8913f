"""What nnDuet uses of nnU-Net's objects, as protocols, so that signatures say what they take without importing nnunetv2.

nnU-Net's own classes have many more attributes; the ones here are those that nnDuet reads. Shapes and spacings are in the
order of the preprocessed axes (Z, Y, X), which ``transpose_forward`` makes of those of the image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypedDict

__all__ = [
    "CaseEntry",
    "CaseProperties",
    "Configuration",
    "ConfigurationManager",
    "DatasetJson",
    "LabelManager",
    "Plans",
    "PlansManager",
]

Plans = dict[str, Any]
"""The object of nnU-Net's ``plans.json``, with nnDuet's own under "nnduet". ``model_store.plans`` checks its entries, before
anything is computed with them."""

DatasetJson = dict[str, Any]
"""The object of nnU-Net's ``dataset.json``: ``channel_names``, ``labels``, ``file_ending``, and nnDuet's ``classification`` and
``covariates``. ``model_store.plans`` or ``datasets.descriptions`` checks it."""

Configuration = dict[str, Any]
"""One of ``plans["configurations"]``, with the entries that it inherits."""

CaseProperties = dict[str, Any]
"""What nnU-Net knows of a case beside its voxels: ``spacing`` in mm of the image's axes; of a preprocessed one also
``shape_before_cropping``, ``bbox_used_for_cropping``, ``shape_after_cropping_and_before_resampling``, ``class_locations``."""


class CaseEntry(TypedDict):
    """The raw files of a training case: an image per channel, and the mask."""

    images: list[str]
    label: str


class LabelManager(Protocol):
    """nnU-Net's LabelManager: which labels or regions a model outlines."""

    @property
    def has_regions(self) -> bool:
        """Whether labels are combined to regions, which may overlap."""

    @property
    def foreground_regions(self) -> Sequence[int | tuple[int, ...]]:
        """The label values of every region but background; only with regions."""

    @property
    def foreground_labels(self) -> Sequence[int]:
        """The values of all labels but background and the ignored one."""

    @property
    def regions_class_order(self) -> list[int]:
        """The value that each region gets, in the order in which they are painted over one another; only with regions."""

    @property
    def ignore_label(self) -> int | None:
        """The value of voxels that nothing is known of; None where there is none."""

    @property
    def num_segmentation_heads(self) -> int:
        """Channels of the network's segmentation output."""


class ConfigurationManager(Protocol):
    """nnU-Net's ConfigurationManager: one configuration of a plans file, such as 3d_fullres."""

    @property
    def configuration(self) -> Configuration:
        """Its entries, with those that it inherits."""

    @property
    def patch_size(self) -> list[int]:
        """Voxels along (Z, Y, X), or (Y, X) of a slice-wise one."""

    @property
    def spacing(self) -> list[float]:
        """Of the preprocessed grid, mm, as many as ``patch_size``."""

    @property
    def use_mask_for_norm(self) -> list[bool]:
        """Per channel: whether only voxels within the body are normalised."""

    @property
    def pool_op_kernel_sizes(self) -> Sequence[Sequence[int]]:
        """One per stage of the encoder."""

    @property
    def network_arch_class_name(self) -> str:
        """Dotted name of the architecture's class."""

    @property
    def network_arch_init_kwargs(self) -> dict[str, Any]:
        """What the class is called with."""

    @property
    def network_arch_init_kwargs_req_import(self) -> Sequence[str]:
        """Those of ``network_arch_init_kwargs`` that are names of classes or functions."""

    @property
    def resampling_fn_data(self) -> Callable[..., Any]:
        """(data (C, *shape), new shape, spacing, new spacing) to data of the new shape."""

    @property
    def resampling_fn_probabilities(self) -> Callable[..., Any]:
        """The same for logits."""


class PlansManager(Protocol):
    """nnU-Net's PlansManager: a plans file."""

    @property
    def plans(self) -> Plans:
        """The file's object."""

    @property
    def dataset_name(self) -> str:
        """The dataset that it was planned for, e.g. Dataset007_Pancreas."""

    @property
    def transpose_forward(self) -> list[int]:
        """Place i of the preprocessed axes is that axis of the image."""

    @property
    def transpose_backward(self) -> list[int]:
        """Place i of the image's axes is that axis of the preprocessed ones."""

    @property
    def foreground_intensity_properties_per_channel(self) -> Mapping[str, Mapping[str, float]]:
        """{number of the channel: {"mean", "std", "percentile_00_5", ...}}."""

    def get_configuration(self, configuration_name: str) -> ConfigurationManager:
        """One configuration."""

    def get_label_manager(self, dataset_json: DatasetJson) -> LabelManager:
        """The labels of ``dataset.json``."""
