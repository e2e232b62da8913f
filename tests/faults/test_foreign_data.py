"""Data, folders and files as strangers have them, through `nnduet convert`: right, or refused with what helps."""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
from data_builders import GRID, SHAPE, dataset, raw_nifti, ten_cases, tree, workspace
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from PIL import Image as PillowImage
from typer.testing import CliRunner

from nnduet.cli import app
from nnduet.datasets.conversion import convert
from nnduet.datasets.layouts import read_folder
from nnduet.errors import LockedError
from nnduet.io.case_images import read_case, read_headers
from nnduet.io.files import locked
from nnduet.io.images import read_image, write_image, write_segmentation

RAW = Path("work/nnUNet_raw/Dataset007_Test")
MINIMAL = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "ball": 1}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten sound cases c0 … c9 of two classes, label 1."""
    return dataset(tmp_path / "user", ten_cases())


def run(folder: Path, *more: str) -> dict[str, Any]:
    """What `nnduet convert --json` says."""
    command = ["convert", str(folder), "--dataset-id", "7", "--name", "Test", "--task", "grade", "--json"]
    result = CliRunner().invoke(app, [*command, "--workspace", str(folder.parent / "work"), *more])
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


def notes_of(folder: Path, *more: str) -> str:
    found = run(folder, *more)
    assert "error" not in found, found
    return "\n".join(found["notes"])


def refused(folder: Path, code: str, *words: str, more: tuple[str, ...] = ()) -> str:
    found = run(folder, *more)
    assert "error" in found, found
    assert found["error"]["code"] == code, found
    message: str = found["error"]["message"]
    assert [word for word in words if word not in message] == [], message
    return message


def describe(folder: Path, **keys: Any) -> None:
    (folder / "dataset.json").write_text(json.dumps({**MINIMAL, **keys}))


def written(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder.parent / RAW / "dataset.json").read_text())
    return found


def mask_with(folder: Path, case_id: str, *values: int, dtype: type = np.int16) -> None:
    voxels: np.ndarray = np.zeros((6, 5, 4), dtype)
    voxels.ravel()[: len(values)] = values
    raw_nifti(folder / "labels" / f"{case_id}.nii.gz", voxels)


@pytest.mark.parametrize("reader", ["NibabelIOWithReorient", "NibabelIO", "SimpleITKIO"])
def test_row_67_a_reader_for_the_same_files_is_left_out_and_it_is_said(folder: Path, reader: str) -> None:
    describe(folder, overwrite_image_reader_writer=reader)
    assert f"overwrite_image_reader_writer {reader} is left out" in notes_of(folder)
    assert "overwrite_image_reader_writer" not in written(folder)


@pytest.mark.parametrize("codes", ["LPS", "RAS", "PIR", "ASL"])
def test_row_67_training_and_prediction_read_one_array_of_a_turned_scan_and_its_mask(folder: Path, codes: str) -> None:
    """Axes permuted and mirrored: the reader that nnU-Net chooses for the converted dataset, and nnDuet's for prediction."""
    describe(folder, overwrite_image_reader_writer="NibabelIOWithReorient")
    voxels = np.zeros((6, 5, 4), np.int16)
    voxels[1:3, 2:5, 3:] = 7
    target = nibabel.orientations.axcodes2ornt(codes)
    for name, array in (("images/c0_0000", voxels), ("labels/c0", (voxels > 0).astype(np.uint8))):
        image = nibabel.Nifti1Image(array, np.diag([-2.0, -3.0, 4.0, 1.0]))
        turn = nibabel.orientations.ornt_transform(nibabel.io_orientation(image.affine), target)
        nibabel.save(image.as_reoriented(turn), folder / f"{name}.nii.gz")
    notes_of(folder)
    raw = folder.parent / RAW
    scan, mask = raw / "imagesTr" / "c0_0000.nii.gz", raw / "labelsTr" / "c0.nii.gz"
    reader = determine_reader_writer_from_dataset_json(written(folder), str(scan), verbose=False)
    assert reader is SimpleITKIO
    image, _ = reader().read_images((str(scan),))
    segmentation, _ = reader().read_seg(str(mask))
    np.testing.assert_array_equal(segmentation == 1, image == 7)
    plans = SimpleNamespace(plans={"image_reader_writer": reader.__name__})
    ours, _ = read_case([scan], read_headers([scan]), plans)
    np.testing.assert_array_equal(ours, image)
    given, _ = read_case([(first := folder / "images" / "c0_0000.nii.gz")], read_headers([first]), plans)
    np.testing.assert_array_equal(given, image)


