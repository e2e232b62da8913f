"""What a single file can do to a reader, and atomic writing."""

from __future__ import annotations

import errno
import gzip
import os
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from data_builders import AFFINE, GRID, SHAPE, png, raw_nifti, shared, tree

from nnduet.errors import (
    AmbiguousFileError,
    CorruptFileError,
    DiskFullError,
    GeometryError,
    LabelError,
    TooLargeError,
    UnreadableFileError,
)
from nnduet.io.formats import file_ending
from nnduet.io.images import (
    Geometry,
    check_image,
    inspect_image,
    read_image,
    read_segmentation,
    write_image,
    write_segmentation,
)

NOISE = np.random.default_rng(0).integers(-1000, 1000, (20, 20, 20)).astype(np.int16)


def test_reading_gives_z_y_x_and_the_geometry_of_simpleitk(tmp_path: Path) -> None:
    path = raw_nifti(tmp_path / "a.nii.gz")
    image, reference = read_image(path), SimpleITK.ReadImage(str(path))
    assert image.array.shape == SHAPE and image.array.dtype == np.int16
    np.testing.assert_array_equal(image.array, SimpleITK.GetArrayFromImage(reference))
    assert image.geometry == GRID
    assert image.geometry.origin_mm == reference.GetOrigin() and image.geometry.direction == reference.GetDirection()
    assert image.notes == () and image.header.is_canonical


@pytest.mark.parametrize("name", ["CT_AVM", "CT_pitch", "fmri_pitch"])
def test_oblique_and_scaled_files_read_as_simpleitk_reads_them(name: str) -> None:
    path = shared("robustness/niivue") / f"{name}.nii.gz"
    image, reference = read_image(path), SimpleITK.ReadImage(str(path))
    np.testing.assert_allclose(image.array, SimpleITK.GetArrayFromImage(reference), rtol=1e-6)
    np.testing.assert_allclose(image.geometry.direction, reference.GetDirection(), atol=1e-6)
    np.testing.assert_allclose(image.geometry.origin_mm, reference.GetOrigin(), atol=1e-4)


def test_big_endian_and_nifti_2_read_like_the_others(tmp_path: Path) -> None:
    voxels = np.arange(120, dtype=np.int16).reshape(6, 5, 4)
    nib.Nifti2Image(voxels, AFFINE).to_filename(tmp_path / "two.nii.gz")
    big = nib.Nifti1Header(endianness=">")
    big.set_data_dtype(np.dtype(">i2"))
    nib.Nifti1Image(voxels.astype(">i2"), AFFINE, header=big).to_filename(tmp_path / "big.nii")
    for name in ("two.nii.gz", "big.nii"):
        np.testing.assert_array_equal(read_image(tmp_path / name).array, voxels.T)
    assert read_image(tmp_path / "big.nii").array.dtype.isnative


@pytest.mark.parametrize("tenth", range(10))
def test_a_gzip_cut_anywhere_is_corrupt(tmp_path: Path, tenth: int) -> None:
    path = raw_nifti(tmp_path / "cut.nii.gz", NOISE)
    content = path.read_bytes()
    path.write_bytes(content[: max(1, len(content) * tenth // 10)] if tenth else content[:-1])
    with pytest.raises(CorruptFileError, match=r"cut\.nii\.gz"):
        check_image(path)


def test_a_wrong_crc_is_corrupt(tmp_path: Path) -> None:
    path = raw_nifti(tmp_path / "crc.nii.gz", NOISE)
    content = bytearray(path.read_bytes())
    content[-6] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptFileError, match="CRC"):
        read_image(path)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.9])
def test_a_flipped_bit_in_the_stream_is_corrupt(tmp_path: Path, share: float) -> None:
    path = raw_nifti(tmp_path / "flip.nii.gz", NOISE)
    content = bytearray(path.read_bytes())
    content[int(len(content) * share)] ^= 4
    path.write_bytes(content)
    with pytest.raises(CorruptFileError):
        check_image(path)


def test_a_damaged_header_under_a_wrong_crc_is_corrupt_and_not_a_strange_geometry(tmp_path: Path) -> None:
    path = raw_nifti(tmp_path / "a.nii.gz", edit=lambda header: header["dim"].__setitem__(1, -6))
    content = bytearray(path.read_bytes())
    content[-6] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptFileError, match="CRC"):
        check_image(path)


