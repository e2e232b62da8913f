"""What is written case by case: the table of scores and answers, and the list of missing predictions."""

from __future__ import annotations

from collections.abc import Sequence

from nnduet.evaluation.answer_tables import PREDICTIONS_FILE, TaskAnswers, answer_columns
from nnduet.evaluation.segmentation_cases import CaseScore
from nnduet.evaluation.stored_metrics import MissingPrediction
from nnduet.io.csv_text import records_text
from nnduet.schema import CASE_COLUMN

__all__ = ["missing_predictions", "per_case_csv"]


def missing_predictions(scores: Sequence[CaseScore], answers: Sequence[TaskAnswers]) -> tuple[MissingPrediction, ...]:
    """One entry per case and part (``segmentation`` or the task) that has no usable prediction."""
    masks = [MissingPrediction(score.case_id, "segmentation", score.error) for score in scores if score.error is not None]
    labels = [
        MissingPrediction(case_id, entry.task.name, f"no answer in {PREDICTIONS_FILE}")
        for entry in answers
        for case_id in entry.missing
    ]
    return (*masks, *labels)


def per_case_csv(cases: Sequence[str], scores: Sequence[CaseScore], answers: Sequence[TaskAnswers]) -> str:
    """One line per case; an undefined, missing or unlabelled value is an empty cell."""
    lines: dict[str, dict[str, object]] = {case_id: {CASE_COLUMN: case_id} for case_id in cases}
    for score in scores:
        for name, region in score.regions.items():
            volumes = {"reference_ml": region.reference_ml, "prediction_ml": region.prediction_ml}
            cells = {**region.values, "reason": region.reason, **volumes}
            lines[score.case_id].update({f"{name}_{part}": value for part, value in cells.items()})
    for entry in answers:
        for index, case_id in enumerate(entry.case_ids):
            lines[case_id].update(_answer_cells(entry, index))
    return records_text(list(lines.values()))


def _answer_cells(entry: TaskAnswers, index: int) -> dict[str, object]:
    """Reference, prediction and probabilities of one case; without a prediction only the reference."""
    task = entry.task
    cells: dict[str, object] = {f"{task.name}_reference": task.decode(entry.reference[index])}
    if entry.case_ids[index] in entry.missing:
        return cells | dict.fromkeys((f"{task.name}_prediction", *answer_columns(task)[1:]), "")
    cells[f"{task.name}_prediction"] = task.decode(entry.prediction[index])
    return cells | dict(zip(answer_columns(task)[1:], entry.probabilities[index].tolist(), strict=True))
