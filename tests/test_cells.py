"""What a cell says, by one rule."""

from __future__ import annotations

import math

import pytest

from nnduet.cells import format_number, is_missing, number_or_nan, parse_number, same_text_key


@pytest.mark.parametrize(
    "cell", ["", "  ", "NA", "N/A", "n/a", "#N/A", "<NA>", "None", "NULL", "null", "nan", "-nan", "?", "-", " ? "]
)
def test_row_73_the_usual_markers_are_missing(cell: str) -> None:
    assert is_missing(cell)


@pytest.mark.parametrize("cell", ["none", "0", "--", "unknown", "-1", "n"])
def test_other_texts_are_not_missing(cell: str) -> None:
    assert not is_missing(cell)


@pytest.mark.parametrize(
    ("cell", "value"),
    [("3", 3.0), ("-1.5", -1.5), ("3,05", 3.05), (" 2 ", 2.0), ("1e3", 1000.0), (".5", 0.5), ("+,5", 0.5), ("7.", 7.0)],
)
def test_numbers_have_a_point_or_a_comma(cell: str, value: float) -> None:
    assert parse_number(cell) == value and number_or_nan(cell) == value


@pytest.mark.parametrize("cell", ["", "x", "1_000", "١", "inf", "nan", "1e999", "1,2,3", "1.2.3", "0x1", "1 000", ","])
def test_other_texts_are_no_numbers(cell: str) -> None:
    assert parse_number(cell) is None and math.isnan(number_or_nan(cell))


def test_numbers_are_written_with_six_digits_and_nothing_for_none() -> None:
    assert [format_number(value) for value in (1 / 3, 0.0, None, math.nan)] == ["0.333333", "0", "", ""]


def test_texts_are_the_same_without_letter_case_and_blanks() -> None:
    assert same_text_key(" Not\u00a0 Sure") == same_text_key("not sure") == same_text_key("NOT  sure ")
    assert same_text_key("1") != same_text_key("2")
