"""An image in memory gets the answer of its file: SimpleITK's and nibabel's, by channel, wherever its axes point."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch
from tiny import SPACING_MM, tiny_case, write_tiny_model

from nnduet.errors import GeometryError, ModelError, SettingsError, UnreadableFileError, ValuesError
from nnduet.inference.predictor import Predictor
from nnduet.io.geometry import Geometry
from nnduet.io.images import check_image, write_image

LPS = np.diag([-1.0, -1.0, 2.0, 1.0])
TURNED = np.array([[0, -0.6, 1.6, 5], [0, 0.8, 1.2, -7], [1, 0, 0, 9], [0, 0, 0, 1.0]])
AFFINES = {"LPS": LPS, "RAS": np.diag([1.0, 1.0, 2.0, 1.0]), "flipped": np.diag([1.0, -1.0, -2.0, 1.0]), "turned": TURNED}


@pytest.fixture(scope="module")
def predictor(model_3d: Path) -> Predictor:
    return Predictor.load(model_3d, [0], device="cpu", tta=False)


@pytest.fixture(scope="module")
def pair_predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    model = write_tiny_model(tmp_path_factory.mktemp("pair") / "model", 3, num_channels=2)
    return Predictor.load(model, [0], device="cpu", tta=False)


def write_case(path: Path, affine: np.ndarray, index: int = 0) -> Path:
    image = nibabel.Nifti1Image(tiny_case(index, 3)[0].astype(np.int16).transpose(2, 1, 0), affine)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("name", AFFINES)
def test_a_file_and_what_simpleitk_and_nibabel_read_of_it_get_the_same_answer(
    name: str, predictor: Predictor, tmp_path: Path
) -> None:
    path = write_case(tmp_path / "a_0000.nii.gz", AFFINES[name])
    expected = predictor(path)
    assert len(np.unique(expected.segmentation)) > 1
    for image in (SimpleITK.ReadImage(str(path)), nibabel.load(path)):
        got = predictor(image)
        np.testing.assert_array_equal(got.segmentation, expected.segmentation)
        assert got.tasks == expected.tasks and got.geometry is not None
        assert got.geometry.shape == check_image(path).shape
        for part in ("spacing_mm", "origin_mm", "direction"):
            np.testing.assert_allclose(getattr(got.geometry, part), getattr(check_image(path), part), atol=1e-6)


def test_a_mask_of_nibabels_image_lies_where_its_affine_says_in_ras_and_simpleitks_in_lps(predictor: Predictor) -> None:
    array = tiny_case(0, 3)[0]
    ras = predictor(nibabel.Nifti1Image(array.transpose(2, 1, 0), np.diag([1.0, 1.0, 2.0, 1.0]))).geometry
    assert ras is not None and ras.direction == (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing((1.0, 1.0, 2.0))
    image.SetOrigin((3.0, 4.0, 5.0))
    assert predictor(image).geometry == Geometry(array.shape, (2.0, 1.0, 1.0), (3.0, 4.0, 5.0))


def test_scaled_images_of_nibabel_are_read_as_their_files(predictor: Predictor, tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(tiny_case(0, 3)[0].astype(np.float64).transpose(2, 1, 0) / 7, LPS)
    image.set_data_dtype(np.int16)  # nibabel scales to it
    nibabel.save(image, tmp_path / "a.nii.gz")
    scaled = nibabel.load(tmp_path / "a.nii.gz")
    assert scaled.dataobj.slope != 1
    np.testing.assert_array_equal(predictor(scaled).segmentation, predictor(tmp_path / "a.nii.gz").segmentation)


def test_an_affine_that_was_given_after_loading_is_the_one_that_counts(predictor: Predictor, tmp_path: Path) -> None:
    loaded = nibabel.load(write_case(tmp_path / "a.nii.gz", LPS))
    moved = nibabel.Nifti1Image(loaded.dataobj, TURNED, loaded.header)
    nibabel.save(moved, tmp_path / "b.nii.gz")
    geometry = predictor(moved).geometry
    assert geometry is not None
    np.testing.assert_allclose(geometry.origin_mm, check_image(tmp_path / "b.nii.gz").origin_mm, atol=1e-5)
    np.testing.assert_allclose(geometry.direction, check_image(tmp_path / "b.nii.gz").direction, atol=1e-5)


def test_other_formats_of_nibabel_are_taken_by_their_affine(predictor: Predictor) -> None:
    image = nibabel.MGHImage(tiny_case(0, 3)[0].astype(np.int16).transpose(2, 1, 0), TURNED)
    expected = predictor(nibabel.Nifti1Image(np.asarray(image.dataobj), image.affine))
    got = predictor(image)
    np.testing.assert_array_equal(got.segmentation, expected.segmentation)
    assert got.geometry is not None and expected.geometry is not None
    np.testing.assert_allclose(got.geometry.direction, expected.geometry.direction, atol=1e-5)


def test_a_picture_that_simpleitk_read_gets_the_answer_of_its_file(model_2d: Path, tmp_path: Path) -> None:
    predictor, path = Predictor.load(model_2d, [0], device="cpu", tta=False), tmp_path / "a_0000.png"
    write_image(path, tiny_case(0, 2)[0], Geometry((1, 32, 32)))
    got, expected = predictor(SimpleITK.ReadImage(str(path))), predictor(path)
    np.testing.assert_array_equal(got.segmentation, expected.segmentation)
    assert got.tasks == expected.tasks and got.geometry == expected.geometry


def test_several_channels_are_a_list_of_images_or_one_image_of_vectors(pair_predictor: Predictor, tmp_path: Path) -> None:
    paths = [write_case(tmp_path / f"a_{channel:04d}.nii.gz", TURNED, channel) for channel in (0, 1)]
    expected = pair_predictor(paths)
    itk = [SimpleITK.ReadImage(str(path)) for path in paths]
    for images in (itk, SimpleITK.Compose(itk), [nibabel.load(path) for path in paths], (itk[0], nibabel.load(paths[1]))):
        np.testing.assert_array_equal(pair_predictor(images).segmentation, expected.segmentation)
    swapped = pair_predictor(itk[::-1])
    assert swapped.tasks != expected.tasks
    with pytest.raises(ModelError, match=r"expected 2 channel\(s\)"):
        pair_predictor(itk[0])
    itk[1].SetSpacing((3.0, 3.0, 3.0))
    with pytest.raises(GeometryError, match="channel 1: channels differs in spacing"):
        pair_predictor(itk)


@pytest.mark.parametrize(
    ("image", "kind"),
    [(torch.zeros(3, 4, 5), "torch.Tensor"), (b"bytes", "bytes"), (7, "int"), (None, "NoneType"), (["a.nii", 7], "int")],
)
def test_other_kinds_are_refused_by_name_with_what_is_accepted(predictor: Predictor, image: Any, kind: str) -> None:
    with pytest.raises(SettingsError, match=rf"path, a numpy array .*SimpleITK.Image.*nibabel.*list.*got {kind}$"):
        predictor(image)


def test_lists_of_arrays_and_lists_of_both_kinds_are_refused_with_what_to_do(predictor: Predictor, tmp_path: Path) -> None:
    array = tiny_case(0, 3)[0]
    with pytest.raises(SettingsError, match=r"one array \(C, Z, Y, X\), got a list of arrays; stack them"):
        predictor([array, array])
    path = write_case(tmp_path / "a.nii", LPS)
    with pytest.raises(SettingsError, match="a list of paths or of images in memory, got both"):
        predictor([path, nibabel.load(path)])


def test_a_spacing_beside_an_image_that_says_its_own_is_refused(predictor: Predictor) -> None:
    image = nibabel.Nifti1Image(tiny_case(0, 3)[0].transpose(2, 1, 0), LPS)
    with pytest.raises(SettingsError, match=r"spacing_mm: is for arrays; nibabel.Nifti1Image says its own"):
        predictor(image, spacing_mm=SPACING_MM[3])


def test_images_in_memory_that_no_file_could_hold_are_refused(predictor: Predictor) -> None:
    array = tiny_case(0, 3)[0].astype(np.float32)
    array[0, 0, 0] = np.nan
    for image in (SimpleITK.GetImageFromArray(array), nibabel.Nifti1Image(array.transpose(2, 1, 0), LPS)):
        with pytest.raises(ValuesError, match="image: expected finite values"):
            predictor(image)
    with pytest.raises(UnreadableFileError, match="expected one grey value per voxel, got data type complex64"):
        predictor(nibabel.Nifti1Image(np.zeros((3, 4, 5), np.complex64), LPS))
    with pytest.raises(GeometryError, match="expected one volume"):
        predictor(nibabel.Nifti1Image(np.zeros((3, 4, 5, 2), np.int16), LPS))
    with pytest.raises(GeometryError, match="sheared"):
        predictor(nibabel.Nifti1Image(np.zeros((3, 4, 5), np.int16), LPS + np.eye(4, k=1)))
    with pytest.raises(GeometryError, match="expected 2 or 3 dimensions, got 4"):
        predictor(SimpleITK.Image([4, 4, 4, 2], SimpleITK.sitkInt16))


def test_the_callers_images_are_left_as_they_were(predictor: Predictor, tmp_path: Path) -> None:
    image = nibabel.load(write_case(tmp_path / "a.nii.gz", TURNED))
    header, affine = image.header.copy(), image.affine.copy()
    predictor(image)
    assert image.header == header and (image.affine == affine).all()


def test_a_prediction_passes_between_processes_without_its_model(predictor: Predictor) -> None:
    prediction = predictor(tiny_case(0, 3)[0], spacing_mm=SPACING_MM[3])
    assert prediction.origin is not None and prediction.origin.predictor is predictor
    again = pickle.loads(pickle.dumps(prediction))
    np.testing.assert_array_equal(again.segmentation, prediction.segmentation)
    assert again.tasks == prediction.tasks and again.origin is None