@pytest.mark.parametrize("reader", ["Tiff3DIO", "MyOwnReader", 3])
def test_row_67_any_other_reader_is_refused(folder: Path, reader: object) -> None:
    describe(folder, overwrite_image_reader_writer=reader)
    refused(folder, "DATASET", "overwrite_image_reader_writer expected one of", repr(reader))


@pytest.mark.parametrize("absolute", [False, True])
def test_row_68_files_named_in_dataset_json_are_refused_with_what_helps(folder: Path, absolute: bool) -> None:
    place = f"{folder}/" if absolute else ""
    describe(folder, dataset={"c0": {"images": [f"{place}images/c0_0000.nii.gz"], "label": f"{place}labels/c0.nii.gz"}})
    refused(folder, "DATASET", "the key 'dataset' names files elsewhere", "remove the key")


def test_row_68_only_known_keys_pass_and_the_others_are_named(folder: Path) -> None:
    describe(folder, licence="CC0", reference="doi", release="1.0", description="x", spacing=[1, 1, 1], my_key=1)
    assert "keys that nnDuet does not know are left out: my_key, spacing" in notes_of(folder)
    assert {"licence", "reference", "release", "description"} <= set(written(folder))
    assert not {"spacing", "my_key"} & set(written(folder))


def hounsfield(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(10):
        image = rng.normal(40, 20, SHAPE)
        image[0] = -1000
        write_image(folder / "images" / f"c{i}_0000.nii.gz", image.astype(np.int16), GRID)


def test_row_69_values_like_ct_under_another_name_are_told_with_what_to_type(folder: Path) -> None:
    hounsfield(folder)
    assert "channel 0, 'image', looks like Hounsfield units in 5 of 5 cases looked at" in (said := notes_of(folder))
    assert "--channel CT" in said


def test_row_69_the_name_is_taken_from_the_command_line_before_dataset_json(folder: Path) -> None:
    hounsfield(folder)
    describe(folder)
    assert "Hounsfield" not in notes_of(folder, "--channel", "CT")
    assert written(folder)["channel_names"] == {"0": "CT"}


def test_row_69_each_channel_needs_one_name(folder: Path) -> None:
    refused(folder, "DATASET", "expected 2 channel(s)", more=("--channel", "CT", "--channel", "PET"))
    for i in range(10):
        shutil.copy(folder / "images" / f"c{i}_0000.nii.gz", folder / "images" / f"c{i}_0001.nii.gz")
    assert run(folder, "--channel", "CT", "--channel", "PET")["num_cases"] == 10
    assert written(folder)["channel_names"] == {"0": "CT", "1": "PET"}


def test_row_77_mixed_endings_are_converted_and_the_rest_is_named(folder: Path) -> None:
    images = folder / "images"
    (images / "c0_0000.nii.gz").rename(images / "c0_0000.NII.GZ")
    (images / "c1_0000.nii.gz").rename(images / "c1.nii.gz")
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(images / "c2_0000.nii.gz")), str(images / "c2_0000.nii"))
    (images / "c2_0000.nii.gz").unlink()
    for name in ("._c3_0000.nii.gz", "Thumbs.db", "c99_0000.nrrd"):
        (images / name).write_bytes(b"x")
    said = notes_of(folder)
    assert "1 file: c99_0000.nrrd" in said and "2 files: ._c3_0000.nii.gz, Thumbs.db" in said
    names = sorted(path.name for path in (folder.parent / RAW / "imagesTr").iterdir())
    assert names == [f"c{i}_0000.nii.gz" for i in range(10)]


def in_place(folder: Path) -> Path:
    """The cases as an nnU-Net raw dataset of the user's own in the workspace."""
    raw = folder.parent / RAW
    raw.mkdir(parents=True)
    (folder / "images").rename(raw / "imagesTr")
    (folder / "labels").rename(raw / "labelsTr")
    (folder / "cases.csv").rename(raw / "cases.csv")
    return raw


@pytest.mark.parametrize("more", [(), ("--replace",), ("--dry-run",)])
def test_row_82_in_place_is_refused_and_the_users_files_stay(folder: Path, more: tuple[str, ...]) -> None:
    raw = in_place(folder)
    before = tree(folder.parent)
    place = ("--workspace", str(folder.parent / "work"))
    refused(raw, "OUTPUT_EXISTS", "the folder of its own images or masks", "nothing was changed", more=(*place, *more))
    assert tree(folder.parent) == before


