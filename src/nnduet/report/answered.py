"""What can be said of answers without references: how sure they are, what is unlike the training, how large the masks are."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnduet.errors import DiskFullError, NNDuetError
from nnduet.report import figures
from nnduet.report.drawing import Drawing
from nnduet.report.runs import Run, TaskCases
from nnduet.report.sections import NUM_PICTURES, number_text
from nnduet.report.shown_cases import ShownCases

__all__ = ["Answered", "answered_sections"]

Array = NDArray[np.float64]
OUTLIER_COLUMN = "outlier_score"
_MOST_LISTED = 12


@dataclass(frozen=True)
class Answered:
    """A section: a table of ``rows`` under ``columns``, figures, and cases to look at, each with a few words."""

    name: str
    text: str
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    figures: tuple[Drawing, ...] = ()
    cases: tuple[tuple[str, str], ...] = ()


def answered_sections(run: Run, shown: ShownCases) -> list[Answered]:
    """Sections for predictions without references; none for a run with scores or without cases. Asks ``shown`` for pictures."""
    if run.metrics is not None or not run.rows:
        return []
    sections = [_task_section(run, cases) for cases in run.tasks]
    sections += [section for section in (_outlier_section(run), _volume_section(run, shown)) if section]
    for section in sections:
        shown.want([case for case, _ in section.cases])
    if not any(section.cases for section in sections):
        shown.want(run.cases[: 2 * NUM_PICTURES])
    return sections


def _task_section(run: Run, cases: TaskCases) -> Answered:
    return _classes(run, cases) if cases.task.is_classification else _values(run, cases)


def _classes(run: Run, cases: TaskCases) -> Answered:
    """How often each class was answered, how sure, how many classes the prediction sets hold; the least sure cases."""
    task = cases.task
    known = np.flatnonzero(np.isfinite(cases.prediction))
    answers, probabilities = cases.prediction[known], cases.probabilities[known]
    confidence, held = task.kind.confidence(probabilities, answers), task.kind.memberships(task, answers)
    sets, left = _cells(run, f"{task.name}_set"), _cells(run, f"{task.name}_abstain")
    rows = [
        (
            name,
            str(int(held[:, index].sum())),
            number_text(_median(probabilities[held[:, index], index]), 2),
            str(sum(name in cell.split("|") for cell in sets)) if any(sets) else "–",
        )
        for index, name in enumerate(task.classes)
    ]
    sizes = Counter(len(cell.split("|")) for cell in sets if cell)
    told = "; ".join(f"{n} cases with {size} {'class' if size == 1 else 'classes'}" for size, n in sorted(sizes.items()))
    text = f"{len(known)} answers." + (f" Classes that cannot be excluded: {told}." if told else "")
    text += f" {sum(map(bool, left))} cases are left to a person." if any(left) else ""
    sure = np.isfinite(confidence)
    drawn = [figures.answer_histogram(confidence[sure], f"Probabilities of the answers to {task.name}")] if sure.any() else []
    least = [i for i in np.argsort(confidence, kind="stable").tolist() if sure[i]][:_MOST_LISTED]
    return Answered(
        f"Answers to {task.name}",
        text,
        ("class", "answered", "median probability", "not excluded in"),
        tuple(rows),
        tuple(drawn),
        tuple((run.cases[known[i]], f"{task.decode(answers[i])}, probability {confidence[i]:.2f}") for i in least),
    )


def _values(run: Run, cases: TaskCases) -> Answered:
    """Values with their intervals; the cases whose interval is widest."""
    task = cases.task
    low, high = (_numbers(_cells(run, f"{task.name}_{end}")) for end in ("low", "high"))
    known = cases.prediction[np.isfinite(cases.prediction)]
    unit = f" {task.unit}" if task.unit else ""
    spans = zip(("least", "median", "most"), np.percentile(known, (0, 50, 100)), strict=True) if known.size else ()
    rows = tuple((name, f"{value:.4g}{unit}") for name, value in spans)
    width = high - low
    order = [i for i in np.argsort(-np.nan_to_num(width, nan=-1), kind="stable").tolist() if np.isfinite(width[i])]
    listed = tuple((run.cases[i], f"{cases.prediction[i]:.4g}, {low[i]:.4g} to {high[i]:.4g}{unit}") for i in order)
    drawn = (figures.value_histogram(known, f"{task.name}{unit}", f"Answers to {task.name}"),) if known.size else ()
    name, text = f"Answers to {task.name}", f"{known.size} answers."
    return Answered(name, text, ("value", task.name), rows, drawn, listed[:_MOST_LISTED])


def _outlier_section(run: Run) -> Answered | None:
    """How unlike the training cases the cases are; the most unlike ones."""
    scores = _numbers(_cells(run, OUTLIER_COLUMN))
    known = np.flatnonzero(np.isfinite(scores))
    if not known.size:
        return None
    order = known[np.argsort(-scores[known], kind="stable")][:_MOST_LISTED]
    text = (
        "The outlier score of a case is the share of training cases that are more usual; "
        f"{int((scores[known] > 0.99).sum())} cases are above 0.99."
    )
    drawn = figures.value_histogram(scores[known], "outlier score", "Outlier scores of all cases")
    listed = tuple((run.cases[i], f"outlier score {scores[i]:.3f}") for i in order)
    return Answered("Cases unlike the training", text, figures=(drawn,), cases=listed)


def _volume_section(run: Run, shown: ShownCases) -> Answered | None:
    """Volumes of the predicted masks by label; cases without any, the smallest and the largest."""
    volumes = _volumes(run, shown)
    if not volumes:
        return None
    names = list(dict.fromkeys(name for found in volumes.values() for name in found))
    table = np.array([[found.get(name, 0.0) for name in names] for found in volumes.values()]).reshape(len(volumes), -1)
    rows = tuple(
        (
            name,
            *(f"{value:.4g}" for value in (column.min(), float(np.median(column)), column.max())),
            str(int((column == 0).sum())),
        )
        for name, column in zip(names, table.T, strict=True)
    )
    totals, cases = table.sum(axis=1), list(volumes)
    empty = [case for case, total in zip(cases, totals, strict=True) if not total]
    order = np.argsort(totals, kind="stable").tolist()
    extremes = dict.fromkeys([*order[:NUM_PICTURES], *order[-NUM_PICTURES:]])
    listed = tuple((cases[i], f"{totals[i]:.4g} ml in all") for i in extremes)
    text = f"{len(empty)} of {len(cases)} masks are empty." if empty else f"None of {len(cases)} masks is empty."
    drawn = figures.score_distributions(dict(zip(names, table.T, strict=True)), "volume (ml)") if names else None
    columns = ("label", "least (ml)", "median (ml)", "most (ml)", "cases without")
    return Answered("Volumes of the masks", text, columns, rows, (drawn,) if drawn else (), listed)


def _volumes(run: Run, shown: ShownCases) -> dict[str, dict[str, float]]:
    """{case: {label: ml}} of the masks that can be read; the reasons for the others are in ``shown.failed``."""
    found = {}
    for case in run.cases:
        try:
            volumes = shown.volumes_ml(case)
        except DiskFullError:
            raise
        except NNDuetError as error:
            shown.failed[case] = f"{error.code}: {error}"
            continue
        if volumes is not None:
            found[case] = volumes
    return found


def _cells(run: Run, column: str) -> list[str]:
    return [row.get(column, "") for row in run.rows.values()]


def _numbers(cells: Sequence[str]) -> Array:
    def number(cell: str) -> float:
        try:
            return float(cell)
        except ValueError:
            return math.nan

    return np.array([number(cell) for cell in cells], dtype=float)


def _median(values: Array) -> float | None:
    return float(np.nanmedian(values)) if np.isfinite(values).any() else None
