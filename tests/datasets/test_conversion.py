"""From a user's folder to an nnU-Net raw dataset; what faults do is in tests/faults/test_convert.py."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from data_builders import dataset, raw_nifti, shared, ten_cases, tree, workspace

from nnduet.datasets.conversion import ConversionSummary, convert
from nnduet.datasets.conversion_summary import TaskCounts
from nnduet.datasets.dataset_writing import MANIFEST_FILE
from nnduet.datasets.layouts import read_folder
from nnduet.datasets.sources import Source
from nnduet.errors import (
    CorruptFileError,
    DatasetError,
    DiskFullError,
    OutputExistsError,
    SettingsError,
    TableError,
)
from nnduet.io.images import read_image
from nnduet.schema import Task
from nnduet.training.labels import read_label_table


def source_of(folder: Path, **options: str) -> Source:
    return read_folder(folder, task_specs=["grade"], **options)  # type: ignore[arg-type]


def run(source: Source, folder: Path, **options: bool) -> ConversionSummary:
    return convert(source, workspace=workspace(folder), dataset_id=7, name="Test", **options)  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten cases c0 … c9 of two classes."""
    return dataset(tmp_path / "user", ten_cases())


def test_a_folder_becomes_a_raw_dataset(folder: Path, tmp_path: Path) -> None:
    summary = run(source_of(folder), tmp_path)
    raw = tmp_path / "raw" / "Dataset007_Test"
    assert sorted(p.name for p in raw.iterdir()) == [
        ".nnduet-written", "classification_labels.csv", "dataset.json", "imagesTr", "labelsTr", "splits_final.json",
    ]  # fmt: skip
    assert json.loads((raw / "dataset.json").read_text()) == {
        "channel_names": {"0": "image"},
        "labels": {"background": 0, "label_1": 1},
        "numTraining": 10,
        "file_ending": ".nii.gz",
        "classification": {"grade": {"type": "binary", "classes": ["a", "b"]}},
        "covariates": [],
    }
    assert (raw / "classification_labels.csv").read_text().splitlines()[:3] == ["case_id,grade", "c0,a", "c1,b"]
    assert len(json.loads((raw / "splits_final.json").read_text())) == 5
    assert (raw / "imagesTr" / "c3_0000.nii.gz").read_bytes() == (folder / "images" / "c3_0000.nii.gz").read_bytes()
    assert summary.tasks == {"grade": TaskCounts("binary", {"a": 5, "b": 5}, 0)}
    assert (summary.num_cases, summary.num_rewritten, summary.rounded_voxels, summary.num_folds) == (10, 0, 0, 5)
    assert json.loads(json.dumps(summary.to_json()))["dataset"] == "Dataset007_Test"


def test_tables_also_stand_where_nnunet_reads_the_folds(folder: Path, tmp_path: Path) -> None:
    run(source_of(folder), tmp_path)
    raw, preprocessed = tmp_path / "raw" / "Dataset007_Test", tmp_path / "preprocessed" / "Dataset007_Test"
    assert tree(preprocessed) == {p.name: p.read_bytes() for p in raw.iterdir() if p.is_file() and p.name != MANIFEST_FILE}


