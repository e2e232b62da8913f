"""What a folder run has finished so far, a line per case, so that an interrupted run can go on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nnduet.data.files import write_text_atomically
from nnduet.errors import ResumeError
from nnduet.inference.answers import CaseAnswers, TaskPrediction
from nnduet.inference.predictor import Predictor

__all__ = ["RECORDS_FILE", "CaseRecords", "identity_of"]

RECORDS_FILE = "cases.jsonl"


class CaseRecords:
    """``cases.jsonl``: first what made the run, then a line per case, each synced to the disk.

    Args:
        output: folder of the predictions, which exists.
        identity: what must be the same for answers to be kept, see :func:`identity_of`.
        resume: keep the cases of an earlier run; else they are forgotten.

    Raises:
        ResumeError: there is nothing to resume, or it came from another model or other settings.
    """

    def __init__(self, output: Path, identity: Mapping[str, Any], *, resume: bool) -> None:
        self._path = output / RECORDS_FILE
        first, *lines = _read_lines(self._path, identity) if resume else [{"run": dict(identity)}]
        self._last: dict[str, dict[str, Any]] = {str(line["case"]): line for line in lines}
        write_text_atomically(self._path, "".join(json.dumps(line) + "\n" for line in [first, *self._last.values()]))

    def done(self, case_id: str, inputs: Sequence[Path], outputs: Sequence[Path]) -> tuple[CaseAnswers, float] | None:
        """Answers and seconds of a case that is done: its inputs have not changed since, its outputs are there."""
        line = self._last.get(case_id, {})
        kept = "answers" in line and line["inputs"] == _stamps(inputs) and all(path.is_file() for path in outputs)
        return (_answers(line["answers"]), float(line["seconds"])) if kept else None

    def add(self, case_id: str, inputs: Sequence[Path], seconds: float, outcome: CaseAnswers | str) -> None:
        """Append a case with its answers, or with the reason why it failed."""
        found = {"failed": outcome} if isinstance(outcome, str) else {"answers": _plain(outcome)}
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"case": case_id, "inputs": _stamps(inputs), "seconds": seconds, **found}) + "\n")
            stream.flush()
            os.fsync(stream.fileno())


def identity_of(predictor: Predictor, covariates: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Checksums of the model's files and the settings that change answers."""
    members = predictor.model.members
    return {
        "model": [digest for member in members if member.origin for digest in member.origin.digests],
        "folds": [member.fold for member in members],
        "step_size": predictor.step_size,
        "mirror_axes": list(predictor.mirror_axes),
        "fast": predictor.fast,
        "error_rate": predictor.error_rate,
        "precision": predictor.passes.precision,
        "covariates": {case_id: dict(values) for case_id, values in covariates.items()},
    }


def _read_lines(path: Path, identity: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The lines up to the first that is torn: a process that is killed may leave half of its last one."""
    if not path.is_file():
        raise ResumeError(f"{path}: expected the records of an interrupted run, found none; predict without --resume")
    lines: list[dict[str, Any]] = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    before = lines[0].get("run") if lines and isinstance(lines[0], dict) else None
    if not isinstance(before, dict):
        raise ResumeError(f"{path}: its first line is damaged; predict without --resume")
    now = json.loads(json.dumps(identity))
    other = sorted(key for key in set(before) | set(now) if before.get(key) != now.get(key))
    if other:
        raise ResumeError(f"{path}: the interrupted run had another {', '.join(other)}; predict without --resume")
    return lines


def _stamps(inputs: Sequence[Path]) -> list[list[Any]]:
    return [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in inputs]


def _plain(answers: CaseAnswers) -> dict[str, Any]:
    """The answers for JSON; an interval may reach to infinity, which JSON has no number for."""
    tasks = {
        name: asdict(task) | {"interval": task.interval and list(map(repr, task.interval))}
        for name, task in answers.tasks.items()
    }
    return {"tasks": tasks, "outlier_score": answers.outlier_score}


def _answers(stored: Mapping[str, Any]) -> CaseAnswers:
    tasks = {}
    for name, task in stored["tasks"].items():
        low_high = task["interval"] and tuple(map(float, task["interval"]))
        tasks[name] = TaskPrediction(**{**task, "prediction_set": tuple(task["prediction_set"]), "interval": low_high})
    return CaseAnswers(tasks, stored["outlier_score"])
