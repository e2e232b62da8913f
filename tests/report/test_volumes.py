"""Cases as scripts: what a viewer gets is the case, in its place, and nothing that a name could inject."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

import nnduet.report
from nnduet.errors import GeometryError, LabelError
from nnduet.io.geometry import Geometry
from nnduet.report.volumes import CaseVolumes, write_volumes

VENDOR = Path(nnduet.report.__file__).parent / "vendor"
SHAPE = (20, 30, 40)
SPACING_MM = (5.0, 1.0, 2.0)
ORIGIN_MM = (-12.5, 7.25, 100.0)
TURNED = (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)  # a quarter turn about z
GRID = Geometry(SHAPE, SPACING_MM, ORIGIN_MM, TURNED)


def _case(**changes: Any) -> CaseVolumes:
    """A box of label 2 at z 8-9, y 10-14, x 20-25 in an image whose values tell their place."""
    mask = np.zeros(SHAPE, dtype=np.uint8)
    mask[8:10, 10:15, 20:26] = 2
    image = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    fields = {"image": image, "geometry": GRID, "prediction": mask, "reference": mask, "evidence": None, "labels": {"box": 2}}
    return CaseVolumes(**{**fields, **changes})


def _payload(path: Path) -> dict[str, Any]:
    found = re.search(r"\nwindow\.nnduetVolumes\[.*?\] = (.*);\n$", path.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    payload: dict[str, Any] = json.loads(found.group(1))
    return payload


def _nifti(path: Path, what: str) -> nibabel.Nifti1Image:
    return nibabel.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(_payload(path)["volumes"][what])))


def _written(path: Path, what: str) -> NDArray[np.float64]:
    """Values (Z, Y, X) with slope and intercept applied."""
    return np.asarray(_nifti(path, what).get_fdata()).transpose(2, 1, 0)


def _affine_of(first_voxel: tuple[int, int, int], strides: tuple[int, int, int] = (1, 1, 1)) -> NDArray[np.float64]:
    """From voxels (x, y, z) of a part of the grid to RAS: those of the part to those of the grid, then to the world."""
    to_grid = np.diag([*strides[::-1], 1]).astype(float)
    to_grid[:3, 3] = first_voxel[::-1]
    combined: NDArray[np.float64] = GRID.affine_ras() @ to_grid
    return combined


def test_volumes_are_cropped_to_what_is_outlined_plus_a_margin_in_millimetres(tmp_path: Path) -> None:
    write_volumes(tmp_path / "0.js", "0", _case(), margin_mm=5.0)
    # z 8-9 and 1 voxel of 5 mm, y 10-14 and 5 of 1 mm, x 20-25 and 3 of 2 mm
    assert _written(tmp_path / "0.js", "image").shape == (4, 15, 12)
    assert _payload(tmp_path / "0.js")["cropped"] is True


def test_a_cropped_voxel_keeps_its_place_in_the_world(tmp_path: Path) -> None:
    write_volumes(tmp_path / "0.js", "0", _case(), margin_mm=5.0)
    for what in ("image", "prediction", "reference"):
        written = _nifti(tmp_path / "0.js", what)
        np.testing.assert_allclose(written.affine, _affine_of((7, 5, 17)), atol=1e-5)
        assert written.header["sform_code"] == written.header["qform_code"] == 1


def test_a_cropped_mask_is_the_mask(tmp_path: Path) -> None:
    case = _case()
    write_volumes(tmp_path / "0.js", "0", case, margin_mm=5.0)
    assert case.prediction is not None
    np.testing.assert_array_equal(_written(tmp_path / "0.js", "prediction"), case.prediction[7:11, 5:20, 17:29])
    assert _nifti(tmp_path / "0.js", "prediction").get_data_dtype() == np.uint8


def test_intensities_come_back_within_half_a_level_between_the_percentiles(tmp_path: Path) -> None:
    case = _case()
    write_volumes(tmp_path / "0.js", "0", case, margin_mm=5.0)
    crop = case.image[7:11, 5:20, 17:29]
    low, high = np.percentile(crop, (0.5, 99.5))
    difference = np.abs(_written(tmp_path / "0.js", "image") - np.clip(crop, low, high))
    assert difference.max() <= 0.51 * (high - low) / 255
    header = _nifti(tmp_path / "0.js", "image").header
    assert (header["cal_min"], header["cal_max"]) == pytest.approx((low, high))


def test_an_outlier_does_not_take_the_grey_levels_from_the_rest(tmp_path: Path) -> None:
    image = np.tile(np.arange(40, dtype=np.int16), (20, 30, 1))
    image[0, 0, 0] = 30000
    write_volumes(tmp_path / "0.js", "0", _case(image=image, prediction=None, reference=None))
    written = _written(tmp_path / "0.js", "image")
    assert written.max() == pytest.approx(39)
    assert written[5, 5, 7] == pytest.approx(7, abs=0.1)


@pytest.mark.parametrize("value", [0, -1024])
def test_an_image_of_one_value_keeps_it(tmp_path: Path, value: int) -> None:
    write_volumes(tmp_path / "0.js", "0", _case(image=np.full(SHAPE, value, dtype=np.int16)))
    assert np.unique(_written(tmp_path / "0.js", "image")).tolist() == [value]


def test_without_anything_outlined_the_whole_image_is_kept_and_looked_at_in_its_middle(tmp_path: Path) -> None:
    empty = np.zeros(SHAPE, dtype=np.uint8)
    write_volumes(tmp_path / "0.js", "0", _case(prediction=empty, reference=None))
    payload = _payload(tmp_path / "0.js")
    assert _written(tmp_path / "0.js", "image").shape == SHAPE
    assert payload["cropped"] is False
    assert sorted(payload["volumes"]) == ["image", "prediction"]
    np.testing.assert_allclose(payload["focus_mm"], (GRID.affine_ras() @ [20, 15, 10, 1])[:3], atol=1e-3)


def test_the_view_starts_where_most_is_outlined(tmp_path: Path) -> None:
    mask = np.zeros(SHAPE, dtype=np.uint8)
    mask[2, 3, 4] = 2
    mask[12:14, 20:23, 30] = 2
    write_volumes(tmp_path / "0.js", "0", _case(prediction=mask, reference=None))
    np.testing.assert_allclose(_payload(tmp_path / "0.js")["focus_mm"], (GRID.affine_ras() @ [30, 20, 12, 1])[:3], atol=1e-3)


def test_the_finest_axis_is_thinned_first_and_the_rest_keeps_its_place(tmp_path: Path) -> None:
    case = _case(prediction=None, reference=None)
    write_volumes(tmp_path / "0.js", "0", case, most_voxels=20 * 15 * 40)
    written = _nifti(tmp_path / "0.js", "image")
    assert _payload(tmp_path / "0.js")["strides"] == [1, 2, 1]
    np.testing.assert_allclose(written.affine, _affine_of((0, 0, 0), (1, 2, 1)), atol=1e-5)
    low, high = np.percentile(case.image[:, ::2], (0.5, 99.5))
    np.testing.assert_allclose(
        _written(tmp_path / "0.js", "image"), np.clip(case.image[:, ::2], low, high), atol=0.51 * (high - low) / 255
    )


@pytest.mark.parametrize("most_voxels", [0, 1, 7, 500])
def test_no_more_voxels_than_asked_for_are_written_but_at_least_one(tmp_path: Path, most_voxels: int) -> None:
    write_volumes(tmp_path / "0.js", "0", _case(), most_voxels=most_voxels)
    assert 1 <= _written(tmp_path / "0.js", "image").size <= max(1, most_voxels)


def test_a_slice_is_a_volume_of_one_slice(tmp_path: Path) -> None:
    flat = Geometry((1, 30, 40))
    mask = np.zeros(flat.shape, dtype=np.uint8)
    mask[0, 10:12, 10:12] = 1
    image = np.random.default_rng(0).integers(0, 255, flat.shape, dtype=np.uint8)
    write_volumes(tmp_path / "0.js", "0", CaseVolumes(image, flat, mask, None, None, {"lesion": 1}), margin_mm=4.0)
    assert _written(tmp_path / "0.js", "image").shape == (1, 10, 10)


def test_evidence_keeps_its_sign_and_an_exact_zero(tmp_path: Path) -> None:
    evidence = np.zeros(SHAPE, dtype=np.float32)
    evidence[9, 12, 22], evidence[9, 13, 22], evidence[9, 14, 22] = 4.0, -2.0, np.nan
    write_volumes(tmp_path / "0.js", "0", _case(evidence=evidence, prediction=None, reference=None))
    written = _written(tmp_path / "0.js", "evidence")
    assert written[9, 12, 22] == pytest.approx(4.0)
    assert written[9, 13, 22] == pytest.approx(-2.0, abs=4 / 127)
    assert np.count_nonzero(written) == 2


def test_names_and_keys_cannot_close_a_script(tmp_path: Path) -> None:
    name = '</script><script>alert("1")</script>'
    write_volumes(tmp_path / "0.js", name, _case(labels={name: 2}))
    assert "<" not in (tmp_path / "0.js").read_text(encoding="utf-8")
    assert _payload(tmp_path / "0.js")["labels"] == [{"name": name, "value": 2}]


def test_the_same_case_gives_the_same_bytes_and_their_number(tmp_path: Path) -> None:
    first = write_volumes(tmp_path / "volumes" / "0.js", "0", _case())
    write_volumes(tmp_path / "1.js", "0", _case())
    assert (tmp_path / "1.js").read_bytes() == (tmp_path / "volumes" / "0.js").read_bytes()
    assert first == (tmp_path / "1.js").stat().st_size


def test_a_noisy_crop_of_64_voxels_a_side_takes_less_than_half_a_megabyte(tmp_path: Path) -> None:
    grid = Geometry((64, 64, 64))
    noise = np.random.default_rng(0).normal(size=grid.shape).astype(np.float32)  # the worst case of gzip
    mask = np.zeros(grid.shape, dtype=np.uint8)
    mask[20:40, 20:40, 20:40] = 1
    case = CaseVolumes(noise, grid, mask, mask, None, {"lesion": 1})
    assert write_volumes(tmp_path / "0.js", "0", case, margin_mm=60.0) < 400_000


@pytest.mark.parametrize("what", ["image", "prediction", "reference", "evidence"])
def test_an_array_on_another_grid_is_refused_by_name(tmp_path: Path, what: str) -> None:
    with pytest.raises(GeometryError, match=f"0: {what} of shape"):
        write_volumes(tmp_path / "0.js", "0", _case(**{what: np.zeros((2, 3, 4), dtype=np.uint8)}))


@pytest.mark.parametrize(("labels", "told"), [({"box": 300}, "got {'box': 300}"), ({"other": 1}, r"prediction holds \[2\]")])
def test_labels_that_a_viewer_cannot_name_are_refused(tmp_path: Path, labels: dict[str, int], told: str) -> None:
    with pytest.raises(LabelError, match=told):
        write_volumes(tmp_path / "0.js", "0", _case(labels=labels))


def test_niivue_is_the_unchanged_file_that_its_readme_names() -> None:
    digest = hashlib.sha256((VENDOR / "niivue.umd.js").read_bytes()).hexdigest()
    assert digest in (VENDOR / "README.md").read_text(encoding="utf-8")
