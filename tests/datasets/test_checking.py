"""Whole cases: image, channels and mask together, and the naming of labels."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from data_builders import AFFINE, GRID, SHAPE, raw_nifti

from nnduet.datasets.checking import CheckedCase, check_cases, read_mask
from nnduet.datasets.descriptions import check_labels
from nnduet.datasets.label_values import name_labels
from nnduet.datasets.sources import Source, SourceCase
from nnduet.errors import DatasetError, GeometryError, LabelError, SettingsError, UnreadableFileError
from nnduet.io.images import write_segmentation


def check(*cases: SourceCase, ending: str = ".nii.gz") -> list[CheckedCase]:
    source = Source(cases, {"0": "CT"}, labels={"background": 0, "cyst": 1})
    return check_cases(source, cases, ending, max_bytes=10**6, progress=lambda case_id: None)


def mask(path: Path, affine: np.ndarray = AFFINE, shape: tuple[int, ...] = (6, 5, 4)) -> Path:
    return raw_nifti(path, np.zeros(shape, np.uint8), affine=affine)


def moved(value: float) -> np.ndarray:
    affine: np.ndarray = AFFINE.copy()
    affine[0, 3] += value
    return affine


def test_a_sound_case_is_copied_as_it_is(tmp_path: Path) -> None:
    case = SourceCase("a", (raw_nifti(tmp_path / "i.nii.gz"),), mask(tmp_path / "m.nii.gz"))
    checked = check(case)[0]
    assert [file.copy for file in checked.files] == [True, True] and checked.found == {0} and checked.num_rounded == 0


@pytest.mark.parametrize("field", ["shape", "origin", "direction"])
def test_a_mask_on_another_grid_is_refused_with_both_headers(tmp_path: Path, field: str) -> None:
    image = raw_nifti(tmp_path / "i.nii.gz")
    flipped = AFFINE @ np.diag([-1.0, 1, 1, 1])
    label = {
        "shape": lambda path: mask(path, shape=(6, 5, 3)),
        "origin": lambda path: mask(path, moved(1.0)),
        "direction": lambda path: mask(path, flipped),
    }[field](tmp_path / "m.nii.gz")
    with pytest.raises(GeometryError, match=rf"a: mask m\.nii\.gz differs in {field}.*expected shape.*got shape"):
        check(SourceCase("a", (image,), label))


def test_channels_on_different_grids_are_refused(tmp_path: Path) -> None:
    images = (raw_nifti(tmp_path / "i.nii.gz"), raw_nifti(tmp_path / "j.nii.gz", affine=moved(1.0)))
    with pytest.raises(GeometryError, match=r"a: channel j\.nii\.gz differs in origin"):
        check(SourceCase("a", images))


def test_a_mask_within_tolerance_is_written_on_the_grid_of_the_image(tmp_path: Path) -> None:
    case = SourceCase("a", (raw_nifti(tmp_path / "i.nii.gz"),), mask(tmp_path / "m.nii.gz", moved(0.005)))
    label = check(case)[0].label
    assert label is not None and not label.copy and label.geometry == GRID


def test_float_masks_and_other_endings_are_rewritten(tmp_path: Path) -> None:
    label = raw_nifti(tmp_path / "m.nii.gz", np.ones((6, 5, 4), np.float32))
    checked = check(SourceCase("a", (raw_nifti(tmp_path / "i.nii"),), label))[0]
    assert [file.copy for file in checked.files] == [False, False] and checked.found == {1}


def test_png_and_nifti_do_not_mix(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="mixed"):
        check(SourceCase("a", (raw_nifti(tmp_path / "i.nii.gz"),)), ending=".png")


def test_several_faulty_cases_are_told_together_with_the_first_ones_code(tmp_path: Path) -> None:
    cases = [SourceCase(f"c{i}", (tmp_path / f"none{i}.nii.gz",)) for i in range(12)]
    cases[1] = SourceCase("c1", (raw_nifti(tmp_path / "i.nii.gz"),), mask(tmp_path / "m.nii.gz", moved(1.0)))
    with pytest.raises(UnreadableFileError) as raised:
        check(*cases)
    message = str(raised.value)
    assert message.startswith("10 cases cannot be converted (stopped there)")
    assert "- GEOMETRY: c1" in message and "none9" in message and "none10" not in message


def test_values_with_gaps_can_be_mapped(tmp_path: Path) -> None:
    array = np.zeros(SHAPE, np.uint8)
    array[0, 0, :3] = [2, 5, 2]
    write_segmentation(tmp_path / "m.nii.gz", array, GRID)
    image, _, changed = read_mask(tmp_path / "m.nii.gz", {2: 1, 5: 2}, max_bytes=10**6)
    assert changed and image.array[0, 0, :3].tolist() == [1, 2, 1]
    image, _, changed = read_mask(tmp_path / "m.nii.gz", {7: 1}, max_bytes=10**6)
    assert not changed
    with pytest.raises(SettingsError, match="0 to 65535"):
        read_mask(tmp_path / "m.nii.gz", {5: -1}, max_bytes=10**6)


def test_found_labels_are_named_in_order_or_refused_with_gaps() -> None:
    assert name_labels({0, 1, 2}, None) == {"background": 0, "label_1": 1, "label_2": 2}
    assert name_labels({1, 2}, {"background": 0, "pancreas": 1, "lesion": 2})["lesion"] == 2
    assert name_labels({0, 1}, {"background": 0, "pancreas": 1, "lesion": 2}) == {"background": 0, "label_1": 1}
    with pytest.raises(LabelError, match=r"\[0, 2, 5\] have gaps.*--map-label 2=1 --map-label 5=2 or declare"):
        name_labels({0, 2, 5}, None)
    with pytest.raises(LabelError, match="no mask holds"):
        name_labels({0}, None)


def test_declared_labels_are_whole_numbers_without_gaps_and_may_be_regions() -> None:
    assert check_labels({"background": 0, "tumour": [1, 2], "core": 2}) == {0, 1, 2}
    for wrong in ({"background": 0, "a": "1"}, {"background": 0, "a": True}, {"background": 0, "a": 2}, {"background": 0}):
        with pytest.raises(DatasetError, match="labels"):
            check_labels(wrong)


def test_a_256_label_mask_keeps_its_voxels_through_the_map(tmp_path: Path) -> None:
    nib.Nifti1Image(np.full((2, 2, 2), 300, np.uint16), AFFINE).to_filename(tmp_path / "m.nii.gz")
    image, _, _ = read_mask(tmp_path / "m.nii.gz", {1: 2}, max_bytes=10**6)
    assert image.array.dtype == np.uint16 and image.array.min() == 300
