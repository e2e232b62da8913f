"""Train every fold, then measure all cases at once, each by the fold that had not seen it."""

from __future__ import annotations

import gc
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nnduet.datasets.folds import Folds
from nnduet.errors import DatasetError, OutputExistsError, SettingsError
from nnduet.evaluation.evaluate import METRICS_FILE
from nnduet.evaluation.reference_sets import ReferenceSet, references_of_json
from nnduet.evaluation.stored_metrics import Metrics
from nnduet.inference.result_tables import result_ending
from nnduet.model_store.model_files import CROSS_VALIDATION_FOLDER
from nnduet.progress import Progress, prefixed
from nnduet.records import read_json, record_object
from nnduet.schema import LABELS_FILE, SPLITS_FILE, Workspace
from nnduet.training.checkpoints import FINAL, LATEST, PREVIOUS
from nnduet.training.freshness import check_fold_cases, check_fresh
from nnduet.training.out_of_fold import gather_predictions, measure_predictions
from nnduet.training.plan_checks import check_configuration
from nnduet.training.prepared import find_plans, model_folder, read_plans, read_splits
from nnduet.training.run import remove_outdated_results, train
from nnduet.training.validation import FINAL_METRICS_FILE

__all__ = ["CrossValidationSummary", "cross_validate"]


@dataclass(frozen=True)
class CrossValidationSummary:
    """What a cross-validation left behind; ``nnduet cross-validate --json`` prints it.

    Attributes:
        model: the model folder.
        folds: numbers of the folds that were measured together.
        seconds: of this run, trainings included.
        metrics_file, metrics: ``cross_validation/metrics.json`` in the model, and what it holds.
    """

    model: str
    folds: list[int]
    seconds: float
    metrics_file: str
    metrics: Metrics

    def to_json(self) -> dict[str, object]:
        """A JSON object with every field."""
        return record_object(self)


def cross_validate(
    dataset_id: int,
    configuration: str,
    *,
    workspace: Workspace,
    plans_name: str | None = None,
    folds: Sequence[int] | None = None,
    epochs: int | None = None,
    resume: bool = False,
    device: str = "auto",
    progress: Progress | None = None,
) -> CrossValidationSummary:
    """Train the folds one after the other, then measure the out-of-fold predictions of all their validation cases.

    Writes ``cross_validation/`` into the model folder: masks, tables, ``metrics.json``, ``per_case.csv``, ``conformal.json``.

    Args:
        plans_name: plans identifier; None where there is only one.
        folds: numbers of folds in ``splits_final.json``; None takes all. Folds whose validation parts overlap cannot be
            measured together; those that can must be named then. In the layout of the pancreas challenge, fold 0 validates the
            challenge's validation cases and the others divide its training cases, so that they go together or apart.
        epochs: None takes the plans' number, or that with which a fold began. A larger one extends finished folds.
        resume: pass over finished folds, go on with an interrupted one, begin the others.
        progress: as of :func:`nnduet.training.run.train`, with the fold before the text.

    Raises:
        DatasetError: no folds to train on, overlapping validation parts, or a fold that validated other cases.
        SettingsError: an impossible fold or configuration, or a start by torchrun.
        OutputExistsError: a training is there already and ``resume`` is False.
        ResumeError: a fold was trained with other plans, settings, cases or labels.
        StaleError: raw data or plans changed after the cases were preprocessed.
    """
    if torch.distributed.is_torchelastic_launched():
        raise SettingsError("cross-validation: train the folds by torchrun one by one, then start this without it, to resume")
    dataset = workspace.dataset_name(dataset_id)
    prepared = workspace.preprocessed / dataset
    plans_name = find_plans(workspace, dataset, plans_name)
    plans = read_plans(workspace, dataset, plans_name)
    splits = read_splits(prepared / SPLITS_FILE)
    parts = _validation_parts(prepared / SPLITS_FILE, splits, folds)
    truth = _references(workspace, dataset)
    cases = prepared / str(check_configuration(plans, configuration)["data_identifier"])
    if cases.is_dir():  # folds that were trained on other machines are measured without
        check_fresh(workspace, dataset, plans, configuration, cases)
    model = model_folder(workspace, dataset, plans_name, configuration)
    if not resume:
        _check_unbegun([model / f"fold_{fold}" for fold in parts])
    output = model / CROSS_VALIDATION_FOLDER
    started = time.perf_counter()
    common: dict[str, Any] = {"workspace": workspace, "plans_name": plans_name, "epochs": epochs, "device": device}
    for fold in parts:
        if _has_to_be_trained(model, fold, workspace, dataset):
            begun, _ = _state(model / f"fold_{fold}")
            train(dataset_id, configuration, fold, **common, resume=begun, progress=prefixed(progress, f"fold {fold}: "))
            _release_memory()
    ending = result_ending(read_json(prepared / "dataset.json", dict[str, Any]))
    gather_predictions(model, parts, truth.tasks, output, ending=ending)
    metrics = measure_predictions(model, parts, truth, output, not_validated=_not_validated(splits, parts))
    seconds = round(time.perf_counter() - started, 1)
    return CrossValidationSummary(str(model), list(parts), seconds, str(output / METRICS_FILE), metrics)


