"""Folders in, metrics.json and per_case.csv out."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnduet.errors import (
    AmbiguousFileError,
    CorruptFileError,
    DatasetError,
    LabelError,
    SettingsError,
    TableError,
    UnreadableFileError,
)
from nnduet.evaluation.answer_tables import read_rows
from nnduet.evaluation.evaluate import METRICS_FILE, PER_CASE_FILE, evaluate
from nnduet.evaluation.stored_metrics import Metrics
from nnduet.evaluation.summary import SummaryRow, format_summary
from nnduet.io.csv_text import csv_text
from nnduet.io.geometry import Geometry
from nnduet.io.images import write_image, write_segmentation
from nnduet.records import record_object
from nnduet.schema import Task

LABELS = {"background": 0, "organ": 1, "lesion": 2}
SUBTYPE = Task("subtype", "binary", ("a", "b"))
AGE = Task("age", "regression", unit="y")
HEADER = "case_id,subtype,subtype_p_a,subtype_p_b,age,note\n"


def write_mask(
    folder: Path,
    case_id: str,
    *bounds: tuple[int, int, int],
    shape: tuple[int, int, int] = (4, 8, 8),
    ending: str = ".nii.gz",
    spacing: float = 1.0,
) -> None:
    """A mask with one box per (label, first row, last row)."""
    array = np.zeros(shape, dtype=np.uint8)
    for label, first, last in bounds:
        array[:, first:last, 2:6] = label
    folder.mkdir(exist_ok=True)
    write_segmentation(folder / f"{case_id}{ending}", array, Geometry(shape, (spacing, spacing, spacing)))


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Two cases: ``one`` is outlined perfectly, ``two`` half overlaps and lacks its lesion; both have masks and rows."""
    references, predictions = tmp_path / "references", tmp_path / "predictions"
    write_mask(references, "one", (1, 0, 4))
    write_mask(predictions, "one", (1, 0, 4))
    write_mask(references, "two", (1, 0, 4), (2, 6, 8))
    write_mask(predictions, "two", (1, 2, 6))
    (predictions / "classification.csv").write_text(HEADER + "one,a,0.9,0.1,41,x\ntwo,a,0.6,0.4,52,y\n")
    (tmp_path / "table.csv").write_text("case_id,subtype,age\none,a,40\ntwo,b,50\n")
    return tmp_path


def run(folders: Path, **changes: Any) -> dict[str, Any]:
    """What the file holds."""
    return record_object(measure(folders, **changes))


def measure(folders: Path, **changes: Any) -> Metrics:
    arguments: dict[str, Any] = {
        "labels": LABELS,
        "tasks": (SUBTYPE, AGE),
        "table": folders / "table.csv",
        "num_bootstrap": 100,
    } | changes
    return evaluate(folders / "predictions", arguments.pop("references", folders / "references"), **arguments)


