"""Names of the files of a case, put together and taken apart in one place."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnduet.io.case_names import channel_files, channel_name, find_case_file, mask_name, split_channel, without_channel


def test_names_are_put_together_and_taken_apart() -> None:
    assert channel_name("a", 12, ".nii.gz") == "a_0012.nii.gz" and mask_name("a", ".png") == "a.png"
    assert split_channel("a_1_0012") == ("a_1", 12) and split_channel("a_12") == ("a_12", None)
    assert without_channel(Path("x/a_0000.NII.GZ")) == "a" and without_channel(Path("a_0001.png")) == "a_0001"


def test_the_channels_of_a_case_lie_beside_the_first_with_its_ending() -> None:
    assert channel_files(Path("x/a_0000.Nii"), 2) == [Path("x/a_0000.Nii"), Path("x/a_0001.Nii")]
    assert channel_files(Path("a_0000.nii"), 1) == [Path("a_0000.nii")] and channel_files(Path("a.nii"), 2) == [Path("a.nii")]


@pytest.mark.parametrize("name", ["a.nii.gz", "a.NII.GZ", "a_0000.nii", "a_0000.PNG"])
def test_a_case_is_found_by_its_name_whatever_the_ending_and_its_case(tmp_path: Path, name: str) -> None:
    (tmp_path / "b.png").touch()
    assert find_case_file(tmp_path, "a") is None
    (tmp_path / name).touch()
    assert find_case_file(tmp_path, "a") == tmp_path / name


def test_a_mask_goes_before_a_channel_and_a_path_is_no_case(tmp_path: Path) -> None:
    for name in ("a.png", "a_0000.nii.gz"):
        (tmp_path / name).touch()
    assert find_case_file(tmp_path, "a") == tmp_path / "a.png"
    assert find_case_file(tmp_path / "none", "a") is None and find_case_file(tmp_path, f"../{tmp_path.name}/a") is None
