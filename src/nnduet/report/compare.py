"""Two runs scored on the same cases: paired differences B - A with intervals and p-values, and the cases that changed most.

Both runs are resampled together, so that easy and difficult cases count alike in both. The tests say how far these cases
decide between these two sets of answers; they know nothing of other trainings with other seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnduet.cells import is_missing, parse_number
from nnduet.data.csv_text import records_text
from nnduet.data.files import write_json_atomically, write_text_atomically
from nnduet.data.tables import read_table
from nnduet.errors import DatasetError, SettingsError, TableError
from nnduet.evaluation import classification_metrics as by_counts
from nnduet.evaluation.answers import Row, TaskAnswers, answer_columns, collect_answers, patients_of, read_rows
from nnduet.evaluation.bootstrap import FloatArray, Resamples, draw_resamples, weighted_mean
from nnduet.evaluation.calibration_metrics import brier_score
from nnduet.evaluation.evaluate import METRICS_FILE, PER_CASE_FILE
from nnduet.evaluation.rank_metrics import auroc
from nnduet.evaluation.stored_metrics import StoredMetrics, read_metrics
from nnduet.schema import CASE_COLUMN, GROUP_COLUMN, Task

__all__ = ["COMPARISON_FILE", "COMPARISON_TABLE", "compare_runs", "find_scores"]

COMPARISON_FILE = "comparison.json"
COMPARISON_TABLE = "comparison.csv"

_BETTER = {"dsc": "higher", "nsd": "higher", "avd_ml": "lower", "accuracy": "higher", "macro_f1": "higher", "auroc": "higher"}
_REGION_METRICS = ("dsc", "nsd", "avd_ml")
_NUM_CHANGES = 10
_ROUNDING = 1e-12  # differences that are zero but for the order of additions
_SAME_VOLUME = 1e-6  # relative

_DEFINITIONS = {
    "difference": "B - A; better says whether more or less is better",
    "segmentation": "mean over cases in which the score is defined in both runs",
    "tasks": "as evaluate defines them, on the labelled common cases; a missing answer counts as the worst",
    "ci95": "2.5th to 97.5th percentile of the difference in bootstrap resamples of the resampling unit, both runs together",
    "p_value": "two-sided, of each comparison alone: 2 min(1 + #{d* <= 0}, 1 + #{d* >= 0}) / (R + 1), at most 1, of the R "
    "resampled differences d* that are defined",
    "p_holm": "p_value corrected by Holm's method for all num_comparisons of this comparison, however dependent they are",
    "scope": "how far these cases decide between these answers; other trainings of the same kind may differ more",
}


@dataclass(frozen=True)
class _Run:
    """What ``evaluate`` wrote of one run."""

    folder: Path
    metrics: StoredMetrics
    tasks: Mapping[str, Task]
    rows: Mapping[str, Row]


def find_scores(path: Path) -> Path:
    """The folder that holds ``metrics.json`` and ``per_case.csv`` of a run.

    Args:
        path: such a folder; or a model folder, then its ``cross_validation/``; or a fold's, then its ``validation/``.

    Raises:
        DatasetError: there is none; says where both files were looked for, and which folds of a model have them.
    """
    looked = [path, path / "cross_validation", path / "validation"]
    for folder in looked:
        if (folder / METRICS_FILE).is_file() and (folder / PER_CASE_FILE).is_file():
            return folder
    scored = sorted(file.parents[1].name for file in path.glob(f"fold_*/validation/{METRICS_FILE}"))
    hint = f"; name one of its folds ({', '.join(scored)}), or run `nnduet cross-validate`" if scored else ""
    places = ", ".join(str(folder) for folder in looked)
    raise DatasetError(f"{path}: expected {METRICS_FILE} and {PER_CASE_FILE} together in one of {places}{hint}")


def compare_runs(
    run_a: Path,
    run_b: Path,
    *,
    table: Path | None = None,
    output: Path | None = None,
    num_bootstrap: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare two runs case by case and, with ``output``, write ``comparison.json`` and ``comparison.csv`` there, atomically.

    Only cases of both runs count, and regions and tasks of both. Per region the 10 cases whose Dice rose and fell most are
    named, per classification those that became right and wrong, per regression the 10 that came closer and went farther.

    Args:
        run_a: see :func:`find_scores`; the run to compare with.
        run_b: the run whose gain is asked for.
        table: case table with ``patient_id``; whole patients are then resampled. A case without a cell counts as a patient.
        output: folder, made if missing.
        num_bootstrap: R, resamples; 0 gives neither intervals nor p-values.
        seed: of the resamples.

    Returns:
        What ``comparison.json`` holds: ``runs``, ``settings``, ``definitions``, ``cases``, ``only_in_one_run``,
        ``num_comparisons``, ``segmentation`` by region and ``tasks`` by name. Strictly JSON: undefined values are None with a
        reason. The order of the cases in the files changes nothing.

    Raises:
        DatasetError: no scores, no common case, or a common task with other classes; a case, named, with another truth.
        SettingsError: the surface distances have different tolerances, or ``num_bootstrap`` is negative.
        TableError: a table is malformed, or ``table`` has no patient of a common case.
        UnreadableFileError: a table cannot be read.

    Source: percentile interval: Efron and Tibshirani, An Introduction to the Bootstrap (1993), section 13.3; p-value as the
    level at which it ends at 0: section 15.4, counted as in Davison and Hinkley, Bootstrap Methods and their Application
    (1997), section 4.2; ``p_holm``: Holm, Scandinavian Journal of Statistics 6 (1979).
    """
    a, b = _read_run(run_a), _read_run(run_b)
    cases = sorted(set(a.rows) & set(b.rows))
    if not cases:
        raise DatasetError(f"{a.folder} and {b.folder}: expected common cases, got none of {len(a.rows)} and {len(b.rows)}")
    tolerance_mm = _common_tolerance(a, b)
    patients = _patients(cases, table) if table else {}
    resamples = draw_resamples(patients_of(cases, patients), num_resamples=num_bootstrap, seed=seed)
    regions = [name for name in a.metrics.segmentation if name in b.metrics.segmentation]
    segmentation = {name: _compare_region(name, cases, a, b, resamples) for name in regions}
    answers = {name: _answers(name, cases, a, b, patients) for name in a.tasks if name in b.tasks}
    tasks = {name: _compare_task(*pair, num_bootstrap, seed) for name, pair in answers.items()}
    comparison = {
        "runs": {"a": str(a.folder), "b": str(b.folder)},
        "settings": {
            "num_bootstrap": num_bootstrap,
            "seed": seed,
            "resampling_unit": "patient" if patients else "case",
            "tolerance_mm": tolerance_mm,
        },
        "definitions": _DEFINITIONS,
        "cases": {"num_common": len(cases), "num_resampling_units": resamples.num_units},
        "only_in_one_run": {
            "cases": _only_in_one(a.rows, b.rows),
            "regions": _only_in_one(a.metrics.segmentation, b.metrics.segmentation),
            "tasks": _only_in_one(a.tasks, b.tasks),
        },
        "num_comparisons": _add_holm(
            [entry for part in (*segmentation.values(), *tasks.values()) for entry in part["metrics"].values()]
        ),
        "segmentation": segmentation,
        "tasks": tasks,
    }
    if output is not None:
        write_text_atomically(output / COMPARISON_TABLE, _case_csv(cases, regions, answers, a, b, patients))
        write_json_atomically(output / COMPARISON_FILE, comparison)
    return comparison


