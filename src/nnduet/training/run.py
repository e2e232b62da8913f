"""Train, validate and measure one fold from a prepared dataset."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from nnduet.data.files import locked
from nnduet.errors import DatasetError, OutputExistsError, ResumeError, SettingsError
from nnduet.inference.model_folder import load_checkpoint
from nnduet.model.hardware import select_device
from nnduet.model.network import PLANS_KEY
from nnduet.schema import SPLITS_FILE, Workspace
from nnduet.training.checkpoints import FINAL, LATEST, PREVIOUS, find_checkpoint, stoppable
from nnduet.training.host import host_environment
from nnduet.training.planning import preprocess_case
from nnduet.training.preprocessed import mend_preprocessed
from nnduet.training.settings import TrainingSettings
from nnduet.training.trainer import nnUNetTrainerMultitask
from nnduet.training.validation import FINAL_METRICS_FILE

__all__ = ["TrainingSummary", "find_plans", "train"]

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class TrainingSummary:
    """What a training run left behind: the model folder, the fold's metrics, and how long it took."""

    model: str
    fold: str
    epochs: int
    seconds: float
    metrics_file: str
    metrics: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """A JSON object with every field."""
        return asdict(self)


def find_plans(workspace: Workspace, dataset: str, plans_name: str | None) -> str:
    """The plans identifier to train with: the given one, or the only one that is there.

    Raises:
        DatasetError: no plans, or several and none was named.
    """
    folder = workspace.preprocessed / dataset
    visible = folder.glob("[!.]*.json")  # a file that begins with a point is one that is being written
    found = sorted(path.stem for path in visible if "configurations" in _read(path))
    if plans_name is not None:
        if plans_name not in found:
            raise DatasetError(f"{folder}: expected plans {plans_name}.json, found {found}; run `nnduet plan` first")
        return plans_name
    if len(found) != 1:
        raise DatasetError(f"{folder}: expected one plans file, found {found}; run `nnduet plan` or name one with --plans")
    return found[0]


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
        epochs: None takes the plans' number.
        resume: go on from the last checkpoint; a finished training is only validated again if its metrics are missing.
        progress: called with (iterations done, all iterations, text), then per case of the validation.

    Raises:
        DatasetError, SettingsError: nothing to train on, or an impossible fold or configuration.
        OutputExistsError: a training is there already and ``resume`` is False.
        ResumeError: nothing to resume, or it belongs to other plans or another number of epochs.
        LockedError: another process trains this fold.
        StoppedError: SIGTERM or SIGUSR1 came; what is finished is kept.
        DivergedError: the loss was no number several times in a row.
    """
    dataset = workspace.dataset_name(dataset_id)
    folder = workspace.preprocessed / dataset
    plans = _read(folder / f"{find_plans(workspace, dataset, plans_name)}.json")
    _check(folder, plans, configuration, fold)
    plans |= {PLANS_KEY: {"training": _settings(plans, epochs)}, "continue_training": resume}
    started = time.perf_counter()
    with ExitStack() as stack:
        stack.enter_context(stoppable())
        stack.enter_context(host_environment(workspace.environment() | _augmentation()))
        rank = stack.enter_context(_process_group())
        trainer = nnUNetTrainerMultitask(plans, configuration, fold, _read(folder / "dataset.json"), select_device(device))
        output = Path(trainer.output_folder)
        if rank == 0:
            stack.enter_context(locked(output))
        trainer.progress = progress if rank == 0 else None
        metrics_file = output / FINAL_METRICS_FILE
        measured = metrics_file.is_file()  # asked before the work, so that every rank gets the same answer
        _prepare_resume(trainer, resume)
        unfinished = trainer.current_epoch < trainer.num_epochs
        if rank == 0 and (unfinished or not measured):
            for case_id in mend_preprocessed(workspace, dataset, plans, configuration, preprocess_case, progress):
                trainer.print_to_log_file(f"WARNING: preprocessed files of {case_id} changed on the disk and were made again")
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
        if unfinished:
            trainer.run_training()
        if unfinished or not measured:
            trainer.perform_actual_validation()
    return TrainingSummary(
        model=trainer.output_folder_base,
        fold=str(fold),
        epochs=trainer.num_epochs,
        seconds=round(time.perf_counter() - started, 1),
        metrics_file=str(metrics_file),
        metrics=_read(metrics_file),
    )


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise DatasetError(f"{path}: expected a file, found none; run `nnduet plan` first")
    loaded = json.loads(path.read_text(encoding="utf-8"))
    return loaded if isinstance(loaded, dict) else {}


def _settings(plans: dict[str, Any], epochs: int | None) -> dict[str, Any]:
    """The plans' training settings as an object, with another number of epochs if one is given."""
    settings = dict(plans.get(PLANS_KEY, {}).get("training", TrainingSettings().to_json()))
    return settings if epochs is None else {**settings, "num_epochs": epochs}


