"""Probe a trained model: which block of features (encoder stage, intensities, shapes, covariates) carries which task.

A linear model is fitted on one block of the training cases' features and asked about the held-out validation cases of the
fold. Source: Alain and Bengio 2016, "Understanding intermediate layers using linear classifier probes".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnduet.case_head.families import linear_families
from nnduet.case_head.feature_table import FeatureTable
from nnduet.case_head.fit import fit_case_head
from nnduet.case_head.head import CaseHead
from nnduet.errors import SettingsError
from nnduet.evaluation.answer_tables import TaskAnswers
from nnduet.evaluation.stored_metrics import TaskMetrics
from nnduet.evaluation.task_scores import score_task
from nnduet.io.csv_text import records_text
from nnduet.io.files import write_json_atomically, write_text_atomically
from nnduet.progress import Progress
from nnduet.records import record_object
from nnduet.schema import Task, Workspace
from nnduet.training.labels import CaseLabels
from nnduet.training.probe_figure import Panel, write_figure
from nnduet.training.trained_folds import TrainedFolds, read_trained_folds

__all__ = ["ProbeMeans", "ProbeRow", "ProbeSummary", "probe_model"]

Array = NDArray[np.float64]

SCORES = ("macro_f1", "auroc", "mae", "spearman")
ALL = "all"


@dataclass(frozen=True)
class ProbeRow:
    """One task, fold and block.

    Attributes:
        block: name of the block; "all" has all blocks.
        model, strength, inner_loss: what the inner cross-validation on the training cases chose and by which loss (nats, or
            mean squared error over the variance); "" and None where too few labelled training cases allow no model.
        macro_f1, auroc: on the held-out cases, of a classification; mae (in the task's unit) and spearman of a regression. None
            where undefined.
        constant: macro-F1 of always naming the held-out cases' most frequent class, or MAE of always answering the training
            cases' median.
    """

    task: str
    fold: str
    block: str
    num_features: int
    num_training: int
    num_held_out: int
    model: str
    strength: float | None
    inner_loss: float | None
    macro_f1: float | None
    auroc: float | None
    mae: float | None
    spearman: float | None
    constant: float | None


@dataclass(frozen=True)
class ProbeMeans:
    """One task and block: means over the folds where a number is defined, None where it is in none.

    ``model`` names the models of all folds; "" where too few labels allow none. The others as in :class:`ProbeRow`.
    """

    task: str
    block: str
    num_features: int
    model: str
    inner_loss: float | None
    macro_f1: float | None
    auroc: float | None
    mae: float | None
    spearman: float | None
    constant: float | None


@dataclass(frozen=True)
class ProbeSummary:
    """What ``probe.json`` holds, and ``nnduet probe --json`` prints.

    Attributes:
        model: the model folder.
        output: the folder with ``probe.json``, ``probe.csv`` and ``probe.png``.
        folds: names of the folds that were probed.
        seed: of the inner cross-validation.
        rows: of all tasks, folds and blocks.
        means: over the folds, per task and block.
    """

    model: str
    output: str
    folds: tuple[str, ...]
    seed: int
    rows: tuple[ProbeRow, ...]
    means: tuple[ProbeMeans, ...]

    def to_json(self) -> dict[str, object]:
        """A JSON object with every field."""
        return record_object(self)


def probe_model(
    model: Path,
    *,
    workspace: Workspace,
    folds: Sequence[int | str] | None = None,
    table: Path | None = None,
    id_column: str | None = None,
    output: Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> ProbeSummary:
    """Probe every block of every fold for every task; writes ``probe.json``, ``probe.csv`` and ``probe.png``.

    Args:
        model: folder that ``train`` wrote.
        workspace: where the labels of the model's dataset lie, raw before preprocessed.
        folds: numbers; None takes every fold that was validated, without "all", which holds no case out.
        table: another table of labels, with the columns of ``classification_labels.csv``, in any form that ``convert`` reads.
        id_column: its column with the case ids, if it is not found by its name.
        output: None is ``probe/`` in the model folder.
        seed: of the inner cross-validation.
        progress: called with (steps done, all steps, text); a step is a task of a fold.

    Raises:
        SettingsError: no fold holds cases out.
        ModelError, DatasetError, TableError: see :func:`nnduet.training.trained_folds.read_trained_folds`.
    """
    trained = read_trained_folds(model, workspace, folds, table, id_column)
    chosen = tuple(fold for fold in trained.folds if fold != "all")
    if not chosen or (folds and "all" in trained.folds):
        raise SettingsError(f"probe: expected folds that hold cases out, got {list(trained.folds)}")
    rows = _probe_folds(trained, chosen, seed, progress)
    summary = ProbeSummary(str(model), str(output or model / "probe"), chosen, seed, tuple(rows), tuple(_means(rows)))
    _write(summary, trained.tasks)
    return summary


def _probe_folds(trained: TrainedFolds, folds: Sequence[str], seed: int, progress: Progress | None) -> list[ProbeRow]:
    rows: list[ProbeRow] = []
    steps = [(fold, task) for fold in folds for task in trained.tasks]
    for index, (fold, task) in enumerate(steps):
        training, held_out = trained.features(fold)
        for block, columns in _blocks(training).items():
            rows.append(_probe(task, fold, block, columns, training, held_out, trained.labels, seed))
        if progress:
            progress(index + 1, len(steps), f"{task.name} in fold {fold}")
    return rows


def _blocks(table: FeatureTable) -> dict[str, range]:
    """The blocks, then all of them where there are several."""
    blocks = dict(table.blocks)
    return blocks | ({ALL: range(table.values.shape[1])} if len(blocks) > 1 else {})


def _probe(
    task: Task,
    fold: str,
    block: str,
    columns: range,
    training: FeatureTable,
    held_out: FeatureTable,
    labels: CaseLabels,
    seed: int,
) -> ProbeRow:
    targets = labels.column(task, training.case_ids)
    head = fit_case_head(
        task,
        training.values.astype(float),
        targets,
        labels.patients(training.case_ids),
        blocks={block: columns},
        models=linear_families(task),
        averaged=[1],
        seed=seed,
    )
    scores, constant = _scores(task, head, held_out, labels, targets)
    choice: Mapping[str, Any] = head.choice["models"][0] if head else {}
    return ProbeRow(
        task=task.name,
        fold=fold,
        block=block,
        num_features=len(columns),
        num_training=int(np.isfinite(targets).sum()),
        num_held_out=int(np.isfinite(labels.column(task, held_out.case_ids)).sum()),
        model=choice.get("model", ""),
        strength=choice.get("strength"),
        inner_loss=head.choice["inner_loss"] if head else None,
        constant=constant,
        **{name: scores.get(name) for name in SCORES},
    )


def _scores(
    task: Task, head: CaseHead | None, held_out: FeatureTable, labels: CaseLabels, targets: Array
) -> tuple[dict[str, float | None], float | None]:
    """Metrics of the probe on labelled held-out cases, and the score of a constant answer."""
    reference = labels.column(task, held_out.case_ids)
    known = np.isfinite(reference)
    constant = np.tile(task.kind.constant_outputs(task, targets), (int(known.sum()), 1))
    outputs = head(held_out.values[known].astype(float)) if head else constant
    cases = [case_id for case_id, is_known in zip(held_out.case_ids, known, strict=True) if is_known]
    scored = _score(task, cases, reference[known], outputs)
    baseline = scored.majority_baseline or {}
    level = _number(baseline.get(task.kind.headline))
    if task.kind.headline not in baseline:
        level = _score(task, cases, reference[known], constant).metrics[task.kind.headline].value
    return {name: entry.value for name, entry in scored.metrics.items()} if head else {}, level


def _score(task: Task, case_ids: Sequence[str], reference: Array, outputs: Array) -> TaskMetrics:
    """All metrics of class probabilities (N, K) or values (N, 1), without intervals."""
    cases, probabilities = tuple(case_ids), outputs[:, : len(task.classes)]
    answers = TaskAnswers(task, cases, cases, reference, task.kind.answers(outputs), probabilities)
    return score_task(answers, num_resamples=0, seed=0)


def _number(value: float | str | None) -> float | None:
    return None if isinstance(value, str) else value


def _means(rows: Sequence[ProbeRow]) -> Iterator[ProbeMeans]:
    for task, block in dict.fromkeys((row.task, row.block) for row in rows):
        of_block = [row for row in rows if (row.task, row.block) == (task, block)]
        models = ", ".join(dict.fromkeys(row.model for row in of_block if row.model))
        numbers = {name: _mean([getattr(row, name) for row in of_block]) for name in ("inner_loss", *SCORES, "constant")}
        yield ProbeMeans(task, block, of_block[0].num_features, models, **numbers)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _write(summary: ProbeSummary, tasks: tuple[Task, ...]) -> None:
    output = Path(summary.output)
    write_json_atomically(output / "probe.json", summary)
    columns = [field.name for field in fields(ProbeRow)]
    write_text_atomically(output / "probe.csv", records_text([asdict(row) for row in summary.rows], columns))
    write_figure(output / "probe.png", list(_panels(summary, tasks)))


def _panels(summary: ProbeSummary, tasks: tuple[Task, ...]) -> Iterator[Panel]:
    for task in tasks:
        name = task.kind.headline
        rows = [row for row in summary.rows if row.task == task.name]
        values: dict[str, list[float]] = {row.block: [] for row in rows}
        for row in rows:
            values[row.block] += [] if getattr(row, name) is None else [getattr(row, name)]
        yield Panel(task.name, task.kind.axis(task), values, _mean([row.constant for row in rows]))
