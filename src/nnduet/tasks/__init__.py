"""The task types: one object each, in a file of its own, and the one list of them.

A new type is a file with a final subclass of :class:`~nnduet.tasks.base.TaskKind` and its line in :data:`TASK_KINDS`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Literal

from nnduet.errors import SettingsError
from nnduet.tasks.base import TaskKind
from nnduet.tasks.binary import Binary
from nnduet.tasks.multiclass import Multiclass
from nnduet.tasks.multilabel import Multilabel
from nnduet.tasks.ordinal import Ordinal
from nnduet.tasks.regression import Regression

__all__ = ["TASK_KINDS", "TASK_TYPES", "TaskKind", "TaskType", "guess_type", "kind_of", "type_in_table", "type_of_classes"]

TASK_KINDS: tuple[TaskKind, ...] = (Binary(), Multiclass(), Ordinal(), Regression(), Multilabel())

TASK_TYPES = tuple(kind.name for kind in TASK_KINDS)
"""Their names."""

if TYPE_CHECKING:
    TaskType = str
else:
    TaskType = Literal[TASK_TYPES]  # of fields of records, so that other names are refused when a file is read

_BY_NAME = {kind.name: kind for kind in TASK_KINDS}


def kind_of(name: str, place: str) -> TaskKind:
    """The object of a task type.

    Args:
        place: what the message begins with.

    Raises:
        SettingsError: there is no such type; names those that there are.
    """
    if name not in _BY_NAME:
        raise SettingsError(f"{place}: type expected one of {TASK_TYPES}, got {name!r}")
    return _BY_NAME[name]


def guess_type(values: Sequence[str]) -> str:
    """The type of a column with these distinct values, where nobody says what it is."""
    return next(kind.name for kind in TASK_KINDS if kind.guessed_from(values))


def type_of_classes(number: int) -> str:
    """The type of a task of which nothing is known but its number of classes, of which one holds."""
    return (Binary if number == 2 else Multiclass).name


def type_in_table(classes: Sequence[str], ends: Collection[str], answers: Collection[str]) -> str | None:
    """The type of a task of which only a table of answers is known; None where its columns are of no task.

    See :meth:`~nnduet.tasks.base.TaskKind.seen_in`.
    """
    return next((kind.name for kind in reversed(TASK_KINDS) if kind.seen_in(classes, ends, answers)), None)
