"""Evidence maps for the cases of a run: each case by the fold that had not seen it, for the answer that the run gave."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnduet.errors import ModelError, SettingsError
from nnduet.evaluation.answer_tables import PREDICTIONS_FILE, read_rows
from nnduet.report.evidence_maps import EvidenceMaps
from nnduet.report.runs import Run, TaskCases

__all__ = ["ExplainedCases"]

_FOLD = "fold"


@dataclass
class ExplainedCases:
    """Maps of one task, made when they are asked for; a fold's network is read once.

    Attributes:
        run: whose answers are explained.
        task: the task.
        model: what answered; None takes the model that the run lies in.

    Raises:
        SettingsError: the run has no such task; the message lists those it has.
        ModelError: there is no model in the run, and none was named.
    """

    run: Run
    task: str
    model: str | Path | None = None
    _maps: dict[str | None, EvidenceMaps] = field(default_factory=dict)
    _folds: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = [cases.task.name for cases in self.run.tasks]
        if self.task not in known:
            raise SettingsError(f"evidence: expected one of the tasks {known}, got {self.task!r}")
        if self.model is None and self.run.model is None:
            raise ModelError(f"{self.run.folder}: the model is not there; name the one that answered")
        self._folds = _folds_of(self.run) if self.model is None else {}

    def __call__(self, case: str, image: Path) -> tuple[NDArray[np.float32], str]:
        """The map (Z, Y, X), 0 to 1, of the answer to a case, and a sentence that says what it is.

        Raises:
            NNDuetError: the image cannot be read or does not fit the model.
        """
        fold = self._folds.get(case)
        if fold not in self._maps:
            self._maps[fold] = EvidenceMaps(self.model or self._own_model(), fold)
        found = self._maps[fold](image, self.task, self._answer(case))
        return found.values, f"evidence of the network head for {found.class_name} ({self.task}); size and shape are not in it"

    def _own_model(self) -> Path:
        assert self.run.model is not None
        return self.run.model.folder

    def _answer(self, case: str) -> str | None:
        cases: TaskCases = next(cases for cases in self.run.tasks if cases.task.name == self.task)
        value: Any = cases.prediction[self.run.cases.index(case)]
        held = cases.task.kind.memberships(cases.task, np.array([value], dtype=float))[0]
        return cases.task.classes[int(held.argmax())] if held.any() else None


def _folds_of(run: Run) -> dict[str, str]:
    """{case: the fold that had not seen it}, for a fold or a cross-validation; empty for other runs."""
    if run.metrics and run.metrics.fold is not None:
        return dict.fromkeys(run.cases, str(run.metrics.fold))
    table = run.predictions / PREDICTIONS_FILE if run.predictions else None
    rows = read_rows(table, []) if table and table.is_file() else {}
    return {case: row.cells[_FOLD] for case, row in rows.items() if row.cells.get(_FOLD)}