def _read_run(path: Path) -> _Run:
    folder = find_scores(path)
    metrics = read_metrics(folder)
    if metrics is None or not (metrics.segmentation or metrics.tasks):
        raise DatasetError(f"{folder / METRICS_FILE}: expected settings, segmentation and tasks, as evaluate writes them")
    try:
        tasks = {name: entry.task(name) for name, entry in metrics.tasks.items()}
    except SettingsError as error:
        raise DatasetError(f"{folder / METRICS_FILE}: {error}") from error
    return _Run(folder, metrics, tasks, read_rows(folder / PER_CASE_FILE, []))


def _common_tolerance(a: _Run, b: _Run) -> float | None:
    tolerances = [run.metrics.settings.tolerance_mm for run in (a, b)]
    if tolerances[0] != tolerances[1] and a.metrics.segmentation and b.metrics.segmentation:
        raise SettingsError(
            f"{b.folder}: tolerance_mm expected {tolerances[0]} as in {a.folder}, got {tolerances[1]}; evaluate both with one"
        )
    tolerance: float | None = tolerances[0]
    return tolerance


def _patients(cases: Sequence[str], table: Path) -> dict[str, Row]:
    column = read_table(table).column(GROUP_COLUMN)
    found = {case_id: Row(str(table), {GROUP_COLUMN: column[case_id]}) for case_id in cases if column.get(case_id)}
    if not found:
        raise TableError(f"{table}: expected a {GROUP_COLUMN} for the common cases, got none, e.g. for {cases[0]}")
    return found