def test_a_nii_one_byte_short_is_corrupt(tmp_path: Path) -> None:
    path = raw_nifti(tmp_path / "short.nii")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptFileError, match="240 voxel bytes"):
        check_image(path)


@pytest.mark.parametrize("size", [100, 350])
def test_a_nii_cut_in_or_after_its_header_is_corrupt(tmp_path: Path, size: int) -> None:
    path = raw_nifti(tmp_path / "short.nii")
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CorruptFileError):
        check_image(path)


def test_bytes_after_the_voxels_are_corrupt(tmp_path: Path) -> None:
    with pytest.raises(CorruptFileError, match="7 bytes more"):
        check_image(raw_nifti(tmp_path / "long.nii.gz", extra=b"surplus"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"not an image at all, only some text", "no gzip file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n", "git lfs pull"),
    ],
)
def test_empty_text_and_lfs_pointers_are_unreadable(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.nii.gz"
    path.write_bytes(content)
    with pytest.raises(UnreadableFileError, match=message):
        check_image(path)


def test_gzipped_text_and_missing_files_and_unknown_endings_are_unreadable(tmp_path: Path) -> None:
    (tmp_path / "text.nii.gz").write_bytes(gzip.compress(b"some text"))
    for name, message in (("text.nii.gz", "no NIfTI header"), ("none.nii.gz", "no such file"), ("a.jpg", "ending in")):
        with pytest.raises(UnreadableFileError, match=message):
            check_image(tmp_path / name)


def test_nifti_bytes_named_nii_gz_are_refused_and_the_other_way_round(tmp_path: Path) -> None:
    plain = raw_nifti(tmp_path / "a.nii").rename(tmp_path / "a.nii.gz")
    with pytest.raises(UnreadableFileError, match="uncompressed NIfTI"):
        check_image(plain)
    zipped = raw_nifti(tmp_path / "b.nii.gz").rename(tmp_path / "b.nii")
    with pytest.raises(UnreadableFileError, match=r"rename it to \.nii\.gz"):
        check_image(zipped)


def test_a_nii_beside_a_nii_gz_is_ambiguous_for_both(tmp_path: Path) -> None:
    for path in (raw_nifti(tmp_path / "a.nii"), raw_nifti(tmp_path / "a.nii.gz")):
        with pytest.raises(AmbiguousFileError, match="stands beside it"):
            check_image(path)


def test_a_header_that_promises_30000_cubed_is_too_large_and_costs_no_memory(tmp_path: Path) -> None:
    path = raw_nifti(tmp_path / "huge.nii.gz", edit=lambda header: header["dim"].__setitem__(slice(1, 4), 30000))
    tracemalloc.start()
    with pytest.raises(TooLargeError, match="30000"):
        read_image(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6


def test_a_bomb_that_expands_beyond_its_header_is_too_large_and_costs_no_memory(tmp_path: Path) -> None:
    path = raw_nifti(tmp_path / "bomb.nii", np.zeros((6, 5, 4), np.int16))
    content = path.read_bytes()
    path.unlink()
    bomb = tmp_path / "bomb.nii.gz"
    with gzip.open(bomb, "wb", compresslevel=9) as stream:
        stream.write(content)
        for _ in range(200):
            stream.write(bytes(1 << 20))
    assert bomb.stat().st_size < 1e6
    tracemalloc.start()
    with pytest.raises(TooLargeError, match="expands far beyond"):
        check_image(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6


def test_an_honest_file_over_the_limit_is_too_large(tmp_path: Path) -> None:
    path = raw_nifti(tmp_path / "a.nii.gz")
    assert check_image(path, max_bytes=240).shape == SHAPE
    with pytest.raises(TooLargeError, match="240 bytes; allowed are 239"):
        check_image(path, max_bytes=239)


@pytest.mark.parametrize("size", [0, -6])
def test_zero_and_negative_dimensions_are_refused(tmp_path: Path, size: int) -> None:
    with pytest.raises(GeometryError, match="positive"):
        check_image(raw_nifti(tmp_path / "a.nii.gz", edit=lambda header: header["dim"].__setitem__(2, size)))


@pytest.mark.parametrize("count", [0, 1, 8, -1])
def test_impossible_numbers_of_dimensions_are_refused(tmp_path: Path, count: int) -> None:
    with pytest.raises(GeometryError, match="dimensions"):
        check_image(raw_nifti(tmp_path / "a.nii.gz", edit=lambda header: header["dim"].__setitem__(0, count)))


def test_nan_and_infinite_voxels_are_refused_and_counted(tmp_path: Path) -> None:
    voxels = np.zeros((6, 5, 4), np.float32)
    voxels[0, 0, :3] = [np.nan, np.inf, -np.inf]
    path = raw_nifti(tmp_path / "a.nii.gz", voxels)
    for read in (check_image, read_image):
        with pytest.raises(CorruptFileError, match="3 voxels are NaN or infinite"):
            read(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, -2.0])
def test_impossible_voxel_sizes_are_refused_beside_what_the_affine_says(tmp_path: Path, value: float) -> None:
    path = raw_nifti(tmp_path / "a.nii.gz", edit=lambda header: header["pixdim"].__setitem__(1, value))
    with pytest.raises(GeometryError, match=r"the sform \(code 1\) says \[2.0, 3.0, 4.0\]"):
        check_image(path)


def test_a_spacing_of_kilometres_is_refused(tmp_path: Path) -> None:
    def edit(header: nib.Nifti1Header) -> None:
        header["xyzt_units"], header["pixdim"][1] = 1, 2000

    with pytest.raises(GeometryError, match="outside"):
        check_image(raw_nifti(tmp_path / "a.nii.gz", edit=edit))


@pytest.mark.parametrize(("unit", "factor"), [(3, 0.001), (1, 1000.0)])
def test_microns_and_metres_become_millimetres_with_a_note(tmp_path: Path, unit: int, factor: float) -> None:
    path = raw_nifti(tmp_path / "a.nii.gz", edit=lambda header: header.__setitem__("xyzt_units", unit))
    header, reference = inspect_image(path), SimpleITK.ReadImage(str(path))
    np.testing.assert_allclose(header.geometry.spacing_mm, np.array([4.0, 3.0, 2.0]) * factor)
    np.testing.assert_allclose(header.geometry.origin_mm, reference.GetOrigin(), rtol=1e-6)
    assert "converted to mm" in header.notes[0] and not header.is_canonical


def test_an_undefined_unit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GeometryError, match="unit 5"):
        check_image(raw_nifti(tmp_path / "a.nii.gz", edit=lambda header: header.__setitem__("xyzt_units", 5)))


def sheared(amount: float) -> np.ndarray:
    """The test affine whose second axis leans towards the first by that cosine (for small amounts)."""
    affine = AFFINE.copy()
    affine[0, 1] = amount * 3
    return affine


def test_noise_of_1e_4_is_recorded_and_straightened(tmp_path: Path) -> None:
    header = inspect_image(raw_nifti(tmp_path / "a.nii.gz", affine=sheared(1e-4)))
    axes = np.reshape(header.geometry.direction, (3, 3))
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)
    assert "orthogonal" in header.notes[0] and not header.is_canonical


