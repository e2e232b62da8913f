"""The writer of CSV: what a spreadsheet would compute is text (row 136)."""

from __future__ import annotations

import pytest

from nnduet.data.csv_text import csv_text, plain_cell, safe_cell


@pytest.mark.parametrize("cell", ["=1+1", "+cmd", "-a", "@sum", "\tx", "-1-1", "--1", "'=1", "-"])
def test_row_136_cells_that_a_spreadsheet_would_compute_are_quoted_and_come_back(cell: str) -> None:
    assert safe_cell(cell).startswith("'")
    assert plain_cell(safe_cell(cell)) == cell


@pytest.mark.parametrize("cell", ["", "a", "-1.5", "+2", "-1e-05", "-inf", "'a", "it's", "1-2", "a=b", "ü", "two words"])
def test_other_cells_stay(cell: str) -> None:
    assert safe_cell(cell) == cell == plain_cell(cell)


def test_control_characters_are_escaped() -> None:
    assert safe_cell("a\x1b[31m") == "a\\x1b[31m"


def test_rows_end_with_line_feeds_and_commas_are_quoted() -> None:
    assert csv_text([["a", "b,c"], ["=1", ""]]) == 'a,"b,c"\n\'=1,\n'
    assert csv_text([]) == ""
