from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from data_builders import dataset, shared, ten_cases, workspace

from nnduet.datasets.conversion import convert
from nnduet.datasets.folds import check_folds
from nnduet.datasets.layouts import read_folder
from nnduet.datasets.subtype_folders import read_subtype_folders
from nnduet.errors import DatasetError, SettingsError, TableError
from nnduet.schema import Task


def test_a_plain_folder_is_read(tmp_path: Path) -> None:
    source = read_folder(dataset(tmp_path / "d", ten_cases()), task_specs=["grade"])
    assert [case.case_id for case in source.cases] == [f"c{i}" for i in range(10)]
    assert source.cases[0].label == tmp_path / "d" / "labels" / "c0.nii.gz"
    assert source.tasks == (Task("grade", "binary", ("a", "b")),) and source.rows["c1"] == {"grade": "b"}
    assert source.channel_names == {"0": "image"} and source.labels is None and source.groups is None


def test_dataset_json_names_channels_and_labels_and_passes_other_keys_on(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "d", ten_cases())
    description = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "cyst": 1}, "licence": "CC0", "numTraining": 3}
    (folder / "dataset.json").write_text(json.dumps(description))
    source = read_folder(folder, task_specs=["grade"])
    assert source.channel_names == {"0": "CT"} and source.labels == {"background": 0, "cyst": 1}
    assert source.extra == {"licence": "CC0"}


def test_nnunet_names_of_folders_are_understood_and_test_images_need_no_row(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "d", ten_cases())
    (folder / "images").rename(folder / "imagesTr")
    (folder / "labels").rename(folder / "labelsTr")
    other = dataset(tmp_path / "other", {"t0": "a"})
    (other / "images").rename(folder / "imagesTs")
    source = read_folder(folder, task_specs=["grade"])
    assert [case.case_id for case in source.test_cases] == ["t0"] and source.test_cases[0].label is None


def test_each_part_can_lie_elsewhere(tmp_path: Path) -> None:
    first, second = dataset(tmp_path / "a", ten_cases()), dataset(tmp_path / "b", ten_cases(), header="ID,grade")
    (first / "folds.json").write_text(json.dumps([{"train": ["c0"], "val": ["c1"]}]))
    source = read_folder(
        tmp_path,
        images=first / "images",
        labels=second / "labels",
        table=second / "cases.csv",
        splits=first / "folds.json",
        task_specs=["grade"],
    )
    assert source.cases[0].images[0].is_relative_to(first) and source.folds == [{"train": ["c0"], "val": ["c1"]}]


def test_several_folders_of_masks_are_read_by_name(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "d", ten_cases())
    shutil.copytree(folder / "labels", folder / "late")
    source = read_folder(folder, task_specs=["grade"], labels={"ED": folder / "labels", "ES": folder / "late"})
    assert source.mask_names == ("ED", "ES")
    assert source.cases[0].masks == (folder / "labels" / "c0.nii.gz", folder / "late" / "c0.nii.gz")
    (folder / "late" / "c4.nii.gz").unlink()
    with pytest.raises(DatasetError, match=r"late: 1 training images have no mask: c4"):
        read_folder(folder, task_specs=["grade"], labels={"ED": folder / "labels", "ES": folder / "late"})


def test_groups_and_covariates_come_from_the_table(tmp_path: Path) -> None:
    cells = {f"c{i}": f"p{i // 2},{30 + i}" for i in range(10)}
    folder = dataset(tmp_path / "d", ten_cases(), header="case_id,grade,patient_id,age", extra_columns=cells)
    source = read_folder(folder, task_specs=["grade"], covariates=["age"])
    assert source.groups is not None and source.groups["c3"] == "p1" and source.rows["c3"] == {"grade": "b", "age": "33"}


def test_a_case_without_patient_and_a_covariate_that_is_no_number_are_refused_by_line(tmp_path: Path) -> None:
    cells = {f"c{i}": f"{'' if i == 4 else i},x" for i in range(10)}
    folder = dataset(tmp_path / "d", ten_cases(), header="case_id,grade,who,age", extra_columns=cells)
    with pytest.raises(TableError, match="line 6: case 'c4' has no who"):
        read_folder(folder, task_specs=["grade"], group_column="who")
    with pytest.raises(TableError, match="line 2: age expected a number, got 'x'"):
        read_folder(folder, task_specs=["grade"], covariates=["age"])


