"""The task type of two classes of which one holds."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from nnduet.errors import SettingsError
from nnduet.tasks.one_class import OneClass

if TYPE_CHECKING:
    from nnduet.schema import Task

__all__ = ["Binary"]


class Binary(OneClass):
    """Two classes; a curve of the second tells all."""

    name = "binary"

    def check(self, task: Task) -> None:
        if len(task.classes) != 2:
            raise SettingsError(f"task {task.name}: binary expected 2 classes, got {task.classes}")

    def guessed_from(self, values: Sequence[str]) -> bool:
        return len(values) == 2

    def seen_in(self, classes: Sequence[str], ends: Collection[str], answers: Collection[str]) -> bool:
        return len(classes) == 2

    def curves(self, task: Task) -> tuple[int, ...]:
        return (1,)
