"""Tasks as the command line names them, and what is to be said about the columns that they take."""

from __future__ import annotations

import shlex
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from nnduet.cells import MISSING_MARKERS, parse_number, same_text_key
from nnduet.datasets.case_tables import CaseTable, describe_missing
from nnduet.datasets.class_order import natural_order, ranks
from nnduet.errors import SettingsError, TableError
from nnduet.names import name_problem
from nnduet.schema import AXES, Task
from nnduet.task_list import check_tasks
from nnduet.tasks import TASK_KINDS, TASK_TYPES, TaskKind, guess_type, kind_of

__all__ = ["notes_on_columns", "parse_task_specs"]

_MANY_NUMBERS = 10
"""Above so many different numbers that are taken as classes, a note asks whether they are measurements."""


@dataclass(frozen=True)
class _Spec:
    """``NAME:TYPE=A<B<C:fixed=AXES``, read; everything but the name may be absent."""

    name: str
    kind: TaskKind | None = None
    stated: str = ""
    axes: tuple[str, ...] = ()


def parse_task_specs(specs: Sequence[str], table: CaseTable) -> tuple[Task, ...]:
    """Tasks from ``NAME``, ``NAME:TYPE`` or ``NAME:TYPE=A<B<C``, with ``:fixed=AXES`` behind it or not, and the column NAME.

    Without a type: 2 distinct values are binary; numbers with a fraction, or more than 20 distinct numbers, regression; the
    rest multiclass (ordinal is never guessed). Cells that differ in letter case or blanks only are one class, spelled as most
    of them are. ``A<B<C`` states all classes in ascending order, those that no cell names included. Without it classes are
    ordered by the numbers that they are or hold, see ``class_order``; other classes alphabetically, of an ordinal task not at
    all. AXES are letters of x, y, z: image axes that training must not mirror.

    Raises:
        SettingsError: an unknown type or axis, tasks that cannot live together, an ordinal task whose order cannot be told.
        TableError: the column is missing, has too few classes, or a cell does not fit, with its line.
    """
    tasks = tuple(_task(_read_spec(spec, table), table) for spec in specs)
    check_tasks(tasks)
    return tasks


def notes_on_columns(table: CaseTable, specs: Sequence[str], tasks: Sequence[Task], covariates: Sequence[str]) -> list[str]:
    """What a user should know of the columns: missing cells, spellings that became one, decimal commas, numbers as classes."""
    read = {task.name: table.answers(task) for task in tasks} | {name: table.numbers(name) for name in covariates}
    notes: list[str] = []
    by_name = {task.name: task for task in tasks}
    for name, cells in read.items():
        raw = table.raw_column(name)
        changes = _changes(name, _spellings(by_name.get(name), raw, cells))
        notes += [note for note in (describe_missing(name, raw, cells), *changes) if note]
    for task in tasks:
        named = {text for cell in read[task.name].values() for text in task.kind.split(cell)}
        absent = [label for label in task.classes if label not in named]
        if absent:
            notes.append(f"{task.name}: no case is {' or '.join(map(repr, absent))}")
        guessed = any(spec.split(":fixed=")[0] == task.name for spec in specs)
        if guessed and len(task.classes) > _MANY_NUMBERS and None not in map(parse_number, task.classes):
            notes.append(
                f"{task.name}: its {len(task.classes)} different numbers are taken as classes; if they are measurements, write "
                f"--task {shlex.quote(task.name + ':regression')}"
            )
    return notes


def _spellings(task: Task | None, raw: Mapping[str, str], cells: Mapping[str, str]) -> dict[str, Counter[str]]:
    """{what a cell, or what it names, was read as: how often it was spelled in which way}, without missing cells."""
    spellings: dict[str, Counter[str]] = defaultdict(Counter)
    for case_id, cell in cells.items():
        if cell and task is not None:
            for text in task.kind.split(raw[case_id]):
                spellings[task.spelling(text)][text] += 1
        elif cell:
            spellings[cell][raw[case_id]] += 1
    return spellings


def _changes(name: str, spellings: Mapping[str, Counter[str]]) -> list[str]:
    """Spellings that were read as one class, and decimal commas."""
    commas = [number for found in spellings.values() for number in found if "," in number and parse_number(number) is not None]
    notes = [f"{name}: decimal commas are read as points, e.g. {commas[0]!r}"] if commas else []
    for label, found in spellings.items():
        if set(found) != {label} and parse_number(label) is None:
            told = ", ".join(
                f"{number} {text!r}" for text, number in sorted(found.items(), key=lambda item: (-item[1], item[0]))
            )
            notes.append(f"{name}: one class {label!r} is written in several ways ({told})")
    return notes


def _read_spec(spec: str, table: CaseTable) -> _Spec:
    if spec in table.columns:
        return _Spec(spec)
    rest, mark, letters = spec.rpartition(":fixed=")
    if mark and (not letters or len(set(letters)) != len(letters) or not set(letters) <= set(AXES)):
        raise SettingsError(f"task {spec!r}: fixed expected letters of x, y, z, each once, as in fixed=xy, got {letters!r}")
    body, axes = (rest, tuple(letters)) if mark else (spec, ())
    if body in table.columns:
        return _Spec(body, axes=axes)
    for kind in TASK_KINDS:
        name, mark, stated = body.partition(f":{kind.name}=")
        if mark:
            return _Spec(name, kind, _stated_text(spec, kind, stated), axes)
        if body.endswith(f":{kind.name}"):
            return _Spec(body.removesuffix(f":{kind.name}"), kind, axes=axes)
    name, _, type_name = body.rpartition(":")
    if name in table.columns:
        raise SettingsError(f"task {spec!r}: type expected one of {', '.join(TASK_TYPES)}, got {type_name!r}")
    return _Spec(body, axes=axes)