def test_a_missing_and_an_unknown_case_are_table_errors(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "d", ten_cases())
    text = (folder / "cases.csv").read_text()
    (folder / "cases.csv").write_text(text.replace("c9,b\n", ""))
    with pytest.raises(TableError, match="'c9'"):
        read_folder(folder, task_specs=["grade"])
    (folder / "cases.csv").write_text(text + "d0,b\n")
    with pytest.raises(TableError, match="line 12 'd0'"):
        read_folder(folder, task_specs=["grade"])


def test_images_without_masks_and_masks_without_images_are_named(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "d", ten_cases())
    mask = folder / "labels" / "c3.nii.gz"
    mask.rename(folder / "labels" / "zz.nii.gz")
    with pytest.raises(DatasetError, match="1 training images have no mask: c3"):
        read_folder(folder, task_specs=["grade"])
    (folder / "images" / "c3_0000.nii.gz").unlink()
    with pytest.raises(DatasetError, match="1 masks have no image: zz"):
        read_folder(folder, task_specs=["grade"])


def test_tasks_need_a_table_and_a_table_needs_tasks(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "d", ten_cases())
    with pytest.raises(SettingsError, match="name at least one task; the columns"):
        read_folder(folder)
    (folder / "cases.csv").unlink()
    with pytest.raises(DatasetError, match="no case table"):
        read_folder(folder, task_specs=["grade"])
    assert read_folder(folder).tasks == ()


@pytest.mark.parametrize("content", ["{", "[]", '{"labels": []}', '{"channel_names": {"0": "CT", "2": "PET"}}'])
def test_a_malformed_dataset_json_is_refused(tmp_path: Path, content: str) -> None:
    folder = dataset(tmp_path / "d", ten_cases())
    (folder / "dataset.json").write_text(content)
    with pytest.raises(DatasetError, match=r"dataset\.json|channels"):
        read_folder(folder, task_specs=["grade"])


def test_wrong_channel_numbers_in_dataset_json_are_refused(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "d", ten_cases())
    (folder / "dataset.json").write_text('{"channel_names": {"1": "CT"}}')
    with pytest.raises(DatasetError, match="expected keys 0 to 0"):
        read_folder(folder, task_specs=["grade"])


def challenge(folder: Path, parts: dict[str, list[str]]) -> Path:
    """The challenge layout; keys like ``train/subtype0`` or ``test``, values case ids."""
    for part, case_ids in parts.items():
        made = dataset(folder / "made" / part, dict.fromkeys(case_ids, ""))
        (folder / part).mkdir(parents=True)
        for path in (made / "images").iterdir():
            path.rename(folder / part / path.name)
        for path in (made / "labels").iterdir():
            if part != "test":
                path.rename(folder / part / path.name)
    return folder


def test_the_challenge_layout_gives_tasks_folds_and_test_cases_for_any_number_of_subtypes(tmp_path: Path) -> None:
    parts = {f"train/subtype{n}": [f"quiz_{n}_{i:03d}" for i in range(5)] for n in (0, 1, 2, 10)}
    parts |= {f"validation/subtype{n}": [f"quiz_{n}_9{i:02d}" for i in range(2)] for n in (0, 1, 2, 10)}
    source = read_subtype_folders(challenge(tmp_path, {**parts, "test": ["quiz_037"]}))
    assert source.tasks == (Task("subtype", "multiclass", ("0", "1", "2", "10")),)
    assert source.rows["quiz_10_900"] == {"subtype": "10"} and len(source.cases) == 28
    assert [case.case_id for case in source.test_cases] == ["quiz_037"]
    assert source.folds is not None and len(source.folds) == 5
    assert len(source.folds[0]["train"]) == 20 and len(source.folds[0]["val"]) == 8
    for fold in source.folds:
        assert not any("_9" in case_id for case_id in fold["train"])
    assert check_folds(source.folds, [case.case_id for case in source.cases])


