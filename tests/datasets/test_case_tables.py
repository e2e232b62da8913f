"""Every complaint about the case table names its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnduet.datasets.case_tables import CaseTable, check_case_ids, describe_missing, find_table, read_covariates, read_table
from nnduet.datasets.task_specs import parse_task_specs
from nnduet.errors import SettingsError, TableError, UnreadableFileError
from nnduet.schema import Task


def table(folder: Path, text: str, id_column: str | None = None) -> CaseTable:
    (folder / "cases.csv").write_bytes(text.encode("utf-8"))
    return read_table(folder / "cases.csv", id_column)


def column(folder: Path, cells: list[str]) -> CaseTable:
    """A table whose column x holds these cells in lines 2, 3, …"""
    return table(folder, "case_id,x\n" + "".join(f"c{i},{cell}\n" for i, cell in enumerate(cells)))


def test_cells_are_stripped_text_and_missing_ones_empty(tmp_path: Path) -> None:
    read = table(tmp_path, "case_id, grade ,age\r\n 01 , high ,NA\r\n\r\nb,nan,\r\n")
    assert read.columns == ("case_id", "grade", "age") and dict(read.lines) == {"01": 2, "b": 4}
    assert read.column("grade") == {"01": "high", "b": ""} and read.column("age") == {"01": "", "b": ""}


def test_a_byte_order_mark_and_the_first_seed_systems_header_are_read(tmp_path: Path) -> None:
    read = table(tmp_path, "\ufeffCase_id,Subtype\nquiz_001,0\n")
    assert read.id_column == "Case_id" and read.column("Subtype") == {"quiz_001": "0"}


@pytest.mark.parametrize("mark", [";", "\t"])
def test_semicolons_and_tabs_separate_as_well(tmp_path: Path, mark: str) -> None:
    assert table(tmp_path, f"case{mark}x\na{mark}1,5\n").column("x") == {"a": "1,5"}


def test_ids_01_and_1_are_two_cases(tmp_path: Path) -> None:
    assert list(table(tmp_path, "id,x\n01,a\n1,b\n").rows) == ["01", "1"]


def test_the_id_column_can_be_named_and_must_be_found(tmp_path: Path) -> None:
    assert list(table(tmp_path, "ID,Case\na,7\n", "Case").rows) == ["7"]
    with pytest.raises(TableError, match="--id-column"):
        table(tmp_path, "name,x\na,1\n")
    with pytest.raises(TableError, match="no column nothing"):
        table(tmp_path, "name,x\na,1\n", "nothing")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("case_id,x\na,1\nb,2\na,3\n", r"line 4: case 'a' stands already in line 2"),
        ("case_id,x\na,1\n ,2\n", r"line 3: the case id \(case_id\) is missing"),
        ("case_id,x\na,1\nb,2,3\n", "line 3: expected 2 cells, got 3"),
        ("case_id,x,x\na,1,1\n", "line 1: column names must differ"),
        ("", "empty"),
        ('case_id,x\na,"' + "y" * 140000 + '"\n', "line 2: field larger"),
    ],
)
def test_malformed_tables_are_refused_by_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(TableError, match=message):
        table(tmp_path, text)


def test_no_file_and_no_utf_8_are_unreadable(tmp_path: Path) -> None:
    (tmp_path / "latin.csv").write_bytes("case_id,x\nä,1\n".encode("latin-1"))
    for name in ("latin.csv", "none.csv"):
        with pytest.raises(UnreadableFileError):
            read_table(tmp_path / name)


def test_unknown_cases_are_named_with_their_lines(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"1 rows name cases without an image: line 3 'c1'"):
        check_case_ids(column(tmp_path, ["1", "2"]), ["c0"])
    check_case_ids(column(tmp_path, ["1", "2"]), ["c0"], optional=["c1"])


def test_row_104_rows_of_a_master_table_are_refused_by_name_or_passed_over_and_counted(tmp_path: Path) -> None:
    read = column(tmp_path, ["1"] * 30)
    with pytest.raises(TableError, match=r"28 rows name cases without an image: line 3 'c1', .*--ignore-extra-rows"):
        check_case_ids(read, ["c0"], ["c29"])
    (note,) = check_case_ids(read, ["c0"], ["c29"], ignore_extra_rows=True)
    assert note.startswith("cases.csv: 28 rows of cases without an image are ignored: line 3 'c1', line 4 'c2', ")
    assert check_case_ids(read, list(read.rows), ignore_extra_rows=True) == ()


def test_row_104_cases_without_a_row_are_refused_all_the_same(tmp_path: Path) -> None:
    with pytest.raises(
        TableError, match=r"1 cases have no row in column case_id: '00'; 1 rows name cases .*line 2 'c0'; are these"
    ):
        check_case_ids(column(tmp_path, ["1"]), ["00"], ignore_extra_rows=True)


def test_missing_cases_are_named(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"lines 1-3.*1 cases have no row in column case_id: 'c2'"):
        check_case_ids(column(tmp_path, ["1", "2"]), ["c0", "c1", "c2"])


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1", "0", "", "1"], Task("x", "binary", ("0", "1"))),
        (["10", "9", "2"], Task("x", "multiclass", ("2", "9", "10"))),
        (["b", "a", "10"], Task("x", "multiclass", ("10", "a", "b"))),
        (["1.5", "2", "3"], Task("x", "regression")),
        ([str(i) for i in range(21)], Task("x", "regression")),
        ([str(i) for i in range(20)], Task("x", "multiclass", tuple(str(i) for i in range(20)))),
        ([f"t{i:02d}" for i in range(30)], Task("x", "multiclass", tuple(f"t{i:02d}" for i in range(30)))),
    ],
)
def test_the_type_of_a_task_is_guessed_from_its_cells(tmp_path: Path, cells: list[str], expected: Task) -> None:
    assert parse_task_specs(["x"], column(tmp_path, cells)) == (expected,)


def test_a_type_can_be_given_and_is_needed_for_ordinal(tmp_path: Path) -> None:
    read = table(tmp_path, "case_id,x,a b\nc0,1,u\nc1,3,v\nc2,2,u\n")
    tasks = parse_task_specs(["x:ordinal", "a b"], read)
    assert tasks == (Task("x", "ordinal", ("1", "2", "3")), Task("a b", "binary", ("u", "v")))


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("x:binary:fixed=x", Task("x", "binary", ("1", "2"), fixed_axes=("x",))),
        ("x:fixed=xy", Task("x", "binary", ("1", "2"), fixed_axes=("x", "y"))),
        ("x:regression:fixed=z", Task("x", "regression", fixed_axes=("z",))),
    ],
)
def test_axes_that_must_not_be_mirrored_stand_behind_the_task(tmp_path: Path, spec: str, expected: Task) -> None:
    assert parse_task_specs([spec], column(tmp_path, ["1", "2"])) == (expected,)


def test_a_column_that_cannot_be_a_file_name_is_no_task(tmp_path: Path) -> None:
    read = table(tmp_path, "case_id,a:fixed=x,HER2+/-\nc0,u,p\nc1,v,n\n")
    for name in ("a:fixed=x", "HER2+/-"):
        with pytest.raises(SettingsError, match="rename the column"):
            parse_task_specs([name], read)


@pytest.mark.parametrize("axes", ["", "w", "xx", "x,y"])
def test_axes_that_cannot_be_are_refused(tmp_path: Path, axes: str) -> None:
    with pytest.raises(SettingsError, match="fixed expected letters of x, y, z"):
        parse_task_specs([f"x:binary:fixed={axes}"], column(tmp_path, ["1", "2"]))


def test_task_specs_that_cannot_be_are_refused(tmp_path: Path) -> None:
    read = column(tmp_path, ["1", "2", "3"])
    with pytest.raises(SettingsError, match="type expected one of"):
        parse_task_specs(["x:ordnal"], read)
    with pytest.raises(SettingsError, match="own name"):
        parse_task_specs(["x", "x:ordinal"], read)
    with pytest.raises(TableError, match="no column 'y'; there are case_id, x"):
        parse_task_specs(["y"], read)
    with pytest.raises(TableError, match="binary expected 2"):
        parse_task_specs(["x:binary"], read)
    with pytest.raises(TableError, match="at least 2"):
        parse_task_specs(["x"], column(tmp_path, ["1", "1"]))
    with pytest.raises(TableError, match=r"line 3: x expected a number, got 'b'"):
        parse_task_specs(["x:regression"], column(tmp_path, ["1", "b"]))
    with pytest.raises(TableError, match=r"line 4: x writes one number in two ways, '1' and '1\.0'"):
        parse_task_specs(["x:multiclass"], column(tmp_path, ["1", "2", "1.0"]))


def test_covariates_are_read_by_case_and_what_is_missing_is_left_out(tmp_path: Path) -> None:
    table(tmp_path, "ID;height;weight;note\na;1.7;;x\nb;NA;60;y\n")
    read = read_covariates(tmp_path / "cases.csv", ["weight", "height", "sex"], "ID")
    assert read == {"a": {"height": 1.7}, "b": {"weight": 60.0}}


def test_a_covariate_that_is_no_number_is_refused_with_its_line(tmp_path: Path) -> None:
    table(tmp_path, "case_id,height\na,1.7\nb,tall\n")
    with pytest.raises(TableError, match=r"line 3: height expected a number, got 'tall'"):
        read_covariates(tmp_path / "cases.csv", ["height"])


def test_a_table_without_any_covariate_of_the_model_is_refused(tmp_path: Path) -> None:
    table(tmp_path, "case_id,Height\na,1.7\n")
    with pytest.raises(TableError, match=r"expected columns \['height'\], got \['case_id', 'Height'\]"):
        read_covariates(tmp_path / "cases.csv", ["height"])


def test_covariates_for_a_model_without_any_are_refused(tmp_path: Path) -> None:
    table(tmp_path, "case_id,height\na,1.7\n")
    with pytest.raises(SettingsError, match="expected a model with covariates"):
        read_covariates(tmp_path / "cases.csv", [])


def test_row_76_covariates_in_any_form_that_convert_reads(tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_bytes("sep=;\nID;height;weight;\na;1,7;?;\nb;NULL;60;\n;;;\n".encode("utf-16"))
    assert read_covariates(tmp_path / "cases.csv", ["height", "weight"]) == {"a": {"height": 1.7}, "b": {"weight": 60.0}}


def test_columns_are_found_without_regard_to_letter_case_where_that_is_asked_for(tmp_path: Path) -> None:
    read = table(tmp_path, "case_id,GRADE,grade,Age\na,1,2,3\n").named_as(["grade", "age"])
    assert read.columns == ("case_id", "GRADE", "grade", "age") and read.rows["a"]["grade"] == "2"
    renamed = read.renamed({"GRADE": "grade"})
    assert renamed.columns == ("case_id", "grade", "age") and renamed.rows["a"]["grade"] == "1"


@pytest.mark.parametrize(
    ("cell", "stays"),
    [
        ("1,250", False),
        ("+12,500", False),
        ("-123,456", False),
        ("0,250", True),
        ("1234,567", True),
        ("1,25", True),
        (",250", True),
    ],
)
def test_a_comma_before_three_digits_is_doubtful_unless_a_zero_or_four_digits_stand_before_it(
    tmp_path: Path, cell: str, stays: bool
) -> None:
    read = table(tmp_path, f"case_id;x\na;{cell}\nb;7\n")
    if stays:
        assert read.numbers("x") == {"a": cell.replace(",", "."), "b": "7"}
    else:
        with pytest.raises(
            TableError, match=r"line 2: x expected a number, got .*may separate a fraction or thousands; write a"
        ):
            read.numbers("x")


def test_one_comma_that_can_only_be_a_fraction_tells_the_others_apart(tmp_path: Path) -> None:
    assert table(tmp_path, "case_id;x\na;1,250\nb;2,5\n").numbers("x") == {"a": "1.250", "b": "2.5"}


def test_decimal_signs_of_texts_are_nobodys_business(tmp_path: Path) -> None:
    table(tmp_path, "case_id;x\na;1,5\nb;2.5\nc;text\n").check_decimal_signs("x")


def test_a_point_and_a_comma_in_one_column_are_refused_with_both_lines(tmp_path: Path) -> None:
    with pytest.raises(
        TableError, match=r"cases.csv line 4: x expected one decimal sign, got '1,5' here and '2\.5' in line 3; "
    ):
        table(tmp_path, "case_id;x\na;\nb;2.5\nc;1,5\n").numbers("x")


def test_answers_are_spelled_as_the_task_has_them_and_numbers_with_a_point(tmp_path: Path) -> None:
    read = table(tmp_path, "case_id;grade;age\na;LOW;4,5\nb;;\nc;high;7\n")
    assert read.answers(Task("grade", "binary", ("low", "high"))) == {"a": "low", "b": "", "c": "high"}
    assert read.answers(Task("age", "regression")) == {"a": "4.5", "b": "", "c": "7"}
    with pytest.raises(TableError, match=r"cases\.csv line 2: task grade: expected one of"):
        read.answers(Task("grade", "binary", ("none", "high")))


def test_a_table_can_be_restricted_to_cases_that_it_holds(tmp_path: Path) -> None:
    read = table(tmp_path, "case_id,x\na,1\nb,2\nc,3\n").restricted_to(["c", "z", "a"])
    assert read.column("x") == {"a": "1", "c": "3"} and dict(read.lines) == {"a": 2, "c": 4}
    assert read.columns == ("case_id", "x") and read.id_column == "case_id"


def test_a_renamed_id_column_is_the_id_column_still(tmp_path: Path) -> None:
    read = table(tmp_path, "ID,x\na,1\n").renamed({"ID": "case_id"})
    assert read.id_column == "case_id" and read.rows == {"a": {"case_id": "a", "x": "1"}}


def test_the_id_column_and_columns_that_are_wanted_as_they_are_keep_their_names(tmp_path: Path) -> None:
    read = table(tmp_path, "ID,Grade,AGE\na,1,2\n").named_as(["id", "Grade", "age", "sex"])
    assert read.columns == ("ID", "Grade", "age") and read.id_column == "ID"


def test_of_two_columns_that_differ_in_letter_case_the_first_is_taken(tmp_path: Path) -> None:
    read = table(tmp_path, "case_id,AGE,Age\na,1,2\n").named_as(["age"])
    assert read.columns == ("case_id", "age", "Age") and read.column("age") == {"a": "1"}


@pytest.mark.parametrize(
    "header, expected", [("ID,case", "case"), ("id,ID", "ID"), ("x,CASE_ID", "CASE_ID"), ("Case_id,id", "Case_id")]
)
def test_the_id_column_is_found_by_its_names_in_their_order(tmp_path: Path, header: str, expected: str) -> None:
    assert table(tmp_path, f"{header}\na,b\n").id_column == expected


def test_tables_are_found_by_their_names_in_any_letter_case_and_in_their_order(tmp_path: Path) -> None:
    assert find_table(tmp_path / "none") is None and find_table(tmp_path) is None
    for name in ("cases.ods", "cases.xls", "cases.xlsx", "Cases.TSV", "classification_labels.csv", "CASES.csv"):
        (tmp_path / name).touch()
        assert find_table(tmp_path) == tmp_path / name


def test_refusals_of_a_header_say_what_there_is(tmp_path: Path) -> None:
    names = "case_id or case or Case_id or ID or id"
    with pytest.raises(TableError, match=f"cases.csv: expected columns {names} and others, but the table is empty"):
        table(tmp_path, "")
    with pytest.raises(TableError, match=rf"cases.csv: expected columns {names} and others, got \['name', 'x'\]; name the one"):
        table(tmp_path, "name,x\na,1\n")
    with pytest.raises(TableError, match=r"cases.csv: no column nothing; there are \['name', 'x'\]"):
        table(tmp_path, "name,x\na,1\n", "nothing")
    with pytest.raises(TableError, match=r"line 2: column names must differ, got \['id', 'x', 'x'\]"):
        table(tmp_path, "\nid,x,x\na,1,1\n")


def test_ten_cases_are_named_of_more(tmp_path: Path) -> None:
    read = column(tmp_path, ["1"] * 11)
    cases = [f"c{i}" for i in range(11)]
    rows = ", ".join(f"line {i + 2} 'c{i}'" for i in range(10))
    with pytest.raises(TableError, match=rf"cases.csv: 11 rows name cases without an image: {rows}; remove them"):
        check_case_ids(read, [])
    (note,) = check_case_ids(read, [], ignore_extra_rows=True)
    assert note == f"cases.csv: 11 rows of cases without an image are ignored: {rows}"
    names = ", ".join(repr(f"d{i:02d}") for i in range(10))
    with pytest.raises(TableError, match=rf"\(lines 1-12\): 11 cases have no row in column case_id: {names}$"):
        check_case_ids(read, [*(f"d{i:02d}" for i in range(11)), *cases])


def test_a_table_without_rows_ends_in_its_first_line(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"\(lines 1-1\): 1 cases have no row in column case_id: 'a'$"):
        check_case_ids(table(tmp_path, "case_id,x\n"), ["a"])


def test_missing_cells_are_told_by_marker_the_most_frequent_first() -> None:
    raw = {"a": "?", "b": "", "c": "?", "d": "1"}
    assert describe_missing("x", raw, {"a": "", "b": "", "c": "", "d": "1"}) == "x: 3 missing (2 '?', 1 empty)"
    assert describe_missing("x", raw, {"d": "1"}) is None


def test_the_id_column_of_covariates_can_be_named(tmp_path: Path) -> None:
    table(tmp_path, "ID,number,height\nx,a,1.7\n")
    assert read_covariates(tmp_path / "cases.csv", ["height"], "number") == {"a": {"height": 1.7}}
