"""The case table: a row per case, read so that every complaint names its line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nnduet.cells import decimal_point, is_missing, parse_number, same_text_key
from nnduet.errors import DatasetError, SettingsError, TableError
from nnduet.io.delimited import Line, read_lines
from nnduet.schema import LABELS_FILE, Task

__all__ = ["CaseTable", "check_case_ids", "describe_missing", "find_table", "read_covariates", "read_table"]

_ID_COLUMNS = ("case_id", "case", "Case_id", "ID", "id")
_TABLE_NAMES = ("cases.csv", LABELS_FILE, "cases.tsv", "cases.xlsx", "cases.xls", "cases.ods")


@dataclass(frozen=True)
class CaseTable:
    """Cells by case and column as they stand in the file; ``lines`` are its line numbers, counted from 1."""

    path: Path
    id_column: str
    columns: tuple[str, ...]
    rows: Mapping[str, Mapping[str, str]]
    lines: Mapping[str, int]

    def raw_column(self, name: str) -> dict[str, str]:
        """Cells of a column by case, as they stand in the file.

        Raises:
            TableError: there is no such column.
        """
        if name not in self.columns:
            raise TableError(f"{self.path}: no column {name!r}; there are {', '.join(self.columns)}")
        return {case_id: row[name] for case_id, row in self.rows.items()}

    def column(self, name: str) -> dict[str, str]:
        """:meth:`raw_column`, missing cells as ``""``."""
        return {case_id: "" if is_missing(cell) else cell for case_id, cell in self.raw_column(name).items()}

    def numbers(self, name: str) -> dict[str, str]:
        """:meth:`column`, every cell a finite number with a decimal point, or missing.

        Decimal commas become points where no other reading is possible.

        Raises:
            TableError: with the line of the first cell that is neither, or whose comma may separate thousands.
        """
        cells = self.column(name)
        for case_id, cell in cells.items():
            if cell and parse_number(cell) is None:
                raise TableError(f"{self.place(case_id)}: {name} expected a number, got {cell!r}")
        self.check_decimal_signs(name)
        return {case_id: decimal_point(cell) for case_id, cell in cells.items()}

    def answers(self, task: Task) -> dict[str, str]:
        """The column of a task: classes as they stand in the task, numbers with a decimal point, missing cells as ``""``.

        Raises:
            TableError: no such column, or a cell that is no answer to the task, with its line.
        """
        if not task.is_classification:
            return self.numbers(task.name)
        found = {}
        for case_id, cell in self.raw_column(task.name).items():
            try:
                found[case_id] = task.spelling(cell)
            except DatasetError as error:
                raise TableError(f"{self.place(case_id)}: {error}") from error
        return found

    def named_as(self, names: Collection[str]) -> CaseTable:
        """The same table with columns that differ from one of ``names`` in letter case only renamed to it."""
        wanted = {same_text_key(name): name for name in names if name not in self.columns}
        others = [old for old in self.columns if old not in names and old != self.id_column]
        return self.renamed({old: wanted.pop(same_text_key(old)) for old in others if same_text_key(old) in wanted})

    def renamed(self, new_names: Mapping[str, str]) -> CaseTable:
        """The same table with other names for some columns; one that had such a name before is left out."""
        kept = [old for old in self.columns if old in new_names or old not in new_names.values()]
        new = {old: new_names.get(old, old) for old in kept}
        rows = {case_id: {new[name]: row[name] for name in kept} for case_id, row in self.rows.items()}
        return replace(self, columns=tuple(new.values()), rows=rows, id_column=new[self.id_column])

    def restricted_to(self, case_ids: Collection[str]) -> CaseTable:
        """The same table with only these cases, those that it holds."""
        rows = {case_id: row for case_id, row in self.rows.items() if case_id in case_ids}
        return replace(self, rows=rows, lines={case_id: self.lines[case_id] for case_id in rows})

    def place(self, case_id: str) -> str:
        """File and line of a case, for messages."""
        return f"{self.path} line {self.lines[case_id]}"

    def check_decimal_signs(self, name: str) -> None:
        """Refuse a column of numbers of which some have a point and some a comma, or whose commas may separate thousands.

        Raises:
            TableError: with the line of the first comma.
        """
        cells = self.column(name)
        if any(cell and parse_number(cell) is None for cell in cells.values()):
            return
        commas = {case_id: cell for case_id, cell in cells.items() if "," in cell}
        points = {case_id: cell for case_id, cell in cells.items() if "." in cell}
        if not commas:
            return
        case_id, cell = next(iter(commas.items()))
        if points:
            other, number = next(iter(points.items()))
            raise TableError(
                f"{self.place(case_id)}: {name} expected one decimal sign, got {cell!r} here and {number!r} in line "
                f"{self.lines[other]}; write points"
            )
        if all(_may_be_thousands(cell) for cell in commas.values()):
            raise TableError(
                f"{self.place(case_id)}: {name} expected a number, got {cell!r}, whose comma may separate a fraction or "
                "thousands; write a point for the fraction, and nothing between thousands"
            )


def _may_be_thousands(cell: str) -> bool:
    whole, _, rest = cell.lstrip("+-").partition(",")
    return 1 <= len(whole) <= 3 and not whole.startswith("0") and len(rest) == 3 and rest.isdecimal()


def find_table(folder: Path) -> Path | None:
    """The case table of a folder, by any of its names in any letter case; None without one. A spreadsheet is found as well."""
    present = {path.name.casefold(): path for path in folder.iterdir()} if folder.is_dir() else {}
    return next((present[name] for name in _TABLE_NAMES if name in present), None)


def read_table(path: Path, id_column: str | None = None) -> CaseTable:
    """Read a text table; see ``delimited`` for its forms. Case ids stay text: ``01`` is not ``1``.

    Without ``id_column`` the first of ``case_id, case, Case_id, ID, id`` that the header holds is taken, else ``case_id`` in
    any letter case.

    Raises:
        UnreadableFileError: no such file, or no text in a known encoding.
        TableError: with the line: a missing or duplicate id, a duplicate column, a row of the wrong length.
    """
    lines = read_lines(path)
    if not lines:
        raise TableError(f"{path}: expected columns {' or '.join(_ID_COLUMNS)} and others, but the table is empty")
    header = tuple(lines[0][1])
    if len(set(header)) != len(header):
        raise TableError(f"{path} line {lines[0][0]}: column names must differ, got {list(header)}")
    return _table(path, _find_id_column(path, header, id_column), header, lines[1:])


def _find_id_column(path: Path, header: Sequence[str], wanted: str | None) -> str:
    if wanted is not None and wanted not in header:
        raise TableError(f"{path}: no column {wanted}; there are {list(header)}")
    known = wanted or next((name for name in _ID_COLUMNS if name in header), None)
    found = known or next((name for name in header if name.casefold() == "case_id"), None)
    if found is None:
        raise TableError(
            f"{path}: expected columns {' or '.join(_ID_COLUMNS)} and others, got {list(header)}; name the one with the case "
            "ids by --id-column"
        )
    return found


def _table(path: Path, id_column: str, header: tuple[str, ...], lines: Sequence[Line]) -> CaseTable:
    rows: dict[str, dict[str, str]] = {}
    numbers: dict[str, int] = {}
    for number, cells in lines:
        if len(cells) != len(header):
            raise TableError(f"{path} line {number}: expected {len(header)} cells, got {len(cells)}")
        row = dict(zip(header, cells, strict=True))
        case_id = row[id_column]
        if not case_id:
            raise TableError(f"{path} line {number}: the case id ({id_column}) is missing")
        if case_id in rows:
            raise TableError(f"{path} line {number}: case {case_id!r} stands already in line {numbers[case_id]}")
        rows[case_id], numbers[case_id] = row, number
    return CaseTable(path, id_column, header, rows, numbers)


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


def check_case_ids(
    table: CaseTable, expected: Collection[str], optional: Collection[str] = (), *, ignore_extra_rows: bool = False
) -> tuple[str, ...]:
    """Refuse a table that lacks an expected case, or names one that is neither expected nor optional.

    Returns:
        A note on the rows of other cases, where they are ignored and there are some.

    Raises:
        TableError: naming up to ten cases, with their lines where they have one.
    """
    unknown = [case_id for case_id in table.rows if case_id not in expected and case_id not in optional]
    missing = sorted(set(expected) - set(table.rows))
    named = ", ".join(f"line {table.lines[case_id]} {case_id!r}" for case_id in unknown[:10])
    if missing:
        last = max(table.lines.values(), default=1)
        names = ", ".join(repr(case_id) for case_id in missing[:10])
        others = f"; {len(unknown)} rows name cases without an image: {named}; are these the same?" if unknown else ""
        raise TableError(
            f"{table.path} (lines 1-{last}): {len(missing)} cases have no row in column {table.id_column}: {names}{others}"
        )
    if unknown and not ignore_extra_rows:
        raise TableError(
            f"{table.path}: {len(unknown)} rows name cases without an image: {named}; remove them, or pass over them with "
            "--ignore-extra-rows"
        )
    return (f"{table.path.name}: {len(unknown)} rows of cases without an image are ignored: {named}",) if unknown else ()


def describe_missing(name: str, raw: Mapping[str, str], cells: Mapping[str, str]) -> str | None:
    """``"grade: 3 missing (2 '?', 1 'NULL')"`` for a column as it stands and as it was read; None where nothing is missing."""
    markers = Counter(raw[case_id] for case_id, cell in cells.items() if not cell)
    if not markers:
        return None
    told = ", ".join(f"{number} {marker!r}" if marker else f"{number} empty" for marker, number in markers.most_common())
    return f"{name}: {markers.total()} missing ({told})"
