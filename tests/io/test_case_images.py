"""Our reader gives what nnU-Net's readers give, for files on which readers agree."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from nnduet.errors import CorruptFileError, GeometryError, ModelError
from nnduet.io.case_images import read_case, read_headers
from nnduet.io.images import Geometry, write_image


def plans_for(reader: str) -> SimpleNamespace:
    return SimpleNamespace(plans={"image_reader_writer": reader})


def write_channels(folder: Path, dtype: type, ending: str, orientation: str = "LPS") -> list[Path]:
    rng = np.random.default_rng(0)
    paths = []
    for channel in range(2):
        image = SimpleITK.GetImageFromArray(rng.normal(100, 50, (5, 7, 9)).astype(dtype))
        image.SetSpacing((0.7, 0.8, 2.5))
        image.SetOrigin((3.0, -4.0, 5.0))
        paths.append(folder / f"case_{channel:04d}{ending}")
        SimpleITK.WriteImage(SimpleITK.DICOMOrient(image, orientation), str(paths[-1]))
    return paths


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("orientation", ["LPS", "RAI", "SLP"])
@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float32, np.float64])
def test_nifti_is_read_as_nnunet_does(dtype: type, orientation: str, ending: str, tmp_path: Path) -> None:
    paths = write_channels(tmp_path, dtype, ending, orientation)
    expected, properties = SimpleITKIO().read_images([str(p) for p in paths])
    data, found = read_case(paths, read_headers(paths), plans_for("SimpleITKIO"))
    assert data.dtype == expected.dtype
    np.testing.assert_array_equal(data, expected)
    np.testing.assert_allclose(found["spacing"], properties["spacing"], rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png_is_read_as_nnunet_does(dtype: type, tmp_path: Path) -> None:
    path = tmp_path / "case_0000.png"
    write_image(path, np.random.default_rng(0).integers(0, 250, (1, 8, 6)).astype(dtype), Geometry((1, 8, 6)))
    expected, properties = NaturalImage2DIO().read_images([str(path)])
    data, found = read_case([path], read_headers([path]), plans_for("NaturalImage2DIO"))
    np.testing.assert_array_equal(data, expected)
    assert found["spacing"] == list(properties["spacing"])


def test_a_damaged_file_has_a_header_but_no_voxels(tmp_path: Path) -> None:
    path = write_channels(tmp_path, np.int16, ".nii")[0]
    path.write_bytes(path.read_bytes()[:-20])
    headers = read_headers([path])
    assert headers[0].geometry.shape == (5, 7, 9)
    with pytest.raises(CorruptFileError, match="case_0000"):
        read_case([path], headers, plans_for("SimpleITKIO"))


def test_channels_on_different_grids_are_refused_by_their_headers(tmp_path: Path) -> None:
    paths = write_channels(tmp_path, np.int16, ".nii")
    write_image(paths[1], np.zeros((4, 7, 9), dtype=np.int16), Geometry((4, 7, 9)))
    with pytest.raises(GeometryError, match="case_0001"):
        read_headers(paths)


def test_an_unknown_reader_is_refused(tmp_path: Path) -> None:
    paths = write_channels(tmp_path, np.int16, ".nii")
    with pytest.raises(ModelError, match="image_reader_writer"):
        read_case(paths, read_headers(paths), plans_for("Tiff3DIO"))
