"""Which files are cases, and what is said of the others."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from nnduet.errors import AmbiguousFileError, DatasetError, ModelError
from nnduet.io.case_files import find_cases, find_masks, list_images


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def names_of(place: Path, num_channels: int | None = None, **options: Any) -> dict[str, list[str]]:
    return {c: [path.name for path in paths] for c, paths in find_cases(place, num_channels, **options).cases.items()}


def test_a_missing_or_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such file or folder"):
        find_cases(tmp_path / "none")
    with pytest.raises(DatasetError, match=r"expected images named <case>_0000.nii.gz, .nii or .png, found none"):
        find_cases(tmp_path)
    with pytest.raises(DatasetError, match=r"expected masks named <case>.nii.gz"):
        find_masks(tmp_path)
    assert list_images(tmp_path).cases == {}


def test_two_files_of_one_name_are_ambiguous(tmp_path: Path) -> None:
    for find in (find_cases, find_masks):
        with pytest.raises(AmbiguousFileError, match=r"a_0000.nii, a_0000.nii.gz"):
            find(touch(tmp_path, "a_0000.nii", "a_0000.nii.gz"))
    with pytest.raises(AmbiguousFileError, match=r"b.png and a file with a channel are both case 'b'"):
        find_cases(touch(tmp_path / "other", "b_0000.png", "b.png"))


def test_colour_pictures_of_three_channels_are_refused_with_what_to_save(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"other channels \(a .png holds one: save red, green and blue as _0000, _0001"):
        find_cases(touch(tmp_path, "a_0000.png", "b_0000.png"), 3)
    with pytest.raises(DatasetError, match="have other channels:"):
        find_cases(touch(tmp_path / "volumes", "a_0000.nii.gz", "b_0000.nii.gz"), 3)


def test_channels_are_put_in_order(tmp_path: Path) -> None:
    touch(tmp_path, "b_0001.png", "b_0000.png", "a_1_0000.png", "a_1_0001.png")
    assert names_of(tmp_path) == {"a_1": ["a_1_0000.png", "a_1_0001.png"], "b": ["b_0000.png", "b_0001.png"]}


def test_row_107_the_case_whose_channel_is_missing_is_blamed_also_where_it_is_the_first(tmp_path: Path) -> None:
    touch(tmp_path, "a_0000.png", "b_0000.png", "b_0001.png", "c_0000.png", "c_0001.png")
    with pytest.raises(DatasetError, match=r"1 of 3 cases have .*: a: expected \d channel\(s\) \[0, 1\], got 1 \[0\]$"):
        find_cases(tmp_path)
    touch(tmp_path, "d_0000.png")  # two and two: a missing file is likelier than a spare one
    with pytest.raises(DatasetError, match=r"a: expected \d channel\(s\) \[0, 1\], got 1 \[0\]\n  d: expected"):
        find_cases(tmp_path)


def test_row_107_the_number_of_channels_that_is_given_decides(tmp_path: Path) -> None:
    touch(tmp_path, "a_0000.png", "b_0000.png", "b_0001.png", "c_0000.png", "c_0001.png")
    with pytest.raises(DatasetError, match=r"b: expected \d channel\(s\) \[0\], got 2 \[0, 1\]\n  c:"):
        find_cases(tmp_path, 1)
    with pytest.raises(DatasetError, match=r"a: expected \d channel\(s\) \[0, 1\], got 1 \[1\]"):
        find_cases(touch(tmp_path / "gap", "a_0001.png", "b_0000.png", "b_0001.png"), 2)


def test_row_107_what_helps_speaks_of_the_files_and_not_of_the_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="other channels") as caught:
        find_cases(touch(tmp_path, "a_0000.png", "a_0001.png"), 1, error=ModelError)
    assert caught.value.remedy.startswith("give every case as many channel files as are expected")


def test_row_77_nifti_of_either_ending_and_case_is_a_case(tmp_path: Path) -> None:
    touch(tmp_path, "a_0000.nii.gz", "b_0000.nii", "c_0000.NII.GZ", "d_0000.Nii")
    assert list(find_cases(tmp_path).cases) == ["a", "b", "c", "d"] == list(find_cases(tmp_path, 1, ending=".nii.gz").cases)


def test_row_77_one_channel_needs_no_suffix(tmp_path: Path) -> None:
    touch(tmp_path, "good_0000.nii.gz", "plain.nii.gz")
    assert names_of(tmp_path) == {"good": ["good_0000.nii.gz"], "plain": ["plain.nii.gz"]}
    touch(tmp_path / "patients", "patient_0001.nii.gz", "patient_0002.nii.gz")
    assert list(names_of(tmp_path / "patients")) == ["patient_0001", "patient_0002"]


def test_row_77_without_a_channel_is_named_where_there_are_several(tmp_path: Path) -> None:
    found = find_cases(touch(tmp_path, "a_0000.png", "a_0001.png", "c.png"))
    assert list(found.cases) == ["a"]
    assert found.notes == (f"{tmp_path}: not used are 1 file: c.png (no channel _0000 to _0001 at the end of the name)",)


def test_row_77_whatever_is_not_used_is_counted_and_named(tmp_path: Path) -> None:
    touch(tmp_path, "b.nii.gz", "notes.txt", "._b.nii.gz", ".DS_Store", "Thumbs.db", "x.nrrd", ".nnduet-lock")
    touch(tmp_path / "nested", "inner_0000.nii.gz")
    found = find_cases(tmp_path)
    assert list(found.cases) == ["b"]
    assert [note.removeprefix(f"{tmp_path}: not used are ") for note in found.notes if "nrrd" not in note] == [
        "3 files: .DS_Store, ._b.nii.gz, Thumbs.db (hidden files or files of the operating system)",
        "1 file: nested (folders, which are not searched: images lie directly in the folder that is named)",
        "1 file: notes.txt (no images)",
    ]
    assert any("1 file: x.nrrd (a format that is not read" in note and "SimpleITK" in note for note in found.notes)
    assert {path.name for path in found.ignored} == {"._b.nii.gz", ".DS_Store", "Thumbs.db", "nested", "notes.txt", "x.nrrd"}


def test_row_77_images_of_the_other_kind_are_named_where_one_kind_is_wanted(tmp_path: Path) -> None:
    touch(tmp_path, "a_0000.nii.gz", "a_0000.png", "b_0000.png")
    found = find_cases(tmp_path, 1, ending=".nii.gz")
    assert list(found.cases) == ["a"] and set(found.ignored.values()) == {"PNG, where NIfTI is expected"}
    assert list(find_cases(tmp_path, 1, ending=".png").cases) == ["a", "b"]


def test_row_77_more_than_five_names_are_counted(tmp_path: Path) -> None:
    found = find_cases(touch(tmp_path, "a.png", *(f"{i}.txt" for i in range(8))))
    assert found.notes == (f"{tmp_path}: not used are 8 files: 0.txt, 1.txt, 2.txt, 3.txt, 4.txt and 3 more (no images)",)


def test_row_109_one_file_is_a_case(tmp_path: Path) -> None:
    touch(tmp_path, "scan_0000.nii.gz", "other_0000.nii.gz", "visit_0003.nii.gz")
    assert names_of(tmp_path / "scan_0000.nii.gz", 1) == {"scan": ["scan_0000.nii.gz"]}
    assert names_of(tmp_path / "visit_0003.nii.gz", 1) == {"visit_0003": ["visit_0003.nii.gz"]}
    with pytest.raises(DatasetError, match=r"expected \d channel\(s\) \[0, 1\], got 1 \[0\]"):
        find_cases(tmp_path / "scan_0000.nii.gz", 2)


@pytest.mark.parametrize(
    ("name", "tool"), [("a.dcm", "dcm2niix"), ("a.nrrd", "SimpleITK"), ("a.mha", "SimpleITK"), ("a.JPG", "PIL")]
)
def test_row_109_a_format_that_is_not_read_says_what_converts_it(tmp_path: Path, name: str, tool: str) -> None:
    for place in (touch(tmp_path, name), tmp_path / name):
        with pytest.raises(DatasetError, match=rf"{name}.*not read.*{tool}"):
            find_cases(place)


def test_row_109_dicom_without_an_ending_is_known_by_its_signature(tmp_path: Path) -> None:
    (tmp_path / "IM000001").write_bytes(bytes(128) + b"DICM" + bytes(20))
    with pytest.raises(DatasetError, match=r"IM000001.*DICOM.*dcm2niix"):
        find_cases(tmp_path)


def test_row_136_names_with_control_signs_are_shown_escaped(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "b\x1b[31m\n.txt").touch()
    (tmp_path / os.fsdecode(b"c\xff.txt")).touch()
    (note,) = find_cases(tmp_path).notes
    assert "b\\x1b[31m" in note and "c\\udcff.txt" in note and "\x1b" not in note


def test_pipes_and_links_to_nothing_are_cases_that_cannot_be_read_and_do_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a_0000.nii.gz")
    os.mkfifo(tmp_path / "other")
    (tmp_path / "b_0000.nii.gz").symlink_to("nowhere")
    found = find_cases(tmp_path)
    assert list(found.cases) == ["a", "b"] and list(found.ignored.values()) == ["no images"]
