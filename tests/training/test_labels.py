"""Case labels as the trainer sees them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nnduet.errors import DatasetError, TableError
from nnduet.schema import LABELS_FILE, Task
from nnduet.training.labels import CaseLabels, inner_fold, read_case_labels, read_label_table

GRADE = Task("grade", "binary", ("a", "b"))
SUBTYPE = Task("subtype", "multiclass", ("0", "1", "2"))
AGE = Task("age", "regression")


def table(folder: Path, text: str) -> list[Path]:
    folder.mkdir(exist_ok=True)
    (folder / LABELS_FILE).write_text(text, encoding="utf-8")
    return [folder]


def labels(**grades: float) -> CaseLabels:
    return CaseLabels((GRADE,), {case_id: {"grade": value} for case_id, value in grades.items()}, {})


def test_cells_become_class_indices_and_values(tmp_path: Path) -> None:
    read = read_case_labels(table(tmp_path, "case_id,grade,age\nx,b,41.5\n"), (GRADE, AGE))
    assert read.values == {"x": {"grade": 1.0, "age": 41.5}}


def test_an_empty_cell_is_a_missing_label(tmp_path: Path) -> None:
    read = read_case_labels(table(tmp_path, "case_id,grade\nx,\n"), (GRADE,))
    assert np.isnan(read.column(GRADE, ["x"])).all()


def test_the_header_of_the_first_seed_is_understood(tmp_path: Path) -> None:
    read = read_case_labels(table(tmp_path, "Case_id,Subtype\nx,2\ny,0\n"), (SUBTYPE,))
    assert read.column(SUBTYPE, ["y", "x"]).tolist() == [0.0, 2.0]


def test_the_first_folder_with_a_table_wins(tmp_path: Path) -> None:
    first = table(tmp_path / "first", "case_id,grade\nx,a\n")
    second = table(tmp_path / "second", "case_id,grade\nx,b\n")
    assert read_case_labels([tmp_path / "none", *second, *first], (GRADE,)).values["x"]["grade"] == 1.0


def test_a_byte_order_mark_does_not_hide_the_case_column(tmp_path: Path) -> None:
    assert "x" in read_case_labels(table(tmp_path, "\ufeffcase_id,grade\nx,a\n"), (GRADE,)).values


def test_patients_come_from_the_table_and_a_case_without_one_is_its_own(tmp_path: Path) -> None:
    read = read_case_labels(table(tmp_path, "case_id,grade,patient_id\nx,a,P1\ny,b,\n"), (GRADE,))
    assert read.patients(["x", "y", "z"]) == ["P1", "y", "z"]


def test_no_tasks_need_no_table(tmp_path: Path) -> None:
    assert read_case_labels([tmp_path], ()).tasks == ()


def test_tasks_without_a_table_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=LABELS_FILE):
        read_case_labels([tmp_path], (GRADE,))


@pytest.mark.parametrize("text", ["case_id,other\nx,a\n", "name,grade\nx,a\n", ""])
def test_a_table_without_the_columns_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(TableError, match="expected columns"):
        read_case_labels(table(tmp_path, text), (GRADE,))


def test_a_cell_that_names_no_class_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"line 3: .*'c'"):
        read_case_labels(table(tmp_path, "case_id,grade\nx,a\ny,c\n"), (GRADE,))


def test_an_unknown_case_has_no_label() -> None:
    assert np.isnan(labels(x=1.0).column(GRADE, ["y"])).all()


def test_balancing_repeats_the_rare_class_until_both_are_drawn_equally_often() -> None:
    found = labels(x=0, y=0, z=0, w=1).balanced(["x", "y", "z", "w"])
    assert {c: found.count(c) for c in "xyzw"} == {"x": 4, "y": 4, "z": 4, "w": 12}


def test_a_case_without_label_is_drawn_as_often_as_the_mean() -> None:
    found = labels(x=0, y=0, z=1, w=float("nan")).balanced(["x", "y", "z", "w"])
    assert {c: found.count(c) for c in "xyzw"} == {"x": 4, "y": 4, "z": 8, "w": 5}


def test_nothing_to_balance_leaves_the_cases_alone() -> None:
    assert labels(x=float("nan")).balanced(["x"]) == ["x"]
    assert labels(x=0, y=1).balanced(["x", "y"]) == ["x", "y"]
    assert CaseLabels((AGE,), {"x": {"age": 3.0}}, {}).balanced(["x"]) == ["x"]


def test_a_patient_is_always_in_the_same_inner_part_and_the_parts_are_about_equal() -> None:
    parts = [inner_fold(f"patient {i}") for i in range(300)]
    assert parts == [inner_fold(f"patient {i}") for i in range(300)]
    assert min(parts.count(k) for k in range(3)) > 80


def test_covariates_are_numbers_and_an_empty_one_is_left_out(tmp_path: Path) -> None:
    (tmp_path / LABELS_FILE).write_text("case_id,grade,height\na,low,170.5\nb,high,\n")
    labels = read_case_labels([tmp_path], (Task("grade", "binary", ("low", "high")),), ["height"])
    assert labels.covariates == {"a": {"height": 170.5}, "b": {}}


def test_a_covariate_that_is_no_number_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / LABELS_FILE).write_text("case_id,grade,height\na,low,tall\n")
    with pytest.raises(TableError, match=r"line 2.*tall"):
        read_case_labels([tmp_path], (Task("grade", "binary", ("low", "high")),), ["height"])


def test_row_76_labels_in_any_form_that_convert_reads(tmp_path: Path) -> None:
    text = "sep=;\nID;Grade;age;height;patient_id;\nx;B ;41,5;1,75;P1;\ny;a;?;NA;-;\nz;NULL;40;2;;\n"
    (tmp_path / "other.csv").write_bytes(text.encode("utf-16"))
    read = read_label_table(tmp_path / "other.csv", (GRADE, AGE), ["height"])
    assert read.column(GRADE, "xy").tolist() == [1.0, 0.0] and np.isnan(read.column(GRADE, ["z"])).all()
    assert read.column(AGE, "xz").tolist() == [41.5, 40.0] and np.isnan(read.column(AGE, ["y"])).all()
    assert read.covariates == {"x": {"height": 1.75}, "y": {}, "z": {"height": 2.0}}
    assert read.groups == {"x": "P1"}


def test_row_76_the_column_of_case_ids_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("image,grade\nx,b\n")
    assert read_label_table(tmp_path / "other.csv", (GRADE,), id_column="image").values == {"x": {"grade": 1.0}}


def test_row_135_columns_that_differ_in_letter_case_only_are_two(tmp_path: Path) -> None:
    other = Task("Grade", "binary", ("u", "v"))
    (tmp_path / "labels.csv").write_text("case_id,Grade,grade\nx,v,a\n")
    assert read_label_table(tmp_path / "labels.csv", (GRADE, other)).values == {"x": {"grade": 0.0, "Grade": 1.0}}
