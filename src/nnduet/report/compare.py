"""Two runs scored on the same cases: paired differences B - A with intervals and p-values, and the cases that changed most.

Both runs are resampled together, so that easy and difficult cases count alike in both. The tests say how far these cases
decide between these two sets of answers; they know nothing of other trainings with other seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnduet.datasets.case_tables import read_table
from nnduet.errors import DatasetError, SettingsError, TableError
from nnduet.evaluation.answer_tables import Row, TaskAnswers, patients_of
from nnduet.evaluation.bootstrap import Resamples, draw_resamples, weighted_mean
from nnduet.evaluation.metrics.table import REGION_METRICS
from nnduet.evaluation.own_files import check_own_json, check_own_table
from nnduet.io.csv_text import records_text
from nnduet.io.files import write_json_atomically, write_text_atomically
from nnduet.report.compared_runs import ComparedRun, find_scores, read_compared_run, scores_of
from nnduet.report.compared_tasks import compare_task, difference_of_answers, paired_answers
from nnduet.report.paired_differences import add_holm, largest_changes, paired_entry
from nnduet.schema import CASE_COLUMN, GROUP_COLUMN

__all__ = ["COMPARISON_FILE", "COMPARISON_TABLE", "compare_runs", "find_scores"]

COMPARISON_FILE = "comparison.json"
COMPARISON_TABLE = "comparison.csv"
_MAKER = "nnduet compare"

_REGION_METRICS = [metric for metric in REGION_METRICS if metric.compared]
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
        OutputExistsError: ``output`` holds a file of these names that ``compare`` did not write.
        SettingsError: the surface distances have different tolerances, or ``num_bootstrap`` is negative.
        TableError: a table is malformed, or ``table`` has no patient of a common case.
        UnreadableFileError: a table cannot be read.

    Source: percentile interval: Efron and Tibshirani, An Introduction to the Bootstrap (1993), section 13.3; p-value as the
    level at which it ends at 0: section 15.4, counted as in Davison and Hinkley, Bootstrap Methods and their Application
    (1997), section 4.2; ``p_holm``: Holm, Scandinavian Journal of Statistics 6 (1979).
    """
    if output is not None:
        _check_own(output)
    a, b = read_compared_run(run_a), read_compared_run(run_b)
    cases, chosen = sorted(set(a.rows) & set(b.rows)), {"num_bootstrap": num_bootstrap, "seed": seed}
    if not cases:
        raise DatasetError(f"{a.folder} and {b.folder}: expected common cases, got none of {len(a.rows)} and {len(b.rows)}")
    tolerance_mm = _common_tolerance(a, b)
    patients = _patients(cases, table) if table else {}
    resamples = draw_resamples(patients_of(cases, patients), num_resamples=num_bootstrap, seed=seed)
    regions = [name for name in a.metrics.segmentation if name in b.metrics.segmentation]
    segmentation = {name: _compare_region(name, cases, a, b, resamples) for name in regions}
    answers = {name: paired_answers(name, cases, a, b, patients) for name in a.tasks if name in b.tasks}
    tasks = {name: compare_task(*pair, num_bootstrap, seed) for name, pair in answers.items()}
    comparison = {
        "runs": {"a": str(a.folder), "b": str(b.folder)},
        "settings": {**chosen, "resampling_unit": "patient" if patients else "case", "tolerance_mm": tolerance_mm},
        "definitions": _DEFINITIONS,
        "cases": {"num_common": len(cases), "num_resampling_units": resamples.num_units},
        "only_in_one_run": _only_in_one_run(a, b),
        "num_comparisons": add_holm(
            [entry for part in (*segmentation.values(), *tasks.values()) for entry in part["metrics"].values()]
        ),
        "segmentation": segmentation,
        "tasks": tasks,
    }
    if output is not None:
        write_text_atomically(output / COMPARISON_TABLE, _case_csv(cases, regions, answers, a, b, patients))
        write_json_atomically(output / COMPARISON_FILE, comparison)
    return comparison


def _check_own(output: Path) -> None:
    check_own_json(output / COMPARISON_FILE, ("runs", "num_comparisons"), _MAKER)
    check_own_table(output / COMPARISON_TABLE, _MAKER, starts=("a_", "b_", "difference_"), endings=("_reference",))


def _common_tolerance(a: ComparedRun, b: ComparedRun) -> float | None:
    tolerances = [run.metrics.settings.tolerance_mm for run in (a, b)]
    if tolerances[0] != tolerances[1] and a.metrics.segmentation and b.metrics.segmentation:
        raise SettingsError(
            f"{b.folder}: tolerance_mm expected {tolerances[0]} as in {a.folder}, got {tolerances[1]}; evaluate both with one"
        )
    return tolerances[0]


