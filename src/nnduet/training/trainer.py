"""The trainer: a thin adapter that teaches nnU-Net's own training loop to learn the case labels too.

No loop is copied. nnU-Net calls the overridden hooks in its ``run_training``; whole-case validation and metrics come at the
end through :mod:`nnduet.training.validation`.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from nnunetv2.paths import nnUNet_raw
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class, nnUNetDatasetBlosc2
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor, nn

from nnduet.errors import DivergedError, NNDuetError, SettingsError
from nnduet.io.case_images import check_readable
from nnduet.network.hardware import keep_freed_memory
from nnduet.network.heads import JointNetwork
from nnduet.network.network import HEAD_SETTINGS, PLANS_KEY, build_joint_network, has_regions, use_cpu_layers
from nnduet.nnunet_types import ConfigurationManager, DatasetJson, Plans, PlansManager
from nnduet.progress import Progress
from nnduet.task_list import tasks_from_json
from nnduet.training.checkpoints import remove_passing_checkpoints, replace_checkpoint
from nnduet.training.collapse import CollapseWatch, never_armed_note
from nnduet.training.history import History, SparsePlots, epoch_row, mean_of_finite
from nnduet.training.joint_loss import joint_loss
from nnduet.training.labels import read_case_labels
from nnduet.training.mirroring import fixed_patch_axes, keep_sides
from nnduet.training.optimizer import JointOptimizer, PolynomialDecay, build_optimizer
from nnduet.training.patch_evidence import Evidence
from nnduet.training.preprocessed import PreprocessedCases
from nnduet.training.ranks import patient_group, wait_for_first
from nnduet.training.selection import select_checkpoint, take_selected_checkpoint, withhold
from nnduet.training.settings import TrainingSettings
from nnduet.training.trainer_protocol import Augmentation, Batch, StepTerms, StoredCases
from nnduet.training.validation import validate_fold

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["nnUNetTrainerMultitask", "nnUNetTrainer_multitask"]

MOST_BAD_STEPS = 5
"""Steps in a row whose loss is no number after which a training is given up."""


class nnUNetTrainerMultitask(nnUNetTrainer):  # type: ignore[misc]  # noqa: N801
    """Train segmentation and case labels jointly.

    Tasks come from ``dataset.json["classification"]``, labels from ``classification_labels.csv``, settings from
    ``plans["nnduet"]["training"]`` (nnU-Net's defaults where absent). The constructor's parameter names are nnU-Net's; it
    reads them by name.
    """

    logger: Any
    my_init_kwargs: dict[str, Any]

    def __init__(
        self,
        plans: Plans,
        configuration: str,
        fold: int | str,
        dataset_json: DatasetJson,
        device: torch.device = torch.device("cuda"),  # noqa: B008
    ) -> None:
        check_readable(plans, dataset_json, "plans.json and dataset.json")
        plans.setdefault("continue_training", False)
        self.settings = TrainingSettings.from_json(plans.get(PLANS_KEY, {}).get("training", {}))
        plans[PLANS_KEY] = {
            "training": self.settings.to_json(),
            "tasks": dataset_json.get("classification", {}),
            "head": {name: getattr(self.settings, name) for name in HEAD_SETTINGS},
            "overlapping": has_regions(dataset_json["labels"]),
        }
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.tasks = tasks_from_json(dataset_json.get("classification", {}))
        self.num_epochs = self.settings.num_epochs
        self.num_iterations_per_epoch = self.settings.iterations_per_epoch
        self.num_val_iterations_per_epoch = self.settings.validation_iterations
        self.save_every = self.settings.save_every
        self.oversample_foreground_percent = self.settings.oversample_foreground
        self.history = History(Path(self.output_folder), self.tasks) if self.output_folder else None
        self.logger = SparsePlots(self.logger)
        self.withheld: list[str] = []
        self.collapse = CollapseWatch(self.tasks)
        self.progress: Progress | None = None
        self.waiting: ProcessGroup | None = None
        self._steps = 0
        self._bad_steps = 0

    def notes(self) -> tuple[str, ...]:
        """What the user should know before a training with these settings begins."""
        if not self.tasks or any(self.settings.class_weight_at(epoch) > 0 for epoch in range(self.num_epochs)):
            return ()
        return (never_armed_note(self.num_epochs),)

    def report(self, done: int, total: int, text: str) -> None:
        """Tell whoever watches how far a long step has come."""
        if self.progress is not None:
            self.progress(done, total, text)

    @staticmethod
    def build_network_architecture(
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        return build_joint_network(
            plans_manager, configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision
        )

    def initialize(self) -> None:
        """nnU-Net's initialisation from the settings' seed, so that the same data give the same first weights.

        Raises:
            SettingsError: the plans' network is too shallow for deep supervision.
        """
        stages = len(self.configuration_manager.pool_op_kernel_sizes)
        if stages < 3:
            raise SettingsError(
                f"plans: expected a network of at least 3 stages, got {stages}: with fewer, nnU-Net's deep supervision divides "
                "0 by 0; the images may be smaller than 16 voxels along every axis"
            )
        self._seed(0)
        super().initialize()
        if self.is_ddp and self.waiting is None:  # started by nnU-Net's own command
            self.waiting = patient_group()
        if infer_dataset_class(self.preprocessed_dataset_folder) is nnUNetDatasetBlosc2:
            self.dataset_class = PreprocessedCases
        if self.device.type == "cpu":
            use_cpu_layers(self.joint_network())
            keep_freed_memory()

    def configure_optimizers(self) -> tuple[JointOptimizer, PolynomialDecay]:
        optimizer = build_optimizer(self.network, self.settings)
        return optimizer, PolynomialDecay(optimizer, self.num_epochs)

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> Augmentation:  # noqa: N802
        """nnU-Net's choice, but no mirroring over the fixed axes of a task, neither in training nor in prediction."""
        augmentation = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        patch_size = self.configuration_manager.patch_size
        fixed = fixed_patch_axes(self.tasks, self.plans_manager.transpose_forward, len(patch_size))
        augmentation = keep_sides(augmentation, fixed, patch_size)
        self.inference_allowed_mirroring_axes = augmentation[-1]
        return augmentation

    # -- data ----------------------------------------------------------------------------------------------------------

    def get_tr_and_val_datasets(self) -> tuple[StoredCases, StoredCases]:
        """nnU-Net's data sets; the training one, without withheld cases, names them so that classes are drawn equally often."""
        training, validation = super().get_tr_and_val_datasets()
        self._learn_labels()
        self.withheld = withhold(self, training.identifiers)
        training.identifiers = self.labels.balanced([c for c in training.identifiers if c not in self.withheld])
        return training, validation

    def table_folders(self) -> list[Path]:
        """Where the table of labels is looked for: the raw folder, where it is known, before the preprocessed one."""
        raw = [Path(nnUNet_raw) / self.plans_manager.dataset_name] if nnUNet_raw.is_set() else []
        return [*raw, Path(self.preprocessed_dataset_folder_base)]

    def _learn_labels(self) -> None:
        self.labels = read_case_labels(self.table_folders(), self.tasks, self.dataset_json.get("covariates", []))
        training, _ = self.do_split()
        network = self.joint_network()
        for task in self.tasks:
            if task.kind.standardised:
                for heads in (network.heads, *network.inner_heads):
                    heads.target_scale(task).fit(torch.tensor(self.labels.column(task, training)))
        self.evidence = Evidence(self.preprocessed_dataset_folder, self.label_manager)

    # -- one step ------------------------------------------------------------------------------------------------------

    def joint_network(self) -> JointNetwork:
        """The network, without what compiling or several devices wrap around it."""
        network = self.network.module if self.is_ddp else self.network
        network = getattr(network, "_orig_mod", network)
        assert isinstance(network, JointNetwork)
        return network

    def _joint_loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        return joint_loss(self, batch)

    def train_step(self, batch: Batch) -> StepTerms:
        """One optimiser step; gradients of network and heads are clipped apart."""
        self.optimizer.zero_grad(set_to_none=True)
        loss, terms = self._joint_loss(batch)
        if not torch.isfinite(loss):
            self._pass_over(batch, terms)
            return {"loss": np.float32(np.nan), **terms}
        self._bad_steps = 0
        scaler = self.grad_scaler
        (loss if scaler is None else scaler.scale(loss)).backward()
        if scaler is not None:
            scaler.unscale_(self.optimizer)
        self.optimizer.clip_gradients()
        if scaler is None:
            self.optimizer.step()
        else:
            scaler.step(self.optimizer)
            scaler.update()
        self._steps += 1
        done = self.current_epoch * self.num_iterations_per_epoch + self._steps
        self.report(done, self.num_epochs * self.num_iterations_per_epoch, f"train epoch {self.current_epoch + 1}")
        return {"loss": np.float32(loss.detach().cpu()), **terms}

    def _pass_over(self, batch: Batch, terms: dict[str, float]) -> None:
        """A loss that is no number changes no weights; several in a row, or one among several processes, end the training."""
        self._bad_steps += 1
        text = f"epoch {self.current_epoch}: loss {terms} for cases {[str(key) for key in batch['keys']]}"
        self.print_to_log_file(f"WARNING: {text}: passed over")
        if self._bad_steps == MOST_BAD_STEPS or self.is_ddp:
            raise DivergedError(f"{text}; lower the learning rate or look at these cases, then go on with --resume")

    # -- epochs --------------------------------------------------------------------------------------------------------

    def _seed(self, offset: int) -> None:
        """Seed every generator from the epoch, so that a resumed run draws what an uninterrupted one would have drawn."""
        seed = (self.settings.seed + 1_000_003 * self.current_epoch + offset + 7919 * self.local_rank) % 2**31
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self._seed(0)
        self._steps = 0

    def on_validation_epoch_start(self) -> None:
        super().on_validation_epoch_start()
        self._seed(500_009)

    def on_train_epoch_end(self, train_outputs: list[StepTerms]) -> None:
        super().on_train_epoch_end([o for o in train_outputs if np.isfinite(o["loss"])] or train_outputs)
        names = [name for name in train_outputs[0] if name != "loss"]
        with np.errstate(all="ignore"):
            self._terms = {name: mean_of_finite([o[name] for o in train_outputs]) for name in names}
        armed = 0 < self.settings.class_weight_at(self.current_epoch) == self.settings.class_loss_weight
        columns, lines = self.collapse.close_epoch(self.current_epoch, self._terms, armed=armed)
        self._terms |= columns
        for line in lines:
            self.print_to_log_file(line)

    def on_epoch_end(self) -> None:
        """nnU-Net's end of epoch (its plot only every tenth: it costs as much as a small training step), then one CSV row."""
        epoch = self.current_epoch
        self._terms |= select_checkpoint(self)
        if self.withheld:
            wait_for_first(self.waiting)
        super().on_epoch_end()
        if self.local_rank == 0 and self.history is not None:
            self.history.append({**epoch_row(self, epoch), **self._terms})

    # -- checkpoints ---------------------------------------------------------------------------------------------------

    def load_checkpoint(self, filename_or_checkpoint: dict[str, object] | str) -> None:
        """nnU-Net's, but what is saved from now on tells the settings of this training, not those that it began with."""
        own = self.my_init_kwargs
        super().load_checkpoint(filename_or_checkpoint)
        self.my_init_kwargs = own

    def save_checkpoint(self, filename: str) -> None:
        """nnU-Net's checkpoint, written atomically.

        Raises:
            DiskFullError: no space; the previous checkpoint is untouched.
        """
        if self.local_rank != 0 or self.disable_checkpointing:
            return
        replace_checkpoint(super().save_checkpoint, filename)

    def on_train_end(self) -> None:
        """nnU-Net's end of training, with the weights of the selected checkpoint where there is one."""
        take_selected_checkpoint(self)
        super().on_train_end()
        if self.local_rank == 0:
            remove_passing_checkpoints(Path(self.output_folder))

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Fit the case heads, predict every validation case whole and write ``final_metrics.json``; once, on rank 0."""
        if self.local_rank == 0:
            self._learn_labels()
            try:
                for alarm in validate_fold(self).alarms or ():
                    self.print_to_log_file(f"WARNING: {alarm.sentence}")
            except NNDuetError as error:
                self.print_to_log_file(f"validation failed: {error.code}: {error}")
                raise
        wait_for_first(self.waiting)


class nnUNetTrainer_multitask(nnUNetTrainerMultitask):  # noqa: N801
    """The same trainer under the name that the first seed system's users pass to ``-tr``."""