def test_row_82_a_link_to_the_users_folder_is_refused(folder: Path) -> None:
    raw = folder.parent / RAW
    raw.parent.mkdir(parents=True)
    raw.symlink_to(folder, target_is_directory=True)
    refused(folder, "OUTPUT_EXISTS", "a link")
    raw.unlink()
    raw.mkdir()
    (raw / "labelsTr").symlink_to(folder / "labels", target_is_directory=True)
    refused(folder, "OUTPUT_EXISTS", "labelsTr: a link")
    assert not (folder / "images" / "dataset.json").exists() and len(list((folder / "labels").iterdir())) == 10


def test_row_82_a_workspace_among_the_images_is_refused(folder: Path) -> None:
    refused(folder, "OUTPUT_EXISTS", "its own images or masks", more=("--workspace", str(folder / "images" / "work")))


@pytest.mark.parametrize("more", [(), ("--replace",)])
def test_row_82_files_that_no_conversion_wrote_are_never_replaced(folder: Path, more: tuple[str, ...]) -> None:
    (mask := folder.parent / RAW / "labelsTr" / "c3.nii.gz").parent.mkdir(parents=True)
    mask.write_bytes(b"drawn for a year")
    refused(folder, "OUTPUT_EXISTS", str(mask), "did not write", more=more)
    assert mask.read_bytes() == b"drawn for a year" and len(list(mask.parent.iterdir())) == 1


def test_row_82_a_mask_that_was_corrected_in_the_dataset_is_never_replaced(folder: Path) -> None:
    notes_of(folder)
    mask = folder.parent / RAW / "labelsTr" / "c3.nii.gz"
    write_segmentation(mask, np.ones(SHAPE, np.uint8), GRID)
    corrected = mask.read_bytes()
    refused(folder, "OUTPUT_EXISTS", str(mask), "changed since", more=("--replace",))
    assert mask.read_bytes() == corrected


def test_row_82_what_a_conversion_wrote_is_replaced_by_a_later_one(folder: Path) -> None:
    notes_of(folder)
    mask_with(folder, "c3", 1, 1, 1)
    notes_of(folder)
    assert read_image(folder.parent / RAW / "labelsTr" / "c3.nii.gz").array.sum() == 3


def test_row_82_own_folds_beside_the_preprocessed_data_stay(folder: Path) -> None:
    splits = folder.parent / "work/nnUNet_preprocessed/Dataset007_Test/splits_final.json"
    splits.parent.mkdir(parents=True)
    splits.write_text("[]")
    refused(folder, "OUTPUT_EXISTS", str(splits), more=("--replace",))
    assert splits.read_text() == "[]"


@pytest.mark.parametrize("name", ["CON", "a:b", "trailing.", "a\u202eb", "x" * 201])
def test_row_84_case_ids_obey_the_one_rule_of_names(tmp_path: Path, name: str) -> None:
    if len(name) > 200:  # no file system takes it: it can only come from Python
        pytest.skip("tested in tests/datasets/test_sources.py")
    refused(dataset(tmp_path / "user", {name: "a", **ten_cases()}), "DATASET", "case id")


@pytest.mark.parametrize("label", ["../x", "liver/spleen", "NUL", "a\x1b[31m", ""])
def test_row_84_label_names_obey_the_one_rule_of_names(folder: Path, label: str) -> None:
    describe(folder, labels={"background": 0, label: 1})
    assert "\x1b" not in refused(folder, "DATASET", "label")


@pytest.mark.parametrize("name", ["../x", "a b", "CON", "a/b", ""])
def test_row_84_the_name_of_the_dataset_obeys_the_rule(folder: Path, name: str) -> None:
    refused(folder, "SETTINGS", "name of the dataset", more=("--name", name))


@pytest.mark.parametrize("name", [b"caf\xe9_0000.nii.gz", b"line\nfeed_0000.nii.gz", b"red\x1b[31m_0000.nii.gz"])
def test_row_136_names_that_break_terminals_are_refused_and_shown_escaped(folder: Path, name: bytes) -> None:
    shutil.copy(folder / "images" / "c0_0000.nii.gz", folder / "images" / os.fsdecode(name))
    said = refused(folder, "DATASET", "\\")
    assert said.isprintable()


