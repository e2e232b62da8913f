"""Text tables as spreadsheets and statistics programs write them, as lines of cells."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

from nnduet.errors import TableError, UnreadableFileError
from nnduet.io.csv_text import plain_cell
from nnduet.records import MAX_BYTES, check_regular_file

__all__ = ["Line", "read_lines", "read_records"]

Line = tuple[int, list[str]]
"""Number of the line in which a row begins, counted from 1, and its cells."""

_DELIMITERS = ",;\t"
_SPREADSHEETS = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods", ".numbers")
_SPREADSHEET_BYTES = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")  # a zip (xlsx, ods), an OLE file (xls)
_BLANK_EDGES = re.compile("^[\\s\u200b\u2060\ufeff]+|[\\s\u200b\u2060\ufeff]+$")
_AS_CSV = 'save it as "CSV UTF-8"'


def read_lines(path: Path) -> list[Line]:
    """Rows of a table that are not blank; cells without blanks at the ends and as ``csv_text.safe_cell`` was given them.

    Commas, semicolons or tabs separate: what splits the first line into most cells, or what Excel's first line ``sep=;`` names.
    UTF-8 with or without a byte order mark, and UTF-16 with one. Empty cells at the end of all rows, which spreadsheets leave
    where something was deleted, are dropped.

    Raises:
        UnreadableFileError: no such file, or no text in one of these encodings.
        TableError: a spreadsheet's own format, or broken quotes, with the line.
    """
    text = _decoded(path)
    named = re.match(r'"?sep=([,;\t])"?[ ,;\t]*(\r\n|\r|\n)', text, re.IGNORECASE)
    body = text[named.end() :] if named else text
    delimiter = named[1] if named else max(_DELIMITERS, key=lambda mark: _width(body, mark))
    lines = list(_rows(body, delimiter, path, 1 if named else 0))
    width = max((_used(cells) for _, cells in lines), default=0)
    return [(number, cells[:width]) for number, cells in lines]


def read_records(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Header and records of a table, by :func:`read_lines`; of a row that was cut short, the cells that it has.

    Raises:
        UnreadableFileError, TableError: as there.
    """
    rows = [cells for _, cells in read_lines(path)]
    header = rows[0] if rows else []
    return header, [dict(zip(header, cells, strict=False)) for cells in rows[1:]]


def _decoded(path: Path) -> str:
    check_regular_file(path, "a table", MAX_BYTES, error=UnreadableFileError)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnreadableFileError(f"{path}: no readable table: {error}") from error
    if path.suffix.lower() in _SPREADSHEETS or content.startswith(_SPREADSHEET_BYTES):
        raise TableError(f"{path}: expected a text table (CSV), got a spreadsheet; {_AS_CSV} and name that file")
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableFileError(f"{path}: expected a table in UTF-8, got other bytes ({error}); {_AS_CSV}") from error
    if "\0" in text:
        raise UnreadableFileError(f"{path}: expected a text table in UTF-8, got zero bytes; {_AS_CSV}")
    return text


def _width(text: str, delimiter: str) -> int:
    first = next((line for line in io.StringIO(text, newline="") if line.strip()), "")
    return len(next(csv.reader([first], delimiter=delimiter), []))


def _rows(text: str, delimiter: str, path: Path, lines_before: int) -> Iterator[Line]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    first = lines_before + 1
    try:
        for cells in reader:
            clean = [_BLANK_EDGES.sub("", plain_cell(_BLANK_EDGES.sub("", cell))) for cell in cells]
            if any(clean):
                yield first, clean
            first = lines_before + reader.line_num + 1
    except csv.Error as error:
        raise TableError(f"{path} line {first}: {error}; quotes within a quoted cell are doubled") from error


def _used(cells: list[str]) -> int:
    return max((index for index, cell in enumerate(cells, start=1) if cell), default=0)