def test_a_shear_of_0_3_is_refused_also_beside_an_upright_qform(tmp_path: Path) -> None:
    with pytest.raises(GeometryError, match="sheared"):
        check_image(raw_nifti(tmp_path / "a.nii.gz", affine=sheared(0.3)))


@pytest.mark.parametrize("row", [[np.nan, 0, 0, 0], [0, 0, 0, 0]])
def test_an_sform_that_is_no_matrix_is_refused(tmp_path: Path, row: list[float]) -> None:
    path = raw_nifti(tmp_path / "a.nii.gz", edit=lambda header: header.__setitem__("srow_x", row))
    with pytest.raises(GeometryError, match="no invertible matrix"):
        check_image(path)


def test_a_qform_that_is_no_rotation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GeometryError, match="qform"):
        check_image(raw_nifti(tmp_path / "a.nii.gz", edit=lambda header: header.__setitem__("quatern_b", 3.0)))


@pytest.mark.parametrize(("sform_code", "expected"), [(1, -10.0), (2, -99.0)])
def test_where_qform_and_sform_disagree_the_choice_is_that_of_itk(tmp_path: Path, sform_code: int, expected: float) -> None:
    def edit(header: nib.Nifti1Header) -> None:
        header["sform_code"], header["qoffset_x"] = sform_code, 99

    path = raw_nifti(tmp_path / "a.nii.gz", edit=edit)
    header = inspect_image(path)
    assert header.geometry.origin_mm[0] == expected == SimpleITK.ReadImage(str(path)).GetOrigin()[0]
    assert "disagree" in header.notes[0] and not header.is_canonical