def _check(folder: Path, plans: dict[str, Any], configuration: str, fold: int | str) -> None:
    known = plans["configurations"]
    if configuration not in known:
        raise SettingsError(f"configuration: expected one of {sorted(known)}, got {configuration!r}")
    data = folder / known[configuration].get("data_identifier", "")
    if not data.is_dir():
        raise DatasetError(f"{data}: expected preprocessed cases, found no folder; run `nnduet plan` for {configuration}")
    if fold == "all":
        return
    if not (folder / SPLITS_FILE).is_file():
        raise DatasetError(f"{folder / SPLITS_FILE}: expected the folds, found none; run `nnduet convert` again")
    splits = json.loads((folder / SPLITS_FILE).read_text(encoding="utf-8"))
    if not isinstance(fold, int) or not 0 <= fold < len(splits):
        raise SettingsError(f"fold: expected 0 to {len(splits) - 1} or 'all', got {fold!r}")


def _prepare_resume(trainer: Any, resume: bool) -> None:
    folder = Path(trainer.output_folder)
    if not resume:
        for name in (FINAL, LATEST, PREVIOUS):
            if (folder / name).is_file():
                raise OutputExistsError(f"{folder / name}: a training is there already; add --resume, or move {folder} away")
        return
    path = find_checkpoint(folder)
    if path is None:
        raise ResumeError(f"{folder}: expected {LATEST} to resume from, found none; train without --resume")
    checkpoint = load_checkpoint(path)
    before, now = (_identity(plans) for plans in (checkpoint["init_args"]["plans"], trainer.plans_manager.plans))
    for key in before:
        if before[key] != now[key]:
            raise ResumeError(f"{path}: was trained with other {key!r} in its plans; resume with the same, or move it away")
    trainer.load_checkpoint(str(path))  # the path: nnU-Net's own cannot take a dict; the file was read safely above


def _identity(plans: dict[str, Any]) -> dict[str, str]:
    """What a resumed training must have in common with its beginning; settings that did not exist then have their defaults."""
    ours = dict(plans.get(PLANS_KEY, {}))
    ours.pop("head", None)  # repeats some of the settings
    ours["training"] = TrainingSettings.from_json(ours.get("training", {})).to_json()
    parts = {"configurations": plans.get("configurations"), PLANS_KEY: ours}
    return {key: json.dumps(part, sort_keys=True) for key, part in parts.items()}


def _augmentation() -> dict[str, str]:
    """Augment in this process on up to four cores: workers would take the network's cores and cost their imports."""
    return {"nnUNet_n_proc_DA": "0"} if (os.cpu_count() or 1) <= 4 and "nnUNet_n_proc_DA" not in os.environ else {}


@contextlib.contextmanager
def _process_group() -> Iterator[int]:
    """Under torchrun: join the NCCL group and yield the rank; else yield 0."""
    if not torch.distributed.is_torchelastic_launched():
        yield 0
        return
    if not torch.cuda.is_available():
        raise SettingsError("torchrun: nnU-Net trains on several devices only with CUDA; start without torchrun")
    torch.distributed.init_process_group("nccl")
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    try:
        yield torch.distributed.get_rank()
    finally:
        torch.distributed.destroy_process_group()
