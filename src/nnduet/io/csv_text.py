"""The one writer of CSV: cells that a spreadsheet would take for a formula, or a terminal for a command, are made harmless."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence

from nnduet.names import printable

__all__ = ["csv_text", "plain_cell", "records_text", "safe_cell"]

_FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]inf")


def safe_cell(cell: str) -> str:
    """A cell as it is written: with ``'`` before what a spreadsheet would compute, and control characters escaped.

    A spreadsheet computes cells that begin with ``= + - @``, a tab or a carriage return; numbers such as -1.5 stay as they are.
    Cells that begin with ``'`` and one of these get another ``'``, so that :func:`plain_cell` gives back every cell.
    Source: https://owasp.org/www-community/attacks/CSV_Injection.

    Examples:
        >>> safe_cell("=1+1"), safe_cell("-1.5"), safe_cell("text")
        ("'=1+1", '-1.5', 'text')
    """
    text = cell if cell.isprintable() else printable(cell)
    return f"'{text}" if _would_be_computed(cell.lstrip("'")) and not _NUMBER.fullmatch(cell) else text


def plain_cell(cell: str) -> str:
    """The cell that :func:`safe_cell` was given, control characters apart.

    Examples:
        >>> plain_cell(safe_cell("=1+1"))
        '=1+1'
    """
    return cell[1:] if cell.startswith("'") and _would_be_computed(cell.lstrip("'")) else cell


def _would_be_computed(cell: str) -> bool:
    return cell.startswith(_FORMULA_SIGNS)


def csv_text(rows: Iterable[Sequence[str]]) -> str:
    r"""Rows of cells as CSV: commas, line feeds, every cell through :func:`safe_cell`. No rows give an empty text.

    Examples:
        >>> csv_text([["case_id", "note"], ["a", "large, round"]])
        'case_id,note\na,"large, round"\n'
    """
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([safe_cell(cell) for cell in row] for row in rows)
    return buffer.getvalue()


def records_text(records: Sequence[Mapping[str, object]], columns: Sequence[str] | None = None) -> str:
    r"""Records as CSV with a header; what a record does not have, or has as None, is an empty cell.

    ``columns`` None takes those of all records, in the order in which they first come; no records then give an empty header.

    Examples:
        >>> records_text([{"case": "a", "dice": 0.9}, {"case": "b", "dice": None}])
        'case,dice\na,0.9\nb,\n'
    """
    header = list(columns if columns is not None else dict.fromkeys(name for record in records for name in record))
    return csv_text([header, *([_text(record.get(name)) for name in header] for record in records)])


def _text(value: object) -> str:
    return "" if value is None else str(value)
