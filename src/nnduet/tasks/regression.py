"""The task type whose answer is a number."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn

from nnduet.cells import decimal_point, parse_number
from nnduet.errors import DatasetError, SettingsError
from nnduet.tasks.base import TaskKind

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from nnduet.schema import Task
    from nnduet.tasks.base import Array, FitOne, Layers

__all__ = ["Regression"]

_LEAST_VALUES = 5


class Regression(TaskKind):
    """A value in the task's unit, with an interval of plus and minus the conformal threshold."""

    name = "regression"
    has_classes = False
    exclusive = False
    standardised = True
    certainty = ("low", "high")
    linear_families = ("ridge regression",)
    scopes = ("values",)
    headline = "mae"
    error_name = "absolute error"

    def check(self, task: Task) -> None:
        if task.classes:
            raise SettingsError(f"task {task.name}: a regression has no classes, got {task.classes}")

    def num_outputs(self, task: Task) -> int:
        return 1

    def answer_size(self, task: Task) -> int:
        return 1

    def guessed_from(self, values: Sequence[str]) -> bool:
        return all(parse_number(value) is not None for value in values)

    def seen_in(self, classes: Sequence[str], ends: Collection[str], answers: Collection[str]) -> bool:
        return len(classes) < 2 and set(self.certainty) <= set(ends)

    def spelling(self, task: Task, cell: str) -> str:
        if parse_number(cell) is None:
            raise DatasetError(f"{task.name}: expected a finite number, got {cell!r}")
        return decimal_point(cell)

    def encode(self, task: Task, text: str) -> float:
        return float(text)

    def decode(self, task: Task, answer: float) -> float:
        return float(answer)

    def memberships(self, task: Task, answers: Array) -> NDArray[np.bool_]:
        import numpy as np

        return np.zeros((len(answers), 0), dtype=bool)

    def strata(self, task: Task, answers: Array) -> Array | None:
        return None

    def loss(self, head_outputs: Tensor, targets: Tensor) -> Tensor:
        """Smooth L1 of standardised values."""
        from torch.nn import functional

        return functional.smooth_l1_loss(head_outputs[:, 0], targets, reduction="none")

    def probabilities(self, task: Task, head_outputs: Tensor) -> NoReturn:
        raise ValueError(f"task {task.name}: a regression has no class probabilities")

    def class_score(self, head_outputs: Tensor, index: int) -> Tensor:
        """The standardised value."""
        return head_outputs[:, 0]

    def enough(self, task: Task, answers: Array, least: int) -> bool:
        return len(answers) >= _LEAST_VALUES and bool(answers.max() > answers.min())

    def varies(self, task: Task, answers: Array) -> bool:
        """A part of different values may be constant: a plane is fitted to it all the same."""
        return True

    def fit(self, task: Task, fit_one: FitOne, x: Array, answers: Array) -> Mapping[float, Layers]:
        return fit_one(x, answers, 0)

    def logit_loss(self, task: Task, logits: Array, answers: Array) -> float:
        """Mean squared error over the variance."""
        import numpy as np

        return float(np.mean((logits[:, 0] - answers) ** 2) / answers.var())

    def outputs(self, logits: Array, temperature: float) -> Array:
        """The values as they are."""
        return logits

    def logits(self, outputs: Array) -> Array:
        return outputs

    def answers(self, outputs: Array) -> Array:
        return outputs[:, 0]

    def fuse(self, outputs: Array) -> Array:
        """The mean."""
        import numpy as np

        return np.array([outputs.mean()])

    def spread(self, votes: Array, answer: float) -> float:
        return float(votes[:, 0].std())

    def nonconformity(self, task: Task, outputs: Array, answers: Array) -> Array:
        """The absolute error."""
        return abs(outputs[:, 0] - answers)

    def errors(self, task: Task, outputs: Array, answers: Array, smallest: float = 1e-12) -> Array:
        return abs(outputs[:, 0] - answers)

    def constant_outputs(self, task: Task, answers: Array) -> Array:
        """The median; 0 where no case is labelled."""
        import numpy as np

        return np.array([np.nanmedian(answers) if np.isfinite(answers).any() else 0.0])

    def check_probabilities(self, probabilities: Sequence[float]) -> str | None:
        return None

    def curves(self, task: Task) -> tuple[int, ...]:
        return ()

    def axis(self, task: Task) -> str:
        unit = f" ({task.unit})" if task.unit else ""
        return f"mean absolute error{unit}, lower is better"

    def uninformed_loss(self, task: Task) -> NoReturn:
        self._refuse(task, "uninformed loss")

    def uninformed_error(self, task: Task) -> NoReturn:
        self._refuse(task, "uninformed loss")

    def confidence(self, outputs: Array, answers: Array) -> NoReturn:
        raise ValueError("a regression has no confidence")

    def prediction_set(self, outputs: Array, threshold: float) -> NoReturn:
        raise ValueError("a regression has an interval, and no set of classes")

    def set_text(self, task: Task, indices: Sequence[int]) -> NoReturn:
        self._refuse(task, "set of classes")

    def _refuse(self, task: Task, what: str) -> NoReturn:
        raise ValueError(f"task {task.name}: a regression has no {what}")