def test_patients_and_covariates_are_written_and_missing_labels_stay_empty(tmp_path: Path) -> None:
    classes = {**ten_cases(), "c4": "NA"}
    cells = {f"c{i}": f"p{i // 2},{i}.5" for i in range(10)}
    folder = dataset(tmp_path / "user", classes, header="case_id,grade,who,age", extra_columns=cells)
    source = read_folder(folder, task_specs=["grade"], group_column="who", covariates=["age"])
    summary = convert(source, workspace=workspace(tmp_path), dataset_id=7, name="Test", num_folds=2)
    with (tmp_path / "raw/Dataset007_Test/classification_labels.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert rows[4] == {"case_id": "c4", "grade": "", "patient_id": "p2", "age": "4.5"}
    assert summary.tasks["grade"].missing == 1 and summary.num_folds == 2


def stored(folder: Path) -> list[dict[str, str]]:
    with (folder / "raw/Dataset007_Test/classification_labels.csv").open() as stream:
        return list(csv.DictReader(stream))


def test_row_73_missing_cells_are_stored_empty_and_counted_in_the_notes(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "user", {**ten_cases(), "c4": "?", "c5": "NULL", "c6": "?"})
    summary = run(source_of(folder), tmp_path)
    assert [row["grade"] for row in stored(tmp_path)] == ["a", "b", "a", "b", "", "", "", "b", "a", "b"]
    assert summary.tasks["grade"] == TaskCounts("binary", {"a": 3, "b": 4}, 3)
    assert summary.notes[0] == "grade: 3 missing (2 '?', 1 'NULL')"


def test_row_74_spellings_of_one_class_are_stored_as_one(tmp_path: Path) -> None:
    texts = ["benign", "Benign ", "malignant", "benign", "MALIGNANT", "malignant"]
    folder = dataset(tmp_path / "user", {f"c{i}": text for i, text in enumerate(texts)})
    summary = convert(source_of(folder), workspace=workspace(tmp_path), dataset_id=7, name="Test", num_folds=2)
    assert [row["grade"] for row in stored(tmp_path)] == ["benign"] * 2 + ["malignant", "benign"] + ["malignant"] * 2
    assert summary.tasks["grade"].classes == {"benign": 3, "malignant": 3}
    assert summary.notes[0] == "grade: one class 'benign' is written in several ways (2 'benign', 1 'Benign')"


def test_row_74_decimal_commas_are_stored_as_points(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "user", ten_cases(), header="case_id;grade;age")
    (folder / "cases.csv").write_text("case_id;grade;age\n" + "".join(f"c{i};{i},5;{i},25\n" for i in range(10)))
    run(read_folder(folder, task_specs=["grade"], covariates=["age"]), tmp_path)
    assert [(row["grade"], row["age"]) for row in stored(tmp_path)] == [(f"{i}.5", f"{i}.25") for i in range(10)]


def test_row_75_the_stated_order_is_stored_with_a_class_that_no_case_has(tmp_path: Path) -> None:
    words = ["low", "high", "medium"]
    folder = dataset(tmp_path / "user", {f"c{i}": words[i % 3] for i in range(9)})
    source = read_folder(folder, task_specs=["grade:ordinal=none<low<medium<high"])
    summary = convert(source, workspace=workspace(tmp_path), dataset_id=7, name="Test", num_folds=3)
    description = json.loads((tmp_path / "raw/Dataset007_Test/dataset.json").read_text())
    assert description["classification"]["grade"] == {"type": "ordinal", "classes": ["none", "low", "medium", "high"]}
    assert summary.tasks["grade"].classes == {"none": 0, "low": 3, "medium": 3, "high": 3}
    assert "grade: no case is 'none'" in summary.notes


def test_row_104_a_master_table_is_converted_with_a_note(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "user", ten_cases())
    with (folder / "cases.csv").open("a") as table:
        table.write("x1,strange\nx2,a\n")
    with pytest.raises(TableError, match="--ignore-extra-rows"):
        source_of(folder)
    summary = run(read_folder(folder, task_specs=["grade"], ignore_extra_rows=True), tmp_path)
    assert summary.notes[0] == "cases.csv: 2 rows of cases without an image are ignored: line 12 'x1', line 13 'x2'"
    assert summary.tasks["grade"].classes == {"a": 5, "b": 5}


@pytest.mark.parametrize(("first", "second"), [("Grade", "grade"), ("a.b", "a_b"), ("risk", "risk_set")])
def test_row_135_tasks_from_python_that_share_a_name_are_refused_as_well(
    folder: Path, tmp_path: Path, first: str, second: str
) -> None:
    source = source_of(folder)
    tasks = tuple(replace(source.tasks[0], name=name) for name in (first, second))
    rows = {case_id: dict.fromkeys((first, second), row["grade"]) for case_id, row in source.rows.items()}
    with pytest.raises(SettingsError, match=r"both would be|the same file"):
        run(replace(source, tasks=tasks, rows=rows), tmp_path)
    assert not (tmp_path / "raw").exists()


def test_row_136_labels_that_look_like_formulas_are_stored_as_text(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "user", {f"c{i}": ["=1", "b"][i % 2] for i in range(10)})
    run(source_of(folder), tmp_path)
    assert [row["grade"] for row in stored(tmp_path)][:2] == ["'=1", "b"]
    table = tmp_path / "raw/Dataset007_Test/classification_labels.csv"
    read = read_label_table(table, (Task("grade", "binary", ("=1", "b")),))
    assert [read.values[f"c{i}"]["grade"] for i in range(4)] == [0.0, 1.0, 0.0, 1.0]


def test_a_covariate_that_is_also_a_task_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="its own name"):
        run(replace(source_of(folder), covariates=("grade",)), tmp_path)


def test_test_images_go_to_images_ts_and_nowhere_else(folder: Path, tmp_path: Path) -> None:
    (dataset(tmp_path / "other", {"t0": "a"}) / "images").rename(folder / "imagesTs")
    summary = run(source_of(folder), tmp_path)
    raw = tmp_path / "raw" / "Dataset007_Test"
    assert [p.name for p in (raw / "imagesTs").iterdir()] == ["t0_0000.nii.gz"] and summary.num_test_cases == 1
    assert "t0" not in (raw / "classification_labels.csv").read_text() + (raw / "splits_final.json").read_text()


