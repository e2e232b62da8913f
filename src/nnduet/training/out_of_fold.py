"""What the folds say of cases that they had not seen, gathered into one folder and measured together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from nnduet.cells import number_or_nan
from nnduet.errors import DatasetError
from nnduet.evaluation.answer_tables import Row, TaskAnswers, answer_columns, collect_answers, read_rows
from nnduet.evaluation.evaluate import METRICS_FILE, evaluate
from nnduet.evaluation.reference_sets import ReferenceSet
from nnduet.evaluation.stored_metrics import CrossValidationPart, Metrics, TaskUncertainty
from nnduet.evaluation.uncertainty import DEFINITIONS, measure_uncertainty, nonconformity
from nnduet.inference.result_tables import CLASSIFICATION_FILE, write_results
from nnduet.io.case_files import list_images
from nnduet.io.csv_text import records_text
from nnduet.io.files import link_atomically, write_json_atomically, write_text_atomically
from nnduet.model_store.folder_files import read_case_heads
from nnduet.model_store.model_files import CASE_HEAD_FILE, CONFORMAL_FILE
from nnduet.schema import FOLD_COLUMN, OUTLIER_COLUMN, Task
from nnduet.training.provenance import provenance

__all__ = ["gather_predictions", "measure_predictions"]

Parts = Mapping[int, Sequence[str]]


def gather_predictions(model: Path, parts: Parts, tasks: tuple[Task, ...], output: Path, *, ending: str = "") -> None:
    """Bring masks and answers of every fold's validation cases together; files of an earlier gathering are replaced.

    Writes the masks, ``classification.csv`` with a further column ``fold``, and ``<task>_results.csv`` per task.

    Args:
        model: folder with a finished ``fold_K`` per part.
        parts: {fold: its validation cases}; no case in two of them.
        ending: what follows a case in ``<task>_results.csv``, see ``inference.result_tables``.

    Raises:
        DatasetError: a fold did not validate exactly the cases of its part, or its table has other columns.
    """
    masks = {case: paths for fold, cases in parts.items() for case, paths in _masks(model, fold, cases).items()}
    rows = _answers(model, parts, tasks) if tasks else {}
    output.mkdir(parents=True, exist_ok=True)
    wanted = {output / path.name: path for paths in masks.values() for path in paths}
    for stale in [path for paths in list_images(output).cases.values() for path in paths if path not in wanted]:
        stale.unlink()
    for target, source in wanted.items():
        link_atomically(source, target)
    if tasks:
        _write_tables(output, tasks, dict(sorted(rows.items())), ending)


def _validation(model: Path, fold: int) -> Path:
    return model / f"fold_{fold}" / "validation"


def _masks(model: Path, fold: int, cases: Sequence[str]) -> Mapping[str, Sequence[Path]]:
    found = list_images(_validation(model, fold)).cases
    _check_cases(_validation(model, fold), "masks", found, cases)
    return found


def _check_cases(place: Path, what: str, found: Mapping[str, object], cases: Sequence[str]) -> None:
    missing, foreign = sorted(set(cases) - set(found)), sorted(set(found) - set(cases))
    if missing or foreign:
        raise DatasetError(
            f"{place}: expected {what} of the fold's {len(cases)} validation cases, got none for {missing[:10]} and others for "
            f"{foreign[:10]}; if the splits have changed since, the fold must be trained again"
        )


def _answers(model: Path, parts: Parts, tasks: tuple[Task, ...]) -> dict[str, dict[str, str]]:
    """{case: its cells} of all folds, with the fold."""
    columns = [column for task in tasks for column in answer_columns(task)]
    merged: dict[str, dict[str, str]] = {}
    header: list[str] = []
    for fold, cases in parts.items():
        path = _validation(model, fold) / CLASSIFICATION_FILE
        found = read_rows(path, columns)
        _check_cases(path, "answers", found, cases)
        for case_id, row in found.items():
            cells = {**row.cells, FOLD_COLUMN: str(fold)}
            header = header or list(cells)
            if list(cells) != header:
                raise DatasetError(f"{row.place}: expected the columns {header[:-1]} of the first fold, got {list(row.cells)}")
            merged[case_id] = cells
    return merged


def _write_tables(output: Path, tasks: tuple[Task, ...], rows: Mapping[str, Mapping[str, str]], ending: str) -> None:
    write_text_atomically(output / CLASSIFICATION_FILE, records_text(list(rows.values())))
    for task in tasks:
        write_results(output, task, {case_id: cells[task.name] for case_id, cells in rows.items()}, ending)


def measure_predictions(
    model: Path,
    parts: Parts,
    truth: ReferenceSet,
    output: Path,
    *,
    not_validated: Sequence[str] = (),
    num_bootstrap: int = 1000,
    seed: int = 0,
) -> Metrics:
    """Measure what :func:`gather_predictions` brought together.

    Writes ``metrics.json`` and ``per_case.csv`` as ``evaluate`` does, the former with ``cross_validation`` (folds, cases per
    fold, cases that no fold validates) and ``uncertainty`` by task; and ``conformal.json``, see :func:`_write_conformal`.

    Returns:
        What ``metrics.json`` holds.
    """
    cases = sorted(case_id for part in parts.values() for case_id in part)
    metrics = evaluate(
        output,
        truth.masks,
        labels=truth.labels,
        tasks=truth.tasks,
        table=truth.table,
        case_ids=cases,
        output=output,
        num_bootstrap=num_bootstrap,
        seed=seed,
    )
    predicted = _predicted(output, truth.tasks)
    answers = _collect(cases, truth, predicted)
    metrics = replace(
        metrics,
        definitions={**metrics.definitions, **DEFINITIONS},
        made_by=provenance(),
        cross_validation=CrossValidationPart(
            tuple(parts), {str(fold): len(part) for fold, part in parts.items()}, tuple(not_validated)
        ),
        uncertainty=_uncertainty(model, parts, answers, predicted, num_bootstrap, seed),
    )
    write_json_atomically(output / METRICS_FILE, metrics)
    _write_conformal(output / CONFORMAL_FILE, list(parts), answers)
    return metrics


def _uncertainty(
    model: Path,
    parts: Parts,
    answers: Sequence[TaskAnswers],
    predicted: Mapping[str, Row],
    num_bootstrap: int,
    seed: int,
) -> dict[str, TaskUncertainty]:
    """{task: what :func:`measure_uncertainty` finds with the conformal scores of each fold's own case heads}."""
    tasks = tuple(entry.task for entry in answers)
    heads = {str(fold): read_case_heads(model / f"fold_{fold}" / CASE_HEAD_FILE, tasks)[0] for fold in parts}
    found = {}
    for entry in answers:
        name, rows = entry.task.name, [predicted[case_id] for case_id in entry.case_ids]
        found[name] = measure_uncertainty(
            entry,
            [row.cells[FOLD_COLUMN] for row in rows],
            {fold: of_task[name] for fold, of_task in heads.items() if name in of_task},
            np.array([number_or_nan(row.cells[OUTLIER_COLUMN]) for row in rows], dtype=float),
            num_resamples=num_bootstrap,
            seed=seed,
        )
    return found


def _predicted(output: Path, tasks: tuple[Task, ...]) -> dict[str, Row]:
    columns = [OUTLIER_COLUMN, FOLD_COLUMN, *(column for task in tasks for column in answer_columns(task))]
    return read_rows(output / CLASSIFICATION_FILE, columns) if tasks else {}


def _collect(cases: Sequence[str], truth: ReferenceSet, predicted: Mapping[str, Row]) -> list[TaskAnswers]:
    if not truth.tasks or truth.table is None:
        return []
    known = read_rows(truth.table, [task.name for task in truth.tasks])
    return [collect_answers(task, cases, known, predicted) for task in truth.tasks]


def _write_conformal(path: Path, folds: Sequence[int], answers: Sequence[TaskAnswers]) -> None:
    """{task: {"folds": [...], "scores": ascending nonconformity of all out-of-fold cases}}, for tasks with labelled cases.

    :class:`~nnduet.inference.predictor.Predictor` takes its prediction sets from it when it combines several of these folds.
    """
    stored = {
        entry.task.name: {"folds": list(folds), "scores": np.sort(nonconformity(entry)).tolist()}
        for entry in answers
        if entry.case_ids
    }
    if stored:
        write_json_atomically(path, stored)
    else:
        path.unlink(missing_ok=True)