def test_where_the_sform_says_1_mm_the_voxel_size_of_pixdim_is_taken_with_a_note() -> None:
    path = shared("robustness/acdc_bad_sform") / "patient001_frame01.nii.gz"
    header = inspect_image(path)
    assert header.geometry.spacing_mm == (10.0, 1.5625, 1.5625)
    assert "pixdim taken" in header.notes[0] and not header.is_canonical


def test_without_any_orientation_the_identity_is_assumed_with_a_note(tmp_path: Path) -> None:
    def edit(header: nib.Nifti1Header) -> None:
        header["sform_code"], header["qform_code"] = 0, 0

    path = raw_nifti(tmp_path / "a.nii.gz", edit=edit)
    header, reference = inspect_image(path), SimpleITK.ReadImage(str(path))
    assert header.geometry == Geometry(SHAPE, (4.0, 3.0, 2.0)) and "identity assumed" in header.notes[0]
    assert reference.GetDirection() == header.geometry.direction


def test_a_qfac_of_zero_means_one(tmp_path: Path) -> None:
    path = raw_nifti(tmp_path / "a.nii.gz", edit=lambda header: header["pixdim"].__setitem__(0, 0))
    assert check_image(path).direction == GRID.direction


def masks_of(tmp_path: Path, values: list[float]) -> Path:
    voxels = np.zeros((6, 5, 4), np.float32)
    voxels.ravel()[: len(values)] = values
    return raw_nifti(tmp_path / "mask.nii.gz", voxels)


def test_labels_within_a_thousandth_are_rounded_and_counted(tmp_path: Path) -> None:
    image, num_rounded = read_segmentation(masks_of(tmp_path, [1.0003, 1.0000152587890625, 2.0]), {0, 1, 2})
    assert num_rounded == 2 and image.array.dtype == np.uint8
    assert np.bincount(image.array.ravel()).tolist() == [117, 2, 1]


def test_real_fractions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=r"1 voxels are no whole numbers, e\.g\. \[1\.39"):
        read_segmentation(masks_of(tmp_path, [1.4]), {0, 1})


@pytest.mark.parametrize("value", [-1.0, 65536.0])
def test_negative_and_enormous_labels_are_refused(tmp_path: Path, value: float) -> None:
    with pytest.raises(LabelError, match="0 to 65535"):
        read_segmentation(masks_of(tmp_path, [value]))


def test_undeclared_labels_are_listed(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=r"undeclared labels \[5\]; declared are \[0, 1, 2\]"):
        read_segmentation(masks_of(tmp_path, [2.0, 5.0]), {0, 1, 2})


def test_a_label_of_300_needs_16_bits(tmp_path: Path) -> None:
    image, _ = read_segmentation(masks_of(tmp_path, [300.0]))
    assert image.array.dtype == np.uint16 and image.array.max() == 300


def test_one_time_point_is_squeezed_with_a_note(tmp_path: Path) -> None:
    image = read_image(raw_nifti(tmp_path / "a.nii.gz", np.arange(120, dtype=np.int16).reshape(6, 5, 4, 1)))
    assert image.array.shape == SHAPE and "read as [6, 5, 4]" in image.notes[0] and not image.header.is_canonical


def test_three_time_points_are_refused(tmp_path: Path) -> None:
    with pytest.raises(GeometryError, match="save each time point as a channel"):
        check_image(raw_nifti(tmp_path / "a.nii.gz", np.zeros((6, 5, 4, 3), np.int16)))


@pytest.mark.parametrize(
    ("code", "bits", "kind"), [(128, 24, "RGB"), (32, 64, "complex"), (1536, 128, "float128"), (7, 8, "7")]
)
def test_colour_and_complex_voxels_are_refused(tmp_path: Path, code: int, bits: int, kind: str) -> None:
    def edit(header: nib.Nifti1Header) -> None:
        header["datatype"], header["bitpix"] = code, bits

    with pytest.raises(UnreadableFileError, match=kind):
        check_image(raw_nifti(tmp_path / "a.nii.gz", edit=edit))


@pytest.mark.parametrize(
    ("field", "value"), [("bitpix", 8), ("vox_offset", 0), ("vox_offset", 1e9), ("scl_slope", np.inf), ("scl_slope", 1e-20)]
)
def test_header_fields_that_contradict_each_other_are_corrupt(tmp_path: Path, field: str, value: float) -> None:
    with pytest.raises(CorruptFileError, match=field):
        check_image(raw_nifti(tmp_path / "a.nii.gz", edit=lambda header: header.__setitem__(field, value)))