def test_row_137_a_second_conversion_to_the_same_id_is_locked_out(folder: Path, tmp_path: Path) -> None:
    source, place = read_folder(folder, task_specs=["grade"]), workspace(tmp_path)
    errors: list[Exception] = []

    def second(name: str) -> None:
        try:
            convert(source, workspace=place, dataset_id=7, name=name)
        except LockedError as error:
            errors.append(error)

    with locked(place.raw / ".nnduet-convert-007"):
        for name in ("Test", "Other"):
            (thread := threading.Thread(target=second, args=(name,))).start()
            thread.join()
    assert len(errors) == 2 and not list(place.raw.glob("Dataset*"))
    convert(source, workspace=place, dataset_id=7, name="Test")


PAUSED = """
import os, signal, sys
from nnduet.cli import main

def pause(event, arguments):
    if event == "os.rename" and "c5_0000" in str(arguments[1]):
        os.write(1, b"paused\\n")
        os.kill(os.getpid(), signal.SIGSTOP)

sys.addaudithook(pause)
main()
"""


def test_row_137_a_conversion_that_sleeps_half_way_keeps_the_others_out(folder: Path) -> None:
    work = str(folder.parent / "work")
    command = ["convert", str(folder), "--dataset-id", "7", "--name", "Test", "--task", "grade", "--workspace", work]
    process = subprocess.Popen([sys.executable, "-c", PAUSED, *command], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "paused\n"
    try:
        refused(folder, "LOCKED", "another process is writing here")
    finally:
        process.send_signal(signal.SIGCONT)
    assert process.wait(60) == 0
    assert run(folder)["num_cases"] == 10


def test_row_100_labels_with_gaps_are_answered_with_the_whole_command_once(folder: Path) -> None:
    for i in range(10):
        mask_with(folder, f"c{i}", 3, 7, 7)
    said = refused(folder, "LABEL", "mask values [0, 3, 7] have gaps", "--map-label 3=1 --map-label 7=2")
    assert said.count("--map-label 3=1") == 1
    assert run(folder, "--map-label", "3=1", "--map-label", "7=2")["labels"] == {"background": 0, "label_1": 1, "label_2": 2}


def test_row_100_negative_values_can_be_mapped_and_it_is_said_how(folder: Path) -> None:
    for i in range(10):
        mask_with(folder, f"c{i}", -1, 1)
    refused(folder, "LABEL", "-1 in 10 of 10 masks (c0.nii.gz: 1 voxels", "--map-label -1=0")
    assert run(folder, "--map-label", "-1=0")["labels"] == {"background": 0, "label_1": 1}
    assert read_image(folder.parent / RAW / "labelsTr" / "c0.nii.gz").array.sum() == 1


def test_row_100_a_stray_value_is_named_with_its_mask_and_voxels(folder: Path) -> None:
    mask_with(folder, "c4", 1, 9, 9)
    refused(folder, "LABEL", "[0, 1, 9] have gaps", "rare are 9 in 1 of 10 masks (c4.nii.gz: 2 voxels)", "--map-label 9=2")
    describe(folder)
    said = refused(folder, "LABEL", "undeclared labels, 9 in 1 of 10 masks (c4.nii.gz: 2 voxels)", "--map-label 9=0")
    assert said.count("c4.nii.gz") == 1
    mask_with(folder, "c4", 1, 2)
    (folder / "dataset.json").unlink()
    assert "label 2 in 1 of 10 masks (c4.nii.gz: 1 voxels); if that is a slip: --map-label 2=0" in notes_of(folder)


def test_row_100_as_many_values_as_labels_are_these_in_order(folder: Path) -> None:
    for i in range(10):
        mask_with(folder, f"c{i}", 85, 170, 255)
    describe(folder, labels={"background": 0, "a": 1, "b": 2, "c": 3})
    refused(folder, "LABEL", "--map-label 85=1 --map-label 170=2 --map-label 255=3")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"labels": {"background": 0, "whole": [1, 2], "core": 2}}, ["regions_class_order", "[2, 2]", "whole, core"]),
        ({"labels": {"background": 0, "whole": [1, 2], "core": 2}, "regions_class_order": [1]}, ["regions_class_order"]),
        ({"labels": {"background": 0, "whole": [1, 2], "core": 2}, "regions_class_order": [1, 5]}, ["got [5]"]),
        ({"labels": {"background": 0, "ignore": 1, "a": 2}}, ["without gaps"]),
        ({"labels": {"background": 0, "a": 1, "ignore": 3}}, ['"ignore": 2', "--map-label 3=2"]),
        ({"labels": {"background": 0, "a": 1, "ignore": [2]}}, ['"ignore": 2']),
        ({"labels": {"background": 1, "a": 0}}, ['"background": 0']),
        ({"labels": {"background": [0], "a": 1}}, ['"background": 0']),
        ({"labels": {"ball": 1}}, ['"background": 0']),
        ({"labels": {"background": 0, "a": []}}, ["'a' expected an integer"]),
        ({"labels": {"background": 0, "a": 1.5}}, ["'a' expected an integer"]),
        ({"labels": {"background": 0, "ignore": 1}}, ["at least one label"]),
        ({"labels": {"background": 0, "a": 1, "b": 3}}, ["--map-label 3=2"]),
    ],
)
def test_row_101_labels_that_nnunet_would_end_in_an_assertion_are_refused(
    folder: Path, keys: dict[str, Any], words: list[str]
) -> None:
    describe(folder, **keys)
    refused(folder, "DATASET", *words)


