"""What a run was made of and what to be wary of: the first things a reader of a report wants to know."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nnduet.report.runs import Run, read_progress
from nnduet.training.provenance import provenance

__all__ = ["facts_of", "warnings_of"]

_SMALL_SAMPLE = 30


def facts_of(run: Run) -> list[tuple[str, str]]:
    """Name and value of what is known: data, model, folds, settings, time, versions, hardware."""
    metrics = run.metrics or {}
    facts = [("run", str(run.folder.absolute())), ("cases", str(len(run.rows)))]
    if metrics:
        settings = metrics["settings"]
        facts.append(("intervals", f"95 %, {settings['num_bootstrap']} bootstrap resamples of {settings['resampling_unit']}s"))
        facts.append(("resampled units", str(metrics["num_resampling_units"])))
        facts.append(("NSD tolerance", f"{settings['tolerance_mm']} mm"))
    folds = metrics.get("cross_validation", {}).get("folds", [metrics["fold"]] if "fold" in metrics else [])
    if folds:
        facts.append(("folds", ", ".join(map(str, folds))))
    facts += [
        (f"answers to {task}", text) for task, text in (metrics.get("heads") or run.prediction_run.get("heads") or {}).items()
    ]
    facts += _of_model(run) + _of_training(run) + _of_prediction(run)
    if "made_by" in metrics:
        facts.append(("measured with", _in_words(metrics["made_by"])))
    return [*facts, ("report made with", _in_words(provenance()))]


def _in_words(made_by: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in made_by.items())


def _of_model(run: Run) -> list[tuple[str, str]]:
    if run.model is None:
        return []
    plans = _json(run.model / "plans.json")
    parts = run.model.name.split("__")
    settings = plans.get("nnduet", {}).get("training", {})
    rows = [("dataset", str(plans.get("dataset_name", "–"))), ("plans", str(plans.get("plans_name", "–")))]
    if len(parts) == 3:
        configuration = plans.get("configurations", {}).get(parts[2], {})
        rows += [("trainer", parts[0]), ("configuration", parts[2])]
        rows += [
            (name, str(configuration[key]))
            for name, key in (("patch", "patch_size"), ("batch", "batch_size"))
            if key in configuration
        ]
        if "spacing" in configuration:
            rows.append(("spacing", " × ".join(f"{s:.3g}" for s in configuration["spacing"]) + " mm"))
    return [*rows, *([("training settings", json.dumps(settings))] if settings else [])]


def _of_training(run: Run) -> list[tuple[str, str]]:
    seconds, epochs = 0.0, []
    machines: dict[str, None] = {}
    for folder in run.folds.values():
        columns = read_progress(folder)
        if columns:
            epochs.append(len(columns["epoch"]) if "epoch" in columns else len(next(iter(columns.values()))))
            seconds += float(np.nansum(columns.get("seconds", np.zeros(1))))
        found = _json(folder / "debug.json")
        if found:
            machines[f"{found.get('device', '?')} of {found.get('hostname', '?')}, torch {found.get('torch_version', '?')}"] = (
                None
            )
    rows = (
        [("epochs", ", ".join(map(str, epochs))), ("time of training", f"{seconds / 60:.0f} min in all folds")]
        if epochs
        else []
    )
    return rows + ([("trained on", "; ".join(machines))] if machines else [])


def _of_prediction(run: Run) -> list[tuple[str, str]]:
    found = run.prediction_run
    rows = [
        (name, str(found[key]))
        for name, key in (("device", "device"), ("runtime", "runtime"), ("precision", "precision"))
        if key in found
    ]
    if found.get("seconds"):
        rows.append(("seconds a case", f"{np.median(list(found['seconds'].values())):.2f} (median)"))
    if found.get("versions"):
        rows.append(("predicted with", ", ".join(f"{name} {number}" for name, number in found["versions"].items())))
    return rows


def warnings_of(run: Run) -> list[str]:
    """Sentences about what the numbers do not bear: collapse, training cases among the scored, undefined values, failures."""
    metrics = run.metrics or {}
    out = [str(alarm.get("text", alarm)) if isinstance(alarm, dict) else str(alarm) for alarm in metrics.get("alarms", [])]
    if metrics.get("validated_on") == "training cases":
        out.append("The scored cases are those that the model was trained on: the figures say nothing of new patients.")
    for name, task in metrics.get("tasks", {}).items():
        out += _task_warnings(name, task)
    for name, region in metrics.get("segmentation", {}).items():
        undefined = [f"{m} ({v['reason']})" for m, v in region.items() if isinstance(v, Mapping) and v.get("reason")]
        if undefined:
            out.append(f"{name}: undefined are {', '.join(undefined)}.")
    missing = {entry["case_id"] for entry in metrics.get("missing_predictions", [])}
    if missing:
        out.append(
            f"{len(missing)} cases without a usable prediction count as the worst answer: {', '.join(sorted(missing)[:10])}."
        )
    refused = run.prediction_run.get("failed", {})
    out += [f"{case} was refused: {reason}" for case, reason in list(refused.items())[:20]]
    left_out = metrics.get("cross_validation", {}).get("not_validated", [])
    if left_out:
        out.append(f"{len(left_out)} cases are in no validation part of these folds.")
    if metrics and len(run.rows) < _SMALL_SAMPLE:
        out.append(f"Only {len(run.rows)} cases: the intervals are wide, and bootstrap intervals of so few are too narrow.")
    if not run.rows:
        out.append("The training is not finished: there are curves, and no validation yet.")
    elif run.metrics is None:
        out.append("Predictions without references: nothing here says how right they are.")
    elif run.images is None:
        out.append("No images were found, so that no case is shown; name their folder with --images.")
    return out


def _task_warnings(name: str, task: Mapping[str, Any]) -> list[str]:
    out = []
    if task.get("collapsed"):
        out.append(f"{name}: every answer is the same class; the classifier has collapsed.")
    elif task.get("beats_majority_baseline") is False:
        baseline = task["majority_baseline"]
        out.append(f"{name}: no better than always answering {baseline['class']!r} (macro-F1 {baseline['macro_f1']:.3f}).")
    if task.get("absent_classes"):
        out.append(f"{name}: no case of {', '.join(task['absent_classes'])}, so that some values are undefined.")
    return out


def _json(path: Path) -> dict[str, Any]:
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return loaded if isinstance(loaded, dict) else {}