def test_a_pair_of_hdr_and_img_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFileError, match="single-file"):
        check_image(raw_nifti(tmp_path / "a.nii.gz", edit=lambda header: header.__setitem__("magic", b"ni1")))


def test_scaled_voxels_have_their_real_values(tmp_path: Path) -> None:
    def edit(header: nib.Nifti1Header) -> None:
        header["scl_slope"], header["scl_inter"] = 0.5, -3

    image = read_image(raw_nifti(tmp_path / "a.nii.gz", edit=edit))
    assert image.array.dtype == np.float32 and image.array.max() == 119 * 0.5 - 3 and not image.header.is_plain


@pytest.mark.parametrize("slope", [0.0, np.nan])
def test_a_slope_of_zero_or_nan_means_unscaled(tmp_path: Path, slope: float) -> None:
    path = raw_nifti(tmp_path / "a.nii.gz", edit=lambda header: header.__setitem__("scl_slope", slope))
    assert read_image(path).array.max() == 119


def test_a_2d_nifti_is_one_slice(tmp_path: Path) -> None:
    image = read_image(raw_nifti(tmp_path / "a.nii.gz", np.zeros((6, 5), np.int16)))
    assert image.geometry.shape == (1, 5, 6) and image.geometry.spacing_mm == (1.0, 3.0, 2.0)
    assert not image.header.is_canonical


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_grey_png_is_one_slice_of_1_mm(tmp_path: Path, dtype: type) -> None:
    pixels: np.ndarray = np.arange(30, dtype=dtype).reshape(5, 6) * 8
    image = read_image(png(tmp_path / "a.png", pixels))
    assert image.array.dtype == dtype and image.geometry == Geometry((1, 5, 6))
    np.testing.assert_array_equal(image.array[0], pixels)
    assert check_image(tmp_path / "a.png") == image.geometry


def test_file_endings_are_found_whatever_their_case() -> None:
    assert file_ending(Path("a.b.NII.GZ")) == ".nii.gz"


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii"])
def test_written_images_read_back_exactly_and_agree_with_simpleitk(tmp_path: Path, name: str) -> None:
    array = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
    oblique = Geometry(SHAPE, (4, 3, 2), (1, 2, 3), (1, 0, 0, 0, 0.8, -0.6, 0, 0.6, 0.8))
    write_image(tmp_path / name, array, oblique)
    image, reference = read_image(tmp_path / name), SimpleITK.ReadImage(str(tmp_path / name))
    np.testing.assert_array_equal(image.array, array)
    np.testing.assert_allclose(image.geometry.direction, oblique.direction, atol=1e-7)
    np.testing.assert_allclose(reference.GetDirection(), oblique.direction, atol=1e-6)
    np.testing.assert_allclose(reference.GetOrigin(), oblique.origin_mm, atol=1e-6)
    assert image.header.is_canonical


def test_segmentations_are_written_small_and_twice_the_same(tmp_path: Path) -> None:
    array = np.zeros(SHAPE, np.int64)
    array[0, 0, 0] = 2
    for name in ("a.nii.gz", "b.nii.gz"):
        write_segmentation(tmp_path / name, array, GRID)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    assert read_image(tmp_path / "a.nii.gz").array.dtype == np.uint8
    write_segmentation(tmp_path / "c.png", array[:1] * 200, Geometry((1, 5, 6)))
    assert read_image(tmp_path / "c.png").array[0, 0, 0] == 400


def test_what_is_no_segmentation_is_not_written(tmp_path: Path) -> None:
    for array in (np.zeros(SHAPE, np.float32), np.full(SHAPE, -1), np.full(SHAPE, 70000)):
        with pytest.raises(LabelError):
            write_segmentation(tmp_path / "a.nii.gz", array, GRID)
    with pytest.raises(GeometryError):
        write_segmentation(tmp_path / "a.nii.gz", np.zeros((1, 1, 1), np.uint8), GRID)
    with pytest.raises(GeometryError):
        write_image(tmp_path / "a.nii.gz", np.zeros(SHAPE, np.complex64), GRID)
    assert tree(tmp_path) == {}


def test_a_full_disk_is_a_named_error_and_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.nii.gz"
    write_segmentation(path, np.zeros(SHAPE, np.uint8), GRID)
    before = tree(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFullError, match=r"a\.nii\.gz"):
        write_segmentation(path, np.ones(SHAPE, np.uint8), GRID)
    assert tree(tmp_path) == before
