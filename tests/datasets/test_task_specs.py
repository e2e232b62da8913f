"""Tasks and their columns: what is missing, what is one class, and in which order classes stand."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from nnduet.datasets.case_tables import CaseTable, read_table
from nnduet.datasets.task_specs import notes_on_columns, parse_task_specs
from nnduet.errors import SettingsError, TableError
from nnduet.schema import Task


def column(folder: Path, cells: list[str], name: str = "x") -> CaseTable:
    """A table whose column holds these cells in lines 2, 3, …"""
    (folder / "cases.csv").write_text(f"case_id;{name}\n" + "".join(f"c{i};{cell}\n" for i, cell in enumerate(cells)))
    return read_table(folder / "cases.csv")


def read(folder: Path, spec: str, cells: list[str]) -> tuple[Task, list[str], list[str]]:
    """The task, its column as it is stored, and the notes."""
    table = column(folder, cells, spec.split(":")[0])
    (task,) = parse_task_specs([spec], table)
    return task, list(table.answers(task).values()), notes_on_columns(table, [spec], [task], [])


MARKERS = ["None", "NULL", "#N/A", "<NA>", "?", "-", "n/a", "NaN", "   "]


@pytest.mark.parametrize("marker", MARKERS)
@pytest.mark.parametrize("spec", ["grade", "grade:binary", "grade:ordinal", "grade:regression"])
def test_row_73_a_marker_is_a_missing_label_and_no_class(tmp_path: Path, spec: str, marker: str) -> None:
    task, cells, notes = read(tmp_path, spec, ["0", "1", marker, "0"])
    assert task.classes == (() if spec == "grade:regression" else ("0", "1")) and cells == ["0", "1", "", "0"]
    assert notes == [f"grade: 1 missing (1 {marker!r})" if marker.strip() else "grade: 1 missing (1 empty)"]


def test_row_73_missing_cells_are_counted_by_marker(tmp_path: Path) -> None:
    _, _, notes = read(tmp_path, "grade", ["0", "?", "NULL", "1", "?", ""])
    assert notes == ["grade: 4 missing (2 '?', 1 'NULL', 1 empty)"]


def test_row_73_missing_covariates_are_counted(tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_text("case_id,x,age\na,0,?\nb,1,40\n")
    table = read_table(tmp_path / "cases.csv")
    tasks = parse_task_specs(["x"], table)
    assert notes_on_columns(table, ["x"], tasks, ["age"]) == ["age: 1 missing (1 '?')"]
    assert table.numbers("age") == {"a": "", "b": "40"}


def test_row_73_a_class_in_other_letters_than_a_marker_beside_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="line 3: x holds 'none', and in line 2 'None', which means missing"):
        parse_task_specs(["x"], column(tmp_path, ["None", "none", "mild"]))
    task, cells, _ = read(tmp_path, "x", ["none", "mild"])
    assert task.classes == ("mild", "none") and cells == ["none", "mild"]


def test_row_73_a_class_that_is_stated_may_be_called_like_a_marker(tmp_path: Path) -> None:
    task, cells, notes = read(tmp_path, "x:ordinal=None<mild", ["None", "mild", "?"])
    assert task.classes == ("None", "mild") and cells == ["None", "mild", ""] and notes == ["x: 1 missing (1 '?')"]


def test_an_error_of_a_spreadsheet_is_no_class(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="line 3: x holds '#DIV/0!', an error of the spreadsheet"):
        parse_task_specs(["x"], column(tmp_path, ["a", "#DIV/0!", "b"]))


@pytest.mark.parametrize(
    ("cells", "classes", "stored"),
    [
        (["TRUE", "False", "True", "False", "true", "True"], ("False", "True"), "True False True False True True"),
        (["benign", "Benign", "malignant", "benign "], ("benign", "malignant"), "benign benign malignant benign"),
        ([" a", "a", "b", "A"], ("a", "b"), "a a b a"),
        (["not sure", "Not  Sure", "sure", "not sure"], ("not sure", "sure"), None),
    ],
)
def test_row_74_spellings_of_one_text_are_one_class_with_a_note(
    tmp_path: Path, cells: list[str], classes: tuple[str, ...], stored: str | None
) -> None:
    task, found, notes = read(tmp_path, "x", cells)
    assert task == Task("x", "binary", classes)
    assert stored is None or found == stored.split()
    assert len(notes) == 1 and "is written in several ways" in notes[0]


def test_row_74_the_note_tells_every_spelling_and_how_often(tmp_path: Path) -> None:
    _, _, notes = read(tmp_path, "x", ["TRUE", "false", "True", "true", "True"])
    assert notes == ["x: one class 'True' is written in several ways (2 'True', 1 'TRUE', 1 'true')"]


def test_row_74_of_equally_frequent_spellings_the_order_of_rows_decides_nothing(tmp_path: Path) -> None:
    one, _, _ = read(tmp_path, "x", ["TRUE", "true", "no"])
    other, _, _ = read(tmp_path, "x", ["true", "no", "TRUE"])
    assert one.classes == other.classes == ("no", "TRUE")


def test_row_74_decimal_commas_are_numbers_with_a_note(tmp_path: Path) -> None:
    task, cells, notes = read(tmp_path, "volume", ["3,05", "4,5", "12"])
    assert task == Task("volume", "regression") and cells == ["3.05", "4.5", "12"]
    assert notes == ["volume: decimal commas are read as points, e.g. '3,05'"]
    assert read(tmp_path, "volume:multiclass", ["3,5", "4", "2,5"])[0].classes == ("2.5", "3.5", "4")


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["1", "1,5", "2.5"], "line 3: x expected one decimal sign, got '1,5' here and '2.5' in line 4"),
        (["low", "3,05", "high"], "line 3: x expected numbers or texts, got '3,05' beside 'low'"),
        (["1,250", "3,500", "7"], "line 2: x expected a number, got '1,250', whose comma may separate a fraction or thousands"),
    ],
)
def test_row_74_commas_that_can_be_read_in_two_ways_are_refused_by_line(tmp_path: Path, cells: list[str], message: str) -> None:
    for spec in ("x", "x:regression") if cells[0] != "low" else ("x",):
        with pytest.raises(TableError, match=message):
            parse_task_specs([spec], column(tmp_path, cells))


@pytest.mark.parametrize(
    ("cells", "classes"),
    [
        (["G10", "G1", "G2"], ("G1", "G2", "G10")),
        (["III", "I", "II", "IV"], ("I", "II", "III", "IV")),
        (["10", "9", "2", "None"], ("2", "9", "10")),
        (["T2", "T10", "T1"], ("T1", "T2", "T10")),
    ],
)
def test_row_75_an_ordinal_task_has_the_order_of_its_numbers(
    tmp_path: Path, cells: list[str], classes: tuple[str, ...]
) -> None:
    assert parse_task_specs(["x:ordinal"], column(tmp_path, cells)) == (Task("x", "ordinal", classes),)
    assert parse_task_specs(["x:multiclass"], column(tmp_path, cells)) == (Task("x", "multiclass", classes),)


def test_row_75_an_order_that_cannot_be_told_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"order of its 3 classes high, low, medium.*--task 'risk:ordinal=high<low<medium'"):
        parse_task_specs(["risk:ordinal"], column(tmp_path, ["low", "medium", "high"], "risk"))


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("x:ordinal=low<medium<high", Task("x", "ordinal", ("low", "medium", "high"))),
        ("x:ordinal=low < Medium < high:fixed=xy", Task("x", "ordinal", ("low", "Medium", "high"), fixed_axes=("x", "y"))),
        ("x:multiclass=medium<low<high", Task("x", "multiclass", ("medium", "low", "high"))),
    ],
)
def test_row_75_the_order_can_be_stated(tmp_path: Path, spec: str, expected: Task) -> None:
    table = column(tmp_path, ["medium", "high", "low", "LOW"])
    (task,) = parse_task_specs([spec], table)
    assert task == expected and list(table.answers(task).values()) == [task.classes[i] for i in map(_index(task), "mhll")]


def _index(task: Task) -> Callable[[str], int]:
    return lambda letter: next(i for i, label in enumerate(task.classes) if label.casefold().startswith(letter))


def test_row_75_a_stated_class_that_no_case_has_is_kept_and_noted(tmp_path: Path) -> None:
    task, _, notes = read(tmp_path, "x:ordinal=none<low<high", ["low", "high"])
    assert task.classes == ("none", "low", "high") and notes == ["x: no case is 'none'"]


def test_row_75_a_cell_that_is_no_stated_class_is_refused_by_line(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"line 3: task x: expected one of \['low', 'high'\], got 'medium'"):
        parse_task_specs(["x:ordinal=low<high"], column(tmp_path, ["low", "medium", "high"]))


@pytest.mark.parametrize("spec", ["x:ordinal=", "x:ordinal=a<", "x:ordinal=a<<b", "x:ordinal=a<A", "x:regression=1<2"])
def test_row_75_statements_that_cannot_be_are_refused(tmp_path: Path, spec: str) -> None:
    with pytest.raises(SettingsError, match=r"stated classes must differ|expected classes in ascending order"):
        parse_task_specs([spec], column(tmp_path, ["a", "b"]))


def test_row_75_a_class_may_hold_the_sign_that_separates(tmp_path: Path) -> None:
    table = column(tmp_path, ["<1 cm", "1 cm", ">1 cm"])
    (task,) = parse_task_specs(["x:ordinal=<1 cm<1 cm<>1 cm"], table)
    assert task.classes == ("<1 cm", "1 cm", ">1 cm")


def test_row_106_twenty_numbers_as_classes_suggest_a_regression(tmp_path: Path) -> None:
    _, _, notes = read(tmp_path, "x", [str(i) for i in range(20)])
    assert notes == ["x: its 20 different numbers are taken as classes; if they are measurements, write --task x:regression"]
    assert read(tmp_path, "x:multiclass", [str(i) for i in range(20)])[2] == []
    assert read(tmp_path, "x", ["1", "2", "3"])[2] == []


@pytest.mark.parametrize(
    ("names", "shared"),
    [
        (["Grade", "grade"], "the same file on some systems"),
        (["a.b", "a_b"], "layer 'task_a_b' of the network"),
        (["risk", "risk_set"], "column 'risk_set' of classification.csv"),
        (["risk", "risk_p_u"], "column 'risk_p_u' of classification.csv"),
        (["risk", "Risk_Spread"], "column 'Risk_Spread' of classification.csv"),
        (["risk", "risk_abstain"], "column 'risk_abstain' of classification.csv"),
        (["outlier_score"], "column 'outlier_score' of classification.csv"),
        (["fold"], "column 'fold' of classification.csv"),
        (["patient_id"], "column 'patient_id' of classification_labels.csv"),
    ],
)
def test_row_135_tasks_that_share_a_name_in_a_file_are_refused(tmp_path: Path, names: list[str], shared: str) -> None:
    header = ",".join(["case", *names])
    (tmp_path / "cases.csv").write_text(f"{header}\na{',u' * len(names)}\nb{',v' * len(names)}\n")
    with pytest.raises(SettingsError, match=shared):
        parse_task_specs(names, read_table(tmp_path / "cases.csv"))


def test_row_135_a_number_and_its_upper_bound_are_refused(tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_text("case,risk,risk_high\na,1.5,u\nb,2,v\n")
    table = read_table(tmp_path / "cases.csv")
    with pytest.raises(SettingsError, match="task 'risk' and task 'risk_high': both would be column 'risk_high'"):
        parse_task_specs(["risk:regression", "risk_high"], table)
    assert [task.name for task in parse_task_specs(["risk_high"], table)] == ["risk_high"]


def test_a_type_that_is_none_is_named_beside_those_that_there_are(tmp_path: Path) -> None:
    types = "binary, multiclass, ordinal, regression, multilabel"
    with pytest.raises(SettingsError, match=f"^task 'x:ordnal': type expected one of {types}, got 'ordnal'$"):
        parse_task_specs(["x:ordnal"], column(tmp_path, ["1", "2"]))


@pytest.mark.parametrize("letters", ["", "xx", "w"])
def test_axes_that_are_none_are_named(tmp_path: Path, letters: str) -> None:
    with pytest.raises(
        SettingsError, match=f"^task 'x:fixed={letters}': fixed expected letters of x, y, z, each once, as in fixed=xy, got "
    ):
        parse_task_specs([f"x:fixed={letters}"], column(tmp_path, ["1", "2"]))


def test_a_statement_without_classes_shows_how_to_state_them(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"^task 'x:ordinal=': expected classes in ascending order, as in NAME:ordinal=low<high$"
    ):
        parse_task_specs(["x:ordinal="], column(tmp_path, ["1", "2"]))


def test_stated_classes_that_are_one_text_are_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^task 'x': stated classes must differ and must not be empty, got \['a', 'A'\]$"):
        parse_task_specs(["x:ordinal=a<A"], column(tmp_path, ["a", "b"]))


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["1.5", "2.5"], "binary"),
        ([str(i) for i in range(20)], "multiclass"),
        ([str(i) for i in range(21)], "regression"),
        (["1", "2", "2.5"], "regression"),
        (["1.0", "2", "3"], "multiclass"),
        (["1", "2", "x"], "multiclass"),
        (["x", "y", "z"], "multiclass"),
    ],
)
def test_the_type_is_told_by_the_number_of_values_and_their_fractions(tmp_path: Path, cells: list[str], kind: str) -> None:
    (task,) = parse_task_specs(["x"], column(tmp_path, cells))
    assert task.type == kind


def test_up_to_ten_numbers_as_classes_bring_no_note_and_eleven_texts_neither(tmp_path: Path) -> None:
    assert read(tmp_path, "x", [str(i) for i in range(10)])[2] == []
    assert len(read(tmp_path, "x", [str(i) for i in range(11)])[2]) == 1
    assert read(tmp_path, "x", [f"t{i}" for i in range(11)])[2] == []
    assert read(tmp_path, "x", [*(str(i) for i in range(10)), "t"])[2] == []


def test_numbers_as_classes_bring_a_note_with_mirrored_axes_too_and_quote_a_name_with_a_blank(tmp_path: Path) -> None:
    table = column(tmp_path, [str(i) for i in range(12)], "x y")
    tasks = parse_task_specs(["x y:fixed=z"], table)
    assert notes_on_columns(table, ["x y:fixed=z"], tasks, []) == [
        "x y: its 12 different numbers are taken as classes; if they are measurements, write --task 'x y:regression'"
    ]


def test_all_absent_classes_are_told(tmp_path: Path) -> None:
    assert read(tmp_path, "x:ordinal=none<low<high<most", ["low", "high"])[2] == ["x: no case is 'none' or 'most'"]


def test_notes_come_from_covariates_too_and_from_every_column(tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_text("case;x;age\na;yes;1,5\nb;no;?\nc;NO;2,5\n")
    table = read_table(tmp_path / "cases.csv")
    assert notes_on_columns(table, ["x"], parse_task_specs(["x"], table), ["age"]) == [
        "x: one class 'NO' is written in several ways (1 'NO', 1 'no')",
        "age: 1 missing (1 '?')",
        "age: decimal commas are read as points, e.g. '1,5'",
    ]


def test_a_number_between_texts_keeps_its_point_and_a_comma_is_refused(tmp_path: Path) -> None:
    assert parse_task_specs(["x"], column(tmp_path, ["low", "3.5", "high"]))[0].classes == ("3.5", "high", "low")
    with pytest.raises(
        TableError, match="line 4: x expected numbers or texts, got '3,5' beside 'low'; write the number with a"
    ):
        parse_task_specs(["x"], column(tmp_path, ["2.5", "low", "3,5", "high"]))


def test_the_first_line_with_the_cell_is_named(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"cases.csv line 3: x holds 'none', and in line 4 'None', which means missing; "):
        parse_task_specs(["x"], column(tmp_path, ["mild", "none", "None", "none", "None"]))
    with pytest.raises(TableError, match=r"cases.csv line 4: x writes one number in two ways, '1' and '1\.0'$"):
        parse_task_specs(["x:multiclass"], column(tmp_path, ["1", "2", "1.0", "1.0"]))


@pytest.mark.parametrize("cell", ["#DIV/0!", "#NAME?"])
def test_errors_of_a_spreadsheet_are_refused_with_the_first_line(tmp_path: Path, cell: str) -> None:
    with pytest.raises(TableError, match=f"cases.csv line 3: x holds {re.escape(repr(cell))}, an error of the spreadsheet$"):
        parse_task_specs(["x"], column(tmp_path, ["a", cell, "b", cell]))


@pytest.mark.parametrize("cells", [["#1", "#2"], ["really?", "sure!"]])
def test_a_text_with_one_sign_of_a_spreadsheets_error_is_a_class(tmp_path: Path, cells: list[str]) -> None:
    assert parse_task_specs(["x"], column(tmp_path, cells))[0].classes == tuple(cells)


def test_a_column_may_be_named_like_a_task_with_a_type(tmp_path: Path) -> None:
    """The name as it stands comes first; only then is it taken apart."""
    (tmp_path / "cases.csv").write_text("case,x,x:y\na,1,u\nb,2,v\n")
    table = read_table(tmp_path / "cases.csv")
    with pytest.raises(SettingsError, match=r"^task 'x:y': .*; the name becomes part of file names: rename the column$"):
        parse_task_specs(["x:y"], table)


def test_an_order_of_two_classes_that_cannot_be_told_is_asked_for_in_words_of_the_command(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_task_specs(["x:ordinal"], column(tmp_path, ["low", "high", "mid"]))
    assert str(caught.value) == (
        "task 'x': cannot tell the order of its 3 classes high, low, mid; state it from the lowest to the highest: "
        "--task 'x:ordinal=high<low<mid' (here in the order of the alphabet: put them right)"
    )


def test_a_column_with_too_few_classes_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"cases.csv: column 'x' does not fit the task: task x: "):
        parse_task_specs(["x:binary"], column(tmp_path, ["1", "2", "3"]))


def test_stated_classes_with_the_separating_sign_within_are_found_the_longest_first(tmp_path: Path) -> None:
    cells = ["<1", "<1 mm", "1<2"]
    (task,) = parse_task_specs(["x:ordinal=<1<<1 mm<1<2"], column(tmp_path, cells))
    assert task.classes == ("<1", "<1 mm", "1<2")


def test_stated_classes_that_are_not_all_in_the_table_are_split_at_the_sign(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="stated classes must differ and must not be empty"):
        parse_task_specs(["x:ordinal=<1<none"], column(tmp_path, ["<1", "more"]))


def test_all_three_axes_may_be_fixed(tmp_path: Path) -> None:
    assert parse_task_specs(["x:fixed=zyx"], column(tmp_path, ["1", "2"]))[0].fixed_axes == ("z", "y", "x")


def test_axes_stand_behind_a_type_without_classes_too(tmp_path: Path) -> None:
    table = column(tmp_path, ["1", "2", "3"])
    for kind, axes in (("regression", ("x",)), ("ordinal", ("y", "z"))):
        (task,) = parse_task_specs([f"x:{kind}:fixed={''.join(axes)}"], table)
        assert (task.type, task.fixed_axes) == (kind, axes)