def test_a_dry_run_checks_everything_and_writes_nothing(folder: Path, tmp_path: Path) -> None:
    before, seen = tree(tmp_path), []
    summary = convert(
        source_of(folder),
        workspace=workspace(tmp_path),
        dataset_id=7,
        name="T",
        dry_run=True,
        progress=lambda *a: seen.append(a),
    )
    assert tree(tmp_path) == before and summary.dry_run and seen[-1] == (10, 10, "c9")
    (folder / "images" / "c5_0000.nii.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(CorruptFileError):
        run(source_of(folder), tmp_path, dry_run=True)


def test_a_fault_in_the_last_case_is_found_before_the_first_file_is_written(folder: Path, tmp_path: Path) -> None:
    path = folder / "labels" / "c9.nii.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CorruptFileError, match=r"c9\.nii\.gz"):
        run(source_of(folder), tmp_path)
    assert not (tmp_path / "raw").exists() and not (tmp_path / "preprocessed").exists()


@pytest.mark.parametrize("ending", [".nii", ".png"])
def test_nii_becomes_nii_gz_and_png_stays_png(tmp_path: Path, ending: str) -> None:
    run(source_of(dataset(tmp_path / "user", ten_cases(), ending=ending)), tmp_path)
    raw = tmp_path / "raw" / "Dataset007_Test"
    written = ".png" if ending == ".png" else ".nii.gz"
    assert json.loads((raw / "dataset.json").read_text())["file_ending"] == written
    np.testing.assert_array_equal(read_image(raw / "imagesTr" / f"c3_0000{written}").array, 3)
    assert len(list((raw / "labelsTr").glob(f"*{written}"))) == 10


def test_repaired_files_look_the_same_to_nnunets_reader(folder: Path, tmp_path: Path) -> None:
    voxels = np.arange(120, dtype=np.int64).reshape(6, 5, 4, 1)
    raw_nifti(folder / "images" / "c0_0000.nii.gz", voxels, edit=lambda header: header.__setitem__("qoffset_x", 77))
    raw_nifti(
        folder / "labels" / "c0.nii.gz",
        np.full((6, 5, 4), 1.0000152587890625, np.float32),
        affine=np.diag([1000.0, 1000, 1000, 1]) @ np.array([[2.0, 0, 0, 10], [0, 3, 0, 20], [0, 0, 4, 30], [0, 0, 0, 1]]),
        edit=lambda header: header.__setitem__("xyzt_units", 3),
    )
    summary = run(source_of(folder), tmp_path)
    for name in ("imagesTr/c0_0000.nii.gz", "labelsTr/c0.nii.gz"):
        written = SimpleITK.ReadImage(str(tmp_path / "raw/Dataset007_Test" / name))
        assert written.GetSpacing() == (2.0, 3.0, 4.0) and written.GetOrigin() == (-10.0, -20.0, 30.0)
        assert written.GetSize() == (6, 5, 4)
    assert (summary.rounded_masks, summary.rounded_voxels, summary.num_rewritten) == (1, 120, 2)
    assert any("micron" in note for note in summary.notes) and any("disagree" in note for note in summary.notes)


def test_nifti_2_is_written_as_nifti_1_which_nnunets_reader_reads(folder: Path, tmp_path: Path) -> None:
    places = ("imagesTr", "c2_0000.nii.gz"), ("labelsTr", "c2.nii.gz")
    voxels = {}
    for place, name in places:
        path = folder / {"imagesTr": "images", "labelsTr": "labels"}[place] / name
        old = nib.Nifti1Image.from_filename(path)
        voxels[place] = np.asarray(old.dataobj)
        nib.Nifti2Image(voxels[place], old.affine).to_filename(path)
    assert run(source_of(folder), tmp_path).num_rewritten == 2
    for place, name in places:
        found = SimpleITK.ReadImage(str(tmp_path / "raw" / "Dataset007_Test" / place / name))
        np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(found), voxels[place].T)


def test_many_notes_of_one_kind_are_counted(folder: Path, tmp_path: Path) -> None:
    for i in range(10):
        raw_nifti(folder / "images" / f"c{i}_0000.nii.gz", np.zeros((6, 5, 4, 1), np.uint8))
    notes = run(source_of(folder), tmp_path).notes
    assert len(notes) == 6 and notes[-1] == "… and 5 more files of that kind"


def test_sources_that_lack_something_are_refused(folder: Path, tmp_path: Path) -> None:
    source = source_of(folder)
    with pytest.raises(DatasetError, match="no training case"):
        run(replace(source, cases=()), tmp_path)
    with pytest.raises(DatasetError, match="no mask: c0"):
        run(replace(source, cases=(replace(source.cases[0], label=None), *source.cases[1:])), tmp_path)
    with pytest.raises(DatasetError, match="c0: expected 2 channels, got 1"):
        run(replace(source, channel_names={"0": "CT", "1": "PET"}), tmp_path)
    with pytest.raises(DatasetError, match="c0: no row"):
        run(replace(source, rows={}), tmp_path)
    for dataset_id, name in ((0, "a"), (1000, "a"), (7, "a b"), (7, "../a")):
        with pytest.raises(SettingsError):
            convert(source, workspace=workspace(tmp_path), dataset_id=dataset_id, name=name)


