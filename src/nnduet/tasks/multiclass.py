"""The task type of several classes of which one holds."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from nnduet.cells import parse_number
from nnduet.tasks.one_class import MOST_CLASSES, OneClass

__all__ = ["Multiclass"]


class Multiclass(OneClass):
    """Classes without an order, softmax and cross-entropy."""

    name = "multiclass"

    def guessed_from(self, values: Sequence[str]) -> bool:
        numbers = [number for number in map(parse_number, values) if number is not None]
        if not numbers or len(numbers) < len(values):
            return True
        return all(number == int(number) for number in numbers) and len(values) <= MOST_CLASSES

    def seen_in(self, classes: Sequence[str], ends: Collection[str], answers: Collection[str]) -> bool:
        return len(classes) > 2
