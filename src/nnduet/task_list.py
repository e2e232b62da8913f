"""Tasks that live together in one data set: which are refused, and the form in which ``dataset.json`` holds them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from nnduet.cells import same_text_key
from nnduet.errors import NNDuetError, SettingsError
from nnduet.names import check_distinct_names
from nnduet.records import convert_json
from nnduet.schema import CASE_COLUMN, FOLD_COLUMN, GROUP_COLUMN, LABELS_FILE, OUTLIER_COLUMN, Task

__all__ = ["check_new_tasks", "check_tasks", "tasks_from_json", "tasks_to_json"]


def check_tasks(tasks: Sequence[Task], covariates: Collection[str] = ()) -> None:
    """Refuse tasks that would share a layer of the network, a file or a column of a table that nnDuet writes.

    Raises:
        SettingsError: names the two tasks, or the task and the covariate, and what they share.
    """
    names = [*(task.name for task in tasks), *covariates]
    if len(set(names)) != len(names):
        raise SettingsError(f"every task and every covariate needs its own name, got {names}")
    check_distinct_names((task.name for task in tasks), "tasks")
    owners: dict[str, str] = {}
    for owner, place in (*_reserved(covariates), *(claim for task in tasks for claim in _claims(task))):
        known = owners.setdefault(place.casefold(), owner)
        if known != owner:
            raise SettingsError(f"{known} and {owner}: both would be {place}; give one of these columns another name")


def check_new_tasks(tasks: Sequence[Task], covariates: Collection[str] = ()) -> None:
    """:func:`check_tasks` for a dataset that is being made.

    Its classes differ in more than letter case and blanks, and none holds the ``|`` that joins prediction sets.

    Raises:
        SettingsError: see above.
    """
    check_tasks(tasks, covariates)
    for task in tasks:
        joined = [label for label in task.classes if "|" in label]
        if joined:
            raise SettingsError(f"task {task.name}: a class must not hold |, which joins prediction sets, got {joined}")
        if len({same_text_key(label) for label in task.classes}) != len(task.classes):
            raise SettingsError(f"task {task.name}: classes must differ in more than letter case, got {list(task.classes)}")


def _claims(task: Task) -> Iterator[tuple[str, str]]:
    """(Task, what it takes for itself), for all that it takes."""
    owner = f"task {task.name!r}"
    yield owner, f"layer {task.module_name!r} of the network"
    yield owner, f"column {task.name!r} of {LABELS_FILE}"
    for column in (*task.answer_columns, *task.certainty_columns, task.abstain_column):
        yield owner, f"column {column!r} of classification.csv"
    for column in (f"{task.name}_reference", f"{task.name}_prediction", *task.answer_columns[1:]):
        yield owner, f"column {column!r} of per_case.csv"


def _reserved(covariates: Collection[str]) -> Iterator[tuple[str, str]]:
    for column in (CASE_COLUMN, GROUP_COLUMN):
        yield "nnDuet's own column", f"column {column!r} of {LABELS_FILE}"
    for column in (CASE_COLUMN, OUTLIER_COLUMN, FOLD_COLUMN):
        yield "nnDuet's own column", f"column {column!r} of classification.csv"
    for name in covariates:
        yield f"covariate {name!r}", f"column {name!r} of {LABELS_FILE}"


def tasks_to_json(tasks: tuple[Task, ...]) -> dict[str, dict[str, Any]]:
    """The ``dataset.json["classification"]`` object: ``{name: {type, classes?, unit?, fixed_axes?}}``.

    Examples:
        >>> tasks_to_json((Task("grade", "ordinal", ("low", "high")), Task("age", "regression", unit="y")))
        {'grade': {'type': 'ordinal', 'classes': ['low', 'high']}, 'age': {'type': 'regression', 'unit': 'y'}}
    """
    out: dict[str, dict[str, Any]] = {}
    for task in tasks:
        entry: dict[str, Any] = {"type": task.type}
        if task.classes:
            entry["classes"] = list(task.classes)
        if task.unit:
            entry["unit"] = task.unit
        if task.fixed_axes:
            entry["fixed_axes"] = list(task.fixed_axes)
        out[task.name] = entry
    return out


@dataclass(frozen=True)
class _TaskEntry:
    type: str
    classes: tuple[str, ...] = ()
    unit: str = ""
    fixed_axes: tuple[str, ...] = ()


def tasks_from_json(value: Any, place: str = "classification", *, error: type[NNDuetError] = SettingsError) -> tuple[Task, ...]:
    """Inverse of :func:`tasks_to_json`; an empty object gives no tasks.

    Args:
        value: a JSON object, whoever wrote it.
        place: what messages begin with, as a rule the path of the file.
        error: what is raised.

    Raises:
        error: an entry is no valid task, or two cannot live together.

    Examples:
        >>> tasks_from_json({"malignant": {"type": "binary", "classes": ["no", "yes"]}})[0].classes
        ('no', 'yes')
    """
    entries = convert_json(value, dict[str, _TaskEntry], place, error=error)
    try:
        tasks = tuple(Task(name, e.type, e.classes, e.unit, e.fixed_axes) for name, e in entries.items())
        check_tasks(tasks)
    except SettingsError as reason:
        raise error(f"{place}: {reason}") from reason
    return tasks
