"""What a run was made of and what to be wary of: the first things a reader of a report wants to know."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np

from nnduet.evaluation.stored_metrics import Metrics, TaskMetrics
from nnduet.report.runs import Run
from nnduet.report.stored_model import Configuration, StoredModel, machine_of, read_progress
from nnduet.training.provenance import provenance

__all__ = ["facts_of", "title_of", "warnings_of"]

_SMALL_SAMPLE = 30
_Facts = list[tuple[str, str]]


def title_of(run: Run) -> str:
    """What the page is about: the kind of result, the data set and part of the model, or where the folder lies."""
    place = run.folder.absolute()
    name = "/".join(place.parts[-2:])
    if run.model:
        name = run.model.plans.dataset_name + (f", {place.name}" if place != run.model.folder else "")
    if not run.rows:
        return f"Training of {name}"
    kind = "Answers to"
    if run.metrics is not None:
        kind = "Cross-validation of" if _folds(run.metrics) else "Evaluation of"
    return f"{kind} {len(run.rows)} cases: {name}"


def facts_of(run: Run) -> _Facts:
    """Name and value of what is known: data, model, folds, settings, time, versions, hardware."""
    facts = [("run", str(run.folder.absolute())), ("cases", str(len(run.rows)))]
    heads = run.prediction_run.heads
    if run.metrics is not None:
        facts += _of_metrics(run.metrics)
        heads = run.metrics.heads or heads
    facts += [(f"answers to {task}", text) for task, text in heads.items()]
    facts += (_of_model(run.model) if run.model else []) + _of_training(run) + _of_prediction(run)
    if run.metrics is not None and run.metrics.made_by:
        facts.append(("measured with", _in_words(run.metrics.made_by)))
    return [*facts, ("report made with", _in_words(provenance()))]


def _in_words(made_by: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in made_by.items())


def _folds(metrics: Metrics) -> tuple[int, ...]:
    return metrics.cross_validation.folds if metrics.cross_validation else ()


def _of_metrics(metrics: Metrics) -> _Facts:
    settings = metrics.settings
    facts = [
        ("intervals", f"95 %, {settings.num_bootstrap} bootstrap resamples of {settings.resampling_unit}s"),
        ("resampled units", str(metrics.num_resampling_units)),
    ]
    if settings.tolerance_mm is not None and metrics.segmentation:
        facts.append(("NSD tolerance", f"{settings.tolerance_mm:g} mm"))
    folds = _folds(metrics) or (() if metrics.fold is None else (metrics.fold,))
    return [*facts, *([("folds", ", ".join(map(str, folds)))] if folds else [])]


def _of_model(model: StoredModel) -> _Facts:
    parts, plans = model.folder.name.split("__"), model.plans
    rows = [("dataset", plans.dataset_name), ("plans", plans.plans_name)]
    if len(parts) == 3:
        rows += [("trainer", parts[0]), ("configuration", parts[2])]
        rows += _of_configuration(plans.configurations.get(parts[2], Configuration()))
    settings = plans.nnduet.get("training")
    return [*rows, *([("training settings", json.dumps(settings))] if settings else [])]


def _of_configuration(configuration: Configuration) -> _Facts:
    rows = []
    if configuration.patch_size:
        rows.append(("patch", " × ".join(map(str, configuration.patch_size))))
    if configuration.batch_size is not None:
        rows.append(("batch", str(configuration.batch_size)))
    if configuration.spacing:
        rows.append(("spacing", " × ".join(f"{s:.3g}" for s in configuration.spacing) + " mm"))
    return rows


def _of_training(run: Run) -> _Facts:
    seconds, epochs = 0.0, []
    machines = dict.fromkeys(machine for folder in run.folds.values() if (machine := machine_of(folder)))
    for columns in filter(None, map(read_progress, run.folds.values())):
        epochs.append(len(columns["epoch"]) if "epoch" in columns else len(next(iter(columns.values()))))
        seconds += float(np.nansum(columns.get("seconds", np.zeros(1))))
    rows = (
        [("epochs", ", ".join(map(str, epochs))), ("time of training", f"{seconds / 60:.0f} min in all folds")]
        if epochs
        else []
    )
    return rows + ([("trained on", "; ".join(machines))] if machines else [])


def _of_prediction(run: Run) -> _Facts:
    found = run.prediction_run
    parts = {"device": found.device, "runtime": found.runtime, "precision": found.precision}
    rows = [(name, value) for name, value in parts.items() if value]
    if found.seconds:
        rows.append(("seconds a case", f"{np.median(list(found.seconds.values())):.2f} (median)"))
    if found.versions:
        rows.append(("predicted with", _in_words(found.versions)))
    return rows


def warnings_of(run: Run) -> list[str]:
    """Sentences about what the numbers do not bear: collapse, training cases among the scored, undefined values, failures."""
    out = _metric_warnings(run.metrics) if run.metrics else []
    out += [f"{case} was refused: {reason}" for case, reason in list(run.prediction_run.failed.items())[:20]]
    if run.metrics and len(run.rows) < _SMALL_SAMPLE:
        out.append(f"Only {len(run.rows)} cases: the intervals are wide, and bootstrap intervals of so few are too narrow.")
    if not run.rows:
        out.append("The training is not finished: there are curves, and no validation yet.")
    elif run.metrics is None:
        out.append("Predictions without references: nothing here says how right they are.")
    if run.rows and run.images is None:
        out.append("No images were found, so that no case is shown; name their folder with --images.")
    return out


def _metric_warnings(metrics: Metrics) -> list[str]:
    out = [*metrics.warnings, *(alarm.sentence for alarm in metrics.alarms or ())]
    if metrics.validated_on == "training cases":
        out.append("The scored cases are those that the model was trained on: the figures say nothing of new patients.")
    for name, task in metrics.tasks.items():
        out += _task_warnings(name, task)
    for name, region in metrics.segmentation.items():
        undefined = [f"{key} ({found.reason})" for key, found in region.estimates.items() if found.value is None]
        if undefined:
            out.append(f"{name}: undefined are {', '.join(undefined)}.")
    missing = sorted({entry.case_id for entry in metrics.missing_predictions})
    if missing:
        out.append(f"{len(missing)} cases without a usable prediction count as the worst answer: {', '.join(missing[:10])}.")
    left_out = metrics.cross_validation.not_validated if metrics.cross_validation else ()
    if left_out:
        out.append(f"{len(left_out)} cases are in no validation part of these folds.")
    return out


def _task_warnings(name: str, task: TaskMetrics) -> list[str]:
    out = []
    baseline = task.majority_baseline or {}
    if task.collapsed:
        out.append(f"{name}: every answer is the same class; the classifier has collapsed.")
    elif task.beats_majority_baseline is False and isinstance(score := baseline.get("macro_f1"), float | int):
        out.append(f"{name}: no better than always answering {str(baseline.get('class'))!r} (macro-F1 {score:.3f}).")
    if task.absent_classes:
        out.append(f"{name}: no case of {', '.join(task.absent_classes)}, so that some values are undefined.")
    return out
