"""What a folder run has finished so far, a line per case, so that an interrupted run can go on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nnduet.errors import DatasetError, ResumeError
from nnduet.inference.predictor import Predictor
from nnduet.inference.task_predictions import CaseAnswers, TaskPrediction
from nnduet.io.files import file_digest, write_text_atomically
from nnduet.records import left_out_when, parse_json, to_plain
from nnduet.schema import Task

__all__ = [
    "RECORDS_FILE",
    "CaseLine",
    "CaseRecords",
    "EarlierRun",
    "RunHead",
    "RunIdentity",
    "check_same_run",
    "digests_of",
    "identity_of",
    "read_earlier_run",
]

RECORDS_FILE = "cases.jsonl"
_AFRESH = "predict without --resume"
_ELSEWHERE = "predict into another folder, or bring back what the interrupted run began with"


@dataclass(frozen=True)
class RunIdentity:
    """What made answers: another model or other settings would give other ones.

    Attributes:
        model: SHA-256 of every file of the model, by name.
        folds: names of the folds that are combined.
        step_size: distance of the tiles as a share of the patch.
        mirror_axes: axes of the patch over which each tile is mirrored, too.
        fast, error_rate, precision: as in :class:`~nnduet.inference.prediction_run.PredictionRun`.
        covariates: {case: {name: value}} as they were given.
    """

    model: dict[str, str] = field(default_factory=dict)
    folds: tuple[str, ...] = ()
    step_size: float | None = None
    mirror_axes: tuple[int, ...] = ()
    fast: bool = False
    error_rate: float | None = None
    precision: str = ""
    covariates: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class StoredAnswer:
    """A :class:`~nnduet.inference.task_predictions.TaskPrediction`, its interval as text: JSON has no infinity."""

    label: str | None
    value: float | None
    probabilities: dict[str, float]
    prediction_set: tuple[str, ...]
    interval: tuple[str, str] | None
    spread: float | None
    labels: tuple[str, ...] | None = left_out_when(None)


@dataclass(frozen=True)
class StoredAnswers:
    """The answers to a case by task, and how unlike the training cases it is; None where not known."""

    tasks: dict[str, StoredAnswer]
    outlier_score: float | None


@dataclass(frozen=True)
class CaseLine:
    """A line of ``cases.jsonl`` behind the first: a case.

    Attributes:
        seconds: as in ``run.json``; 0 where it failed.
        answers: where it is done.
        failed: why it failed.
        inputs, outputs: SHA-256 of its images by name, and of its masks by their paths in the output.
    """

    case: str
    seconds: float
    answers: StoredAnswers | None = left_out_when(None)
    failed: str = left_out_when("")
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RunHead:
    """The first line of ``cases.jsonl``: what made the run, and all cases that this run or one before it may have written."""

    run: RunIdentity
    cases: tuple[str, ...] = ()


@dataclass(frozen=True)
class EarlierRun:
    """What ``cases.jsonl`` of a folder says.

    Attributes:
        run: what made it.
        cases: of this run and of those before it: whose masks here are this model's.
    """

    run: RunIdentity
    cases: tuple[str, ...]
    lines: tuple[CaseLine, ...]


def read_earlier_run(output: Path) -> EarlierRun | None:
    """What an earlier run wrote of itself into ``output``; None where it wrote nothing, or its first line is damaged.

    Lines are read up to the first that is torn: a process that is killed may leave half of its last one.
    """
    path = output / RECORDS_FILE
    if not path.is_file():
        return None
    first, *rest = path.read_bytes().split(b"\n")
    try:
        head: RunHead = parse_json(first, str(path), RunHead)
    except DatasetError:
        return None
    lines: list[CaseLine] = []
    for text in rest:
        try:
            lines.append(parse_json(text, str(path), CaseLine))
        except DatasetError:
            break
    return EarlierRun(head.run, head.cases, tuple(lines))


class CaseRecords:
    """``cases.jsonl``: first what made the run, then a line per case, each synced to the disk.

    Args:
        output: folder of the predictions, which exists.
        identity: what must be the same for answers to be kept, see :func:`identity_of`.
        cases: all that the run may write.
        tasks: that every answer is to.
        resume: keep the cases of an earlier run, see :func:`check_same_run`; else they are forgotten.

    Attributes:
        cases: those of the earlier run that are kept.
    """

    def __init__(
        self, output: Path, identity: RunIdentity, cases: Iterable[str], tasks: Sequence[Task], *, resume: bool
    ) -> None:
        self._output, self._path, self._tasks = output, output / RECORDS_FILE, tasks
        earlier = read_earlier_run(output)
        self._last = {line.case: line for line in earlier.lines} if resume and earlier else {}
        known = dict.fromkeys([*(earlier.cases if earlier else ()), *cases])
        self.cases = tuple(self._last)
        lines = [RunHead(identity, tuple(known)), *self._last.values()]
        write_text_atomically(self._path, "".join(json.dumps(to_plain(line)) + "\n" for line in lines))

    def done(self, case_id: str, inputs: Sequence[Path], outputs: Sequence[Path]) -> tuple[CaseAnswers, float] | None:
        """Answers and seconds of a case that is done: its images and its masks have the bytes that they had then."""
        line = self._last.get(case_id)
        if line is None or not all(path.is_file() for path in inputs) or line.inputs != digests_of(inputs):
            return None
        return self.kept(case_id, outputs)

    def kept(self, case_id: str, outputs: Sequence[Path]) -> tuple[CaseAnswers, float] | None:
        """As :meth:`done`, whatever became of the images."""
        line = self._last.get(case_id)
        if line is None or line.answers is None or not all(path.is_file() for path in outputs):
            return None
        if line.outputs != digests_of(outputs, self._output):
            return None
        answers = _answers(line.answers, self._tasks)
        return (answers, line.seconds) if answers else None

    def add(
        self,
        case_id: str,
        seconds: float,
        outcome: CaseAnswers | str,
        inputs: Mapping[str, str] | None = None,
        outputs: Mapping[str, str] | None = None,
    ) -> None:
        """Append a case with its answers and the digests of its files, or with the reason why it failed."""
        answers, failed = (None, outcome) if isinstance(outcome, str) else (_stored(outcome), "")
        line = CaseLine(case_id, seconds, answers, failed, dict(inputs or {}), dict(outputs or {}))
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(to_plain(line)) + "\n")
            stream.flush()
            os.fsync(stream.fileno())


def identity_of(predictor: Predictor, covariates: Mapping[str, Mapping[str, float]]) -> RunIdentity:
    """The SHA-256 of every file of the model, by name, and the settings that change answers."""
    return RunIdentity(
        model=predictor.model.digests(),
        folds=tuple(member.fold for member in predictor.model.members),
        step_size=predictor.step_size,
        mirror_axes=tuple(predictor.mirror_axes),
        fast=predictor.fast,
        error_rate=predictor.error_rate,
        precision=predictor.passes.precision,
        covariates={case_id: dict(values) for case_id, values in covariates.items()},
    )


def digests_of(paths: Iterable[Path], folder: Path | None = None) -> dict[str, str]:
    """{name: SHA-256} of files, by their paths in ``folder`` where it is given."""
    return {path.relative_to(folder).as_posix() if folder else path.name: file_digest(path) for path in paths}


def check_same_run(output: Path, identity: RunIdentity) -> None:
    """Refuse to go on with a run in ``output`` that was begun otherwise.

    Raises:
        ResumeError: there is nothing to resume, or it came from another model or other settings.
    """
    path, earlier = output / RECORDS_FILE, read_earlier_run(output)
    if earlier is None:
        what = "its first line is damaged" if path.is_file() else "expected the records of an interrupted run, found none"
        raise ResumeError(f"{path}: {what}; {_AFRESH}", remedy=_AFRESH)
    before, now = vars(earlier.run), vars(identity)
    other = sorted(name for name in now if before[name] != now[name])
    if "model" in other:
        named = f"{', '.join(other)} ({', '.join(_changed_files(earlier.run.model, identity.model)[:3])})"
        raise ResumeError(f"{path}: the interrupted run had another {named}", remedy=_ELSEWHERE)
    if other:
        raise ResumeError(f"{path}: the interrupted run had another {', '.join(other)}; {_AFRESH}", remedy=_AFRESH)


def _changed_files(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return sorted(name for name in {*before, *now} if before.get(name) != now.get(name))


def _stored(answers: CaseAnswers) -> StoredAnswers:
    """The answers for JSON; an interval may reach to infinity, which JSON has no number for."""
    tasks = {
        name: StoredAnswer(**{**vars(task), "interval": task.interval and (repr(task.interval[0]), repr(task.interval[1]))})
        for name, task in answers.tasks.items()
    }
    return StoredAnswers(tasks, answers.outlier_score)


def _answers(stored: StoredAnswers, tasks: Sequence[Task]) -> CaseAnswers | None:
    """The inverse of :func:`_stored`; None where they are no answers to these tasks."""
    found = {}
    try:
        for task in tasks:
            entry = stored.tasks[task.name]
            low_high = entry.interval and (float(entry.interval[0]), float(entry.interval[1]))
            answer = TaskPrediction(**{**vars(entry), "interval": low_high})
            one_answer = (answer.labels is None) == (task.kind.exclusive or not task.is_classification)
            if set(answer.probabilities) != set(task.classes) or (answer.label is None) == task.is_classification:
                return None
            if not one_answer or not set(answer.labels or ()) <= set(task.classes):
                return None
            found[task.name] = answer
    except (KeyError, ValueError):
        return None
    return CaseAnswers(found, stored.outlier_score)
