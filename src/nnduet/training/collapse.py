"""Has a task's head given up? Two signs: only one class is ever answered, or the loss is that of a head that knows nothing.

A head that answers equal probabilities has a cross-entropy of ln K over K classes, and of ln 2 per threshold of an ordinal
task. See docs/explanation-evidence.md, 10. numpy only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from nnduet.evaluation.stored_metrics import Alarm
from nnduet.schema import Task

__all__ = [
    "LOSS_SHARE",
    "MIN_SAMPLES",
    "CollapseWatch",
    "collapse_signs",
    "never_armed_note",
    "whole_case_alarms",
]

MIN_SAMPLES = 20
"""Fewer labelled samples or cases say nothing, and no alarm is raised."""

LOSS_SHARE = 0.98
"""A loss from this share of the uninformed one upwards is a sign of collapse."""

_ADVICE = (
    "check that the labels belong to the images; else try another head_learning_rate, more epochs, or class_gradient above 0 "
    'in plans["nnduet"]["training"]'
)


def collapse_signs(task: Task, pairs: Mapping[tuple[int, int], int], loss: float, uninformed: float) -> dict[str, str]:
    """Signs of collapse as {kind: what was seen}; empty for a healthy head and below MIN_SAMPLES samples.

    Args:
        pairs: how often each (truth, answer) was seen, as :mod:`nnduet.tasks.base` codes answers.
        loss: mean class loss; NaN is no sign.
        uninformed: what a head that knows nothing would have.
    """
    total, shown, answered = sum(pairs.values()), {true for true, _ in pairs}, {answer for _, answer in pairs}
    signs: dict[str, str] = {}
    if total < MIN_SAMPLES:
        return signs
    if len(answered) == 1 and len(shown) >= 2:
        name = task.decode(answered.pop())
        signs["one_class"] = f"{name!r} was the only answer to {total} labelled samples of {len(shown)} classes"
    if loss >= LOSS_SHARE * uninformed:
        signs["uninformed_loss"] = f"the mean class loss {loss:.3f} is no better than that of equal odds, {uninformed:.3f}"
    return signs


class CollapseWatch:
    """Counts true and answered classes over the train steps of an epoch, and remembers which tasks were warned of.

    With several devices it sees the samples of its own. A resumed training may repeat a warning; the counts start anew.
    """

    def __init__(self, tasks: tuple[Task, ...]) -> None:
        self._tasks = [task for task in tasks if task.is_classification]
        self._pairs: dict[str, dict[tuple[int, int], int]] = {task.name: {} for task in self._tasks}
        self._warned: set[str] = set()

    def add(self, name: str, true: Iterable[float], answered: Iterable[float]) -> None:
        """Count the truths and answers of one step's labelled samples that bear evidence."""
        pairs = self._pairs[name]
        for pair in zip(map(int, true), map(int, answered), strict=True):
            pairs[pair] = pairs.get(pair, 0) + 1

    def close_epoch(self, epoch: int, losses: Mapping[str, float], *, armed: bool) -> tuple[dict[str, float], list[str]]:
        """Judge the epoch and start the next.

        Args:
            losses: ``task_<name>_loss``: mean class loss of the epoch.
            armed: whether the class loss has its full weight; before that nothing is judged.

        Returns:
            ``task_<name>_collapsed`` 1 or 0, NaN where nothing was judged; and lines for the log: a warning when a task
            collapses, a note when it recovers, nothing in between.
        """
        columns, lines = {}, []
        for task in self._tasks:
            pairs, self._pairs[task.name] = self._pairs[task.name], {}
            judged = armed and sum(pairs.values()) >= MIN_SAMPLES
            loss = losses.get(f"task_{task.name}_loss", math.nan)
            signs = collapse_signs(task, pairs, loss, task.kind.uninformed_loss(task)) if judged else {}
            columns[f"task_{task.name}_collapsed"] = float(bool(signs)) if judged else math.nan
            if judged:
                lines += self._news(task, epoch, list(signs.values()))
        return columns, lines

    def _news(self, task: Task, epoch: int, signs: list[str]) -> list[str]:
        if bool(signs) == (task.name in self._warned):
            return []
        if not signs:
            self._warned.remove(task.name)
            return [f"Task {task.name} has recovered in epoch {epoch}"]
        self._warned.add(task.name)
        return [f"WARNING: task {task.name} has collapsed in epoch {epoch}: {'; '.join(signs)}; {_ADVICE}"]


def never_armed_note(num_epochs: int) -> str:
    """What it means that the warm-up of the class loss is as long as the training."""
    return (
        f"the class loss has weight 0 in all {num_epochs} epochs (its warm-up is as long), so that the network's own heads "
        "learn nothing; only the case heads, which are fitted on its features afterwards, do"
    )


def whole_case_alarms(
    task: Task, reference: npt.NDArray[np.float64], probabilities: Sequence[Mapping[str, float]]
) -> list[Alarm]:
    """Alarms for ``final_metrics.json``: which signs of collapse the answers to whole cases show; none for a regression.

    Args:
        reference: (N,) answers, NaN where missing.
        probabilities: {class: probability} of the N cases; clipped to 1e-6, the precision in which they are written.

    Returns:
        One per sign. The loss is compared with ln K for ordinal tasks, too, because it is that of the classes.
    """
    known = [i for i, label in enumerate(reference) if math.isfinite(label)]
    if not task.is_classification or not known:
        return []
    true, outputs = reference[known], np.array([[probabilities[i][name] for name in task.classes] for i in known])
    pairs: dict[tuple[int, int], int] = {}
    for pair in zip(true.astype(int).tolist(), task.kind.answers(outputs).astype(int).tolist(), strict=True):
        pairs[pair] = pairs.get(pair, 0) + 1
    loss = float(task.kind.errors(task, outputs, true, 1e-6).mean())
    signs = collapse_signs(task, pairs, loss, task.kind.uninformed_error(task))
    return [Alarm(task.name, kind, len(known), f"Task {task.name}, whole cases: {sign}.") for kind, sign in signs.items()]
