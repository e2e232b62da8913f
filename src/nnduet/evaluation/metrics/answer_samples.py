"""The answers to one task in many resamples: what a metric of answers is a function of.

A case without a prediction stays in: its answer counts as wrong (no class), its probabilities as uniform, its confidence as
wrong. Where a metric needs a number, the worst one is taken: for ordinal tasks the rank farthest from the truth, for
regression the value farthest from the truth within the range of the references.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from nnduet.evaluation.answer_tables import TaskAnswers
from nnduet.evaluation.bootstrap import FloatArray
from nnduet.evaluation.metrics.classification import confusion_counts
from nnduet.evaluation.metrics.ranking import auroc

__all__ = ["NO_CASES", "AnswerSample", "ClassSample"]

NO_CASES = "no_labelled_cases"
"""The reason of every metric of a task without labelled cases."""

IntArray = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False)
class AnswerSample:
    """N answers and case counts ``weights`` (R, N), row 0 all ones. What several metrics need is computed once."""

    answers: TaskAnswers
    weights: FloatArray

    @property
    def num_cases(self) -> int:
        """N."""
        return len(self.answers.case_ids)

    @cached_property
    def reference(self) -> IntArray:
        """Class indices (N,)."""
        return self.answers.reference.astype(int)

    @cached_property
    def prediction(self) -> IntArray:
        """Class indices (N,), -1 for a case without a prediction."""
        return np.where(np.isnan(self.answers.prediction), -1, self.answers.prediction).astype(int)

    @cached_property
    def counts(self) -> FloatArray:
        """Reference against predicted class (R, K, K + 1), see :mod:`nnduet.evaluation.metrics.classification`."""
        return confusion_counts(self.reference, self.prediction, self.weights, len(self.answers.task.classes))

    @property
    def support(self) -> FloatArray:
        """Cases of each class (K,)."""
        support: FloatArray = self.counts[0].sum(axis=1)
        return support

    @property
    def absent_classes(self) -> list[str]:
        """Classes of no reference."""
        return [name for name, number in zip(self.answers.task.classes, self.support, strict=True) if number == 0]

    @cached_property
    def aurocs(self) -> FloatArray:
        """Area under the ROC curve of each class against the rest (R, K)."""
        columns = self.answers.probabilities.T
        areas = [auroc(column, self.answers.reference == index, self.weights) for index, column in enumerate(columns)]
        return np.stack(areas, axis=1)

    @cached_property
    def labels(self) -> tuple[ClassSample, ...]:
        """Of a task of which several labels may hold, the yes of each label as a task of its own (K,)."""
        parts = (self.answers.of_label(index) for index in range(len(self.answers.task.classes)))
        return tuple(ClassSample(AnswerSample(part, self.weights), 1) for part in parts)

    @cached_property
    def ranks(self) -> IntArray:
        """Predicted ranks (N,) of an ordinal task, the farthest from the truth for a case without a prediction."""
        top = len(self.answers.task.classes) - 1
        return np.where(self.prediction < 0, np.where(self.reference > top / 2, 0, top), self.prediction)

    @property
    def rank_counts(self) -> FloatArray:
        """As ``counts``, of the ranks: the last column is empty."""
        return confusion_counts(self.reference, self.ranks, self.weights, len(self.answers.task.classes))

    @cached_property
    def values(self) -> FloatArray:
        """Predicted values (N,), missing ones replaced by the reference farthest from the truth; NaN if all are equal."""
        reference, prediction = self.answers.reference, self.answers.prediction
        if not self.answers.missing or reference.min() == reference.max():
            return prediction
        low, high = reference.min(), reference.max()
        return np.where(np.isnan(prediction), np.where(reference - low > high - reference, low, high), prediction)


@dataclass(frozen=True, eq=False)
class ClassSample:
    """A class against the rest."""

    sample: AnswerSample
    index: int

    @property
    def is_absent(self) -> bool:
        """Whether no reference is of the class."""
        return not self.sample.support[self.index]

    @property
    def is_alone(self) -> bool:
        """Whether every reference is of the class."""
        return bool(self.sample.support[self.index] == self.sample.support.sum())
