"""Case ids and the finding of files."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnduet.datasets.sources import check_case_names, parse_mask_folders
from nnduet.errors import DatasetError, SettingsError


def test_unicode_spaces_and_long_ids_are_fine() -> None:
    check_case_names(["Mädchen 7", "患者一", "a.b-c_12", "patient_2021", "x" * 200])


@pytest.mark.parametrize(
    ("case_id", "message"),
    [
        ("", "empty"),
        (" a", "space"),
        ("a/b", "path separator"),
        ("a\\b", "path separator"),
        ("..", "dot"),
        ("a\nb", "control"),
        ("x" * 201, "longer than 200"),
        ("ä" * 101, "longer than 200"),
        ("a_0000", "channel number"),
    ],
)
def test_ids_that_cannot_be_file_names_everywhere_are_refused(case_id: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        check_case_names([case_id])


@pytest.mark.parametrize("pair", [("Case1", "case1"), ("Stra\u00dfe", "STRASSE"), ("\u00e4", "a\u0308"), ("a", "a")])
def test_ids_that_are_one_file_on_some_systems_are_refused(pair: tuple[str, str]) -> None:
    with pytest.raises(DatasetError, match="same file on some systems"):
        check_case_names(pair)


def test_one_plain_path_stays_a_path_whatever_signs_it_holds(tmp_path: Path) -> None:
    assert parse_mask_folders(["labels"], tmp_path) == Path("labels")
    (tmp_path / "a=b").mkdir()
    assert parse_mask_folders([str(tmp_path / "a=b")], tmp_path) == tmp_path / "a=b"


def test_named_folders_of_masks_are_sought_here_and_then_beside_the_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    found = parse_mask_folders(["ES=here", "ED=labels", "x-1_y=a=b"], Path("cases"))
    assert isinstance(found, dict)
    assert list(found.items()) == [("ES", Path("here")), ("ED", Path("cases/labels")), ("x-1_y", Path("cases/a=b"))]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["labels", "labels_ES"], "expected NAME=PATH for each"),
        (["ED=labels", "labels_ES"], "expected NAME=PATH for each"),
        (["ED=labels"], "at least two"),
        (["ED=a", "ED=b"], "same file on some systems"),
        (["ED=a", "ed=b"], "same file on some systems"),
        (["E/D=a", "ES=b"], "mask 'E/D': holds a path separator"),
        (["../x=a", "ES=b"], r"mask '\.\./x'"),
        (["CON=a", "ES=b"], "a device on Windows"),
        (["=a", "ES=b"], "is empty"),
    ],
)
def test_impossible_folders_of_masks_are_refused(values: list[str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        parse_mask_folders(values, Path("cases"))