def _patients(cases: Sequence[str], table: Path) -> dict[str, Row]:
    column = read_table(table).column(GROUP_COLUMN)
    found = {case_id: Row(str(table), {GROUP_COLUMN: column[case_id]}) for case_id in cases if column.get(case_id)}
    if not found:
        raise TableError(f"{table}: expected a {GROUP_COLUMN} for the common cases, got none, e.g. for {cases[0]}")
    return found


def _only_in_one_run(a: ComparedRun, b: ComparedRun) -> dict[str, dict[str, list[str]]]:
    pairs = {
        "cases": (a.rows, b.rows),
        "regions": (a.metrics.segmentation, b.metrics.segmentation),
        "tasks": (a.tasks, b.tasks),
    }
    return {what: _only_in_one(*pair) for what, pair in pairs.items()}


def _only_in_one(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, list[str]]:
    return {"a": sorted(set(a) - set(b)), "b": sorted(set(b) - set(a))}


def _compare_region(name: str, cases: Sequence[str], a: ComparedRun, b: ComparedRun, resamples: Resamples) -> dict[str, Any]:
    _check_same_volumes(name, cases, a, b)
    metrics = {}
    for metric in _REGION_METRICS:
        pair = np.stack([scores_of(f"{name}_{metric.key}", cases, run) for run in (a, b)])
        defined = np.isfinite(pair)
        pair[:, ~defined.all(axis=0)] = np.nan
        means = [weighted_mean(values, resamples.weights) for values in (*pair, pair[1] - pair[0])]
        only = {f"n_only_{run}": int((defined[i] & ~defined[1 - i]).sum()) for i, run in enumerate("ab")}
        entry = paired_entry(metric, means, resamples, int(defined.all(axis=0).sum()), "no_case_defined_in_both")
        metrics[metric.key] = entry | only
    dice = [scores_of(f"{name}_dsc", cases, run) for run in (a, b)]
    rose, fell = largest_changes(cases, dice[0], dice[1], dice[1] - dice[0])
    return {"metrics": metrics, "rose": rose, "fell": fell}


def _check_same_volumes(name: str, cases: Sequence[str], a: ComparedRun, b: ComparedRun) -> None:
    """The reference volume follows from the error in millilitres and as a share of it, where the error is not 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        volumes = [scores_of(f"{name}_avd_ml", cases, run) / scores_of(f"{name}_avd_ratio", cases, run) for run in (a, b)]
    differ = np.isfinite(volumes).all(axis=0) & ~np.isclose(volumes[0], volumes[1], rtol=_SAME_VOLUME, atol=0.0)
    for index in np.flatnonzero(differ)[:1]:
        one, other = (f"{volume[index]:.6g} ml" for volume in volumes)
        raise DatasetError(
            f"{cases[index]}: the reference of {name} expected equal in both runs, "
            f"got {one} in {a.folder} and {other} in {b.folder}"
        )


def _case_csv(
    cases: Sequence[str],
    regions: Sequence[str],
    answers: Mapping[str, tuple[TaskAnswers, TaskAnswers]],
    a: ComparedRun,
    b: ComparedRun,
    patients: Mapping[str, Row],
) -> str:
    """A line per common case; what is not known in one of the runs is an empty cell."""
    lines: dict[str, dict[str, Any]] = {case_id: {CASE_COLUMN: case_id} for case_id in cases}
    for case_id, row in patients.items():
        lines[case_id][GROUP_COLUMN] = row.cells[GROUP_COLUMN]
    for column in (f"{name}_{metric.key}" for name in regions for metric in _REGION_METRICS):
        one, two = (scores_of(column, cases, run) for run in (a, b))
        for index, case_id in enumerate(cases):
            lines[case_id] |= _triple(column, one[index], two[index], two[index] - one[index])
    for name, (first, second) in answers.items():
        change = difference_of_answers(first, second)
        for index, case_id in enumerate(first.case_ids):
            told = [run.rows[case_id].cells.get(f"{name}_prediction", "") for run in (a, b)]
            truth = {f"{name}_reference": a.rows[case_id].cells[f"{name}_reference"]}
            lines[case_id] |= truth | _triple(name, told[0], told[1], change[index])
    return records_text(list(lines.values()))


def _triple(column: str, a: object, b: object, difference: float) -> dict[str, object]:
    values = {f"a_{column}": a, f"b_{column}": b, f"difference_{column}": float(difference)}
    return {name: "" if isinstance(value, float) and math.isnan(value) else value for name, value in values.items()}