def strict(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_means_are_taken_over_cases_and_undefined_ones_are_counted(folders: Path) -> None:
    metrics = run(folders)
    regions = metrics["segmentation"]
    assert regions["organ"]["dsc"]["value"] == 0.75  # 1 and 1/2
    assert regions["organ"]["dsc"]["n_defined"] == 2
    assert regions["lesion"]["dsc"]["value"] == 0.0
    assert regions["lesion"]["dsc"]["n_defined"] == 1
    assert regions["lesion"]["dsc"]["ci95_reason"] == "fewer_than_2_cases_or_patients"
    assert regions["lesion"]["case_reasons"] == {"both_empty": 1, "empty_prediction": 1}
    assert regions["lesion"]["avd_ml"]["value"] == pytest.approx(0.032 / 2)  # 4 * 2 * 4 voxels of 1 mm in one of two cases
    assert regions["lesion"]["avd_ratio"]["value"] == 1.0
    assert regions["foreground"]["dsc"]["value"] == pytest.approx((1 + 2 * 32 / (96 + 64)) / 2)
    assert metrics["missing_predictions"] == []
    assert metrics["tasks"]["subtype"]["metrics"]["accuracy"]["value"] == 0.5
    assert metrics["tasks"]["subtype"]["collapsed"] is True
    assert metrics["tasks"]["age"]["metrics"]["mae"]["value"] == 1.5


def test_the_tolerance_is_stated_with_every_surface_distance(folders: Path) -> None:
    metrics = run(folders, tolerance_mm=1.5)
    assert metrics["settings"]["tolerance_mm"] == 1.5
    assert {region["nsd"]["tolerance_mm"] for region in metrics["segmentation"].values()} == {1.5}


def test_a_missing_prediction_counts_as_the_worst_and_is_listed(folders: Path) -> None:
    (folders / "predictions" / "one.nii.gz").unlink()
    (folders / "predictions" / "classification.csv").write_text(HEADER + "two,b,0.4,0.6,52,\n")
    metrics = run(folders)
    organ = metrics["segmentation"]["organ"]
    assert organ["dsc"]["value"] == 0.25  # 0 and 1/2
    assert organ["case_reasons"] == {"missing_prediction": 1}
    assert organ["avd_ml"]["value"] == pytest.approx(0.064 / 2)
    assert metrics["segmentation"]["lesion"]["dsc"]["n_defined"] == 2  # missing is not the same as rightly empty
    assert metrics["tasks"]["subtype"]["metrics"]["accuracy"]["value"] == 0.5
    assert metrics["tasks"]["age"]["metrics"]["mae"]["value"] == 6.0  # 50 for 40, and 52 for 50
    assert [(entry["case_id"], entry["part"]) for entry in metrics["missing_predictions"]] == [
        ("one", "segmentation"), ("one", "subtype"), ("one", "age"),
    ]  # fmt: skip


def test_unreadable_predictions_count_as_the_worst_and_are_listed_with_the_error(folders: Path) -> None:
    truncated = folders / "predictions" / "one.nii.gz"
    truncated.write_bytes(truncated.read_bytes()[:-20])
    write_mask(folders / "predictions", "two", (7, 0, 4))
    metrics = run(folders)
    assert metrics["segmentation"]["organ"]["dsc"]["value"] == 0.0
    errors = {entry["case_id"]: entry["error"] for entry in metrics["missing_predictions"]}
    assert errors["one"].startswith("CORRUPT: ")
    assert errors["two"].startswith("LABEL: ")


def test_two_predictions_of_one_case_are_listed_as_ambiguous(folders: Path) -> None:
    write_mask(folders / "predictions", "one", (1, 0, 4), ending=".nii")
    assert run(folders)["missing_predictions"][0]["error"].startswith("AMBIGUOUS: ")


def test_a_prediction_on_another_grid_counts_as_the_worst_and_is_listed_with_both_headers(folders: Path) -> None:
    write_mask(folders / "predictions", "two", (1, 0, 4), spacing=2.0)
    metrics = run(folders)
    (entry,) = metrics["missing_predictions"]
    assert re.search(r"^GEOMETRY: two: prediction differs in spacing.*1, 1, 1.*2, 2, 2", entry["error"])
    assert metrics["segmentation"]["organ"]["dsc"]["value"] == 0.5  # 1 and 0


def test_a_broken_reference_is_an_error(folders: Path) -> None:
    reference = folders / "references" / "one.nii.gz"
    reference.write_bytes(reference.read_bytes()[:-20])
    with pytest.raises(CorruptFileError):
        run(folders)
    reference.unlink()
    with pytest.raises(DatasetError, match=r"reference mask for every case, got none for \['one'\]"):
        run(folders, case_ids=["one"])


def test_two_references_of_one_case_are_an_error(folders: Path) -> None:
    write_mask(folders / "references", "one", (1, 0, 4), ending=".nii")
    with pytest.raises(AmbiguousFileError, match="expected one file"):
        run(folders)


def test_an_empty_cell_leaves_the_case_out_of_that_task_only(folders: Path) -> None:
    (folders / "table.csv").write_text("case_id,subtype,age\none,,40\ntwo,b,50\n")
    metrics = run(folders)
    assert metrics["tasks"]["subtype"]["num_cases"] == 1
    assert metrics["tasks"]["age"]["num_cases"] == 2
    assert metrics["num_cases"] == 2


def test_without_references_the_cases_of_the_table_are_scored(folders: Path) -> None:
    metrics = run(folders, references=None)
    assert metrics["segmentation"] == {}
    assert metrics["num_cases"] == 2


def test_only_the_named_cases_are_scored(folders: Path) -> None:
    metrics = run(folders, case_ids=["two"])
    assert metrics["num_cases"] == 1
    assert metrics["segmentation"]["organ"]["dsc"]["value"] == 0.5


def test_with_patients_the_resampling_unit_is_the_patient(folders: Path) -> None:
    (folders / "table.csv").write_text("case_id,subtype,age,patient_id\none,a,40,p\ntwo,b,50,p\n")
    metrics = run(folders)
    assert metrics["settings"]["resampling_unit"] == "patient"
    assert metrics["num_resampling_units"] == 1
    assert metrics["segmentation"]["organ"]["dsc"]["ci95"] is None
    assert run(folders, tasks=(), table=None)["settings"]["resampling_unit"] == "case"


def test_the_written_files_are_strict_json_and_a_table(folders: Path) -> None:
    output = folders / "output"
    (folders / "table.csv").write_text("case_id,subtype,age\none,a,40\ntwo,,50\n")  # AUROC and much more is undefined
    metrics = run(folders, output=output)
    assert strict((output / METRICS_FILE).read_text()) == metrics
    assert sorted(path.name for path in output.iterdir()) == [METRICS_FILE, PER_CASE_FILE]
    with (output / PER_CASE_FILE).open(newline="") as file:
        one, two = csv.DictReader(file)
    assert (one["case_id"], one["organ_dsc"], one["lesion_dsc"], one["lesion_reason"]) == ("one", "1.0", "", "both_empty")
    assert (one["subtype_reference"], one["subtype_prediction"], one["subtype_p_b"]) == ("a", "a", "0.1")
    assert (two["organ_dsc"], two["subtype_reference"], two["age_reference"], two["age_prediction"]) == (
        "0.5",
        "",
        "50.0",
        "52.0",
    )


def test_a_missing_answer_is_an_empty_cell_in_the_table(folders: Path) -> None:
    (folders / "predictions" / "classification.csv").write_text(HEADER + "two,b,0.4,0.6,52,\n")
    run(folders, output=folders / "output")
    one = next(csv.DictReader((folders / "output" / PER_CASE_FILE).open(newline="")))
    assert (one["subtype_reference"], one["subtype_prediction"], one["subtype_p_a"], one["age_prediction"]) == ("a", "", "", "")


def test_the_same_seed_gives_the_same_metrics(folders: Path) -> None:
    assert run(folders, seed=1) == run(folders, seed=1)


def test_progress_counts_the_cases(folders: Path) -> None:
    calls = []
    run(folders, progress=lambda done, total, text: calls.append((done, total)))
    assert calls == [(1, 2), (2, 2)]


def test_two_dimensional_png_masks_are_scored(tmp_path: Path) -> None:
    write_mask(tmp_path / "references", "x", (1, 0, 4), shape=(1, 8, 8), ending=".png")
    write_mask(tmp_path / "predictions", "x", (1, 2, 6), shape=(1, 8, 8), ending=".png")
    (tmp_path / "references" / "dataset.json").write_text("{}")
    metrics = run(tmp_path, tasks=(), table=None, labels={"background": 0, "organ": 1})
    assert metrics["num_cases"] == 1
    assert metrics["segmentation"]["organ"]["dsc"]["value"] == 0.5
    assert metrics["segmentation"]["organ"]["nsd"]["value"] == 1.0  # shifted by 2 pixels, tolerance 2


def test_regions_made_of_several_labels_are_scored(folders: Path) -> None:
    regions = run(folders, labels={"background": 0, "whole": [1, 2], "lesion": 2})["segmentation"]
    assert list(regions) == ["whole", "lesion", "foreground"]
    assert regions["whole"]["dsc"] == regions["foreground"]["dsc"]


def test_the_summary_reads_like_a_table(folders: Path) -> None:
    rows = format_summary(measure(folders))
    assert rows[0].name == "organ DSC"
    assert rows[0][1:] == ("0.750", "0.500 to 1.000", "2")
    assert rows[1].name == "organ NSD at 2 mm"
    by_name = {row.name: row for row in rows}
    assert by_name["age mae (y)"].value == "1.500"
    assert by_name["subtype macro_f1 of always a"] == SummaryRow("subtype macro_f1 of always a", "0.333", "", "2")
    (folders / "table.csv").write_text("case_id,subtype,age\none,a,40\ntwo,a,50\n")
    by_name = {row.name: row for row in format_summary(measure(folders))}
    assert by_name["subtype auroc"][1:] == ("undefined (absent_class: b)", "", "0")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"references": None, "tasks": ()}, SettingsError, "got neither"),
        ({"table": None}, SettingsError, "need a table"),
        ({"tasks": (SUBTYPE, SUBTYPE)}, SettingsError, "names must differ"),
        ({"num_bootstrap": -1}, SettingsError, "num_bootstrap"),
        ({"case_ids": []}, DatasetError, "at least one case"),
        ({"case_ids": ["one", "one"]}, DatasetError, "none twice"),
        ({"case_ids": ["one", "ghost"]}, DatasetError, r"row for every case, got none for \['ghost'\]"),
        ({"references": Path("/nowhere")}, DatasetError, "/nowhere"),
        ({"table": Path("/nowhere.csv")}, UnreadableFileError, "/nowhere.csv"),
        ({"tolerance_mm": -1.0}, SettingsError, "tolerance_mm"),
        ({"labels": {"background": 0}}, LabelError, "foreground region"),
    ],
)
def test_impossible_requests_are_refused_by_name(
    folders: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        run(folders, output=folders / "output", **changes)
    assert not (folders / "output").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "classification.csv: expected columns case_id or .* but the table is empty"),
        ("case_id,subtype\none,a\n", r"line 1: expected columns \['subtype_p_a', 'subtype_p_b', 'age'\]"),
        (HEADER + "one,a,0.9,0.1,41\n", "line 2: expected 6 cells, got 5"),
        (HEADER + "one,a,0.9,0.1,41,\none,a,0.9,0.1,41,\n", "line 3: case 'one' stands already in line 2"),
        (HEADER + "\none,c,0.9,0.1,41,\n", "line 3: task subtype: expected one of"),
        (HEADER + "one,a,0.9,0.2,41,\n", "line 2: task subtype: expected probabilities that sum to 1"),
        (HEADER + "one,a,nan,0.2,41,\n", "expected probabilities that sum to 1"),
        (HEADER + "one,a,x,0.2,41,\n", "expected probabilities that sum to 1"),
        (HEADER + "one,a,1.5,-0.5,41,\n", "expected probabilities that sum to 1"),
        (HEADER + "one,a,0.9,0.1,old,\n", "line 2: age: expected a finite number"),
    ],
)
def test_a_malformed_table_of_predictions_is_refused_with_its_line(folders: Path, content: str, message: str) -> None:
    (folders / "predictions" / "classification.csv").write_text(content)
    with pytest.raises(TableError, match=message):
        run(folders)


