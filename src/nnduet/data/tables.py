"""The case table: a CSV with a row per case, read so that every complaint names its line."""

from __future__ import annotations

import csv
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import get_args

from nnduet.errors import SettingsError, TableError, UnreadableFileError
from nnduet.schema import AXES, Task, TaskType

__all__ = ["CaseTable", "check_case_ids", "parse_task_specs", "read_covariates", "read_table"]

_ID_COLUMNS = ("case_id", "case", "Case_id", "ID", "id")
_MISSING = frozenset({"", "nan", "NaN", "NA", "N/A", "n/a"})
_MAX_CLASSES = 20


@dataclass(frozen=True)
class CaseTable:
    """Cells as stripped text, missing ones as ``""``; ``lines`` are the line numbers in the file, counted from 1."""

    path: Path
    id_column: str
    columns: tuple[str, ...]
    rows: Mapping[str, Mapping[str, str]]
    lines: Mapping[str, int]

    def column(self, name: str) -> dict[str, str]:
        """Cells of a column by case.

        Raises:
            TableError: there is no such column.
        """
        if name not in self.columns:
            raise TableError(f"{self.path}: no column {name!r}; there are {', '.join(self.columns)}")
        return {case_id: row[name] for case_id, row in self.rows.items()}

    def numbers(self, name: str) -> dict[str, str]:
        """:meth:`column`, every cell a finite number or missing.

        Raises:
            TableError: with the line of the first cell that is neither.
        """
        cells = self.column(name)
        for case_id, cell in cells.items():
            if cell and _number(cell) is None:
                raise TableError(f"{self.path} line {self.lines[case_id]}: {name} expected a number, got {cell!r}")
        return cells

    def restricted_to(self, case_ids: Collection[str]) -> CaseTable:
        """The same table with only these cases, those that it holds."""
        return CaseTable(
            self.path,
            self.id_column,
            self.columns,
            {case_id: row for case_id, row in self.rows.items() if case_id in case_ids},
            {case_id: line for case_id, line in self.lines.items() if case_id in case_ids},
        )


