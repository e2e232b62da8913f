"""Tables as spreadsheets write them, in every form the same cells."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnduet.datasets.case_tables import find_table, read_table
from nnduet.errors import TableError, UnreadableFileError
from nnduet.io.delimited import read_lines

PLAIN = "case_id,grade\n001,a\n002,b\n"


def lines(folder: Path, content: str | bytes, name: str = "cases.csv") -> list[tuple[int, list[str]]]:
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return read_lines(folder / name)


@pytest.mark.parametrize(
    "content",
    [
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\r"),
        PLAIN.replace(",", ";"),
        PLAIN.replace(",", "\t"),
        "\ufeff" + PLAIN,
        PLAIN.encode("utf-16"),
        b"\xfe\xff" + PLAIN.replace(",", "\t").encode("utf-16-be"),
        "case_id,grade,,\n001,a,,\n002,b,,\n,,,\n,,,\n",
        "case_id,grade,,\n001,a\n002,b\n",
        '"case_id";"grade"\n"001";"a"\n"002";"b"\n',
        "case_id\u00a0,grade\n 001\u200b, a\n002 ,b\n",
    ],
)
def test_row_76_every_form_of_a_table_has_the_same_cells(tmp_path: Path, content: str | bytes) -> None:
    assert lines(tmp_path, content) == [(1, ["case_id", "grade"]), (2, ["001", "a"]), (3, ["002", "b"])]


def test_row_76_the_line_in_which_excel_names_the_separator_is_no_header(tmp_path: Path) -> None:
    assert lines(tmp_path, "sep=;\ncase_id;grade\n001;1,5\n") == [(2, ["case_id", "grade"]), (3, ["001", "1,5"])]


def test_a_separator_within_quotes_does_not_count(tmp_path: Path) -> None:
    assert lines(tmp_path, '"a,b,c";x\n1;2\n') == [(1, ["a,b,c", "x"]), (2, ["1", "2"])]


def test_a_row_has_the_line_in_which_it_begins(tmp_path: Path) -> None:
    assert lines(tmp_path, 'a,b\n1,"x\ny"\n2,z\n') == [(1, ["a", "b"]), (2, ["1", "x\ny"]), (4, ["2", "z"])]


def test_a_quote_that_does_not_end_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"line 2: .*quotes"):
        lines(tmp_path, 'a,b\n1,"5" lesion\n2,x\n')
    with pytest.raises(TableError, match="line 3: unexpected end of data"):
        lines(tmp_path, 'a,b\n1,x\n2,"y\n3,z\n')


def test_row_136_quoted_formulas_are_read_back(tmp_path: Path) -> None:
    assert lines(tmp_path, "case_id,'=x\n'-a,1\n")[1] == (2, ["-a", "1"])
    assert lines(tmp_path, "case_id,'=x\n'-a,1\n")[0] == (1, ["case_id", "=x"])


@pytest.mark.parametrize("name", ["cases.xlsx", "cases.XLS", "cases.ods", "renamed.csv"])
def test_row_76_a_spreadsheet_says_how_it_is_saved(tmp_path: Path, name: str) -> None:
    with pytest.raises(TableError, match='save it as "CSV UTF-8"'):
        lines(tmp_path, b"PK\x03\x04....", name)


@pytest.mark.parametrize("content", ["case_id;ä\n1;2\n".encode("cp1252"), PLAIN.encode("utf-16-le")])
def test_another_encoding_says_how_it_is_saved(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UnreadableFileError, match='save it as "CSV UTF-8"'):
        lines(tmp_path, content)


@pytest.mark.parametrize("name", ["cases.csv", "Cases.CSV", "cases.tsv", "classification_labels.csv"])
def test_the_table_of_a_folder_is_found_in_any_letter_case(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(PLAIN)
    assert find_table(tmp_path) == tmp_path / name


def test_a_spreadsheet_in_the_folder_is_found_so_that_it_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "cases.xlsx").write_bytes(b"PK\x03\x04")
    found = find_table(tmp_path)
    assert found is not None
    with pytest.raises(TableError, match=r"cases\.xlsx"):
        read_table(found)
    (tmp_path / "cases.csv").write_text(PLAIN)
    assert find_table(tmp_path) == tmp_path / "cases.csv"
    assert find_table(tmp_path / "none") is None
