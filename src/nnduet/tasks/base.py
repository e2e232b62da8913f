"""What a task type says of itself: all that other rooms ask instead of looking at its name.

Importing it costs nothing: numpy and torch are imported by the methods that need them.

Words, for N cases of a task with K classes:

- an *answer*, or the truth, of a case is one number: a class index, a value, or the code of a set of labels; NaN where missing.
- *outputs* of a case are what a head says of it: (K,) probabilities, or (1,) value.
- *logits* of a case are what a case head says before its probabilities are made: as many numbers.
- *head outputs* are those of the network, (B, num_outputs), before anything is made of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from nnduet.schema import Task

    Array: TypeAlias = NDArray[np.float64]
    Layers: TypeAlias = tuple[tuple[Array, Array], ...]
    FitOne: TypeAlias = Callable[[Array, Array, int], Mapping[float, Layers]]

__all__ = ["TaskKind"]


class TaskKind(ABC):
    """One task type.

    Attributes:
        name: as ``dataset.json`` and ``--task NAME:TYPE`` spell it.
        has_classes: whether answers name classes, with a probability of each, rather than a number.
        exclusive: whether exactly one class holds, so that the probabilities sum to one and errors form a confusion matrix.
        ranked: whether the order of the classes means something and has to be told.
        standardised: whether the network answers in deviations from the mean of the training cases.
        certainty: ends of the columns of ``classification.csv`` that say what cannot be excluded.
        separator: what stands between classes stated in ``--task NAME:TYPE=A<B``.
        stated_form: what to type there, for messages.
        other_words: what a cell may say that names no class.
        linear_families: families of :mod:`nnduet.case_head.families` that draw a plane through feature space.
        scopes: of the rows of :mod:`nnduet.evaluation.metrics.table` that score all cases.
        headline: the metric that tells two models apart at a glance.
        error_name: what :meth:`errors` are.
    """

    name: ClassVar[str]
    has_classes: ClassVar[bool]
    exclusive: ClassVar[bool]
    ranked: ClassVar[bool] = False
    standardised: ClassVar[bool] = False
    certainty: ClassVar[tuple[str, ...]]
    separator: ClassVar[str] = "<"
    stated_form: ClassVar[str] = "classes in ascending order, as in NAME:ordinal=low<high"
    other_words: ClassVar[tuple[str, ...]] = ()
    linear_families: ClassVar[tuple[str, ...]]
    scopes: ClassVar[tuple[str, ...]]
    headline: ClassVar[str]
    error_name: ClassVar[str]

    # -- the task and its table ----------------------------------------------------------------------------------------

    @abstractmethod
    def check(self, task: Task) -> None:
        """Refuse classes that a task of this type cannot have.

        Raises:
            SettingsError: names the task and what was expected.
        """

    @abstractmethod
    def num_outputs(self, task: Task) -> int:
        """Number of output units of a network's head."""

    @abstractmethod
    def answer_size(self, task: Task) -> int:
        """Number of outputs and logits of a case: K, or 1."""

    @abstractmethod
    def guessed_from(self, values: Sequence[str]) -> bool:
        """Whether a column with these distinct values, at least one, is of this type where nobody says what it is.

        The first type of the list that says so is taken.
        """

    def seen_in(self, classes: Sequence[str], ends: Collection[str], answers: Collection[str]) -> bool:
        """Whether a table of answers is of a task of this type, as far as the table alone tells; no, if not overridden.

        The last type of the list that says so is taken.

        Args:
            classes: those of its columns ``<task>_p_<class>``.
            ends: of its other columns ``<task>_<end>``.
            answers: its distinct answers.
        """
        return False

    def split(self, cell: str) -> tuple[str, ...]:
        """Texts of the classes that a cell names, which is not missing."""
        return (cell,)

    @abstractmethod
    def spelling(self, task: Task, cell: str) -> str:
        """A table's cell, which is not missing, as the task writes it.

        Raises:
            DatasetError: the cell is no answer to the task.
        """

    @abstractmethod
    def encode(self, task: Task, text: str) -> float:
        """The answer that a text in the task's :meth:`spelling` means."""

    @abstractmethod
    def decode(self, task: Task, answer: float) -> str | float:
        """The inverse of :meth:`encode`, of an answer that is not NaN; a value stays a number."""

    @abstractmethod
    def memberships(self, task: Task, answers: Array) -> NDArray[np.bool_]:
        """Which classes hold, (N, K), of answers (N,); none where an answer is NaN; K = 0 without classes."""

    @abstractmethod
    def strata(self, task: Task, answers: Array) -> Array | None:
        """A class index (N,) to spread over folds and to draw equally often, NaN where missing; None: nothing to balance.

        ``len(task.classes)`` stands for a case of which no class holds.
        """

    # -- the network's head (torch) ------------------------------------------------------------------------------------

    def targets(self, task: Task, answers: Array) -> Array:
        """What :meth:`loss` compares with, (B,) or (B, K), of answers (B,); NaN where missing."""
        return answers

    @abstractmethod
    def loss(self, head_outputs: Tensor, targets: Tensor) -> Tensor:
        """Training loss (B,) of head outputs (B, num_outputs) and targets without NaN, standardised where the type says so."""

    @abstractmethod
    def uninformed_loss(self, task: Task) -> float:
        """:meth:`loss` of a head that answers equal odds; of types with classes."""

    @abstractmethod
    def probabilities(self, task: Task, head_outputs: Tensor) -> Tensor:
        """Class probabilities (B, K) of head outputs.

        Raises:
            ValueError: the type has no classes.
        """

    @abstractmethod
    def class_score(self, head_outputs: Tensor, index: int) -> Tensor:
        """What speaks for a class, (B,) in logits from -inf to inf; ``index`` is not read where there are no classes."""

    # -- the case head (numpy) -----------------------------------------------------------------------------------------

    @abstractmethod
    def enough(self, task: Task, answers: Array, least: int) -> bool:
        """Whether labelled cases (N,) suffice to fit and cross-validate; ``least`` are the fewest of a class that count."""

    @abstractmethod
    def varies(self, task: Task, answers: Array) -> bool:
        """Whether cases (N,), a part of those that are enough, still hold something to tell apart."""

    @abstractmethod
    def fit(self, task: Task, fit_one: FitOne, x: Array, answers: Array) -> Mapping[float, Layers]:
        """Fit one family: {strength: layers that give the logits of a case}.

        Args:
            fit_one: fits (x, y, number of classes) with y class indices of exclusive classes, or values for 0 classes.
            x: (N, D) standardised features.
            answers: (N,), labelled.
        """

    @abstractmethod
    def logit_loss(self, task: Task, logits: Array, answers: Array) -> float:
        """Mean loss of logits (N, K or 1) by which models compete; N >= 1."""

    @abstractmethod
    def outputs(self, logits: Array, temperature: float) -> Array:
        """Outputs (N, K or 1) of logits over a temperature."""

    @abstractmethod
    def logits(self, outputs: Array) -> Array:
        """Logits whose :meth:`outputs` these (N, K or 1) are, finite."""

    # -- answers -------------------------------------------------------------------------------------------------------

    @abstractmethod
    def answers(self, outputs: Array) -> Array:
        """The answers (N,) that outputs (N, K or 1) give."""

    @abstractmethod
    def fuse(self, outputs: Array) -> Array:
        """Outputs (K or 1,) of a case from those of several folds (F, K or 1)."""

    @abstractmethod
    def confidence(self, outputs: Array, answers: Array) -> Array:
        """Probability (N,) of answers given by outputs (N, K); of types with classes."""

    @abstractmethod
    def spread(self, votes: Array, answer: float) -> float:
        """Deviation of an answer's probability, or of the value, over votes (M, K or 1), M >= 2."""

    @abstractmethod
    def nonconformity(self, task: Task, outputs: Array, answers: Array) -> Array:
        """How unlike the outputs (N, K or 1) the truth is, (N,); the truth lies in the prediction set, or the interval, of a
        threshold of at least that."""

    @abstractmethod
    def prediction_set(self, outputs: Array, threshold: float) -> list[int]:
        """Classes that cannot be excluded, by outputs (K,) of one case, likeliest first; those of the answer are among them."""

    @abstractmethod
    def set_text(self, task: Task, indices: Sequence[int]) -> tuple[str, ...]:
        """A prediction set in words, never empty."""

    @abstractmethod
    def errors(self, task: Task, outputs: Array, answers: Array, smallest: float = 1e-12) -> Array:
        """How wrong outputs (N, K or 1) are, (N,): log losses with probabilities clipped to ``smallest``, or distances."""

    @abstractmethod
    def uninformed_error(self, task: Task) -> float:
        """:meth:`errors` of :meth:`constant_outputs`; of types with classes."""

    @abstractmethod
    def constant_outputs(self, task: Task, answers: Array) -> Array:
        """Outputs (K or 1,) of a model that knows training cases (N,) and nothing else; NaN for a missing label."""

    @abstractmethod
    def check_probabilities(self, probabilities: Sequence[float]) -> str | None:
        """What was expected of probabilities (K,) that cannot be; None where they can be, up to rounding."""

    @abstractmethod
    def curves(self, task: Task) -> tuple[int, ...]:
        """Classes whose ROC curves tell all that those of the others would."""

    @abstractmethod
    def axis(self, task: Task) -> str:
        """The headline metric as the label of an axis."""
