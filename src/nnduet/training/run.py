"""Train, validate and measure one fold from a prepared dataset."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from nnduet.evaluation.evaluate import METRICS_FILE
from nnduet.evaluation.stored_metrics import Metrics
from nnduet.io.files import locked
from nnduet.model_store.model_files import CONFORMAL_FILE, CROSS_VALIDATION_FOLDER
from nnduet.network.hardware import select_device
from nnduet.network.network import PLANS_KEY
from nnduet.nnunet_types import DatasetJson, Plans
from nnduet.progress import Progress
from nnduet.records import read_json, record_object
from nnduet.schema import LABELS_FILE, Workspace
from nnduet.task_list import tasks_from_json
from nnduet.training.checkpoints import demote_final, stoppable
from nnduet.training.freshness import check_fresh, check_same_ingredients
from nnduet.training.ingredients import INGREDIENTS_FILE, Ingredients, labels_digest, write_ingredients
from nnduet.training.labels import read_case_labels
from nnduet.training.nnunet_environment import host_environment
from nnduet.training.prepared import check_prepared, find_plans, model_folder, read_plans, read_prepared
from nnduet.training.preprocessed import mend_preprocessed
from nnduet.training.preprocessing import preprocess_case
from nnduet.training.ranks import patient_group, process_group, wait_for_first
from nnduet.training.resuming import Start, find_start
from nnduet.training.trainer import nnUNetTrainerMultitask
from nnduet.training.trainer_protocol import Trainer
from nnduet.training.validation import FINAL_METRICS_FILE

__all__ = ["TrainingSummary", "remove_outdated_results", "train"]


_UNRECORDED = (
    "nothing tells what the preprocessed cases were made of, so that images, masks and plans that changed since go unnoticed; "
    "`nnduet plan` makes them again with a record"
)


@dataclass(frozen=True)
class TrainingSummary:
    """What a training left behind; ``nnduet train --json`` prints it.

    Attributes:
        model: the model folder.
        fold: number of the fold, or "all".
        epochs: how many the training has behind it.
        seconds: of this run, its validation included.
        metrics_file, metrics: ``final_metrics.json`` of the fold, and what it holds.
        notes: what the user should know, in sentences.
    """

    model: str
    fold: str
    epochs: int
    seconds: float
    metrics_file: str
    metrics: Metrics
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        """A JSON object with every field."""
        return record_object(self)


def train(
    dataset_id: int,
    configuration: str,
    fold: int | str,
    *,
    workspace: Workspace,
    plans_name: str | None = None,
    epochs: int | None = None,
    resume: bool = False,
    device: str = "auto",
    progress: Progress | None = None,
) -> TrainingSummary:
    """Train one fold to its end, then validate it on whole cases.

    Args:
        fold: number of the fold in ``splits_final.json``, or "all" (validation then is on training cases).
        plans_name: plans identifier; None where there is only one.
        epochs: None takes the plans' number, or that with which a resumed training began.
        resume: go on from the last checkpoint, or begin where there is none; a finished training is only validated again if its
            metrics are missing, and extended if ``epochs`` is a larger number.
        progress: called with (iterations done, all iterations, text), then per case of the validation.

    Raises:
        DatasetError, SettingsError: nothing to train on, or an impossible fold or configuration.
        OutputExistsError: a training is there already and ``resume`` is False.
        ResumeError: it began with other plans, settings, cases or labels.
        StaleError: raw data or plans changed after the cases were preprocessed.
        LockedError: another process trains this fold.
        StoppedError: SIGTERM or SIGUSR1 came; what is finished is kept.
        DivergedError: the loss was no number several times in a row.
    """
    dataset = workspace.dataset_name(dataset_id)
    plans = read_plans(workspace, dataset, find_plans(workspace, dataset, plans_name))
    begin = _begin(workspace, dataset, plans, configuration, fold, epochs, resume, progress)
    started = time.perf_counter()
    with ExitStack() as stack:
        stack.enter_context(stoppable())
        stack.enter_context(host_environment(workspace.environment() | _augmentation()))
        rank = stack.enter_context(process_group())
        trainer = nnUNetTrainerMultitask(begin.plans, configuration, fold, begin.dataset_json, select_device(device))
        metrics_file = Path(trainer.output_folder) / FINAL_METRICS_FILE
        if rank == 0:
            stack.enter_context(locked(metrics_file.parent))
        trainer.progress = progress if rank == 0 else None
        trainer.waiting = patient_group()
        notes = _run(trainer, begin, workspace, dataset)
    return TrainingSummary(
        model=trainer.output_folder_base,
        fold=str(fold),
        epochs=trainer.num_epochs,
        seconds=round(time.perf_counter() - started, 1),
        metrics_file=str(metrics_file),
        metrics=read_json(metrics_file, Metrics),
        notes=notes,
    )


@dataclass(frozen=True)
class _Begin:
    """What a training begins with: plans with its settings, ``dataset.json``, the checkpoint if any, and what its cases are
    made of."""

    plans: Plans
    dataset_json: DatasetJson
    start: Start
    made_of: Ingredients


def _begin(
    workspace: Workspace,
    dataset: str,
    plans: Plans,
    configuration: str,
    fold: int | str,
    epochs: int | None,
    resume: bool,
    progress: Progress | None,
) -> _Begin:
    """All that can be refused before any work; see :func:`train`."""
    folder = workspace.preprocessed / dataset
    dataset_json = read_prepared(folder / "dataset.json")
    cases = check_prepared(folder, plans, configuration, fold)
    output = model_folder(workspace, dataset, plans["plans_name"], configuration) / f"fold_{fold}"
    start = find_start(output, plans, configuration, dataset_json, epochs=epochs, resume=resume)
    made_of = check_fresh(workspace, dataset, plans, configuration, cases, progress) or Ingredients()
    made_of = replace(made_of, labels=_labels_digest(workspace, dataset, dataset_json))
    if start.checkpoint:
        check_same_ingredients(output, made_of)
    plans |= {PLANS_KEY: {"training": start.settings}, "continue_training": start.checkpoint is not None}
    return _Begin(plans, dataset_json, start, made_of)


def _run(trainer: nnUNetTrainerMultitask, begin: _Begin, workspace: Workspace, dataset: str) -> tuple[str, ...]:
    """Train what is left of the epochs and validate; what the user should know of it."""
    output, start = Path(trainer.output_folder), begin.start
    measured = (output / FINAL_METRICS_FILE).is_file()  # asked before the work, so that every rank gets the same answer
    if start.checkpoint:
        trainer.load_checkpoint(str(start.checkpoint))  # the path: nnU-Net takes no dict; the file was read safely above
    unfinished = trainer.current_epoch < trainer.num_epochs
    notes = (*start.notes, *(() if begin.made_of.cases else (_UNRECORDED,)), *trainer.notes())
    if trainer.local_rank == 0:
        if unfinished or not measured:
            _mend(trainer, begin.plans, workspace, dataset)
        _tell(trainer, notes)
        if not start.checkpoint:
            write_ingredients(output / INGREDIENTS_FILE, begin.made_of)
    wait_for_first(trainer.waiting)  # here every process has loaded the checkpoint
    if trainer.local_rank == 0 and start.reopens:
        _reopen(output)
    if unfinished:
        trainer.run_training()
    if unfinished or not measured:
        trainer.perform_actual_validation()
    return notes


def _mend(trainer: nnUNetTrainerMultitask, plans: Plans, workspace: Workspace, dataset: str) -> None:
    name, progress = trainer.configuration_name, trainer.progress
    for case_id in mend_preprocessed(workspace, dataset, plans, name, preprocess_case, progress):
        trainer.print_to_log_file(f"WARNING: preprocessed files of {case_id} changed on the disk and were made again")


def _labels_digest(workspace: Workspace, dataset: str, dataset_json: DatasetJson) -> str:
    """Digest of the labels that a training learns; empty without tasks, or where the trainer will miss the table."""
    tasks = tasks_from_json(dataset_json.get("classification", {}))
    if not tasks or not any((folder / LABELS_FILE).is_file() for folder in workspace.folders_of(dataset)):
        return ""
    return labels_digest(read_case_labels(workspace.folders_of(dataset), tasks, dataset_json.get("covariates", [])))


def _tell(trainer: Trainer, notes: tuple[str, ...]) -> None:
    """Put the notes into the log, and in front of the progress, where they are seen before hours of work."""
    for note in notes:
        trainer.print_to_log_file(f"NOTE: {note}")
        trainer.report(0, trainer.num_epochs * trainer.num_iterations_per_epoch, note)


def _reopen(fold: Path) -> None:
    """Make a finished training an unfinished one, whose results are those of fewer epochs and go."""
    remove_outdated_results(fold.parent)
    (fold / FINAL_METRICS_FILE).unlink(missing_ok=True)
    demote_final(fold)


def remove_outdated_results(model: Path) -> None:
    """An earlier cross-validation says nothing of a fold that is trained now, nor may prediction use its scores."""
    for name in (METRICS_FILE, CONFORMAL_FILE):
        (model / CROSS_VALIDATION_FOLDER / name).unlink(missing_ok=True)


def _augmentation() -> dict[str, str]:
    """Augment in this process on up to four cores: workers would take the network's cores and cost their imports."""
    return {"nnUNet_n_proc_DA": "0"} if (os.cpu_count() or 1) <= 4 and "nnUNet_n_proc_DA" not in os.environ else {}