def test_row_136_the_challenge_layout_asks_for_results_that_name_files(tmp_path: Path) -> None:
    parts = {f"{part}/subtype{n}": [f"{part}{n}{i}" for i in range(2)] for part in ("train", "validation") for n in (0, 1)}
    source = read_subtype_folders(challenge(tmp_path, parts))
    convert(source, workspace=workspace(tmp_path / "work"), dataset_id=7, name="Test")
    description = json.loads((tmp_path / "work/raw/Dataset007_Test/dataset.json").read_text())
    assert description["names_in_results"] == "files" and description["file_ending"] == ".nii.gz"


def test_two_subtypes_are_binary_names_are_sorted_and_few_cases_have_one_fold(tmp_path: Path) -> None:
    parts = {"train/subtype_b": ["x"], "train/subtype_a": ["y"], "validation/subtype_a": ["z"]}
    source = read_subtype_folders(challenge(tmp_path, parts), task_name="kind")
    assert source.tasks == (Task("kind", "binary", ("a", "b")),)
    assert source.folds == [{"train": ["x", "y"], "val": ["z"]}]


def test_without_validation_the_folds_are_left_to_the_conversion(tmp_path: Path) -> None:
    assert read_subtype_folders(challenge(tmp_path, {"train/subtype0": ["x"], "train/subtype1": ["y"]})).folds is None


def test_a_challenge_tree_that_does_not_fit_together_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="expected folders subtype0"):
        read_subtype_folders(tmp_path)
    with pytest.raises(DatasetError, match="at least two subtypes"):
        read_subtype_folders(challenge(tmp_path / "one", {"train/subtype0": ["x"]}))
    with pytest.raises(DatasetError, match="'x' is also in subtype 0"):
        read_subtype_folders(challenge(tmp_path / "twice", {"train/subtype0": ["x"], "train/subtype1": ["x"]}))
    both = {"train/subtype0": ["x"], "train/subtype1": ["y"], "validation/subtype0": ["x"]}
    with pytest.raises(DatasetError, match="train and validation: x"):
        read_subtype_folders(challenge(tmp_path / "both", both))


@pytest.mark.parametrize(("gone", "message"), [("x.nii.gz", "'x' has no mask"), ("x_0000.nii.gz", "'x' has no image x_0000")])
def test_a_challenge_case_without_mask_or_image_is_named(tmp_path: Path, gone: str, message: str) -> None:
    folder = challenge(tmp_path, {"train/subtype0": ["x", "w"], "train/subtype1": ["y"]})
    (folder / "train" / "subtype0" / gone).unlink()
    with pytest.raises(DatasetError, match=message):
        read_subtype_folders(folder)


def test_challenge_channels_must_be_complete_and_equal_in_number(tmp_path: Path) -> None:
    folder = challenge(tmp_path, {"train/subtype0": ["x"], "train/subtype1": ["y"]})
    first = folder / "train" / "subtype0" / "x_0000.nii.gz"
    second = first.with_name("x_0001.nii.gz")
    second.write_bytes(first.read_bytes())
    with pytest.raises(DatasetError, match="case 'y': expected 2 channels, got 1"):
        read_subtype_folders(folder)
    second.rename(first.with_name("x_0002.nii.gz"))
    with pytest.raises(DatasetError, match="channels from 0000 on"):
        read_subtype_folders(folder)


@pytest.mark.parametrize(
    ("name", "options", "num_cases", "num_groups"),
    [
        ("lidc", {"task_specs": ["malignancy3"], "id_column": "case", "group_column": "patient_id"}, 694, 390),
        ("acdc", {"task_specs": ["group"], "covariates": ["height_cm", "weight_kg"]}, 99, None),
        ("busi", {"task_specs": ["label"]}, 148, None),
        ("busbra", {"task_specs": ["BIRADS:ordinal"], "id_column": "ID", "group_column": "Case"}, 1875, 1064),
    ],
)
def test_the_shared_data_are_read(name: str, options: dict[str, object], num_cases: int, num_groups: int | None) -> None:
    source = read_folder(shared(name), **options)  # type: ignore[arg-type]
    assert len(source.cases) == num_cases
    assert (None if source.groups is None else len(set(source.groups.values()))) == num_groups
