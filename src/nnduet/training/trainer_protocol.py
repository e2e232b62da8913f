"""What the parts of a training use of the trainer: nnU-Net's attributes by their names there, and nnDuet's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nnduet.network.heads import JointNetwork
from nnduet.nnunet_types import CaseProperties, ConfigurationManager, DatasetJson, LabelManager, PlansManager
from nnduet.schema import Task
from nnduet.training.collapse import CollapseWatch
from nnduet.training.labels import CaseLabels
from nnduet.training.optimizer import JointOptimizer
from nnduet.training.patch_evidence import Evidence
from nnduet.training.settings import TrainingSettings

__all__ = ["Augmentation", "Batch", "EpochLog", "LoadedCase", "StepTerms", "StoredCases", "Trainer"]

Augmentation = tuple[tuple[float, float], bool, NDArray[np.integer], tuple[int, ...] | None]
"""nnU-Net's choice: rotation in radians (low, high), dummy 2d, initial patch (dims,), mirror axes; None for no mirroring."""

StepTerms = dict[str, float | np.float32]
"""{"loss" and its terms: value} of one step; NaN where the step was passed over."""

LoadedCase = tuple[NDArray[np.float32], NDArray[np.int16], None, CaseProperties]
"""Image (C, Z, Y, X), labels (1, Z, Y, X), nothing, properties; arrays may lie on the disk until they are sliced."""


class Batch(TypedDict):
    """What nnU-Net's loaders give: images (B, C, *patch), labels (B, 1 or R, *patch) per resolution, names (B,)."""

    data: Tensor
    target: list[Tensor]
    keys: Sequence[str]


class StoredCases(Protocol):
    """nnU-Net's dataset: preprocessed cases of a folder, by name. It is called with the folder and the names."""

    identifiers: list[str]

    def load_case(self, identifier: str) -> LoadedCase:
        """One case. StorageError where it cannot be read."""


class _StoredCasesClass(Protocol):
    def __call__(self, folder: str, identifiers: Sequence[str]) -> StoredCases: ...


class _LocalLog(Protocol):
    my_fantastic_logging: dict[str, list[float]]


class EpochLog(Protocol):
    """nnU-Net's logger: a value per epoch and name; the local one rides in every checkpoint."""

    local_logger: _LocalLog

    def log(self, key: str, value: float, step: int) -> None:
        """Keep the value of an epoch, counted from 0."""

    def get_value(self, key: str, step: int | None) -> Any:
        """The value of an epoch, -1 being the last, or for None the list of all."""

    def plot_progress_png(self, output_folder: str) -> None:
        """Draw ``progress.png``."""


class Trainer(Protocol):
    """A trainer of nnDuet, before, in or after its training.

    Attributes:
        output_folder, output_folder_base: ``fold_K``, and the model folder that it lies in.
        preprocessed_dataset_folder, preprocessed_dataset_folder_base: cases of the configuration, and the dataset's folder.
        current_epoch: from 0; ``num_epochs`` at the end.
        local_rank: number of this process among those that train together, 0 where there is one.
        withheld: training cases that the updates do not see, see ``selection``.
        evidence, collapse: what weighs the class loss of a patch, and what counts answers.
        network, loss: the joint network, as it is called in training, and nnU-Net's loss of the masks.
        inference_allowed_mirroring_axes: axes of the patch; None for no mirroring.
    """

    output_folder: str
    output_folder_base: str
    preprocessed_dataset_folder: str
    preprocessed_dataset_folder_base: str
    dataset_class: _StoredCasesClass
    plans_manager: PlansManager
    configuration_manager: ConfigurationManager
    configuration_name: str
    label_manager: LabelManager
    dataset_json: DatasetJson
    device: torch.device
    fold: int | str
    tasks: tuple[Task, ...]
    settings: TrainingSettings
    labels: CaseLabels
    evidence: Evidence
    collapse: CollapseWatch
    network: nn.Module
    loss: nn.Module
    optimizer: JointOptimizer
    logger: EpochLog
    current_epoch: int
    num_epochs: int
    num_iterations_per_epoch: int
    local_rank: int
    withheld: list[str]
    enable_deep_supervision: bool
    inference_allowed_mirroring_axes: tuple[int, ...] | None

    def joint_network(self) -> JointNetwork:
        """The network, without what compiling or several devices wrap around it."""

    def do_split(self) -> tuple[list[str], list[str]]:
        """Names of the fold's training and validation cases."""

    def table_folders(self) -> list[Path]:
        """Where the table of labels is looked for."""

    def notes(self) -> tuple[str, ...]:
        """What the user should know before the training begins."""

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """Whether the network gives outputs of all resolutions, or only the finest."""

    def save_checkpoint(self, filename: str) -> None:
        """Write a checkpoint; on rank 0 only."""

    def print_to_log_file(self, *text: object) -> None:
        """A line for the log."""

    def report(self, done: int, total: int, text: str) -> None:
        """How far a long step has come."""