def read_table(path: Path, id_column: str | None = None) -> CaseTable:
    """Read a UTF-8 CSV (comma, semicolon or tab; with or without BOM). Case ids stay text: ``01`` is not ``1``.

    Without ``id_column`` the first of ``case_id, case, Case_id, ID, id`` that the header holds is taken.

    Raises:
        UnreadableFileError: no such file, or not UTF-8 text.
        TableError: with the line: a missing or duplicate id, a duplicate column, a row of the wrong length.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableFileError(f"{path}: no readable UTF-8 table: {error}") from error
    records = _records(text, path)
    if not records:
        raise TableError(f"{path}: the table is empty")
    header = tuple(cell.strip() for cell in records[0][1])
    if len(set(header)) != len(header):
        raise TableError(f"{path} line {records[0][0]}: column names must differ, got {list(header)}")
    name = id_column or next((column for column in _ID_COLUMNS if column in header), None)
    if name not in header:
        raise TableError(
            f"{path}: no column {name or ' or '.join(_ID_COLUMNS)}; name the id column with --id-column: {list(header)}"
        )
    return _table(path, name, header, records[1:])


def read_covariates(path: Path, names: Sequence[str], id_column: str | None = None) -> dict[str, dict[str, float]]:
    """{case id: {covariate: value}} of a table that may lack some of the columns; what is missing is left out.

    Raises:
        SettingsError: no covariates are asked for: the model has none.
        TableError: no column is a covariate, or a cell is neither missing nor a finite number, with its line.
        UnreadableFileError: no readable table.
    """
    if not names:
        raise SettingsError(f"{path}: expected a model with covariates, got one that was trained without")
    table = read_table(path, id_column)
    columns = {name: table.numbers(name) for name in names if name in table.columns}
    if not columns:
        raise TableError(f"{path}: expected columns {list(names)}, got {list(table.columns)}")
    return {
        case_id: {name: float(cells[case_id]) for name, cells in columns.items() if cells[case_id]} for case_id in table.rows
    }


def _records(text: str, path: Path) -> list[tuple[int, list[str]]]:
    """(Line number, cells) of every line that is not blank."""
    first = text.lstrip().split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(text.splitlines(keepends=True), delimiter=delimiter)
    try:
        return [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        raise TableError(f"{path} line {reader.line_num}: {error}") from error


def _table(path: Path, id_column: str, header: tuple[str, ...], records: list[tuple[int, list[str]]]) -> CaseTable:
    rows: dict[str, dict[str, str]] = {}
    lines: dict[str, int] = {}
    for line, cells in records:
        if len(cells) != len(header):
            raise TableError(f"{path} line {line}: expected {len(header)} cells, got {len(cells)}")
        row = {name: _clean(cell) for name, cell in zip(header, cells, strict=True)}
        case_id = cells[header.index(id_column)].strip()
        if not case_id:
            raise TableError(f"{path} line {line}: the case id ({id_column}) is missing")
        if case_id in rows:
            raise TableError(f"{path} line {line}: case {case_id!r} stands already in line {lines[case_id]}")
        rows[case_id], lines[case_id] = row, line
    return CaseTable(path, id_column, header, rows, lines)


def _clean(cell: str) -> str:
    stripped = cell.strip()
    return "" if stripped in _MISSING else stripped


def check_case_ids(table: CaseTable, expected: Collection[str], optional: Collection[str] = ()) -> None:
    """Refuse a table that lacks an expected case or names one that is neither expected nor optional.

    Raises:
        TableError: naming up to ten cases, with their lines where they have one.
    """
    unknown = [case_id for case_id in table.rows if case_id not in expected and case_id not in optional]
    if unknown:
        named = ", ".join(f"line {table.lines[case_id]} {case_id!r}" for case_id in unknown[:10])
        raise TableError(f"{table.path}: {len(unknown)} rows name cases without an image: {named}")
    missing = sorted(set(expected) - set(table.rows))
    if missing:
        last = max(table.lines.values(), default=1)
        named = ", ".join(repr(case_id) for case_id in missing[:10])
        raise TableError(
            f"{table.path} (lines 1-{last}): {len(missing)} cases have no row in column {table.id_column}: {named}"
        )


def parse_task_specs(specs: Sequence[str], table: CaseTable) -> tuple[Task, ...]:
    """Tasks from ``NAME`` or ``NAME:type``, each with ``:fixed=AXES`` behind it or not, and the cells of column NAME.

    Without a type: 2 distinct values are binary; numbers with a fraction, or more than 20 distinct numbers, regression; the
    rest multiclass (ordinal is never guessed). Classes are in ascending order, as numbers where all are numbers, else as text.
    AXES are letters of x, y, z: image axes that training must not mirror.

    Raises:
        SettingsError: no or twice the same name, an unknown type or axis.
        TableError: the column is missing, has too few classes, or a cell does not fit, with its line.
    """
    tasks = tuple(_task_of_spec(spec, table) for spec in specs)
    names = [task.name for task in tasks]
    if len(set(names)) != len(names):
        raise SettingsError(f"every task needs its own name, got {names}")
    return tasks


def _task_of_spec(spec: str, table: CaseTable) -> Task:
    rest, mark, axes = spec.rpartition(":fixed=")
    if not mark or spec in table.columns:
        return _task(*_split_spec(spec, table), table)
    if not axes or len(set(axes)) != len(axes) or not set(axes) <= set(AXES):
        raise SettingsError(f"task {spec!r}: fixed expected letters of x, y, z, each once, as in fixed=xy, got {axes!r}")
    return replace(_task(*_split_spec(rest, table), table), fixed_axes=tuple(axes))


def _split_spec(spec: str, table: CaseTable) -> tuple[str, TaskType | None]:
    if spec in table.columns:
        return spec, None
    name, _, kind = spec.rpartition(":")
    for known in get_args(TaskType):
        if name and kind == known:
            return name, known
    if name in table.columns:
        raise SettingsError(f"task {spec!r}: type expected one of {', '.join(get_args(TaskType))}, got {kind!r}")
    return spec, None


def _task(name: str, kind: TaskType | None, table: CaseTable) -> Task:
    cells = table.column(name)
    values = sorted({cell for cell in cells.values() if cell})
    chosen = kind or _guess_type(values)
    if chosen == "regression":
        table.numbers(name)
        return Task(name, chosen)
    try:
        return Task(name, chosen, _ordered_classes(name, values, table))
    except SettingsError as error:
        raise TableError(f"{table.path}: column {name!r} does not fit the task: {error}") from error


def _guess_type(values: list[str]) -> TaskType:
    if len(values) == 2:
        return "binary"
    numbers = [_number(value) for value in values]
    whole = [number is not None and number == int(number) for number in numbers]
    numeric = bool(numbers) and None not in numbers
    return "regression" if numeric and (not all(whole) or len(values) > _MAX_CLASSES) else "multiclass"


def _ordered_classes(name: str, values: list[str], table: CaseTable) -> tuple[str, ...]:
    numbers = {value: _number(value) for value in values}
    if None in numbers.values():
        return tuple(values)
    ordered = sorted(values, key=lambda value: (numbers[value] or 0.0, value))
    for low, high in pairwise(ordered):
        if numbers[low] == numbers[high]:
            line = next(table.lines[case_id] for case_id, cell in table.column(name).items() if cell == high)
            raise TableError(f"{table.path} line {line}: {name} writes one number in two ways, {low!r} and {high!r}")
    return tuple(ordered)


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