def test_the_table_may_start_with_a_byte_order_mark_and_spell_case_id_otherwise(folders: Path) -> None:
    (folders / "table.csv").write_text("Case_id,subtype,age\none,a,40\ntwo,b,50\n", encoding="utf-8-sig")
    assert run(folders)["num_cases"] == 2


def test_row_80_a_reference_with_minus_one_is_refused_by_name(folders: Path) -> None:
    array = np.full((4, 8, 8), -1, np.int16)
    write_image(folders / "references" / "two.nii.gz", array, Geometry(array.shape))
    with pytest.raises(LabelError, match=r"two.nii.gz: undeclared labels \[-1\]"):
        run(folders)


def test_row_80_references_in_another_format_are_named(folders: Path) -> None:
    (folders / "references" / "three.nrrd").touch()
    (folders / "references" / "Thumbs.db").touch()
    metrics = run(folders)
    assert metrics["num_cases"] == 2
    assert (
        any("1 file: three.nrrd" in note and "SimpleITK" in note for note in metrics["not_used"])
        and len(metrics["not_used"]) == 2
    )


@pytest.mark.parametrize(
    "table",
    [
        "\ufeffcase_id;subtype;age\r\none;A ;40,5\r\ntwo;b;?\r\nthree;NULL;50,25\r\n",
        "sep=;\ncase_id;Subtype;AGE;;\none;a;40,5;;\ntwo;B;NA;;\nthree;-;50,25;;\n;;;;\n",
        "ID\tsubtype\tage\none\ta\t40.5\ntwo\tb\tNone\nthree\t<NA>\t50.25\n".encode("utf-16"),
    ],
)
def test_row_76_the_table_is_read_as_convert_reads_it(folders: Path, table: str) -> None:
    content = table if isinstance(table, bytes) else table.encode()
    (folders / "table.csv").write_bytes(content)
    tasks = run(folders, references=None)["tasks"]
    assert tasks["subtype"]["num_cases"] == 2 and tasks["subtype"]["metrics"]["accuracy"]["value"] == 0.5
    assert tasks["age"]["num_cases"] == 2 and tasks["age"]["num_missing_predictions"] == 1


