"""Tasks through JSON, and axes that must not be mirrored."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from nnduet.errors import DatasetError, SettingsError
from nnduet.schema import Task, Workspace, folds_with
from nnduet.task_list import check_new_tasks, check_tasks, tasks_from_json, tasks_to_json


def test_fixed_axes_survive_json() -> None:
    tasks = (Task("side", "binary", ("left", "right"), fixed_axes=("x", "z")), Task("age", "regression", unit="y"))
    assert tasks_from_json(json.loads(json.dumps(tasks_to_json(tasks)))) == tasks


def test_fixed_axes_are_written_only_where_there_are_any() -> None:
    assert tasks_to_json((Task("age", "regression"),)) == {"age": {"type": "regression"}}


@pytest.mark.parametrize("axes", [("w",), ("x", "x"), ("xy",)])
def test_an_axis_that_cannot_be_is_refused(axes: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError, match="fixed axes expected some of"):
        Task("age", "regression", fixed_axes=axes)


@pytest.mark.parametrize("name", ["../../x", "HER2+/-", "a\nb", "", "a:b", "con"])
def test_row_135_a_task_whose_name_is_no_file_name_is_refused_wherever_it_comes_from(name: str) -> None:
    with pytest.raises(SettingsError, match="task"):
        tasks_from_json({name: {"type": "regression"}})


def test_row_135_tasks_of_a_file_that_share_a_layer_are_refused() -> None:
    with pytest.raises(SettingsError, match="'task_a_b'"):
        tasks_from_json({"a.b": {"type": "regression"}, "a_b": {"type": "regression"}})


def test_row_135_a_covariate_that_is_a_task_or_a_column_is_refused() -> None:
    with pytest.raises(SettingsError, match="own name"):
        check_tasks([Task("age", "regression")], ["age"])
    with pytest.raises(SettingsError, match="covariate 'Age' and task 'age': both would be column 'age'"):
        check_tasks([Task("age", "regression")], ["Age"])
    with pytest.raises(SettingsError, match="nnDuet's own column and covariate 'patient_id'"):
        check_tasks([], ["patient_id"])


def test_a_new_dataset_has_no_class_with_a_bar_but_an_old_one_is_read() -> None:
    (task,) = tasks_from_json({"x": {"type": "binary", "classes": ["a|b", "c"]}})
    with pytest.raises(SettingsError, match=r"must not hold \|"):
        check_new_tasks([task])


def test_row_74_a_new_dataset_has_no_classes_that_differ_in_letter_case_only() -> None:
    with pytest.raises(SettingsError, match="differ in more than letter case"):
        check_new_tasks([Task("x", "binary", ("Benign", "benign"))])


@pytest.mark.parametrize("label", ["", " ", "a\nb", "a\x1b[2J", "\u202ea"])
def test_a_class_that_cannot_be_shown_is_refused(label: str) -> None:
    with pytest.raises(SettingsError, match="printable texts"):
        Task("x", "binary", ("a", label))


@pytest.mark.parametrize(
    ("cell", "code"), [("Benign", 0), (" MALIGNANT ", 1), ("malignant", 1), ("?", None), ("", None), ("NULL", None)]
)
def test_row_76_a_cell_is_encoded_as_convert_reads_it(cell: str, code: int | None) -> None:
    value = Task("x", "binary", ("benign", "malignant")).encode(cell)
    assert math.isnan(value) if code is None else value == code


def test_row_76_a_number_is_its_class_however_it_is_written() -> None:
    task = Task("x", "ordinal", ("1", "2.5", "10"))
    assert [task.encode(cell) for cell in ("1.0", "2,5", "10.")] == [0.0, 1.0, 2.0]
    assert Task("age", "regression").encode("40,5") == 40.5


def test_classes_of_old_datasets_keep_their_meaning() -> None:
    task = Task("x", "multiclass", ("None", "True", "true", "?"))
    assert [task.encode(cell) for cell in task.classes] == [0.0, 1.0, 2.0, 3.0]
    with pytest.raises(DatasetError, match="got 'TRUE'"):
        task.encode("TRUE")


def test_row_112_what_helps_where_a_dataset_is_missing_or_there_twice(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, tmp_path, tmp_path)
    with pytest.raises(DatasetError, match="got none") as caught:
        workspace.dataset_name(9)
    assert caught.value.remedy == "`nnduet convert … --dataset-id 9` makes it; if it lies elsewhere, name its --workspace"
    for name in ("Dataset009_A", "Dataset009_B"):
        (tmp_path / name).mkdir()
    with pytest.raises(DatasetError, match="Dataset009_B") as caught:
        workspace.dataset_name(9)
    assert caught.value.remedy == "keep one of them; one id is one dataset"


def test_folds_are_numbers_or_all_and_copies_are_not(tmp_path: Path) -> None:
    for name in ("fold_10", "fold_2", "fold_all", "fold_0 (copy)", "fold_old", "fold_"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "progress.csv").touch()
    (tmp_path / "fold_2" / "progress.csv").unlink()
    assert folds_with(tmp_path, "progress.csv") == ["10", "all"]
    assert folds_with(tmp_path, "") == ["10", "2", "all"]
    assert folds_with(tmp_path / "nothing", "") == []
