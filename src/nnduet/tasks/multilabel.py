"""The task type of labels of which any number may hold, each with a probability of its own.

An answer is coded as one number, the sum of 2^k over the labels k that hold: it travels like a class index, and
52 labels fit.
In a table, labels are joined by ``|``; ``none`` says that no label holds, and an empty cell that nothing is known.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from nnduet.cells import same_text_key
from nnduet.errors import DatasetError, SettingsError
from nnduet.tasks.base import TaskKind
from nnduet.tasks.one_class import find_class

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from nnduet.schema import Task
    from nnduet.tasks.base import Array, FitOne, Layers

__all__ = ["MOST_LABELS", "NO_LABEL", "Multilabel"]

NO_LABEL = "none"
"""The cell of a case of which it is known that no label holds."""

MOST_LABELS = 52
"""A float64 holds all codes of so many labels exactly."""

_JOIN = "|"
_SMALLEST = 1e-6
_CERTAIN = 30.0
"""Logit of a label that all labelled training cases have, negative of one that none has."""


class Multilabel(TaskKind):
    """A sigmoid for each label: the network and the case head answer a question of yes and no about each."""

    name = "multilabel"
    has_classes = True
    exclusive = False
    certainty = ("set",)
    separator = ","
    stated_form = "labels, as in NAME:multilabel=oedema,effusion"
    other_words = (NO_LABEL,)
    linear_families = ("shrinkage LDA", "ridge logistic regression")
    scopes = ("labels",)
    headline = "macro_f1"
    error_name = "loss (nats)"

    def check(self, task: Task) -> None:
        if not 1 <= len(task.classes) <= MOST_LABELS:
            raise SettingsError(f"task {task.name}: expected 1 to {MOST_LABELS} labels, got {len(task.classes)}")
        wrong = [label for label in task.classes if _JOIN in label or same_text_key(label) == NO_LABEL]
        if wrong:
            raise SettingsError(f"task {task.name}: a label must hold no {_JOIN} and not be {NO_LABEL!r}, got {wrong}")

    def num_outputs(self, task: Task) -> int:
        return len(task.classes)

    def answer_size(self, task: Task) -> int:
        return len(task.classes)

    def guessed_from(self, values: Sequence[str]) -> bool:
        """Never: a table that means it has to be told from one of classes whose names hold a bar."""
        return False

    def seen_in(self, classes: Sequence[str], ends: Collection[str], answers: Collection[str]) -> bool:
        joined = {answer for answer in answers if answer not in classes}
        return bool(classes) and bool(joined) and all(set(self.split(answer)) <= set(classes) for answer in joined)

    def split(self, cell: str) -> tuple[str, ...]:
        parts = tuple(part.strip() for part in cell.split(_JOIN))
        return () if len(parts) == 1 and same_text_key(parts[0]) == NO_LABEL else tuple(part for part in parts if part)

    def spelling(self, task: Task, cell: str) -> str:
        """Labels in the order of the task.

        Raises:
            DatasetError: one of them is none of the task's, or nothing stands beside a bar.
        """
        named = self.split(cell)
        if named and len(named) != len(cell.split(_JOIN)):
            raise DatasetError(f"task {task.name}: expected labels joined by {_JOIN}, or {NO_LABEL!r}, got {cell!r}")
        return _joined(task, {find_class(task, label) for label in named})

    def encode(self, task: Task, text: str) -> float:
        return float(sum(2 ** task.classes.index(label) for label in self.split(text)))

    def decode(self, task: Task, answer: float) -> str:
        return _joined(task, {label for k, label in enumerate(task.classes) if int(answer) >> k & 1})

    def memberships(self, task: Task, answers: Array) -> NDArray[np.bool_]:
        import numpy as np

        codes = np.nan_to_num(answers).astype(np.int64)
        return np.asarray((codes[:, None] >> np.arange(len(task.classes))) & 1, dtype=bool)

    def strata(self, task: Task, answers: Array) -> Array | None:
        """The rarest of the labels that hold, so that rare ones are spread and drawn often."""
        import numpy as np

        held = self.memberships(task, answers)
        rarity = np.where(held, held.sum(axis=0), len(answers) + 1)
        strata = np.where(held.any(axis=1), rarity.argmin(axis=1), len(task.classes)).astype(float)
        return np.where(np.isnan(answers), np.nan, strata)

    def targets(self, task: Task, answers: Array) -> Array:
        import numpy as np

        return np.where(np.isnan(answers)[:, None], np.nan, self.memberships(task, answers))

    def loss(self, head_outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean binary cross-entropy over the labels."""
        from torch.nn import functional

        return functional.binary_cross_entropy_with_logits(head_outputs, targets, reduction="none").mean(1)

    def uninformed_loss(self, task: Task) -> float:
        return math.log(2)

    def probabilities(self, task: Task, head_outputs: Tensor) -> Tensor:
        return head_outputs.float().sigmoid()

    def class_score(self, head_outputs: Tensor, index: int) -> Tensor:
        """The log odds of the label."""
        return head_outputs[:, index]

    def enough(self, task: Task, answers: Array, least: int) -> bool:
        """Whether a label holds in ``least`` cases, and does not in as many."""
        held = self.memberships(task, answers).sum(axis=0)
        return bool(((held >= least) & (len(answers) - held >= least)).any())

    def varies(self, task: Task, answers: Array) -> bool:
        return len(set(answers.tolist())) >= 2

    def fit(self, task: Task, fit_one: FitOne, x: Array, answers: Array) -> Mapping[float, Layers]:
        """A model of two classes for each label, side by side; one that all cases or none have is certain."""
        import numpy as np

        held = self.memberships(task, answers)
        varying = [k for k in range(held.shape[1]) if 0 < held[:, k].sum() < len(held)]
        fitted = {k: fit_one(x, held[:, k].astype(float), 2) for k in varying}
        certain = np.where(held.all(axis=0), _CERTAIN, -_CERTAIN)
        strengths = list(fitted[varying[0]])
        return {s: _side_by_side({k: fitted[k][s] for k in varying}, certain) for s in strengths}

    def logit_loss(self, task: Task, logits: Array, answers: Array) -> float:
        """Mean binary cross-entropy over labels and cases."""
        import numpy as np

        signs = np.where(self.memberships(task, answers), -1.0, 1.0)
        return float(np.logaddexp(0, signs * logits).mean())

    def outputs(self, logits: Array, temperature: float) -> Array:
        import numpy as np
        from scipy.special import expit

        return np.asarray(expit(logits / temperature))

    def logits(self, outputs: Array) -> Array:
        import numpy as np

        clipped = np.clip(outputs, _SMALLEST, 1 - _SMALLEST)
        return np.asarray(np.log(clipped) - np.log1p(-clipped))

    def answers(self, outputs: Array) -> Array:
        """The labels that are likelier than not."""
        import numpy as np

        return np.asarray((outputs > 0.5) @ 2.0 ** np.arange(outputs.shape[1]))

    def fuse(self, outputs: Array) -> Array:
        """For each label the probability of the mean log odds."""
        return self.outputs(self.logits(outputs).mean(axis=0), 1.0)

    def confidence(self, outputs: Array, answers: Array) -> Array:
        """Probability of the least sure of the labels to be told right."""
        import numpy as np

        return np.asarray(self._of_truth(outputs, answers).min(axis=1))

    def spread(self, votes: Array, answer: float) -> float:
        """Of the label that varies most."""
        return float(votes.std(axis=0).max())

    def nonconformity(self, task: Task, outputs: Array, answers: Array) -> Array:
        """1 - p of the least likely label that holds, 0 where none does: a set that leaves no true label out."""
        import numpy as np

        return np.asarray(np.where(self.memberships(task, answers), 1 - outputs, 0.0).max(axis=1))

    def prediction_set(self, outputs: Array, threshold: float) -> list[int]:
        order = (-outputs).argsort(kind="stable")
        return [int(k) for k in order if outputs[k] > 0.5 or 1 - outputs[k] <= threshold]

    def set_text(self, task: Task, indices: Sequence[int]) -> tuple[str, ...]:
        return tuple(task.classes[k] for k in indices) or (NO_LABEL,)

    def errors(self, task: Task, outputs: Array, answers: Array, smallest: float = 1e-12) -> Array:
        """Mean log loss over the labels."""
        import numpy as np

        return np.asarray(-np.log(np.clip(self._of_truth(outputs, answers), smallest, 1)).mean(axis=1))

    def uninformed_error(self, task: Task) -> float:
        return math.log(2)

    def constant_outputs(self, task: Task, answers: Array) -> Array:
        import numpy as np

        return np.full(len(task.classes), 0.5)

    def check_probabilities(self, probabilities: Sequence[float]) -> str | None:
        return None if all(0 <= p <= 1 for p in probabilities) else "probabilities from 0 to 1"

    def curves(self, task: Task) -> tuple[int, ...]:
        return tuple(range(len(task.classes)))

    def axis(self, task: Task) -> str:
        return "macro-F1 on held-out cases"

    def _of_truth(self, outputs: Array, answers: Array) -> Array:
        """(N, K): p of a label that holds in the answer, 1 - p of one that does not."""
        import numpy as np

        held = (answers.astype(np.int64)[:, None] >> np.arange(outputs.shape[1])) & 1
        return np.where(held, outputs, 1 - outputs)


def _joined(task: Task, labels: Collection[str]) -> str:
    return _JOIN.join(label for label in task.classes if label in labels) or NO_LABEL


def _side_by_side(models: Mapping[int, Layers], certain: Array) -> Layers:
    """One model that gives the log odds of all labels from models of two classes, those without one being ``certain`` (K,).

    All have one layer, or all have hidden units; these are put side by side.
    """
    import numpy as np

    hidden = [(layers[0][0], layers[0][1]) for layers in models.values() if len(layers) > 1]
    width = sum(len(bias) for _, bias in hidden) if hidden else next(iter(models.values()))[0][0].shape[1]
    weights, bias, place = np.zeros((len(certain), width)), certain.copy(), 0
    for k, layers in models.items():
        last, offset = layers[-1]
        weights[k, place : place + last.shape[1]], bias[k] = last[1] - last[0], offset[1] - offset[0]
        place += last.shape[1] if hidden else 0
    if not hidden:
        return ((weights, bias),)
    joined = np.concatenate([w for w, _ in hidden]), np.concatenate([b for _, b in hidden])
    return joined, (weights, bias)
