"""The sections of a page: tables and figures of regions, tasks and training, as the template takes them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nnduet.evaluation.bootstrap import Estimate
from nnduet.evaluation.metrics.metric import RegionMetric
from nnduet.evaluation.metrics.table import REGION_METRICS, answer_metrics_of
from nnduet.evaluation.stored_metrics import RegionMetrics
from nnduet.report import answer_figures, figures
from nnduet.report.drawing import Drawing
from nnduet.report.importance import importances
from nnduet.report.runs import Run, TaskCases
from nnduet.report.shown_cases import ShownCases
from nnduet.report.stored_model import read_progress

__all__ = [
    "NUM_PICTURES",
    "case_header",
    "case_rows",
    "distributions",
    "headlines",
    "number_text",
    "region_section",
    "task_section",
    "training_section",
]

NUM_PICTURES = 3
"""Worst, median and best cases of each region; wrong answers of each task get up to four times as many."""
_HEADLINES = [metric for metric in REGION_METRICS if metric.is_headline]


def number_text(value: float | None, digits: int = 3) -> str:
    """A number with so many digits; a dash for what is undefined."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def headlines(run: Run) -> list[dict[str, str]]:
    """Rows of the first table: what, value, interval, number of cases, reason where there is no value."""
    if run.metrics is None:
        return []
    rows = []
    for region in run.regions:
        found = run.metrics.segmentation[region]
        rows += [_headline(f"{region}: {metric.text}", estimate) for metric, estimate in _shown(found) if metric.is_headline]
    for task in (entry.task for entry in run.tasks):
        known = run.metrics.tasks[task.name].metrics
        first = [metric for metric in answer_metrics_of(task) if metric.is_headline and metric.key in known]
        rows += [_headline(f"{task.name}: {metric.text}", known[metric.key]) for metric in first]
    return rows


def _shown(region: RegionMetrics) -> list[tuple[RegionMetric, Estimate]]:
    """What of a region people see, as far as the file has it."""
    found = region.estimates
    return [(metric, found[metric.key]) for metric in REGION_METRICS if metric.is_shown and metric.key in found]


def _headline(name: str, entry: Estimate) -> dict[str, str]:
    interval, reason = entry.ci95, entry.ci95_reason or "undefined"
    told = f"{number_text(interval[0])} to {number_text(interval[1])}" if interval else f"– ({reason})"
    return {
        "name": name,
        "value": number_text(entry.value),
        "interval": told,
        "cases": str(entry.n_defined),
        "reason": entry.reason,
    }


def distributions(run: Run) -> list[Drawing]:
    """The metrics of all regions side by side; those without a unit are shares."""
    if not run.regions or run.metrics is None:
        return []
    return [
        figures.score_distributions(
            {region: run.scores(region, metric.key) for region in run.regions},
            metric.text,
            limits=None if metric.unit else (-0.02, 1.02),
        )
        for metric, _ in _shown(run.metrics.segmentation[run.regions[0]])
    ]


def region_section(run: Run, name: str, shown: ShownCases) -> dict[str, object]:
    """Figures of a region, and its worst, median and best cases by Dice."""
    dice = run.scores(name, "dsc")
    reference, prediction = run.scores(name, "reference_ml"), run.scores(name, "prediction_ml")
    both = np.isfinite(reference) & np.isfinite(prediction)
    order = [run.cases[i] for i in np.argsort(dice, kind="stable") if math.isfinite(dice[i])]
    middle = len(order) // 2
    picked = {
        "worst": order[:NUM_PICTURES],
        "median": order[max(middle - 1, 0) : middle + 2] if len(order) > 3 * NUM_PICTURES else [],
        "best": order[-NUM_PICTURES:][::-1] if len(order) > NUM_PICTURES else [],
    }
    dice_of = dict(zip(run.cases, dice.tolist(), strict=True))
    assert run.metrics is not None
    found = run.metrics.segmentation[name]
    return {
        "name": name,
        "metrics": [_headline(metric.text, estimate) for metric, estimate in _shown(found)],
        "reasons": found.case_reasons,
        "figures": [figures.bland_altman(reference[both], prediction[both], name)] if both.any() else [],
        "no_volumes": not both.any(),
        "cases": {kind: [(case, number_text(dice_of[case])) for case in shown.want(cases)] for kind, cases in picked.items()},
    }


