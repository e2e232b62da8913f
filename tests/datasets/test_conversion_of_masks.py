"""Several masks of each case become one mask of codes that stock nnU-Net reads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_builders import GRID, SHAPE, dataset, shared, ten_cases, tree, workspace
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnduet.datasets.conversion import ConversionSummary, convert
from nnduet.datasets.layouts import read_folder
from nnduet.datasets.mask_codes import MaskCodes
from nnduet.datasets.sources import Source
from nnduet.errors import DatasetError, GeometryError, LabelError
from nnduet.io.images import Geometry, read_segmentation, write_image, write_segmentation

RAW = "raw/Dataset007_Test"
HEART = {"background": 0, "RV": 1, "MYO": 2, "LV": 3}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten cases; ED is 1 in ``labels``, ES is 1 and 2 in ``late`` and overlaps it."""
    folder = dataset(tmp_path / "user", ten_cases())
    (folder / "late").mkdir()
    for case_id in ten_cases():
        write_segmentation(folder / "late" / f"{case_id}.nii.gz", late(), GRID)
    return folder


def late() -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    mask[0, 1, 1:3] = [1, 2]
    mask[2, 4, 5] = 2
    return mask


def source_of(folder: Path, **options: Any) -> Source:
    return read_folder(folder, task_specs=["grade"], labels={"ED": folder / "labels", "ES": folder / "late"}, **options)


def run(source: Source, folder: Path, **options: Any) -> ConversionSummary:
    return convert(source, workspace=workspace(folder), dataset_id=7, name="Test", **options)


def test_labels_that_only_one_mask_holds_are_labels_of_all(folder: Path, tmp_path: Path) -> None:
    summary = run(source_of(folder), tmp_path)
    description = json.loads((tmp_path / RAW / "dataset.json").read_text())
    assert description["labels"] == summary.labels == {
        "background": 0,
        "ED label_1": [1, 4, 7],
        "ED label_2": [2, 5, 8],
        "ES label_1": [3, 4, 5],
        "ES label_2": [6, 7, 8],
    }  # fmt: skip
    assert description["regions_class_order"] == [1, 2, 3, 6]
    codes, _ = read_segmentation(tmp_path / RAW / "labelsTr" / "c3.nii.gz")
    assert codes.array.dtype == np.uint8 and codes.geometry == GRID
    assert codes.array[0, 1].tolist() == [0, 1 + 3 * 1, 1 + 3 * 2, 0, 0, 0]
    assert codes.array[0, 2].tolist() == [0, 1, 1, 0, 0, 0] and codes.array[2, 4, 5] == 6


def test_declared_labels_that_never_occur_keep_their_regions(folder: Path, tmp_path: Path) -> None:
    run(replace(source_of(folder), labels=HEART), tmp_path)
    description = json.loads((tmp_path / RAW / "dataset.json").read_text())
    assert description["masks"] == {"ED": {"RV": 1, "MYO": 2, "LV": 3}, "ES": {"RV": 1, "MYO": 2, "LV": 3}}
    assert description["labels"]["ED LV"] == [3, 7, 11, 15] and description["regions_class_order"] == [1, 2, 3, 4, 8, 12]
    assert MaskCodes.from_json(description) == MaskCodes.of(("ED", "ES"), HEART)
    assert LabelManager(description["labels"], description["regions_class_order"]).num_segmentation_heads == 6


def test_every_mask_is_rounded_counted_and_mapped(folder: Path, tmp_path: Path) -> None:
    write_image(folder / "late" / "c0.nii.gz", late().astype(np.float32) * np.float32(1.00001), GRID)
    write_image(folder / "labels" / "c0.nii.gz", late().astype(np.float32) * np.float32(1.00001), GRID)
    summary = run(source_of(folder, label_map={2: 1}), tmp_path)
    assert (summary.rounded_masks, summary.rounded_voxels, summary.num_rewritten) == (2, 6, 20)
    codes, _ = read_segmentation(tmp_path / RAW / "labelsTr" / "c1.nii.gz")
    assert list(summary.labels) == ["background", "ED label_1", "ES label_1"]
    assert codes.array[0, 1].tolist() == [0, 3, 3, 0, 0, 0]


def wrong_grid(path: Path) -> None:
    write_segmentation(path, np.ones((1, 5, 6), np.uint8), Geometry((1, 5, 6)))


def undeclared(path: Path) -> None:
    write_segmentation(path, np.full(SHAPE, 4, np.uint8), GRID)


