"""What a folder run has finished so far, a line per case, so that an interrupted run can go on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nnduet.errors import DatasetError, ResumeError
from nnduet.inference.predictor import Predictor
from nnduet.inference.task_predictions import CaseAnswers, TaskPrediction
from nnduet.io.files import file_digest, write_text_atomically
from nnduet.records import parse_json
from nnduet.schema import Task

__all__ = ["RECORDS_FILE", "CaseRecords", "EarlierRun", "check_same_run", "digests_of", "identity_of", "read_earlier_run"]

RECORDS_FILE = "cases.jsonl"
_AFRESH = "predict without --resume"
_ELSEWHERE = "predict into another folder, or bring back what the interrupted run began with"


@dataclass(frozen=True)
class _Answers:
    tasks: dict[str, dict[str, Any]]
    outlier_score: float | None


@dataclass(frozen=True)
class _Line:
    """A case: with answers where it is done, else with the reason why it failed."""

    case: str
    seconds: float
    answers: _Answers | None = None
    failed: str = ""
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class EarlierRun:
    """What ``cases.jsonl`` of a folder says.

    Attributes:
        run: what made it, see :func:`identity_of`.
        cases: of this run and of those before it: whose masks here are this model's.
    """

    run: dict[str, Any]
    cases: tuple[str, ...]
    lines: tuple[_Line, ...]


def read_earlier_run(output: Path) -> EarlierRun | None:
    """What an earlier run wrote of itself into ``output``; None where it wrote nothing, or its first line is damaged.

    Lines are read up to the first that is torn: a process that is killed may leave half of its last one.
    """
    path = output / RECORDS_FILE
    if not path.is_file():
        return None
    first, *rest = path.read_bytes().split(b"\n")
    try:
        head: _Head = parse_json(first, str(path), _Head)
    except DatasetError:
        return None
    lines: list[_Line] = []
    for text in rest:
        try:
            lines.append(parse_json(text, str(path), _Line))
        except DatasetError:
            break
    return EarlierRun(head.run, tuple(head.cases), tuple(lines))


@dataclass(frozen=True)
class _Head:
    run: dict[str, Any]
    cases: list[str] = field(default_factory=list)


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
        self, output: Path, identity: Mapping[str, Any], cases: Iterable[str], tasks: Sequence[Task], *, resume: bool
    ) -> None:
        self._output, self._path, self._tasks = output, output / RECORDS_FILE, tasks
        earlier = read_earlier_run(output)
        self._last = {line.case: line for line in earlier.lines} if resume and earlier else {}
        known = dict.fromkeys([*(earlier.cases if earlier else ()), *cases])
        head: dict[str, Any] = {"run": identity, "cases": list(known)}
        self.cases = tuple(self._last)
        lines = [head, *(asdict(line) for line in self._last.values())]
        write_text_atomically(self._path, "".join(json.dumps(line) + "\n" for line in lines))

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
        found = {"failed": outcome} if isinstance(outcome, str) else {"answers": _plain(outcome)}
        line = {"case": case_id, "seconds": seconds, **found, "inputs": dict(inputs or {}), "outputs": dict(outputs or {})}
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
            stream.flush()
            os.fsync(stream.fileno())


def identity_of(predictor: Predictor, covariates: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """The SHA-256 of every file of the model, by name, and the settings that change answers."""
    return {
        "model": predictor.model.digests(),
        "folds": [member.fold for member in predictor.model.members],
        "step_size": predictor.step_size,
        "mirror_axes": list(predictor.mirror_axes),
        "fast": predictor.fast,
        "error_rate": predictor.error_rate,
        "precision": predictor.passes.precision,
        "covariates": {case_id: dict(values) for case_id, values in covariates.items()},
    }


def digests_of(paths: Iterable[Path], folder: Path | None = None) -> dict[str, str]:
    """{name: SHA-256} of files, by their paths in ``folder`` where it is given."""
    return {path.relative_to(folder).as_posix() if folder else path.name: file_digest(path) for path in paths}


def check_same_run(output: Path, identity: Mapping[str, Any]) -> None:
    """Refuse to go on with a run in ``output`` that was begun otherwise.

    Raises:
        ResumeError: there is nothing to resume, or it came from another model or other settings.
    """
    path, earlier = output / RECORDS_FILE, read_earlier_run(output)
    if earlier is None:
        what = "its first line is damaged" if path.is_file() else "expected the records of an interrupted run, found none"
        raise ResumeError(f"{path}: {what}; {_AFRESH}", remedy=_AFRESH)
    before, now = earlier.run, json.loads(json.dumps(identity))
    other = sorted(key for key in set(before) | set(now) if before.get(key) != now.get(key))
    if "model" in other:
        raise ResumeError(f"{path}: the interrupted run had another {_differing(before, now, other)}", remedy=_ELSEWHERE)
    if other:
        raise ResumeError(f"{path}: the interrupted run had another {', '.join(other)}; {_AFRESH}", remedy=_AFRESH)


def _differing(before: Mapping[str, Any], now: Mapping[str, Any], other: Sequence[str]) -> str:
    """The settings that differ, with the first files of the model that do."""
    files = [entry if isinstance(entry, dict) else {} for entry in (before.get("model"), now["model"])]
    names = sorted(name for name in set(files[0]) | set(files[1]) if files[0].get(name) != files[1].get(name))
    return f"{', '.join(other)} ({', '.join(names[:3])})"


def _plain(answers: CaseAnswers) -> dict[str, Any]:
    """The answers for JSON; an interval may reach to infinity, which JSON has no number for."""
    tasks = {
        name: asdict(task) | {"interval": task.interval and list(map(repr, task.interval))}
        for name, task in answers.tasks.items()
    }
    return {"tasks": tasks, "outlier_score": answers.outlier_score}


def _answers(stored: _Answers, tasks: Sequence[Task]) -> CaseAnswers | None:
    """The inverse of :func:`_plain`; None where they are no answers to these tasks."""
    found = {}
    try:
        for task in tasks:
            entry = stored.tasks[task.name]
            low_high = entry["interval"] and tuple(map(float, entry["interval"]))
            answer = TaskPrediction(**{**entry, "prediction_set": tuple(entry["prediction_set"]), "interval": low_high})
            if set(answer.probabilities) != set(task.classes) or (answer.label is None) == task.is_classification:
                return None
            found[task.name] = answer
    except (KeyError, TypeError, ValueError):
        return None
    return CaseAnswers(found, stored.outlier_score)
