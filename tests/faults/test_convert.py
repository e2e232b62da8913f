"""Converting survives rows 1 to 22 of the list of faults: one fault in one of ten cases, then the command as a user types it.

A refusal names the code and the file in its last lines and leaves no dataset; what is accepted says what was changed.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_builders import AFFINE, GRID, dataset, raw_nifti, shared, ten_cases, tree
from typer.testing import CliRunner

from nnduet.cli import app
from nnduet.io.images import read_image, write_image

NOISE = np.random.default_rng(0).integers(0, 1000, (6, 5, 4)).astype(np.int16)
RAW = Path("work/nnUNet_raw/Dataset007_Test")
GB = 2**20  # in KiB, the unit of ru_maxrss


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten sound cases c0 … c9 of two classes."""
    return dataset(tmp_path / "user", ten_cases())


def arguments(folder: Path, *more: str) -> list[str]:
    workspace = str(folder.parent / "work")
    return ["convert", str(folder), "--dataset-id", "7", "--name", "Test", "--task", "grade", "--workspace", workspace, *more]


def refused(folder: Path, code: str, *words: str, more: tuple[str, ...] = ()) -> None:
    """The command fails with this code and these words in the line above its last, and no dataset is left."""
    result = CliRunner().invoke(app, arguments(folder, *more))
    *_, said, remedy = result.stderr.splitlines()
    assert result.exit_code == 1 and remedy.startswith("what helps: ")
    assert said.startswith(f"{code}: ")
    assert [word for word in words if word not in said] == [], said
    assert not list((folder.parent / "work").rglob("Dataset*"))


def accepted(folder: Path, *more: str) -> dict[str, Any]:
    """The command succeeds; its summary."""
    result = CliRunner().invoke(app, [*arguments(folder, *more), "--json"])
    assert result.exit_code == 0, result.stderr
    summary: dict[str, Any] = json.loads(result.stdout)
    return summary


def image_of(folder: Path, ending: str = ".nii.gz") -> Path:
    """The image of case c5; with another ending than that of the others, their file is gone."""
    path = folder / "images" / f"c5_0000{ending}"
    if ending != ".nii.gz":
        (folder / "images" / "c5_0000.nii.gz").unlink()
    return path


def edited(path: Path, edit: Callable[[Any], None]) -> Path:
    return raw_nifti(path, edit=edit)


def flip(path: Path, place: int, bit: int = 1) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= bit
    path.write_bytes(content)