@pytest.mark.parametrize(
    ("harm", "error", "message"),
    [
        (wrong_grid, GeometryError, r"c2: mask late/c2\.nii\.gz differs"),
        (undeclared, LabelError, r"undeclared labels, 4 in 1 of 20 masks \(late/c2\.nii\.gz: 120 voxels\).*--map-label 4=0"),
    ],
)
def test_a_fault_in_a_further_mask_names_its_folder_and_nothing_is_written(
    folder: Path, tmp_path: Path, harm: Callable[[Path], None], error: type[Exception], message: str
) -> None:
    harm(folder / "late" / "c2.nii.gz")
    with pytest.raises(error, match=message):
        run(replace(source_of(folder), labels=HEART), tmp_path)
    assert not (tmp_path / "raw").exists()


def test_an_ignore_label_is_refused_before_any_voxel_is_read(folder: Path, tmp_path: Path) -> None:
    (folder / "late" / "c0.nii.gz").write_bytes(b"broken")
    with pytest.raises(DatasetError, match="several masks cannot have an ignore label"):
        run(replace(source_of(folder), labels={**HEART, "ignore": 4}), tmp_path)


def test_a_case_that_lacks_one_of_the_masks_is_refused(folder: Path, tmp_path: Path) -> None:
    source = source_of(folder)
    first = replace(source.cases[0], further_labels=())
    with pytest.raises(DatasetError, match="c0: expected 2 masks, got 1"):
        run(replace(source, cases=(first, *source.cases[1:])), tmp_path)


def test_a_dry_run_writes_nothing_and_a_second_run_changes_nothing(folder: Path, tmp_path: Path) -> None:
    before = tree(tmp_path)
    planned = run(source_of(folder), tmp_path, dry_run=True)
    assert tree(tmp_path) == before
    first = run(source_of(folder), tmp_path)
    written = tree(tmp_path)
    assert run(source_of(folder), tmp_path) == first == replace(planned, dry_run=False)
    assert tree(tmp_path) == written


def test_a_converted_dataset_converts_again_with_its_masks(folder: Path, tmp_path: Path) -> None:
    run(source_of(folder), tmp_path)
    shutil.copy(folder / "cases.csv", tmp_path / RAW / "cases.csv")
    run(read_folder(tmp_path / RAW, task_specs=["grade"]), tmp_path / "again")
    first, second = (tree(root / RAW) for root in (tmp_path, tmp_path / "again"))
    assert {**second, "cases.csv": first["cases.csv"]} == first


def test_a_masks_key_that_means_something_else_is_refused_and_not_first_after_training(folder: Path, tmp_path: Path) -> None:
    (folder / "dataset.json").write_text(json.dumps({"masks": "drawn by hand"}))
    with pytest.raises(DatasetError, match="masks: expected an object of objects of labels, got 'drawn by hand'"):
        run(read_folder(folder, task_specs=["grade"]), tmp_path)
    assert not (tmp_path / "raw").exists()
    run(source_of(folder), tmp_path)
    assert MaskCodes.from_json(json.loads((tmp_path / RAW / "dataset.json").read_text())) is not None


@pytest.mark.parametrize(("ending", "reader"), [(".png", NaturalImage2DIO), (".nii.gz", SimpleITKIO)])
def test_nnunets_readers_get_codes_beyond_255(tmp_path: Path, ending: str, reader: type) -> None:
    folder = dataset(tmp_path / "user", ten_cases(), ending=ending)
    grid = Geometry((1, 5, 6)) if ending == ".png" else GRID
    mask = np.resize(np.arange(17, dtype=np.uint8), grid.shape)
    (folder / "late").mkdir()
    for case_id in ten_cases():
        write_segmentation(folder / "late" / f"{case_id}{ending}", mask, grid)
    run(source_of(folder), tmp_path)
    seg, _ = reader().read_seg(str(tmp_path / RAW / "labelsTr" / f"c0{ending}"))
    first, _ = read_segmentation(folder / "labels" / f"c0{ending}")
    np.testing.assert_array_equal(seg[0], first.array + 17 * mask.astype(int))
    assert seg.max() > 255


def test_both_masks_of_the_shared_heart_data_pass_every_check(tmp_path: Path) -> None:
    acdc = shared("acdc")
    source = read_folder(acdc, task_specs=["group"], labels={"ED": acdc / "labels", "ES": acdc / "labels_ES"})
    summary = run(source, tmp_path, dry_run=True)
    assert list(summary.labels) == ["background", "ED RV", "ED MYO", "ED LV", "ES RV", "ES MYO", "ES LV"]
    assert summary.labels["ES RV"] == [4, 5, 6, 7] and summary.num_cases == 99