def _only_in_one(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, list[str]]:
    return {"a": sorted(set(a) - set(b)), "b": sorted(set(b) - set(a))}


def _scores(column: str, cases: Sequence[str], run: _Run) -> FloatArray:
    """A column of numbers (N,); NaN where a cell is empty, or the column is missing because no case has a value."""
    return np.array([_number(run.rows[case_id], column) for case_id in cases])


def _number(row: Row, column: str) -> float:
    cell = row.cells.get(column, "")
    value = parse_number(cell)
    if value is None and not is_missing(cell):
        raise TableError(f"{row.place}: {column} expected a number, got {cell!r}")
    return math.nan if value is None else value


def _compare_region(name: str, cases: Sequence[str], a: _Run, b: _Run, resamples: Resamples) -> dict[str, Any]:
    _check_same_volumes(name, cases, a, b)
    metrics = {}
    for field in _REGION_METRICS:
        pair = np.stack([_scores(f"{name}_{field}", cases, run) for run in (a, b)])
        defined = np.isfinite(pair)
        pair[:, ~defined.all(axis=0)] = np.nan
        means = [weighted_mean(values, resamples.weights) for values in (*pair, pair[1] - pair[0])]
        only = {f"n_only_{run}": int((defined[i] & ~defined[1 - i]).sum()) for i, run in enumerate("ab")}
        entry = _entry(field, means, resamples, int(defined.all(axis=0).sum()), "no_case_defined_in_both")
        metrics[field] = entry | only
    dice = [_scores(f"{name}_dsc", cases, run) for run in (a, b)]
    rose, fell = _largest_changes(cases, dice[0], dice[1], dice[1] - dice[0])
    return {"metrics": metrics, "rose": rose, "fell": fell}


def _check_same_volumes(name: str, cases: Sequence[str], a: _Run, b: _Run) -> None:
    """The reference volume follows from the error in millilitres and as a share of it, where the error is not 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        volumes = [_scores(f"{name}_avd_ml", cases, run) / _scores(f"{name}_avd_ratio", cases, run) for run in (a, b)]
    differ = np.isfinite(volumes).all(axis=0) & ~np.isclose(volumes[0], volumes[1], rtol=_SAME_VOLUME, atol=0.0)
    for index in np.flatnonzero(differ)[:1]:
        one, other = (f"{volume[index]:.6g} ml" for volume in volumes)
        raise DatasetError(
            f"{cases[index]}: the reference of {name} expected equal in both runs, "
            f"got {one} in {a.folder} and {other} in {b.folder}"
        )


def _entry(name: str, values: Sequence[FloatArray], resamples: Resamples, n_defined: int, reason: str) -> dict[str, Any]:
    """A, B and their difference, each (1 + R,), as JSON."""
    one, other, difference = values
    difference = np.where(np.abs(difference) < _ROUNDING, 0.0, difference)
    estimate = resamples.estimate(difference, n_defined=n_defined, reason=reason)
    shown = {"better": _BETTER.get(name, "lower"), "a": _json_number(one[0]), "b": _json_number(other[0])}
    p_value = None if estimate["ci95"] is None else _p_value(difference[1:])
    return shown | {"difference": estimate.pop("value"), "ci95": estimate.pop("ci95"), "p_value": p_value} | estimate


def _p_value(differences: FloatArray) -> float:
    """See ``definitions``; from (R,) with at least one defined value."""
    defined = differences[np.isfinite(differences)]
    least = int(min(np.count_nonzero(defined <= 0), np.count_nonzero(defined >= 0)))
    return min(1.0, 2 * (1 + least) / (defined.size + 1))


def _json_number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _largest_changes(
    cases: Sequence[str], a: FloatArray, b: FloatArray, change: FloatArray
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The cases with the largest changes above 0, and with the largest below 0; of equals the first; none gives none."""
    entries = [
        (float(change[i]), {"case_id": case_id, "a": float(a[i]), "b": float(b[i]), "difference": float(change[i])})
        for i, case_id in enumerate(cases)
    ]
    up = sorted((entry for entry in entries if entry[0] >= _ROUNDING), key=lambda entry: -entry[0])
    down = sorted((entry for entry in entries if entry[0] <= -_ROUNDING), key=lambda entry: entry[0])
    return [entry for _, entry in up[:_NUM_CHANGES]], [entry for _, entry in down[:_NUM_CHANGES]]