def task_section(run: Run, cases: TaskCases, shown: ShownCases) -> dict[str, object]:
    """Figures and tables of a task; without references only how sure the answers are."""
    task = cases.task
    out: dict[str, Any] = {"name": task.name, "type": task.type, "figures": [], "wrong": [], "confusion": None, "metrics": []}
    out["per_class"], out["importance"] = [], importances(run, task)
    if run.metrics is not None:
        entry = run.metrics.tasks[task.name]
        labels = {metric.key: metric.text for metric in answer_metrics_of(task)}
        out["metrics"] = [_headline(labels.get(key, key), estimate) for key, estimate in entry.metrics.items()]
    if not task.is_classification:
        return out
    known = np.isfinite(cases.reference) & np.isfinite(cases.prediction) & np.isfinite(cases.probabilities).all(axis=1)
    if run.metrics is not None and known.any():
        reference, prediction, probabilities = (a[known] for a in (cases.reference, cases.prediction, cases.probabilities))
        confidence, columns = task.kind.confidence(probabilities, prediction), list(task.kind.curves(task))
        truth = task.kind.memberships(task, reference)[:, columns]
        right, shown_classes = prediction == reference, [task.classes[c] for c in columns]
        out["figures"] = [
            answer_figures.roc_curves(truth, probabilities[:, columns], shown_classes, f"ROC of {task.name}"),
            answer_figures.reliability_diagram(confidence, right, f"Reliability of {task.name}"),
            answer_figures.confidence_histogram(confidence, right, f"Probabilities of the answers to {task.name}"),
            answer_figures.risk_coverage(confidence, right, f"Risk and coverage of {task.name}"),
        ]
        if task.kind.exclusive:
            out["confusion"] = _confusion(task.classes, run.metrics.tasks[task.name].confusion_matrix or ())
        names = [case for case, k in zip(run.cases, known.tolist(), strict=True) if k]
        wrong = [i for i in np.argsort(-confidence, kind="stable").tolist() if prediction[i] != reference[i]]
        pictured = set(shown.want([names[i] for i in wrong[: 4 * NUM_PICTURES]]))
        out["wrong"] = [
            {
                "case": names[i],
                "reference": task.decode(reference[i]),
                "prediction": task.decode(prediction[i]),
                "confidence": number_text(float(confidence[i]), 2),
                "pictured": names[i] in pictured,
            }
            for i in wrong
        ]
    return out


def _confusion(classes: Sequence[str], counts: Sequence[Sequence[int]]) -> dict[str, object]:
    rows = [
        {"name": name, "cells": [{"count": n, "share": n / max(sum(row), 1)} for n in row], "total": sum(row)}
        for name, row in zip(classes, counts, strict=False)
    ]
    return {"classes": list(classes), "rows": rows}


def training_section(run: Run) -> list[dict[str, object]]:
    """Curves per fold: losses, rates of success, and what the heads lost."""
    folds = []
    for name, folder in run.folds.items():
        columns = read_progress(folder)
        if not columns:
            continue
        losses = ("train_loss", "val_loss", "segmentation_loss", "class_loss")
        heads = [key for key in columns if key.startswith("task_") and key.endswith("_loss")]
        success = ("pseudo_dice", "selection_dice", "selection_macro_f1")
        charts = ((losses, "loss"), (heads, "class loss by task"), (success, "score"))
        folds.append(
            {
                "name": name,
                "epochs": len(next(iter(columns.values()))),
                "seconds": float(np.nansum(columns.get("seconds", np.zeros(1)))),
                "figures": [
                    figures.training_curves(known, label)
                    for names, label in charts
                    if (known := {key: columns[key] for key in names if np.isfinite(columns.get(key, np.nan)).any()})
                ],
            }
        )
    return folds


def case_header(run: Run) -> list[str]:
    """Titles of the columns of the table of cases, after the name."""
    columns = [f"{region} {metric.text}" for region in run.regions for metric in _HEADLINES]
    for task in run.tasks:
        columns += [f"{task.task.name} reference"] if run.metrics else []
        columns += [f"{task.task.name} answer", *([f"{task.task.name} probability"] if task.task.is_classification else [])]
    return [*columns, *_further_columns(run).values()]


def _further_columns(run: Run) -> dict[str, str]:
    """{column of the table of answers: its title} of what is not scored: sets, intervals, reasons to abstain, outliers."""
    if run.metrics is not None or not run.rows:
        return {}
    ends = {"set": "not excluded", "low": "lowest", "high": "highest", "abstain": "left to a person"}
    found = {f"{entry.task.name}_{end}": f"{entry.task.name} {title}" for entry in run.tasks for end, title in ends.items()}
    header = next(iter(run.rows.values()))
    return {name: title for name, title in (found | {"outlier_score": "outlier score"}).items() if name in header}


def case_rows(run: Run, volumes: Mapping[str, str]) -> list[dict[str, object]]:
    """A row per case: name, key of its volumes, cells, and whether an answer is wrong."""
    scores = [run.scores(region, metric.key) for region in run.regions for metric in _HEADLINES]
    rows: list[dict[str, object]] = []
    for index, case in enumerate(run.cases):
        cells = [number_text(float(values[index])) for values in scores]
        wrong = False
        for entry in run.tasks:
            reference, prediction = entry.reference[index], entry.prediction[index]
            if run.metrics:
                cells.append(_answer(entry, reference))
            cells.append(_answer(entry, prediction))
            wrong |= entry.task.is_classification and math.isfinite(reference) and reference != prediction
            if entry.task.is_classification:
                given = slice(index, index + 1 if math.isfinite(prediction) else index)
                confidence = entry.task.kind.confidence(entry.probabilities[given], entry.prediction[given])
                cells.append(number_text(float(confidence[0]) if len(confidence) else None, 2))
        cells += [run.rows[case].get(column, "").replace("|", ", ") or "–" for column in _further_columns(run)]
        rows.append({"case": case, "volume": volumes.get(case), "cells": cells, "wrong": wrong})
    return rows


def _answer(cases: TaskCases, value: float) -> str:
    if not math.isfinite(value):
        return "–"
    told = cases.task.decode(value)
    return told if isinstance(told, str) else f"{told:.4g}"