def test_row_101_regions_with_their_order_and_ignore_pass(folder: Path) -> None:
    mask_with(folder, "c0", 1, 2, 3)
    labels = {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}
    describe(folder, labels=labels, regions_class_order=[1, 2])
    notes_of(folder)
    assert written(folder)["labels"] == labels and written(folder)["regions_class_order"] == [1, 2]


def test_row_103_a_dataset_json_of_nnunets_first_version_is_read(folder: Path) -> None:
    first = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "ball"}, "training": [], "tensorImageSize": "3D"}
    (folder / "dataset.json").write_text(json.dumps(first))
    said = notes_of(folder)
    assert "modality read as channel_names" in said and "left out: tensorImageSize, training" in said
    assert written(folder)["channel_names"] == {"0": "CT"} and written(folder)["labels"] == {"background": 0, "ball": 1}


@pytest.mark.parametrize(
    "keys",
    [
        {"channel_names": {"MR": 0}},
        {"labels": {"background": "0", "ball": "1"}},
        {"labels": {"Background": 0, "ball": 1}},
    ],
)
def test_row_103_what_is_beyond_doubt_is_read_with_a_note(folder: Path, keys: dict[str, Any]) -> None:
    describe(folder, **keys)
    assert "dataset.json: " in notes_of(folder)
    assert written(folder)["channel_names"] == {"0": "MR"} and written(folder)["labels"] == {"background": 0, "ball": 1}


A, B = [f"c{i}" for i in range(5)], [f"c{i}" for i in range(5, 10)]


@pytest.mark.parametrize(
    "splits",
    [
        {"train": A, "val": B},
        [{"train": A, "validation": B}],
        {"0": {"train": A, "val": B}},
        [{"train": [f"{c}.nii.gz" for c in A], "val": [f"{c}_0000.nii.gz" for c in B]}],
        [{"train": A, "val": B, "test": ["c0"]}],
    ],
)
def test_row_103_folds_whose_meaning_is_beyond_doubt_are_read_with_a_note(folder: Path, splits: Any) -> None:
    (folder / "splits_final.json").write_text(json.dumps(splits))
    assert "splits_final.json: " in notes_of(folder)
    assert json.loads((folder.parent / RAW / "splits_final.json").read_text()) == [{"train": A, "val": B}]


@pytest.mark.parametrize(
    ("splits", "words"),
    [
        ([{"train": [0, 1], "val": [2]}], ["fold 0 train", "case ids as text, such as 'c0', got 0"]),
        ([{"train": A}], ["under 'train' and 'val'", "['train']"]),
        ("c0", ["a list of folds", "got a text"]),
        ([A, B], ["a list of folds"]),
        ([{"train": "c0", "val": B}], ["expected a list of case ids, got a text"]),
        ([{"train": [*A, "c77.nii.gz"], "val": B}], ["unknown cases: c77.nii.gz"]),
    ],
)
def test_row_103_other_folds_are_refused_with_what_is_expected(folder: Path, splits: Any, words: list[str]) -> None:
    (folder / "splits_final.json").write_text(json.dumps(splits))
    refused(folder, "DATASET", *words)


