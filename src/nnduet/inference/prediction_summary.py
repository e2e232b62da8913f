"""What a prediction came to: the cases that are done and those that failed, what answered them, and with which settings."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from nnduet.errors import PartialFailureError, listed
from nnduet.inference.abstention import Abstention
from nnduet.inference.prediction_run import PredictionRun
from nnduet.inference.predictor import Predictor
from nnduet.inference.task_predictions import CaseAnswers
from nnduet.records import record_object
from nnduet.schema import Task

__all__ = ["FailedCasesError", "PredictionSummary", "summarise"]

_PACKAGES = ("nnduet", "nnunetv2", "torch", "numpy", "SimpleITK")


@dataclass(frozen=True)
class PredictionSummary:
    """What a prediction wrote. Fields as in :class:`~nnduet.inference.prediction_run.PredictionRun`, answers in full."""

    output: str
    cases: list[str]
    failed: dict[str, str]
    seconds: dict[str, float]
    folds: list[str]
    heads: dict[str, str]
    error_rate: float
    abstention: list[str]
    num_abstained: int
    abstained: dict[str, int]
    missing_covariates: dict[str, int]
    model: str
    model_files: dict[str, str]
    step_size: float
    mirror_axes: list[int]
    device: str
    runtime: str
    precision: str
    fast: bool
    not_used: list[str]
    answers: dict[str, CaseAnswers] = field(repr=False)

    def record(self, images: Path | None = None) -> PredictionRun:
        """What ``run.json`` holds: the answers as text, and the versions of what computed them."""
        said = {case_id: {name: a.text for name, a in found.tasks.items()} for case_id, found in self.answers.items()}
        others = {"answers": said, "versions": {name: version(name) for name in _PACKAGES}}
        return PredictionRun(**{**vars(self), **others}, images=None if images is None else str(images))

    def to_json(self) -> dict[str, object]:
        """The record as a JSON object."""
        return record_object(self.record())


class FailedCasesError(PartialFailureError):
    """Some cases failed; ``summary`` has them and the others."""

    def __init__(self, summary: PredictionSummary) -> None:
        number, others = len(summary.failed), f"the others are in {summary.output}" if summary.cases else "none is done"
        faults = listed([f"{case_id} ({reason})" for case_id, reason in summary.failed.items()])
        super().__init__(f"{number} of {number + len(summary.cases)} cases failed, {others}:{faults}")
        self.summary = summary


def summarise(
    predictor: Predictor,
    output: str,
    done: Mapping[str, CaseAnswers],
    failed: dict[str, str],
    seconds: dict[str, float],
    abstention: Abstention | None,
    covariates: Mapping[str, Mapping[str, float]],
    not_used: Sequence[str],
) -> PredictionSummary:
    """The summary of a run.

    Args:
        output: where the masks are.
        done: answers of the finished cases; ``failed`` has the reasons of the others, ``covariates`` what was given.
        not_used: sentences about files that are no cases.
    """
    abstained = _abstained(predictor.tasks, done, abstention)
    return PredictionSummary(
        output=output,
        cases=list(done),
        failed=failed,
        seconds=seconds,
        folds=[member.fold for member in predictor.model.members],
        heads={task.name: predictor.head_used(task) for task in predictor.tasks},
        error_rate=predictor.error_rate,
        abstention=[str(rule) for rule in abstention.rules] if abstention else [],
        num_abstained=len(set().union(*abstained.values())),
        abstained={task: len(cases) for task, cases in abstained.items()},
        missing_covariates=_missing_covariates(predictor.model.layout.covariates, done, covariates),
        model=str(predictor.model.source.place) if predictor.model.source else "",
        model_files=predictor.model.digests(),
        step_size=1.0 if predictor.fast else predictor.step_size,
        mirror_axes=list(predictor.mirror_axes),
        device=str(predictor.device),
        runtime=predictor.passes.name,
        precision=predictor.passes.precision,
        fast=predictor.fast,
        not_used=list(not_used),
        answers=dict(done),
    )


def _abstained(tasks: tuple[Task, ...], done: Mapping[str, CaseAnswers], abstention: Abstention | None) -> dict[str, set[str]]:
    """{task: cases whose answer is left to a person}; nothing without rules."""
    if abstention is None:
        return {}
    return {
        task.name: {case_id for case_id, p in done.items() if abstention.reason(task, p.tasks[task.name], p.outlier_score)}
        for task in tasks
    }


def _missing_covariates(
    names: Sequence[str], cases: Collection[str], covariates: Mapping[str, Mapping[str, float]]
) -> dict[str, int]:
    counts = {name: sum(name not in covariates.get(case_id, {}) for case_id in cases) for name in names}
    return {name: count for name, count in counts.items() if count}