def _answers(name: str, cases: Sequence[str], a: _Run, b: _Run, patients: Mapping[str, Row]) -> tuple[TaskAnswers, TaskAnswers]:
    """Both runs' answers to the cases that are labelled in both."""
    task, other = a.tasks[name], b.tasks[name]
    if task.classes != other.classes:
        raise DatasetError(
            f"task {name}: classes expected {list(task.classes)} as in {a.folder}, got {list(other.classes)} in {b.folder}"
        )
    column = f"{name}_reference"
    labelled = [case_id for case_id in cases if all(run.rows[case_id].cells.get(column) for run in (a, b))]
    one, two = (_answers_of(run, task, labelled, patients) for run in (a, b))
    for index in np.flatnonzero(one.reference != two.reference)[:1]:
        told = [run.rows[labelled[index]] for run in (a, b)]
        raise DatasetError(
            f"{labelled[index]}: the truth of {name} expected equal in both runs, got {told[0].cells[column]!r} in "
            f"{told[0].place} and {told[1].cells[column]!r} in {told[1].place}"
        )
    return one, two


def _answers_of(run: _Run, task: Task, labelled: Sequence[str], patients: Mapping[str, Row]) -> TaskAnswers:
    truth, predicted = {}, {}
    for case_id in labelled:
        place, cells = run.rows[case_id].place, run.rows[case_id].cells
        group = patients[case_id].cells if case_id in patients else {}
        truth[case_id] = Row(place, {**group, task.name: cells[f"{task.name}_reference"]})
        answer = {column: cells.get(column, "") for column in answer_columns(task)[1:]}
        predicted[case_id] = Row(place, {**answer, task.name: cells.get(f"{task.name}_prediction", "")})
    return collect_answers(task, labelled, truth, predicted)


def _compare_task(a: TaskAnswers, b: TaskAnswers, num_bootstrap: int, seed: int) -> dict[str, Any]:
    resamples = draw_resamples(a.groups, num_resamples=num_bootstrap, seed=seed)
    values = [_metric_values(answers, resamples.weights) for answers in (a, b)]
    metrics = {
        name: _entry(name, (one, values[1][name], values[1][name] - one), resamples, len(a.case_ids), _reason(name, a))
        for name, one in values[0].items()
    }
    return {"type": a.task.type, "num_cases": len(a.case_ids), "metrics": metrics, **_changed_answers(a, b)}


def _metric_values(answers: TaskAnswers, weights: FloatArray) -> dict[str, FloatArray]:
    """{metric: (1 + R,)}, composed as :func:`nnduet.evaluation.task_scores.score_task` does, which gives no resamples."""
    if not answers.task.is_classification:
        error = np.abs(_with_worst_values(answers) - answers.reference)
        return {"mae": np.full(len(weights), np.nan) if np.isnan(error).any() else weighted_mean(error, weights)}
    num_classes, reference = len(answers.task.classes), answers.reference.astype(int)
    prediction = np.where(np.isnan(answers.prediction), -1, answers.prediction).astype(int)
    counts = by_counts.confusion_counts(reference, prediction, weights, num_classes)
    asked = [1] if num_classes == 2 else list(range(num_classes))
    areas = [auroc(answers.probabilities[:, index], reference == index, weights) for index in asked]
    return {
        "accuracy": by_counts.accuracy(counts),
        "macro_f1": by_counts.macro_f1(counts),
        "auroc": np.mean(areas, axis=0),
        "brier": brier_score(answers.probabilities, reference, weights),
    }


