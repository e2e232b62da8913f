"""A finished run as one folder that opens from disk in any browser: a page, its styles and scripts, pictures, volumes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from nnduet.data.files import write_bytes_atomically, write_text_atomically
from nnduet.errors import OutputExistsError
from nnduet.evaluation.stored_metrics import Estimate
from nnduet.report import figures
from nnduet.report.explained_cases import ExplainedCases
from nnduet.report.facts import facts_of, warnings_of
from nnduet.report.importance import importances
from nnduet.report.overlay import legend
from nnduet.report.runs import Run, TaskCases
from nnduet.report.shown_cases import ShownCases
from nnduet.report.stored_model import read_progress
from nnduet.report.volumes import write_volumes

__all__ = ["INDEX", "ReportSummary", "write_report"]

INDEX = "index.html"
GENERATOR = '<meta name="generator" content="nnDuet">'
NUM_PICTURES = 3
"""Worst, median and best cases of each region; wrong answers of each task get up to four times as many."""
_HERE = Path(__file__).parent
_METRICS = {"dsc": "Dice", "nsd": "NSD", "avd_ml": "AVD (ml)"}
_HEADLINES = ("macro_f1", "balanced_accuracy", "auroc", "ece", "quadratic_kappa", "mae", "spearman")
_SPOKEN = {
    "macro_f1": "macro-F1",
    "balanced_accuracy": "balanced accuracy",
    "auroc": "AUROC",
    "ece": "calibration error (ECE)",
    "quadratic_kappa": "quadratic kappa",
    "mae": "mean absolute error",
    "spearman": "Spearman",
}

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class ReportSummary:
    """What was written: the page, the cases that it lists, shows in 3D and in pictures, its size, what could not be drawn."""

    page: str
    num_cases: int
    num_viewer_cases: int
    num_pictures: int
    megabytes: float
    not_drawn: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """A JSON object with every field."""
        return dict(vars(self))


def write_report(
    run: Run,
    output: Path,
    *,
    viewer_cases: int = 40,
    explain: ExplainedCases | None = None,
    refresh: int | None = None,
    progress: Progress | None = None,
) -> ReportSummary:
    """Write the report of a run.

    Args:
        run: see :func:`nnduet.report.runs.read_run`.
        output: folder for ``index.html`` and what it loads; pictures and volumes of an earlier report are replaced.
        viewer_cases: how many can be viewed, volumes in 3D: the worst of every kind first, then as in the table.
        explain: evidence maps for the viewer; None leaves them out.
        refresh: seconds after which an open page loads itself again; None for a run that is finished.
        progress: called with (done, total, text) for each case that is drawn.

    Raises:
        OutputExistsError: ``output`` holds something else than a report.
        DiskFullError: the disk is full.
    """
    _make_room(output)
    shown = ShownCases(run, output, explain)
    regions, tasks = [_region(run, name, shown) for name in run.regions], [_task(run, entry, shown) for entry in run.tasks]
    volumes = _show_cases(shown, viewer_cases, progress)
    _copy_assets(output, with_viewer=bool(volumes))
    page = _template().render(
        title=run.folder.absolute().name,
        refresh=refresh,
        facts=facts_of(run),
        warnings=warnings_of(run),
        headlines=_headlines(run),
        distributions=_distributions(run),
        regions=regions,
        tasks=tasks,
        training=_training(run),
        pictures=shown.pictures,
        explained=shown.explained,
        volumes=volumes,
        legend=legend(shown.labels),
        header=_header(run),
        table=_table(run, volumes),
        definitions=run.metrics.definitions if run.metrics else {},
        missing=run.metrics.missing_predictions if run.metrics else (),
    )
    write_text_atomically(output / INDEX, page)
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file()) / 1e6
    return ReportSummary(str(output / INDEX), len(run.rows), len(volumes), len(shown.pictures), round(size, 1), shown.failed)


def _make_room(output: Path) -> None:
    """Remove pictures and volumes of an earlier report, and nothing else."""
    if not output.is_dir() or not any(output.iterdir()):
        return
    index = output / INDEX
    if not index.is_file() or GENERATOR not in index.read_text(encoding="utf-8", errors="replace"):
        raise OutputExistsError(f"{output}: expected an empty folder or an earlier report, found other files; choose another")
    for path in (*output.glob("pictures/*.png"), *output.glob("volumes/*.js")):
        path.unlink()


def _show_cases(shown: ShownCases, viewer_cases: int, progress: Progress | None) -> dict[str, str]:
    """Draw the wanted cases and write the volumes of as many as may be viewed; {case: key of its volumes}."""
    viewer = [case for case in dict.fromkeys([*shown.wanted, *shown.run.cases]) if shown.has_image(case)][:viewer_cases]
    cases = [*dict.fromkeys([*shown.wanted, *viewer])]
    volumes: dict[str, str] = {}
    for index, case in enumerate(cases):
        parts = shown.read(case)
        flat = bool(parts) and parts[0].geometry.shape[0] == 1
        if parts and (case in shown.wanted or flat):
            shown.draw(case, parts)
        if parts and case in viewer and not flat:
            volumes[case] = str(len(volumes))
            content = shown.with_evidence(case, parts[0])
            write_volumes(shown.output / "volumes" / f"{volumes[case]}.js", volumes[case], content)
        if progress:
            progress(index + 1, len(cases), case)
    return volumes


def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(_HERE / "templates")
    return jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True).get_template("report.html")


def _text(value: float | None, digits: int = 3) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def _headlines(run: Run) -> list[dict[str, str]]:
    """Rows of the first table: what, value, interval, number of cases, reason where there is no value."""
    if run.metrics is None:
        return []
    rows = []
    for region in run.regions:
        for name, spoken in _METRICS.items():
            if name != "avd_ml":
                rows.append(_headline(f"{region}: {spoken}", getattr(run.metrics.segmentation[region], name)))
    for task in run.tasks:
        found = run.metrics.tasks[task.task.name].metrics
        rows += [_headline(f"{task.task.name}: {_SPOKEN[name]}", found[name]) for name in _HEADLINES if name in found]
    return rows


def _headline(name: str, entry: Estimate) -> dict[str, str]:
    interval = entry.ci95
    return {
        "name": name,
        "value": _text(entry.value),
        "interval": f"{_text(interval[0])} to {_text(interval[1])}" if interval else f"– ({entry.ci95_reason or 'undefined'})",
        "cases": str(entry.n_defined),
        "reason": entry.reason,
    }


def _distributions(run: Run) -> list[str]:
    """Dice, NSD and AVD of all regions side by side."""
    if not run.regions:
        return []
    labels = {"dsc": "Dice", "nsd": "NSD", "avd_ml": "absolute volume difference (ml)"}
    return [
        figures.score_distributions(
            {region: run.scores(region, metric) for region in run.regions},
            label,
            limits=None if metric == "avd_ml" else (-0.02, 1.02),
        )
        for metric, label in labels.items()
    ]


def _region(run: Run, name: str, shown: ShownCases) -> dict[str, Any]:
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
        "metrics": [_headline(spoken, getattr(found, metric)) for metric, spoken in _METRICS.items()],
        "reasons": found.case_reasons,
        "figures": [figures.bland_altman(reference[both], prediction[both], name)] if both.any() else [],
        "no_volumes": not both.any(),
        "cases": {kind: [(case, _text(dice_of[case])) for case in shown.want(cases)] for kind, cases in picked.items()},
    }


def _task(run: Run, cases: TaskCases, shown: ShownCases) -> dict[str, Any]:
    """Figures and tables of a task; without references only how sure the answers are."""
    task = cases.task
    out: dict[str, Any] = {"name": task.name, "type": task.type, "figures": [], "wrong": [], "confusion": None, "metrics": []}
    out["per_class"], out["importance"] = [], importances(run, task)
    if run.metrics is not None:
        entry = run.metrics.tasks[task.name]
        out["metrics"] = [_headline(_SPOKEN.get(name, name), value) for name, value in entry.metrics.items()]
    if not task.is_classification:
        return out
    known = np.isfinite(cases.reference) & np.isfinite(cases.prediction) & np.isfinite(cases.probabilities).all(axis=1)
    if run.metrics is not None and known.any():
        reference, prediction = cases.reference[known].astype(int), cases.prediction[known].astype(int)
        probabilities = cases.probabilities[known]
        confidence = probabilities[np.arange(prediction.size), prediction]
        columns = [1] if task.type == "binary" else list(range(len(task.classes)))
        truth = np.stack([reference == column for column in columns], axis=1)
        out["figures"] = [
            figures.roc_curves(truth, probabilities[:, columns], [task.classes[c] for c in columns], f"ROC of {task.name}"),
            figures.reliability_diagram(confidence, prediction == reference, f"Reliability of {task.name}"),
            figures.confidence_histogram(confidence, prediction == reference, f"Probabilities of the answers to {task.name}"),
            figures.risk_coverage(confidence, prediction == reference, f"Risk and coverage of {task.name}"),
        ]
        out["confusion"] = _confusion(task.classes, run.metrics.tasks[task.name].confusion_matrix)
        names = [case for case, k in zip(run.cases, known.tolist(), strict=True) if k]
        wrong = [i for i in np.argsort(-confidence, kind="stable").tolist() if prediction[i] != reference[i]]
        pictured = set(shown.want([names[i] for i in wrong[: 4 * NUM_PICTURES]]))
        out["wrong"] = [
            {
                "case": names[i],
                "reference": task.classes[reference[i]],
                "prediction": task.classes[prediction[i]],
                "confidence": _text(float(confidence[i]), 2),
                "pictured": names[i] in pictured,
            }
            for i in wrong
        ]
    return out


def _confusion(classes: Sequence[str], counts: Sequence[Sequence[int]]) -> dict[str, Any]:
    rows = [
        {"name": name, "cells": [{"count": n, "share": n / max(sum(row), 1)} for n in row], "total": sum(row)}
        for name, row in zip(classes, counts, strict=False)
    ]
    return {"classes": list(classes), "rows": rows}


def _training(run: Run) -> list[dict[str, Any]]:
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


def _header(run: Run) -> list[str]:
    columns = [f"{region} {_METRICS[metric]}" for region in run.regions for metric in ("dsc", "nsd")]
    for task in run.tasks:
        columns += [f"{task.task.name} reference"] if run.metrics else []
        columns += [f"{task.task.name} answer", *([f"{task.task.name} probability"] if task.task.is_classification else [])]
    return columns


def _table(run: Run, volumes: Mapping[str, str]) -> list[dict[str, Any]]:
    """A row per case: name, key of its volumes, cells, and whether an answer is wrong."""
    scores = [run.scores(region, metric) for region in run.regions for metric in ("dsc", "nsd")]
    rows = []
    for index, case in enumerate(run.cases):
        cells = [_text(float(values[index])) for values in scores]
        wrong = False
        for entry in run.tasks:
            reference, prediction = entry.reference[index], entry.prediction[index]
            if run.metrics:
                cells.append(_answer(entry, reference))
            cells.append(_answer(entry, prediction))
            wrong |= entry.task.is_classification and math.isfinite(reference) and reference != prediction
            if entry.task.is_classification:
                known = math.isfinite(prediction)
                cells.append(_text(float(entry.probabilities[index, int(prediction)]) if known else None, 2))
        rows.append({"case": case, "volume": volumes.get(case), "cells": cells, "wrong": wrong})
    return rows


def _answer(cases: TaskCases, value: float) -> str:
    if not math.isfinite(value):
        return "–"
    return cases.task.classes[int(value)] if cases.task.is_classification else f"{value:.4g}"


def _copy_assets(output: Path, *, with_viewer: bool) -> None:
    """Styles and scripts; NiiVue, 2 MB, only where there is something to view."""
    for name in ("report.css", "report.js", *(("viewer.css", "viewer.js") if with_viewer else ())):
        write_bytes_atomically(output / "static" / name, (_HERE / "static" / name).read_bytes())
    for path in (_HERE / "vendor").iterdir() if with_viewer else ():
        write_bytes_atomically(output / "vendor" / path.name, path.read_bytes())
