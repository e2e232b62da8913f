"""Compare a folder of predictions with the references: masks, class labels and values, means with intervals, per-case table.

Missing predictions. A case without a prediction, or with an unreadable one, keeps its place and counts as the worst answer: DSC
0, NSD 0, AVD the whole reference volume; a wrong class with uniform probabilities; for ordinal tasks the rank and for
regression the reference value farthest from the truth. It is listed under ``missing_predictions``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from nnduet.errors import DatasetError, SettingsError
from nnduet.evaluation.answer_tables import (
    PREDICTIONS_FILE,
    Row,
    TaskAnswers,
    answer_columns,
    collect_answers,
    patients_of,
    read_rows,
)
from nnduet.evaluation.bootstrap import draw_resamples
from nnduet.evaluation.metrics.table import definitions
from nnduet.evaluation.per_case import missing_predictions, per_case_csv
from nnduet.evaluation.segmentation_cases import MaskScoring, case_ids_of, score_cases, summarise_regions
from nnduet.evaluation.stored_metrics import METRICS_FILE, PER_CASE_FILE, Metrics, Settings, Sources, read_prediction_run
from nnduet.evaluation.task_scores import score_task
from nnduet.evaluation.training_cases import training_cases
from nnduet.io.case_files import list_images
from nnduet.io.files import write_json_atomically, write_text_atomically
from nnduet.progress import Progress
from nnduet.schema import GROUP_COLUMN, Task

__all__ = ["METRICS_FILE", "PER_CASE_FILE", "evaluate"]

_DEFINITIONS = {
    "ci95": "2.5th to 97.5th percentile of bootstrap resamples of the resampling unit; resamples in which the metric is "
    "undefined are left out and counted in undefined_resamples",
    "n_defined": "cases that enter the value; 0 where it is undefined, with the reason",
    **definitions(),
    "missing_predictions": "count as worst: DSC 0, NSD 0, AVD = reference volume; wrong class with uniform probabilities; "
    "farthest rank; farthest reference value",
    "all_ignored": "all of the reference is the ignore label: nothing is scored there",
    "trained_on": "scored cases that bear the name of a training case of the model; their scores say nothing of new cases",
    "collapsed": "the references hold several classes but only one is ever predicted",
}


def evaluate(
    predictions: Path,
    references: Path | None,
    *,
    labels: Mapping[str, int | Sequence[int]],
    tasks: tuple[Task, ...] = (),
    table: Path | None = None,
    id_column: str | None = None,
    case_ids: Sequence[str] | None = None,
    output: Path | None = None,
    model: Path | None = None,
    label_map: Mapping[int, int] | None = None,
    tolerance_mm: float = 2.0,
    num_bootstrap: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> Metrics:
    """Score predictions and, with ``output``, write ``metrics.json`` and ``per_case.csv`` there, atomically.

    Args:
        predictions: folder with ``<case>.nii.gz``, ``.nii`` or ``.png`` and, for tasks, ``classification.csv``: ``case_id``,
            ``<task>`` (class label or value) and, for classes, ``<task>_p_<class>`` that sum to 1. Other columns are ignored.
        references: folder of masks ``<case>.<ending>``; None leaves segmentation out.
        labels: ``dataset.json["labels"]``; values may be lists (nnU-Net regions); ``background`` and ``ignore`` as there.
        tasks: scored against ``table``, which they need.
        table: case table with ``case_id``, task columns and optional ``patient_id``, in any form that ``convert`` reads; a
            missing cell leaves the case out of that task. With ``patient_id``, intervals resample patients instead of cases.
        id_column: column of the table with the case ids, if it is not found by its name.
        case_ids: cases to score; by default all in ``references``, without references all in ``table``. Each must have a
            reference mask and a row, where these are given.
        output: folder, made if missing.
        model: what predicted, to warn of cases that it was trained on; None takes what ``run.json`` of the predictions names.
        label_map: new values of the references, e.g. ``{255: 1}``, as in ``convert``.
        tolerance_mm: of the normalized surface distance.
        num_bootstrap: resamples; 0 gives no intervals.
        seed: of the resamples.
        progress: called after each mask.

    Returns:
        What ``metrics.json`` holds.

    Raises:
        SettingsError: nothing to score, tasks without a table or of equal names, an impossible tolerance or resample number.
        LabelError: the labels hold no foreground.
        DatasetError: no cases, a case twice, or a case without reference mask or row.
        TableError: a table is malformed; names the line.
        UnreadableFileError: a table or a reference cannot be read; an unreadable mask in ``predictions`` is listed instead.
    """
    _check_request(references, tasks, table)
    rows = read_rows(table, [task.name for task in tasks], id_column) if table else {}
    cases = _cases(case_ids, references, rows, table)
    resamples = draw_resamples(patients_of(cases, rows), num_resamples=num_bootstrap, seed=seed)
    answers = _answers(tasks, cases, rows, predictions)
    scoring = MaskScoring(references, predictions, labels, tolerance_mm, label_map or {}) if references else None
    scores = score_cases(cases, scoring, progress) if scoring else []
    trained_on = _trained_on(cases, predictions, model)
    metrics = Metrics(
        settings=Settings(tolerance_mm, num_bootstrap, seed, _resampling_unit(cases, rows)),
        sources=_sources(predictions, references, table, output),
        definitions=_DEFINITIONS,
        num_cases=len(cases),
        num_resampling_units=resamples.num_units,
        missing_predictions=missing_predictions(scores, answers),
        not_used=tuple(list_images(references).notes) if references else (),
        trained_on=tuple(trained_on),
        warnings=(_warning(trained_on, len(cases)),) if trained_on else (),
        segmentation=summarise_regions(scores, scoring, resamples) if scoring else {},
        tasks={entry.task.name: score_task(entry, num_resamples=num_bootstrap, seed=seed) for entry in answers},
    )
    _write(output, per_case_csv(cases, scores, answers), metrics)
    return metrics


def _write(output: Path | None, table: str, metrics: Metrics) -> None:
    if output is not None:
        write_text_atomically(output / PER_CASE_FILE, table)
        write_json_atomically(output / METRICS_FILE, metrics)


def _resampling_unit(cases: Sequence[str], rows: Mapping[str, Row]) -> str:
    return "patient" if any(rows[case_id].cells.get(GROUP_COLUMN) for case_id in cases if case_id in rows) else "case"


def _sources(predictions: Path, references: Path | None, table: Path | None, output: Path | None) -> Sources:
    is_beside = output is not None and predictions.absolute() == output.absolute()
    others = (None if path is None else str(path.absolute()) for path in (references, table))
    return Sources("." if is_beside else str(predictions.absolute()), *others)


def _check_request(references: Path | None, tasks: tuple[Task, ...], table: Path | None) -> None:
    if references is None and not tasks:
        raise SettingsError("evaluate: expected a folder of references, or tasks, got neither")
    if tasks and table is None:
        raise SettingsError(f"evaluate: tasks {[task.name for task in tasks]} need a table, got none")
    if len({task.name for task in tasks}) != len(tasks):
        raise SettingsError(f"evaluate: task names must differ, got {[task.name for task in tasks]}")


def _cases(
    case_ids: Sequence[str] | None, references: Path | None, rows: Mapping[str, Row], table: Path | None
) -> tuple[str, ...]:
    cases = tuple(case_ids) if case_ids is not None else case_ids_of(references) if references else tuple(rows)
    if not cases or len(set(cases)) != len(cases):
        raise DatasetError(f"evaluate: expected at least one case and none twice, got {list(cases)}")
    without = [case_id for case_id in cases if table is not None and case_id not in rows]
    if without:
        raise DatasetError(f"{table}: expected a row for every case, got none for {without}")
    return cases


def _trained_on(cases: Sequence[str], predictions: Path, model: Path | None) -> list[str]:
    """The scored cases that bear the name of a training case of what predicted, where both are known."""
    run = read_prediction_run(predictions)
    named = model or (run.model_path() if run else None)
    known = training_cases(named, run.folds if run else ()) if named else frozenset()
    return [case_id for case_id in cases if case_id in known]


def _warning(trained_on: Sequence[str], num_cases: int) -> str:
    more = f" and {len(trained_on) - 3} more" if len(trained_on) > 3 else ""
    return (
        f"{len(trained_on)} of {num_cases} scored cases are those that the model was trained on ({', '.join(trained_on[:3])}"
        f"{more}): their scores say nothing of new cases"
    )


def _answers(tasks: tuple[Task, ...], cases: Sequence[str], rows: Mapping[str, Row], predictions: Path) -> list[TaskAnswers]:
    if not tasks:
        return []
    columns = [column for task in tasks for column in answer_columns(task)]
    predicted = read_rows(predictions / PREDICTIONS_FILE, columns)
    return [collect_answers(task, cases, rows, predicted) for task in tasks]
