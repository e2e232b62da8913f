"""What a cell of a table says: nothing, a number, or a text; one rule for every table that is read or written."""

from __future__ import annotations

import math
import re
import unicodedata

__all__ = ["MISSING_MARKERS", "decimal_point", "format_number", "is_missing", "number_or_nan", "parse_number", "same_text_key"]

MISSING_MARKERS = frozenset(
    {"", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA", "NULL"}
    | {"NaN", "None", "n/a", "nan", "null", "?", "-"}
)
"""Texts that stand for a missing value, spelled exactly so. Source: pandas.read_csv, na_values; then ``?`` and ``-``."""

_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?", re.ASCII)


def is_missing(cell: str) -> bool:
    """Whether a cell says nothing: blank, or one of :data:`MISSING_MARKERS`.

    Examples:
        >>> is_missing(" n/a "), is_missing("0")
        (True, False)
    """
    return cell.strip() in MISSING_MARKERS


def decimal_point(cell: str) -> str:
    """The text of a number with a point where it has a decimal comma.

    Examples:
        >>> decimal_point(" 3,05 ")
        '3.05'
    """
    return cell.strip().replace(",", ".")


def parse_number(cell: str) -> float | None:
    """A finite number in decimal notation, with a point or a comma before the fraction; None for everything else.

    Examples:
        >>> parse_number("3,05"), parse_number("1e3"), parse_number("T2")
        (3.05, 1000.0, None)
    """
    if not _NUMBER.fullmatch(cell.strip()):
        return None
    value = float(decimal_point(cell))
    return value if math.isfinite(value) else None


def number_or_nan(cell: str) -> float:
    """:func:`parse_number`, NaN where the cell holds no number.

    Examples:
        >>> number_or_nan("-1.5"), number_or_nan("?")
        (-1.5, nan)
    """
    value = parse_number(cell)
    return math.nan if value is None else value


def format_number(value: float | None, form: str = ".6g") -> str:
    """A number with six significant digits, or in another form of ``format``; empty for None and NaN.

    Examples:
        >>> format_number(2 / 3), format_number(None)
        ('0.666667', '')
        >>> format_number(2 / 3, ".2f")
        '0.67'
    """
    return "" if value is None or math.isnan(value) else format(value, form)


def same_text_key(cell: str) -> str:
    """Equal for texts that differ only in letter case, blanks at the ends or the width of blanks within.

    Examples:
        >>> same_text_key("  Benign  Lesion") == same_text_key("benign lesion")
        True
    """
    return " ".join(unicodedata.normalize("NFC", unicodedata.normalize("NFC", cell).casefold()).split())