def _stated_text(spec: str, kind: TaskKind, stated: str) -> str:
    if not kind.has_classes or not stated:
        raise SettingsError(f"task {spec!r}: expected {kind.stated_form}")
    return stated


def _task(spec: _Spec, table: CaseTable) -> Task:
    name = spec.name
    problem = name_problem(name) if name in table.columns else None
    if problem:
        raise SettingsError(f"task {name!r}: {problem}; the name becomes part of file names: rename the column")
    values = _values(name, table, spec.kind)
    kind = spec.kind or kind_of(guess_type(values), f"task {name}")
    if not kind.has_classes:
        table.numbers(name)
        return Task(name, kind.name, fixed_axes=spec.axes)
    classes = _stated_classes(spec, kind.separator, values) if spec.stated else natural_order(values)
    try:
        task = Task(name, kind.name, classes, fixed_axes=spec.axes)
    except SettingsError as error:
        raise TableError(f"{table.path}: column {name!r} does not fit the task: {error}") from error
    if not spec.stated:
        _check_spellings(task, table)
        if kind.ranked and ranks(classes) is None:
            raise SettingsError(_ask_for_order(task))
    table.answers(task)
    return task


def _ask_for_order(task: Task) -> str:
    name, classes = task.name, task.classes
    option = shlex.quote(f"{name}:{task.type}={task.kind.separator.join(classes)}")
    return (
        f"task {name!r}: cannot tell the order of its {len(classes)} classes {', '.join(classes)}; state it from the lowest to "
        f"the highest: --task {option} (here in the order of the alphabet: put them right)"
    )


def _values(name: str, table: CaseTable, kind: TaskKind | None) -> list[str]:
    """Distinct values of a column, or of what its cells name, one spelling each; numbers with a decimal point."""
    cells = [cell for cell in table.column(name).values() if cell]
    named = [text for cell in cells for text in (kind.split(cell) if kind else (cell,))]
    if named != cells:
        return sorted(_usual_spellings(Counter(named)).values())
    numeric = [parse_number(cell) is not None for cell in cells]
    if all(numeric):
        return sorted({cell for cell in table.numbers(name).values() if cell})
    comma = next(
        (case_id for case_id, cell in table.column(name).items() if "," in cell and parse_number(cell) is not None), None
    )
    if comma is not None:
        text = cells[numeric.index(False)]
        raise TableError(
            f"{table.place(comma)}: {name} expected numbers or texts, got {table.column(name)[comma]!r} beside {text!r}; write "
            "the number with a point, or correct the text"
        )
    return sorted(_usual_spellings(Counter(cells)).values())


def _usual_spellings(counts: Counter[str]) -> dict[str, str]:
    """{key: the most frequent spelling}; of equals the first in the alphabet."""
    usual: dict[str, str] = {}
    for text in sorted(counts, key=lambda text: (-counts[text], text)):
        usual.setdefault(same_text_key(text), text)
    return usual


def _stated_classes(spec: _Spec, separator: str, values: Collection[str]) -> tuple[str, ...]:
    """``low<high`` as classes; a ``<`` within a class that the table has does not separate. Other types separate otherwise."""
    longest_first = sorted(values, key=len, reverse=True)
    found = _known_classes(spec.stated, separator, longest_first) if any(separator in value for value in values) else None
    classes = tuple(label.strip() for label in found or spec.stated.split(separator))
    if len({same_text_key(label) for label in classes}) != len(classes) or "" in classes:
        raise SettingsError(f"task {spec.name!r}: stated classes must differ and must not be empty, got {list(classes)}")
    return classes


def _known_classes(text: str, separator: str, known: Sequence[str]) -> list[str] | None:
    if text in known:
        return [text]
    for label in known:
        rest = _known_classes(text[len(label) + 1 :], separator, known) if text.startswith(f"{label}{separator}") else None
        if rest:
            return [label, *rest]
    return None


def _check_spellings(task: Task, table: CaseTable) -> None:
    """Refuse one number in two ways, a spreadsheet's errors, and a class that is a missing marker in other letters.

    Raises:
        TableError: with the line.
    """
    name, classes = task.name, task.classes
    cells = reversed(table.raw_column(name).items())
    lines = {text: table.lines[case_id] for case_id, cell in cells for text in {cell, *task.kind.split(cell)}}
    markers = {marker.casefold(): marker for marker in MISSING_MARKERS if marker in lines}
    for label in (*classes, *task.kind.other_words):
        marker = markers.get(label.casefold())
        if marker and label in lines:
            raise TableError(
                f"{table.path} line {lines[label]}: {name} holds {label!r}, and in line {lines[marker]} {marker!r}, which "
                "means missing; write one of them, or state the classes, as in "
                f"{name}:{task.type}={label if label in classes else classes[0]}{task.kind.separator}…"
            )
        if label.startswith("#") and label.endswith(("!", "?")):
            raise TableError(f"{table.path} line {lines[label]}: {name} holds {label!r}, an error of the spreadsheet")
    for low, high in pairwise(classes):
        if parse_number(low) is not None and parse_number(low) == parse_number(high):
            line = next(table.lines[case_id] for case_id, cell in table.numbers(name).items() if cell == high)
            raise TableError(f"{table.path} line {line}: {name} writes one number in two ways, {low!r} and {high!r}")