def test_row_76_the_column_of_case_ids_can_be_named(folders: Path) -> None:
    (folders / "table.csv").write_text("image,case_id,subtype,age\none,7,a,40\ntwo,8,b,50\n")
    assert run(folders, id_column="image")["tasks"]["subtype"]["num_cases"] == 2
    with pytest.raises(DatasetError, match="expected a row for every case"):
        run(folders)


def test_row_76_a_spreadsheet_is_refused_with_what_helps(folders: Path) -> None:
    (folders / "table.xlsx").write_bytes(b"PK\x03\x04")
    with pytest.raises(TableError, match='save it as "CSV UTF-8"'):
        run(folders, table=folders / "table.xlsx")


def test_row_76_commas_of_numbers_that_can_be_read_in_two_ways_are_refused(folders: Path) -> None:
    (folders / "table.csv").write_text("case_id;subtype;age\none;a;1,250\ntwo;b;3,500\n")
    with pytest.raises(TableError, match="line 2: age expected a number, got '1,250'"):
        run(folders)


def test_row_76_answers_that_another_program_saved_again_are_read(folders: Path) -> None:
    saved = "case_id;subtype;subtype_p_a;subtype_p_b;age\none;A;0,9;0,1;41\ntwo;a;0,6;0,4;NA\n"
    (folders / "predictions" / "classification.csv").write_bytes(saved.encode("utf-16"))
    metrics = run(folders, references=None)
    assert metrics["tasks"]["subtype"]["metrics"]["accuracy"]["value"] == 0.5
    assert [entry["case_id"] for entry in metrics["missing_predictions"]] == ["two"]


def test_patients_that_are_missing_markers_are_no_patient(folders: Path) -> None:
    (folders / "table.csv").write_text("case_id,subtype,age,patient_id\none,a,40,NA\ntwo,b,50,NA\n")
    assert run(folders)["num_resampling_units"] == 2


def test_row_136_cases_and_classes_that_look_like_formulas_are_read_back(folders: Path) -> None:
    task = Task("subtype", "binary", ("+", "@x"))
    (folders / "predictions" / "classification.csv").write_text(
        csv_text([["case_id", "subtype", "subtype_p_+", "subtype_p_@x"], ["=1", "@x", "0.25", "0.75"]])
    )
    (folders / "table.csv").write_text(csv_text([["case_id", "subtype"], ["=1", "+"]]))
    run(folders, references=None, tasks=(task,), output=folders / "output")
    text = (folders / "output" / PER_CASE_FILE).read_text()
    assert text == "case_id,subtype_reference,subtype_prediction,subtype_p_+,subtype_p_@x\n'=1,'+,'@x,0.25,0.75\n"
    assert read_rows(folders / "output" / PER_CASE_FILE, ["subtype_reference"])["=1"].cells["subtype_reference"] == "+"
