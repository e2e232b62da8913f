"""Which epoch's weights a training keeps, chosen on whole training cases that were withheld from the updates.

Off by default (``selection_share`` 0): with a few hundred cases, withholding costs more than the choice gives, and at the end
of a training the learning rate has decayed to zero, so that the last epochs hardly differ. Where it is on, the score is that of
whole cases and never of patches (docs/explanation-evidence.md, 10). Scores live in nnU-Net's log, one pair per epoch, which
rides in every checkpoint; averages and the best epoch follow from them, so that a resumed training chooses as if it had not
stopped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from nnduet.errors import SettingsError
from nnduet.evaluation.answer_tables import TaskAnswers
from nnduet.evaluation.task_scores import score_task
from nnduet.inference import case_features
from nnduet.inference.predictor import Predictor
from nnduet.inference.task_predictions import network_outputs
from nnduet.model_store.folder_files import load_checkpoint
from nnduet.nnunet_types import CaseProperties, LabelManager
from nnduet.schema import Task
from nnduet.training.history import SELECTION_COLUMNS
from nnduet.training.trainer_protocol import Trainer
from nnduet.training.validation import trained_model

__all__ = [
    "MAX_CASES",
    "MIN_CASES",
    "SELECTED_CHECKPOINT",
    "Best",
    "best_epoch",
    "choose_withheld",
    "foreground_dice",
    "is_due",
    "mean_macro_f1",
    "region_masks",
    "select_checkpoint",
    "take_selected_checkpoint",
    "withhold",
]

SELECTED_CHECKPOINT = "checkpoint_selected.pth"

Masks = NDArray[np.bool_]

MIN_CASES, MAX_CASES = 8, 32
"""Fewer withheld cases than the first choose by chance; more than the second cost more time than they add."""


def choose_withheld(case_ids: Sequence[str], patients: Sequence[str], share: float, seed: int) -> list[str]:
    """A random share of the cases in whole patients, MIN_CASES to MAX_CASES of them and at most half, in their order.

    Raises:
        SettingsError: the cases are too few, or their patients too large.
    """
    wanted = min(max(round(share * len(case_ids)), MIN_CASES), MAX_CASES)
    limit = min(MAX_CASES, len(case_ids) // 2)
    order = np.random.default_rng(seed).permutation(sorted(set(patients)))
    chosen: set[str] = set()
    for patient in order:
        cases = {case_id for case_id, of in zip(case_ids, patients, strict=True) if of == patient}
        if len(chosen) < wanted and len(chosen | cases) <= limit:
            chosen |= cases
    if len(chosen) < MIN_CASES:
        raise SettingsError(
            f"selection_share: expected at least {2 * MIN_CASES} training cases, of which whole patients with {MIN_CASES} to "
            f"{MAX_CASES} can be withheld, got {len(case_ids)} of {len(order)} patients; set it to 0"
        )
    return [case_id for case_id in case_ids if case_id in chosen]


def is_due(epoch: int, num_epochs: int, every: int) -> bool:
    """Whether the withheld cases are scored after ``epoch`` (from 0): each ``every`` in the last half, and at the end.

    Examples:
        >>> [epoch for epoch in range(10) if is_due(epoch, num_epochs=10, every=2)]
        [5, 7, 9]
    """
    done = epoch + 1
    return done == num_epochs or (2 * done > num_epochs and done % every == 0)


@dataclass(frozen=True)
class Best:
    """The best epoch so far (from 0) and the moving average of the scores there."""

    epoch: int
    average: float


def best_epoch(dice: Sequence[float], macro_f1: Sequence[float]) -> Best | None:
    """The epoch with the highest moving average (weight 0.5) of scores; the earliest of equals, None without any score.

    A score is the mean of Dice and macro-F1, or the one that is not NaN; epochs with neither are passed over.
    """
    average: float | None = None
    best: Best | None = None
    for epoch, pair in enumerate(zip(dice, macro_f1, strict=True)):
        known = [value for value in pair if math.isfinite(value)]
        if known:
            score = sum(known) / len(known)
            average = score if average is None else 0.5 * average + 0.5 * score
            best = Best(epoch, average) if best is None or average > best.average else best
    return best


def region_masks(reference: NDArray[np.integer], logits: torch.Tensor, label_manager: LabelManager) -> tuple[Masks, Masks]:
    """Reference and predicted masks, each bool (R, N), over the N voxels that the reference does not ignore.

    Args:
        reference: (Z, Y, X) integer labels; -1 outside the body is no label.
        logits: (K, Z, Y, X); regions may overlap and count from a probability of one half.
        label_manager: nnU-Net's LabelManager.
    """
    regions = label_manager.foreground_regions if label_manager.has_regions else label_manager.foreground_labels
    predicted = case_features.region_masks(logits, overlapping=label_manager.has_regions)
    ignored = [] if label_manager.ignore_label is None else [label_manager.ignore_label]
    valid = np.isin(reference, ignored, invert=True)
    return np.stack([np.isin(reference, region) for region in regions])[:, valid], predicted[:, valid]


def foreground_dice(reference: Masks, prediction: Masks) -> float:
    """Mean Dice of one case over the regions, bool (R, N), that are not empty in both; NaN where there is none.

    Examples:
        >>> reference, prediction = np.array([[True, True, False]]), np.array([[True, False, False]])
        >>> round(foreground_dice(reference, prediction), 4)  # 2 * 1 / (2 + 1)
        0.6667
    """
    total = reference.sum(1) + prediction.sum(1)
    shown = total > 0
    common = (reference & prediction).sum(1)
    return float((2 * common[shown] / total[shown]).mean()) if shown.any() else math.nan


def mean_macro_f1(
    tasks: Sequence[Task], labels: Mapping[str, NDArray[np.float64]], probabilities: Mapping[str, Sequence[NDArray[np.float64]]]
) -> float:
    """Macro-F1 averaged over the tasks with classes; NaN where none has a labelled case.

    Args:
        labels: {task: (N,)} answers, NaN where missing.
        probabilities: {task: (K,) of each of the N cases}.
    """
    values = []
    for task in tasks:
        known = np.isfinite(labels[task.name])
        if task.is_classification and known.any():
            outputs, cases = np.asarray(probabilities[task.name])[known], tuple(map(str, np.flatnonzero(known)))
            answers = TaskAnswers(task, cases, cases, labels[task.name][known], task.kind.answers(outputs), outputs)
            found = score_task(answers, num_resamples=0, seed=0).metrics["macro_f1"].value
            values += [] if found is None else [found]
    return sum(values) / len(values) if values else math.nan


def withhold(trainer: Trainer, case_ids: Sequence[str]) -> list[str]:
    """The training cases to withhold from the updates of this fold; none where ``selection_share`` is 0."""
    settings = trainer.settings
    if settings.selection_share == 0:
        return []
    chosen = choose_withheld(case_ids, trainer.labels.patients(case_ids), settings.selection_share, settings.seed)
    trainer.print_to_log_file(f"{len(chosen)} of {len(case_ids)} training cases are withheld to choose the checkpoint")
    return chosen


def select_checkpoint(trainer: Trainer) -> dict[str, float]:
    """At the end of an epoch: score the withheld cases where that is due, and save the checkpoint if it is the best so far.

    Only rank 0 does so. If a kill loses epochs, their repetition scores them again.

    Returns:
        The epoch's SELECTION_COLUMNS; empty without withheld cases.
    """
    if not trainer.withheld or trainer.local_rank != 0:
        return {}
    epoch, scores = trainer.current_epoch, (math.nan, math.nan)
    if is_due(epoch, trainer.num_epochs, trainer.settings.selection_every):
        scores = _score_whole_cases(trainer)
    for name, value in zip(SELECTION_COLUMNS, scores, strict=True):
        trainer.logger.local_logger.my_fantastic_logging.setdefault(name, [math.nan] * epoch)
        trainer.logger.log(name, value, epoch)
    best = _best_so_far(trainer)
    if best is not None and best.epoch == epoch:
        trainer.print_to_log_file(f"Best moving average of whole-case scores so far: {best.average:.4f}")
        trainer.save_checkpoint(str(Path(trainer.output_folder) / SELECTED_CHECKPOINT))
    return dict(zip(SELECTION_COLUMNS, scores, strict=True))


def take_selected_checkpoint(trainer: Trainer) -> None:
    """At the end of a training: load the weights of the selected checkpoint, if there is one; the rest stays as it is."""
    path = Path(trainer.output_folder) / SELECTED_CHECKPOINT
    if not trainer.withheld or trainer.local_rank != 0 or _best_so_far(trainer) is None or not path.is_file():
        return
    checkpoint = load_checkpoint(path)
    trainer.joint_network().load_state_dict(checkpoint["network_weights"])
    trainer.print_to_log_file(f"The weights of epoch {checkpoint['current_epoch'] - 1} are kept as checkpoint_final.pth")


def _best_so_far(trainer: Trainer) -> Best | None:
    log = trainer.logger.local_logger.my_fantastic_logging
    return best_epoch(*(log.get(name, []) for name in SELECTION_COLUMNS))


@torch.inference_mode()
def _score_whole_cases(trainer: Trainer) -> tuple[float, float]:
    """Mean Dice and mean macro-F1 of the network's own heads over the withheld cases, without test-time augmentation."""
    trainer.set_deep_supervision_enabled(False)
    predictor = Predictor(trained_model(trainer, {}, None), device=trainer.device.type, tta=False)
    dice: list[float] = []
    outputs: dict[str, list[NDArray[np.float64]]] = {task.name: [] for task in trainer.tasks}
    for index, case_id in enumerate(trainer.withheld):
        image, reference, _, properties = trainer.dataset_class(trainer.preprocessed_dataset_folder, [case_id]).load_case(
            case_id
        )
        logits, answers = _predict_case(predictor, np.ascontiguousarray(image[:], dtype=np.float32), properties)
        dice.append(foreground_dice(*region_masks(np.asarray(reference[:])[0], logits, trainer.label_manager)))
        for name, output in answers.items():
            outputs[name].append(output)
        trainer.report(index + 1, len(trainer.withheld), f"score {case_id}")
    trainer.set_deep_supervision_enabled(trainer.enable_deep_supervision)
    known = [value for value in dice if math.isfinite(value)]
    columns = {task.name: trainer.labels.column(task, trainer.withheld) for task in trainer.tasks}
    return sum(known) / len(known) if known else math.nan, mean_macro_f1(trainer.tasks, columns, outputs)


def _predict_case(
    predictor: Predictor, image: NDArray[np.float32], properties: CaseProperties
) -> tuple[torch.Tensor, dict[str, NDArray[np.float64]]]:
    """Logits (K, Z, Y, X) and {task: (K,) or (1,)} of the network's heads, for a preprocessed image (C, Z, Y, X)."""
    logits, (features,) = predictor.run_members(torch.from_numpy(image), properties, {})
    outputs = network_outputs(predictor.network.heads, features.pooled, predictor.tasks)
    return logits, {name: output[0] for name, output in outputs.items()}