def _has_to_be_trained(model: Path, fold: int, workspace: Workspace, dataset: str) -> bool:
    """Whether a fold is not finished, or :func:`train` must compare its plans; what its training makes untrue goes.

    Raises:
        StaleError: images or masks changed after it was finished.
    """
    begun, finished = _state(model / f"fold_{fold}")
    if finished:
        check_fold_cases(model / f"fold_{fold}", workspace, dataset)
    else:
        remove_outdated_results(model)
    return begun or not finished  # of a finished fold, train only compares the plans


def _validation_parts(source: Path, splits: Folds, folds: Sequence[int] | None) -> dict[int, list[str]]:
    """{fold: its validation cases} of the wanted folds."""
    wanted = list(range(len(splits))) if folds is None else list(folds)
    if not wanted or len(set(wanted)) != len(wanted) or not set(wanted) <= set(range(len(splits))):
        raise SettingsError(f"folds: expected different ones of 0 to {len(splits) - 1}, got {wanted}")
    parts = {fold: splits[fold]["val"] for fold in wanted}
    validated_by = defaultdict(list)
    for fold, cases in parts.items():
        for case_id in cases:
            validated_by[case_id].append(fold)
    twice = sorted(case_id for case_id, of in validated_by.items() if len(of) > 1)
    if twice:
        overlapping = sorted({fold for case_id in twice for fold in validated_by[case_id]})
        raise DatasetError(
            f"{source}: expected every case in one validation part, but the parts of folds {overlapping} share {len(twice)} "
            f"cases: {', '.join(twice[:10])}; name folds that do not overlap with --folds"
        )
    return parts


def _not_validated(splits: Folds, parts: dict[int, list[str]]) -> list[str]:
    """Cases of the data set that are in the validation part of no wanted fold."""
    every = {case_id for fold in splits for part in fold.values() for case_id in part}
    return sorted(every.difference(*parts.values()))


def _references(workspace: Workspace, dataset: str) -> ReferenceSet:
    prepared = workspace.preprocessed / dataset
    table = next((f / LABELS_FILE for f in workspace.folders_of(dataset) if (f / LABELS_FILE).is_file()), None)
    return references_of_json(prepared / "dataset.json", masks=prepared / "gt_segmentations", table=table)


def _state(folder: Path) -> tuple[bool, bool]:
    """Whether a fold has a checkpoint to go on from, and whether it has been measured."""
    return any((folder / name).is_file() for name in (FINAL, LATEST, PREVIOUS)), (folder / FINAL_METRICS_FILE).is_file()


def _check_unbegun(folders: Sequence[Path]) -> None:
    begun = [str(folder) for folder in folders if any(_state(folder))]
    if begun:
        help_here = "add --resume to go on, or move these folders away"
        raise OutputExistsError(f"a training is there already in {', '.join(begun)}; add --resume", remedy=help_here)


def _release_memory() -> None:
    """Let go of the last fold's network: it sits in reference cycles, and its compiled code counts against a limit of eight."""
    gc.collect()
    torch.compiler.reset()