def _with_worst_values(answers: TaskAnswers) -> FloatArray:
    """Values (N,), a missing one replaced by the reference value farthest from the truth; NaN where all of them are equal."""
    reference, prediction = answers.reference, answers.prediction
    if not answers.missing or reference.min() == reference.max():
        return prediction
    low, high = reference.min(), reference.max()
    return np.where(np.isnan(prediction), np.where(reference - low > high - reference, low, high), prediction)


def _reason(metric: str, answers: TaskAnswers) -> str:
    """Why a metric is undefined, if it is."""
    if not answers.case_ids:
        return "no_labelled_cases"
    return "absent_class" if metric == "auroc" else "missing_prediction_in_a_constant_reference"


def _changed_answers(a: TaskAnswers, b: TaskAnswers) -> dict[str, list[dict[str, Any]]]:
    if not a.task.is_classification:
        errors = [np.abs(answers.prediction - answers.reference) for answers in (a, b)]
        farther, closer = _largest_changes(a.case_ids, errors[0], errors[1], errors[1] - errors[0])
        return {"closer": closer, "farther": farther}
    change = _difference_of_answers(a, b)
    classes = (*a.task.classes, None)
    told = [
        {"case_id": case_id, "reference": classes[int(truth)], "a": classes[int(one)], "b": classes[int(two)]}
        for case_id, truth, one, two in zip(
            a.case_ids, a.reference, np.nan_to_num(a.prediction, nan=-1), np.nan_to_num(b.prediction, nan=-1), strict=True
        )
    ]
    return {
        "became_right": [told[index] for index in np.flatnonzero(change > 0)],
        "became_wrong": [told[index] for index in np.flatnonzero(change < 0)],
    }


def _difference_of_answers(a: TaskAnswers, b: TaskAnswers) -> FloatArray:
    """B - A (N,): of 1 for right and 0 for wrong or missing; of a regression the absolute errors, NaN where one is missing."""
    if a.task.is_classification:
        values = [(answers.prediction == answers.reference).astype(float) for answers in (a, b)]
    else:
        values = [np.abs(answers.prediction - answers.reference) for answers in (a, b)]
    difference: FloatArray = values[1] - values[0]
    return difference


def _add_holm(entries: Sequence[dict[str, Any]]) -> int:
    """Set ``p_holm`` of every entry, None without p-value; returns how many p-values there are."""
    tested = sorted((entry for entry in entries if entry["p_value"] is not None), key=lambda entry: entry["p_value"])
    for entry in entries:
        entry["p_holm"] = None
    least = 0.0
    for rank, entry in enumerate(tested):
        entry["p_holm"] = least = max(least, min(1.0, (len(tested) - rank) * entry["p_value"]))
    return len(tested)


def _case_csv(
    cases: Sequence[str],
    regions: Sequence[str],
    answers: Mapping[str, tuple[TaskAnswers, TaskAnswers]],
    a: _Run,
    b: _Run,
    patients: Mapping[str, Row],
) -> str:
    """A line per common case; what is not known in one of the runs is an empty cell."""
    lines: dict[str, dict[str, Any]] = {case_id: {CASE_COLUMN: case_id} for case_id in cases}
    for case_id, row in patients.items():
        lines[case_id][GROUP_COLUMN] = row.cells[GROUP_COLUMN]
    for column in (f"{name}_{field}" for name in regions for field in _REGION_METRICS):
        one, two = (_scores(column, cases, run) for run in (a, b))
        for index, case_id in enumerate(cases):
            lines[case_id] |= _triple(column, one[index], two[index], two[index] - one[index])
    for name, (first, second) in answers.items():
        change = _difference_of_answers(first, second)
        for index, case_id in enumerate(first.case_ids):
            told = [run.rows[case_id].cells.get(f"{name}_prediction", "") for run in (a, b)]
            truth = {f"{name}_reference": a.rows[case_id].cells[f"{name}_reference"]}
            lines[case_id] |= truth | _triple(name, told[0], told[1], change[index])
    return records_text(list(lines.values()))


def _triple(column: str, a: object, b: object, difference: float) -> dict[str, object]:
    values = {f"a_{column}": a, f"b_{column}": b, f"difference_{column}": float(difference)}
    return {name: "" if isinstance(value, float) and math.isnan(value) else value for name, value in values.items()}