@pytest.mark.parametrize("tenth", range(10))
def test_row_01_a_gzip_cut_at_ten_places_is_corrupt(folder: Path, tenth: int) -> None:
    path = raw_nifti(image_of(folder), NOISE)
    content = path.read_bytes()
    path.write_bytes(content[: max(1, len(content) * tenth // 10)] if tenth else content[:-1])
    refused(folder, "CORRUPT", "c5_0000.nii.gz")


def test_row_02_a_wrong_crc_is_corrupt(folder: Path) -> None:
    flip(raw_nifti(image_of(folder), NOISE), -6)
    refused(folder, "CORRUPT", "c5_0000.nii.gz", "CRC")


@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.9])
def test_row_02_a_flipped_bit_in_the_stream_is_corrupt(folder: Path, share: float) -> None:
    path = raw_nifti(image_of(folder), NOISE)
    flip(path, 10 + int((path.stat().st_size - 18) * share), 4)  # between the gzip header (its time is free) and the CRC
    refused(folder, "CORRUPT", "c5_0000.nii.gz")


def test_row_03_a_nii_one_byte_short_is_corrupt(folder: Path) -> None:
    path = raw_nifti(image_of(folder, ".nii"), NOISE)
    path.write_bytes(path.read_bytes()[:-1])
    refused(folder, "CORRUPT", "c5_0000.nii", "1 of 240 voxel bytes are missing")


@pytest.mark.parametrize(
    "content", [b"", b"only some text", b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n"]
)
def test_row_04_empty_text_and_lfs_pointers_are_unreadable(folder: Path, content: bytes) -> None:
    image_of(folder).write_bytes(content)
    refused(folder, "UNREADABLE", "c5_0000.nii.gz")


def test_row_05_uncompressed_bytes_named_nii_gz_are_refused(folder: Path) -> None:
    plain = raw_nifti(folder.parent / "plain.nii")
    plain.replace(image_of(folder))
    refused(folder, "UNREADABLE", "c5_0000.nii.gz", "uncompressed NIfTI")


def test_row_06_a_nii_beside_a_nii_gz_is_ambiguous(folder: Path) -> None:
    raw_nifti(folder / "images" / "c5_0000.nii")
    refused(folder, "AMBIGUOUS", str(folder / "images"), "more than one file for c5_0000")


def too_large_within_1_gb(folder: Path) -> None:
    """The command in a process of its own, for its peak memory."""
    program = "import sys; from nnduet.cli import main; main()"
    command = [sys.executable, "-c", program, *arguments(folder)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = process.stderr.read().splitlines()[-2]
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 1
    assert said.startswith("TOO_LARGE: ") and "c5_0000.nii.gz" in said
    assert usage.ru_maxrss < GB
    assert not list((folder.parent / "work").rglob("Dataset*"))


def test_row_07_a_header_of_30000_cubed_is_too_large_and_costs_no_memory(folder: Path) -> None:
    edited(image_of(folder), lambda header: header["dim"].__setitem__(slice(1, 4), 30000))
    too_large_within_1_gb(folder)


def test_row_08_a_gzip_bomb_of_1_mb_is_too_large_and_costs_no_memory(folder: Path) -> None:
    path = image_of(folder)
    content = gzip.decompress(raw_nifti(path, NOISE).read_bytes())
    with gzip.open(path, "wb", compresslevel=9) as stream:
        stream.write(content)
        for _ in range(1000):
            stream.write(bytes(1 << 20))
    assert path.stat().st_size < 1.1e6
    too_large_within_1_gb(folder)


@pytest.mark.parametrize("size", [0, -6])
def test_row_09_zero_and_negative_sizes_are_refused(folder: Path, size: int) -> None:
    edited(image_of(folder), lambda header: header["dim"].__setitem__(2, size))
    refused(folder, "GEOMETRY", "c5_0000.nii.gz", str(size))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_row_10_voxels_that_are_no_numbers_are_refused_and_counted(folder: Path, value: float) -> None:
    voxels = np.zeros((6, 5, 4), np.float32)
    voxels[0, 0, :3] = value
    raw_nifti(image_of(folder), voxels)
    refused(folder, "CORRUPT", "c5_0000.nii.gz", "3 voxels are NaN or infinite")


@pytest.mark.parametrize("value", [np.nan, 0.0])
def test_row_11_an_impossible_voxel_size_beside_a_sound_affine_is_refused(folder: Path, value: float) -> None:
    edited(image_of(folder), lambda header: header["pixdim"].__setitem__(1, value))
    refused(folder, "GEOMETRY", "c5_0000.nii.gz", "the sform (code 1) says [2.0, 3.0, 4.0]")


def test_row_12_microns_become_millimetres_and_it_is_said(folder: Path) -> None:
    affine = np.diag([1000.0, 1000, 1000, 1]) @ AFFINE
    for path in (image_of(folder), folder / "labels" / "c5.nii.gz"):
        raw_nifti(path, np.ones((6, 5, 4), np.uint8), affine=affine, edit=lambda header: header.__setitem__("xyzt_units", 3))
    notes = " ".join(accepted(folder)["notes"])
    assert "c5_0000.nii.gz" in notes and "micron" in notes
    assert read_image(folder.parent / RAW / "imagesTr" / "c5_0000.nii.gz").geometry.spacing_mm == GRID.spacing_mm


def sheared(amount: float) -> np.ndarray:
    affine = AFFINE.copy()
    affine[0, 1] = amount * 3
    return affine


def test_row_13_noise_of_1e_4_in_the_affine_is_recorded(folder: Path) -> None:
    raw_nifti(image_of(folder), affine=sheared(1e-4))
    assert "orthogonal" in " ".join(accepted(folder)["notes"])


def test_row_13_a_shear_of_0_3_is_refused(folder: Path) -> None:
    raw_nifti(image_of(folder), affine=sheared(0.3))
    refused(folder, "GEOMETRY", "c5_0000.nii.gz", "sheared")


def test_row_14_a_bad_sform_is_told_and_the_spacing_of_pixdim_taken(folder: Path) -> None:
    bad = shared("robustness/acdc_bad_sform")
    for name, target in (("patient001_frame01", "images/c5_0000"), ("patient001_frame01_gt", "labels/c5")):
        (folder / f"{target}.nii.gz").write_bytes((bad / f"{name}.nii.gz").read_bytes())
    (folder / "dataset.json").write_text('{"labels": {"background": 0, "RV": 1, "MYO": 2, "LV": 3}}')
    assert "pixdim taken" in " ".join(accepted(folder)["notes"])
    written = read_image(folder.parent / RAW / "imagesTr" / "c5_0000.nii.gz").geometry
    assert written.spacing_mm == (10.0, 1.5625, 1.5625)


@pytest.mark.parametrize(
    ("array", "affine"),
    [
        (np.ones((6, 5, 3), np.uint8), AFFINE),
        (np.ones((6, 5, 4), np.uint8), AFFINE + np.array([[0, 0, 0, 5], [0] * 4, [0] * 4, [0] * 4])),
        (np.ones((6, 5, 4), np.uint8), AFFINE @ np.diag([-1.0, 1, 1, 1])),
    ],
    ids=["shape", "origin", "flip"],
)
def test_row_15_a_mask_on_another_grid_is_refused_with_both_headers(
    folder: Path, array: np.ndarray, affine: np.ndarray
) -> None:
    raw_nifti(folder / "labels" / "c5.nii.gz", array, affine=affine)
    refused(folder, "GEOMETRY", "c5: mask c5.nii.gz", "expected shape", "got shape")


def mask_with(folder: Path, *values: float) -> None:
    voxels = np.zeros((6, 5, 4), np.float32)
    voxels.ravel()[: len(values)] = values
    raw_nifti(folder / "labels" / "c5.nii.gz", voxels)


def test_row_16_labels_within_a_thousandth_are_rounded_and_counted(folder: Path) -> None:
    mask_with(folder, 1.0003, 1.0)
    summary = accepted(folder)
    assert (summary["rounded_masks"], summary["rounded_voxels"]) == (1, 1)
    assert read_image(folder.parent / RAW / "labelsTr" / "c5.nii.gz").array.max() == 1


@pytest.mark.parametrize(("value", "words"), [(1.4, "no whole numbers"), (-1.0, "0 to 65535")])
def test_row_16_fractions_and_negative_labels_are_refused(folder: Path, value: float, words: str) -> None:
    mask_with(folder, value)
    refused(folder, "LABEL", "c5.nii.gz", words)


def test_row_16_labels_with_gaps_are_refused_until_they_are_mapped(folder: Path) -> None:
    mask_with(folder, 2, 5)
    refused(folder, "LABEL", "[0, 1, 2, 5] have gaps", "--map-label")
    assert accepted(folder, "--map-label", "5=3")["labels"] == {"background": 0, "label_1": 1, "label_2": 2, "label_3": 3}


def test_row_16_a_label_of_300_is_kept_in_16_bits(folder: Path) -> None:
    mask_with(folder, 300)
    (folder / "dataset.json").write_text(json.dumps({"labels": {"background": 0} | {f"l{i}": i for i in range(1, 301)}}))
    accepted(folder)
    assert read_image(folder.parent / RAW / "labelsTr" / "c5.nii.gz").array.max() == 300


def test_row_17_one_time_point_is_squeezed_and_it_is_said(folder: Path) -> None:
    raw_nifti(image_of(folder), NOISE[..., None])
    assert "read as [6, 5, 4]" in " ".join(accepted(folder)["notes"])


def test_row_17_three_time_points_are_refused(folder: Path) -> None:
    raw_nifti(image_of(folder), np.zeros((6, 5, 4, 3), np.int16))
    refused(folder, "GEOMETRY", "c5_0000.nii.gz", "save each time point as a channel")


@pytest.mark.parametrize(("code", "bits", "kind"), [(128, 24, "RGB"), (32, 64, "complex")])
def test_row_17_colour_and_complex_voxels_are_refused(folder: Path, code: int, bits: int, kind: str) -> None:
    def edit(header: Any) -> None:
        header["datatype"], header["bitpix"] = code, bits

    edited(image_of(folder), edit)
    refused(folder, "UNREADABLE", "c5_0000.nii.gz", kind)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("c5,b\n", "", ["c5"]),
        ("c5,b\n", "c5,b\nc5,a\n", ["line 8", "c5"]),
        ("c5,b\n", "c5,b\nnobody,a\n", ["line 8", "nobody"]),
        ("c5,b\n", "c5\n", ["line 7", "expected 2 cells, got 1"]),
        ("c5,b\n", "05,b\n", ["line 7", "05"]),
    ],
    ids=["missing", "twice", "unknown", "short", "another id"],
)
def test_row_18_a_malformed_table_is_refused_with_its_line(folder: Path, old: str, new: str, words: list[str]) -> None:
    table = folder / "cases.csv"
    table.write_text(table.read_text().replace(old, new))
    refused(folder, "TABLE", "cases.csv", *words)


def test_row_18_a_byte_order_mark_and_leading_zeros_are_read_as_they_are(tmp_path: Path) -> None:
    names = [f"{i:02d}" for i in range(10)]
    folder = dataset(tmp_path / "user", {name: "ab"[i % 2] for i, name in enumerate(names)})
    table = folder / "cases.csv"
    table.write_text("\ufeff" + table.read_text(), encoding="utf-8")
    accepted(folder)
    rows = (tmp_path / RAW / "classification_labels.csv").read_text().splitlines()
    assert rows[1:3] == ["00,a", "01,b"]


def write_folds(folder: Path, validation: list[str]) -> None:
    names = list(ten_cases())
    fold = {"train": [name for name in names if name not in validation], "val": validation}
    (folder / "splits_final.json").write_text(json.dumps([fold]))


def test_row_19_a_patient_in_train_and_validation_is_a_leak(tmp_path: Path) -> None:
    cells = {f"c{i}": f"p{i // 2}" for i in range(10)}
    folder = dataset(tmp_path / "user", ten_cases(), header="case_id,grade,patient_id", extra_columns=cells)
    write_folds(folder, ["c0", "c5"])
    refused(folder, "LEAK", "patients in train and val: p0, p2")


def test_row_20_a_fold_that_lacks_a_class_is_a_warning(folder: Path) -> None:
    write_folds(folder, ["c0", "c2"])
    assert "fold 0 val has no case of grade class b" in accepted(folder)["notes"]


def test_row_21_unicode_spaces_and_long_ids_work(tmp_path: Path) -> None:
    names = ["Fall 1 – ä患", "x" * 150, *(f"c{i}" for i in range(8))]
    accepted(dataset(tmp_path / "user", {name: "ab"[i % 2] for i, name in enumerate(names)}))
    written = {path.name for path in (tmp_path / RAW / "labelsTr").iterdir()}
    assert written == {f"{name}.nii.gz" for name in names}


def test_row_21_ids_that_are_one_file_on_some_systems_are_refused(tmp_path: Path) -> None:
    refused(dataset(tmp_path / "user", {"C5": "a", **ten_cases()}), "DATASET", "C5", "c5", "same file")


KILLED = """
import os, signal, sys
from nnduet.cli import main
seen, limit, root = 0, int(sys.argv.pop(1)), sys.argv.pop(1)

def die(event, arguments):
    global seen
    if event == "os.rename" and root in str(arguments[0]):
        seen += 1
        if seen == limit:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(die)
main()
"""


@pytest.mark.parametrize(("rename", "several"), [(1, False), (11, False), (25, False), (14, True)])
def test_row_22_after_kill_9_the_same_call_gives_what_an_undisturbed_one_gives(
    folder: Path, rename: int, several: bool
) -> None:
    """Killed before a rename, which is what makes a file visible; also where several masks of a case are combined."""
    write_image(image_of(folder), np.ones(GRID.shape, np.float32), GRID)
    shutil.copytree(folder / "labels", folder / "late")
    more = ["--labels", "ED=labels", "--labels", "ES=late"] if several else []
    accepted(folder, *more)
    work = folder.parent / "work"
    expected = tree(work)
    work.rename(folder.parent / "undisturbed")
    command = [sys.executable, "-c", KILLED, str(rename), str(work), *arguments(folder, *more)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == -signal.SIGKILL
    assert not (folder.parent / RAW / "dataset.json").exists()
    assert list(work.rglob(".nnduet-tmp-*"))
    for _ in range(2):
        accepted(folder, *more)
        assert tree(work) == expected