def test_a_dataset_without_tasks_is_plain_segmentation(folder: Path, tmp_path: Path) -> None:
    (folder / "cases.csv").unlink()
    assert run(read_folder(folder), tmp_path).tasks == {}


def test_converting_again_changes_nothing(folder: Path, tmp_path: Path) -> None:
    first = run(source_of(folder), tmp_path)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert run(source_of(folder), tmp_path) == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == stamps


def test_an_id_taken_by_another_name_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "preprocessed" / "Dataset007_Other").mkdir(parents=True)
    with pytest.raises(OutputExistsError, match="taken by Dataset007_Other"):
        run(source_of(folder), tmp_path)


def test_other_labels_replace_a_finished_dataset_only_on_purpose(folder: Path, tmp_path: Path) -> None:
    run(source_of(folder), tmp_path)
    table = folder / "cases.csv"
    table.write_text(table.read_text().replace("c0,a", "c0,c"))
    before = tree(tmp_path)
    with pytest.raises(OutputExistsError, match=r"classification_labels\.csv.*--replace"):
        run(source_of(folder), tmp_path)
    assert tree(tmp_path) == before
    summary = run(source_of(folder), tmp_path, replace=True)
    assert summary.tasks["grade"].classes == {"a": 4, "b": 5, "c": 1}
    for root in ("raw", "preprocessed"):
        assert "c0,c" in (tmp_path / root / "Dataset007_Test" / "classification_labels.csv").read_text()


def test_row_112_what_helps_beside_a_finished_dataset_is_what_convert_can_do(folder: Path, tmp_path: Path) -> None:
    run(source_of(folder), tmp_path)
    (folder / "cases.csv").write_text((folder / "cases.csv").read_text().replace("c0,a", "c0,c"))
    with pytest.raises(OutputExistsError) as caught:
        run(source_of(folder), tmp_path)
    assert caught.value.remedy.startswith("add --replace (replace=True)")


def test_a_reformatted_dataset_json_is_the_same_and_a_broken_one_is_not(folder: Path, tmp_path: Path) -> None:
    run(source_of(folder), tmp_path)
    copy = tmp_path / "preprocessed" / "Dataset007_Test" / "dataset.json"
    copy.write_text(json.dumps(json.loads(copy.read_text())))
    run(source_of(folder), tmp_path)
    copy.write_text("{")
    with pytest.raises(OutputExistsError, match=r"dataset\.json"):
        run(source_of(folder), tmp_path)


def test_files_of_other_cases_are_never_mixed_in(folder: Path, tmp_path: Path) -> None:
    run(source_of(folder), tmp_path)
    for path in (folder / "images" / "c9_0000.nii.gz", folder / "labels" / "c9.nii.gz"):
        path.unlink()
    table = folder / "cases.csv"
    table.write_text(table.read_text().replace("c9,b\n", ""))
    for option in (False, True):
        with pytest.raises(OutputExistsError, match="2 files of other cases"):
            run(source_of(folder), tmp_path, replace=option)


def test_a_disk_that_fills_up_leaves_no_half_file_and_the_next_run_completes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, real = [0], os.fsync

    def full(descriptor: int) -> None:
        calls[0] += 1
        if calls[0] == 5:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFullError):
        run(source_of(folder), tmp_path)
    assert not (tmp_path / "raw/Dataset007_Test/dataset.json").exists()
    assert not list(tmp_path.rglob(".nnduet-tmp-*"))
    run(source_of(folder), tmp_path)
    assert (tmp_path / "raw/Dataset007_Test/dataset.json").exists()


@pytest.mark.parametrize(("name", "task", "num_cases"), [("busi", "label", 148), ("acdc", "group", 99)])
def test_shared_data_pass_every_check(tmp_path: Path, name: str, task: str, num_cases: int) -> None:
    summary = convert(
        read_folder(shared(name), task_specs=[task]), workspace=workspace(tmp_path), dataset_id=1, name=name, dry_run=True
    )
    assert summary.num_cases == num_cases and summary.num_rewritten == 0 and summary.notes == ()


def test_lidc_with_its_own_folds_passes_every_check(tmp_path: Path) -> None:
    source = read_folder(shared("lidc"), task_specs=["malignancy3", "texture:ordinal"], group_column="patient_id")
    summary = convert(source, workspace=workspace(tmp_path), dataset_id=1, name="lidc", dry_run=True)
    assert summary.tasks["malignancy3"].classes == {"0": 263, "1": 255, "2": 176}
    assert summary.notes == ("fold 1 val has no case of texture class 2",)
