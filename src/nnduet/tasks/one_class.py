"""What task types share of which exactly one class holds: binary, multiclass and ordinal."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from nnduet.cells import parse_number, same_text_key
from nnduet.errors import DatasetError, SettingsError
from nnduet.tasks.base import TaskKind

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from nnduet.schema import Task
    from nnduet.tasks.base import Array, FitOne, Layers

__all__ = ["OneClass", "conformal_set", "cross_entropy", "find_class"]

_SUM_TOLERANCE = 0.01
"""How far probabilities may sum from 1; three decimals for ten classes are off by up to 0.005."""

MOST_CLASSES = 20
"""Above so many distinct whole numbers a column is taken as values, not as classes."""


def find_class(task: Task, cell: str) -> str:
    """The class that a cell means: first by its own text, then without regard to letter case and blanks, then as a number.

    Raises:
        DatasetError: it names no class of the task, or several.
    """
    if cell in task.classes:
        return cell
    value = parse_number(cell)
    same_text = [label for label in task.classes if same_text_key(label) == same_text_key(cell)]
    found = same_text or [label for label in task.classes if value is not None and parse_number(label) == value]
    if len(found) != 1:
        raise DatasetError(f"task {task.name}: expected one of {list(task.classes)}, got {cell!r}")
    return found[0]


def cross_entropy(logits: Array, labels: Array) -> float:
    """Mean -log p(true class) in nats, of logits (N, K) and class indices (N,); N >= 1.

    Examples:
        >>> import numpy as np
        >>> round(cross_entropy(np.zeros((1, 2)), np.array([0.0])), 4)  # ln 2
        0.6931
    """
    import numpy as np
    from scipy.special import log_softmax

    picked = np.take_along_axis(log_softmax(logits, axis=1), labels.astype(int)[:, None], axis=1)
    return float(-picked.mean())


def conformal_set(probabilities: Array, threshold: float) -> list[int]:
    """Classes with 1 - p at most the threshold, likeliest first; the likeliest one is always in it.

    Source: Sadinle, Lei and Wasserman 2019, "Least Ambiguous Set-Valued Classifiers".

    Examples:
        >>> import numpy as np
        >>> conformal_set(np.array([0.25, 0.625, 0.125]), threshold=0.75)  # 1 - 0.25 is within, 1 - 0.125 is not
        [1, 0]
        >>> conformal_set(np.array([0.25, 0.625, 0.125]), threshold=0.0)
        [1]
    """
    order = (-probabilities).argsort(kind="stable")
    return [int(k) for rank, k in enumerate(order) if rank == 0 or 1 - probabilities[k] <= threshold]


class OneClass(TaskKind):
    """A task with K >= 2 classes of which one holds: softmax probabilities, log loss, sets of classes."""

    has_classes = True
    exclusive = True
    certainty = ("set",)
    linear_families = ("shrinkage LDA", "ridge logistic regression")
    scopes: ClassVar[tuple[str, ...]] = ("classification",)
    headline = "macro_f1"
    error_name = "loss (nats)"

    def check(self, task: Task) -> None:
        if len(task.classes) < 2:
            raise SettingsError(f"task {task.name}: expected at least 2 classes, got {task.classes}")

    def num_outputs(self, task: Task) -> int:
        return len(task.classes)

    def answer_size(self, task: Task) -> int:
        return len(task.classes)

    @abstractmethod
    def seen_in(self, classes: Sequence[str], ends: Collection[str], answers: Collection[str]) -> bool: ...

    def spelling(self, task: Task, cell: str) -> str:
        return find_class(task, cell)

    def encode(self, task: Task, text: str) -> float:
        return float(task.classes.index(text))

    def decode(self, task: Task, answer: float) -> str:
        return task.classes[int(answer)]

    def memberships(self, task: Task, answers: Array) -> NDArray[np.bool_]:
        import numpy as np

        return np.asarray(answers[:, None] == np.arange(len(task.classes)))

    def strata(self, task: Task, answers: Array) -> Array | None:
        return answers

    def loss(self, head_outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy."""
        from torch.nn import functional

        return functional.cross_entropy(head_outputs, targets.long(), reduction="none")

    def uninformed_loss(self, task: Task) -> float:
        return math.log(len(task.classes))

    def probabilities(self, task: Task, head_outputs: Tensor) -> Tensor:
        import torch

        return torch.softmax(head_outputs.float(), dim=1)

    def class_score(self, head_outputs: Tensor, index: int) -> Tensor:
        """The log odds of the class, so that a logit common to all classes does not count."""
        others = [k for k in range(head_outputs.shape[1]) if k != index]
        return head_outputs[:, index] - head_outputs[:, others].logsumexp(dim=1)

    def enough(self, task: Task, answers: Array, least: int) -> bool:
        import numpy as np

        counts = np.bincount(answers.astype(int), minlength=len(task.classes))
        return int((counts >= least).sum()) >= 2

    def varies(self, task: Task, answers: Array) -> bool:
        import numpy as np

        return len(np.unique(answers)) >= 2

    def fit(self, task: Task, fit_one: FitOne, x: Array, answers: Array) -> Mapping[float, Layers]:
        return fit_one(x, answers, len(task.classes))

    def logit_loss(self, task: Task, logits: Array, answers: Array) -> float:
        return cross_entropy(logits, answers)

    def outputs(self, logits: Array, temperature: float) -> Array:
        import numpy as np
        from scipy.special import softmax

        return np.asarray(softmax(logits / temperature, axis=1))

    def logits(self, outputs: Array) -> Array:
        import numpy as np

        return np.asarray(np.log(np.clip(outputs, 1e-6, 1)))

    def answers(self, outputs: Array) -> Array:
        import numpy as np

        return np.asarray(outputs.argmax(axis=1), dtype=float)

    def fuse(self, outputs: Array) -> Array:
        """Geometric mean, renormalised."""
        import numpy as np

        geometric = np.exp(np.log(np.clip(outputs, 1e-12, 1)).mean(axis=0))
        return np.asarray(geometric / geometric.sum())

    def confidence(self, outputs: Array, answers: Array) -> Array:
        return _picked(outputs, answers)

    def spread(self, votes: Array, answer: float) -> float:
        return float(votes[:, int(answer)].std())

    def nonconformity(self, task: Task, outputs: Array, answers: Array) -> Array:
        """1 - p(true class). Source: Sadinle, Lei and Wasserman 2019."""
        return 1 - _picked(outputs, answers)

    def prediction_set(self, outputs: Array, threshold: float) -> list[int]:
        return conformal_set(outputs, threshold)

    def set_text(self, task: Task, indices: Sequence[int]) -> tuple[str, ...]:
        return tuple(task.classes[k] for k in indices)

    def errors(self, task: Task, outputs: Array, answers: Array, smallest: float = 1e-12) -> Array:
        import numpy as np

        return np.asarray(-np.log(np.clip(_picked(outputs, answers), smallest, 1)))

    def uninformed_error(self, task: Task) -> float:
        return math.log(len(task.classes))

    def constant_outputs(self, task: Task, answers: Array) -> Array:
        import numpy as np

        return np.full(len(task.classes), 1 / len(task.classes))

    def check_probabilities(self, probabilities: Sequence[float]) -> str | None:
        sound = all(0 <= p <= 1 for p in probabilities) and abs(sum(probabilities) - 1) <= _SUM_TOLERANCE
        return None if sound else "probabilities that sum to 1"

    def curves(self, task: Task) -> tuple[int, ...]:
        return tuple(range(len(task.classes)))

    def axis(self, task: Task) -> str:
        return "macro-F1 on held-out cases"


def _picked(outputs: Array, answers: Array) -> Array:
    """The probability (N,) of each case's class."""
    import numpy as np

    return np.asarray(np.take_along_axis(outputs, answers.astype(int)[:, None], axis=1)[:, 0])
