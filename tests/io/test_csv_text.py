"""The writer of CSV: what a spreadsheet would compute is text (row 136)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import nnduet
from nnduet.io.csv_text import csv_text, plain_cell, records_text, safe_cell
from nnduet.io.delimited import read_records


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


def test_records_become_rows_under_one_header_and_come_back(tmp_path: Path) -> None:
    text = records_text([{"a": "=1", "b": 0.5}, {"b": None, "c": "x"}])
    assert text == "a,b,c\n'=1,0.5,\n,,x\n"
    table = tmp_path / "table.csv"
    table.write_text(text, encoding="utf-8")
    assert read_records(table) == (["a", "b", "c"], [{"a": "=1", "b": "0.5", "c": ""}, {"a": "", "b": "", "c": "x"}])
    assert records_text([{"b": 1, "a": 2}], ["a"]) == "a\n2\n"


def test_a_table_of_nothing_has_no_records_and_a_torn_row_the_cells_that_it_has(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("")
    assert read_records(table) == ([], [])
    table.write_text("epoch,loss,dice\n0,0.5,0.1\n1,0.")
    assert read_records(table)[1] == [{"epoch": "0", "loss": "0.5", "dice": "0.1"}, {"epoch": "1", "loss": "0."}]


def test_row_136_one_module_writes_every_csv() -> None:
    package = Path(nnduet.__file__).parent
    writers = [
        p.relative_to(package).as_posix()
        for p in package.rglob("*.py")
        if re.search(r"csv\.(writer|DictWriter)", p.read_text())
    ]
    assert writers == ["io/csv_text.py"]


def test_row_76_one_module_reads_every_table() -> None:
    package = Path(nnduet.__file__).parent
    readers = {
        p.relative_to(package).as_posix()
        for p in package.rglob("*.py")
        if re.search(r"csv\.(reader|DictReader)", p.read_text())
    }
    assert readers == {"io/delimited.py"}
