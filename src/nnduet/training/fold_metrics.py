"""What ``final_metrics.json`` holds: the answers to a fold's validation cases against the truth, without a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nnduet.case_head.head import CaseHead, describe_head
from nnduet.evaluation.evaluate import evaluate
from nnduet.evaluation.stored_metrics import Alarm, Metrics
from nnduet.inference.task_predictions import CaseAnswers
from nnduet.training.collapse import whole_case_alarms
from nnduet.training.labels import CaseLabels
from nnduet.training.provenance import provenance

__all__ = ["FINAL_METRICS_FILE", "FoldTruth", "measure_fold"]

FINAL_METRICS_FILE = "final_metrics.json"


@dataclass(frozen=True)
class FoldTruth:
    """The truth about validation cases: folder of reference masks, table of labels (None without tasks), the labels read.

    ``id_column`` is the table's, if it is not found by its name.
    """

    references: Path
    table: Path | None
    labels: CaseLabels
    dataset_json: Mapping[str, Any]
    id_column: str | None = None


def measure_fold(
    output: Path,
    fold: int | str,
    answers: Mapping[str, CaseAnswers],
    heads: Mapping[str, CaseHead],
    truth: FoldTruth,
    alarms: Sequence[Alarm] = (),
) -> Metrics:
    """Measure the masks and tables of whole cases; writes ``metrics.json`` and ``per_case.csv`` beside them.

    With fold "all" the validation cases are the training cases; the metrics say so under "validated_on".

    Args:
        output: ``validation/`` with masks and tables.
        answers: {case id: answers} of all validation cases, in order.
        heads: {task: case head}; the network head answers the other tasks.
        alarms: of the training itself, listed behind those of the answers.

    Returns:
        What ``final_metrics.json`` holds.
    """
    tasks = truth.labels.tasks
    metrics = evaluate(
        output,
        truth.references,
        labels=truth.dataset_json["labels"],
        tasks=tasks,
        table=truth.table,
        id_column=truth.id_column,
        case_ids=list(answers),
        output=output,
    )
    return replace(
        metrics,
        fold=fold,
        validated_on="training cases" if fold == "all" else "validation cases of the fold",
        num_validation_cases=len(answers),
        alarms=(*_alarms(answers, truth.labels), *alarms),
        made_by=provenance(),
        heads={task.name: describe_head(heads.get(task.name)) for task in tasks},
    )


def _alarms(answers: Mapping[str, CaseAnswers], labels: CaseLabels) -> list[Alarm]:
    out: list[Alarm] = []
    for task in labels.tasks:
        probabilities = [answer.tasks[task.name].probabilities for answer in answers.values()]
        out += whole_case_alarms(task, labels.column(task, list(answers)), probabilities)
    return out