def shifted(folder: Path, millimetres: float) -> None:
    for i in range(10):
        path = folder / "labels" / f"c{i}.nii.gz"
        image = nibabel.load(path)
        affine = image.affine.copy()
        affine[0, 3] += millimetres
        raw_nifti(path, np.asarray(image.dataobj), affine=affine)


def test_row_105_a_mask_a_little_beside_its_image_is_put_onto_it_on_demand(folder: Path) -> None:
    shifted(folder, 0.05)
    refused(folder, "GEOMETRY", "differs in origin", "--tolerate-mm 0.06")
    assert "up to 0.05 mm beside the image's grid, put onto it (tolerated: 0.06 mm)" in notes_of(
        folder, "--tolerate-mm", "0.06"
    )
    raw = folder.parent / RAW
    image, mask = (read_image(raw / name).geometry for name in ("imagesTr/c0_0000.nii.gz", "labelsTr/c0.nii.gz"))
    assert image == mask == GRID


def test_row_105_what_is_a_voxel_off_is_another_place_and_nothing_is_offered(folder: Path) -> None:
    shifted(folder, 3.0)
    assert "tolerate" not in refused(folder, "GEOMETRY", "differs in origin", more=("--tolerate-mm", "1"))


def write_png_dataset(folder: Path, save: Callable[[np.ndarray], PillowImage.Image]) -> np.ndarray:
    dataset(folder, ten_cases(), ending=".png")
    mask = np.zeros((5, 6), np.uint8)
    mask[1:3, 1:3] = 1
    for i in range(10):
        save(mask).save(folder / "labels" / f"c{i}.png", bits=1 if i == 0 else 8)
    return mask


def palette(mask: np.ndarray) -> PillowImage.Image:
    image = PillowImage.fromarray(mask).convert("P")
    image.putdata(mask.ravel().tolist())
    image.putpalette([0, 0, 0, 200, 10, 10])
    return image


@pytest.mark.parametrize("save", [palette, lambda mask: PillowImage.fromarray(mask > 0)], ids=["palette", "1-bit"])
def test_row_108_palette_and_1_bit_masks_keep_their_values(
    tmp_path: Path, save: Callable[[np.ndarray], PillowImage.Image]
) -> None:
    mask = write_png_dataset(tmp_path / "user", save)
    assert run(tmp_path / "user")["labels"] == {"background": 0, "label_1": 1}
    for i in (0, 1):
        stored = np.array(PillowImage.open(tmp_path / RAW / "labelsTr" / f"c{i}.png"))
        np.testing.assert_array_equal(stored, mask)
        assert stored.dtype == np.uint8


def grey_png(path: Path, mask: np.ndarray, bits: int) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    shifts = np.arange(bits)[::-1]
    rows = [b"\0" + np.packbits((row[:, None] >> shifts & 1).ravel().astype(np.uint8)).tobytes() for row in mask]
    header = struct.pack(">IIBBBBB", mask.shape[1], mask.shape[0], bits, 0, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"".join(rows))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


@pytest.mark.parametrize(("bits", "value"), [(2, 3), (4, 9)])
def test_row_108_grey_of_2_and_4_bits_keeps_its_values(tmp_path: Path, bits: int, value: int) -> None:
    dataset(tmp_path / "user", ten_cases(), ending=".png")
    mask = np.zeros((5, 6), np.uint8)
    mask[1, 2] = value
    for i in range(10):
        grey_png(tmp_path / "user" / "labels" / f"c{i}.png", mask, bits)
    run(tmp_path / "user", "--map-label", f"{value}=1")
    stored = np.array(PillowImage.open(tmp_path / RAW / "labelsTr" / "c0.png"))
    assert stored.sum() == 1 and stored[1, 2] == 1


def test_row_108_a_picture_in_colours_is_no_grey_image(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "user", ten_cases(), ending=".png")
    palette(np.ones((5, 6), np.uint8)).save(folder / "images" / "c0_0000.png")
    refused(folder, "UNREADABLE", "c0_0000.png", "palette")


@pytest.mark.parametrize("place", ["images/c3_0000.nii.gz", "labels/c3.nii.gz", "dataset.json", "splits_final.json"])
def test_a_pipe_is_refused_at_once(folder: Path, place: str) -> None:
    (folder / place).unlink(missing_ok=True)
    os.mkfifo(folder / place)
    assert "pipe" in run(folder)["error"]["message"]
