"""A format is one file and one entry: a reader of our own, put into the list, is read by every room."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from data_builders import png, raw_nifti, workspace

from nnduet.datasets.conversion import convert
from nnduet.datasets.sources import Source, SourceCase
from nnduet.errors import DatasetError, UnreadableFileError
from nnduet.io import formats
from nnduet.io.case_files import list_images
from nnduet.io.case_images import read_case, read_headers
from nnduet.io.formats import READERS, file_ending, image_endings, reader_of, readers_named, split_ending
from nnduet.io.geometry import Geometry
from nnduet.io.images import read_image, read_segmentation, write_image
from nnduet.io.nifti import NIFTI
from nnduet.io.png import PNG
from nnduet.io.readers import ImageHeader, Reader, Voxels

PIXELS = np.arange(36, dtype=np.uint8).reshape(3, 1, 3, 4)


@dataclass(frozen=True)
class PlainReader(Reader):
    """PLAIN, the numbers of channels, rows and columns, then uint8 by channel."""

    def recognises(self, first_bytes: bytes, path: Path) -> bool:
        return first_bytes.startswith(b"PLAIN")

    def read_header(self, path: Path, max_bytes: int) -> ImageHeader:
        channels, rows, columns = path.read_bytes()[5:8]
        return ImageHeader(Geometry((1, rows, columns)), np.dtype(np.uint8), num_channels=channels)

    def check(self, path: Path, max_bytes: int) -> ImageHeader:
        return self.read_header(path, max_bytes)

    def read(self, path: Path, max_bytes: int) -> tuple[ImageHeader, Voxels]:
        header = self.check(path, max_bytes)
        return header, np.frombuffer(path.read_bytes()[8:], np.uint8).reshape(header.num_channels, *header.geometry.shape)

    def encode(self, path: Path, voxels: Voxels, geometry: Geometry) -> bytes:
        return b"PLAIN" + bytes([len(voxels), *geometry.shape[1:]]) + voxels.astype(np.uint8).tobytes()


PLAIN = PlainReader("PLAIN", (".plain", ".png"), ".plain")


@pytest.fixture
def with_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "READERS", (*READERS, PLAIN))


def plain(path: Path, voxels: np.ndarray = PIXELS) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(PLAIN.encode(path, voxels, Geometry(voxels.shape[1:])))
    return path


def test_every_format_says_its_name_and_endings_of_its_own() -> None:
    assert [reader.name for reader in READERS] == ["NIfTI", "PNG"]
    assert image_endings() == (".nii.gz", ".nii", ".png") and len(set(image_endings())) == 3
    assert all(reader.dataset_ending in reader.endings for reader in READERS)
    assert readers_named("A.Nii.GZ") == (NIFTI,) == readers_named(".nii") and readers_named("a.nrrd") == ()


def test_endings_come_off_in_any_case_and_stay_as_they_are_written() -> None:
    assert split_ending("a.b_0000.NII.gz") == ("a.b_0000", ".NII.gz") and split_ending("a.gz") == ("a.gz", "")
    assert file_ending(Path("x.PNG")) == ".png"
    with pytest.raises(UnreadableFileError, match=r"ending in .nii.gz, .nii, .png"):
        file_ending(Path("x.jpg"))


def test_formats_are_recognised_by_their_first_bytes_whatever_the_name(tmp_path: Path) -> None:
    whole, zipped = raw_nifti(tmp_path / "a.nii").read_bytes(), raw_nifti(tmp_path / "b.nii.gz").read_bytes()
    picture = png(tmp_path / "c.png", np.zeros((5, 6), np.uint8)).read_bytes()
    nowhere = Path("nowhere")
    for content, recognised in ((whole, (True, False)), (zipped, (True, False)), (picture, (False, True))):
        assert (NIFTI.recognises(content[:4096], nowhere), PNG.recognises(content[:4096], nowhere)) == recognised
    for content in (gzip.compress(b"text"), zipped[:5], b"\x1f\x8bno gzip", b"text", b""):
        assert not NIFTI.recognises(content, nowhere) and not PNG.recognises(content, nowhere)


def test_of_two_formats_of_one_ending_the_bytes_decide(tmp_path: Path, with_plain: None) -> None:
    grey = plain(tmp_path / "a.png", PIXELS[:1])
    np.testing.assert_array_equal(read_image(grey).array, PIXELS[0])
    picture = png(tmp_path / "b.png", PIXELS[1, 0])
    np.testing.assert_array_equal(read_image(picture).array, PIXELS[1])
    (tmp_path / "c.png").write_bytes(b"neither")
    assert reader_of(tmp_path / "c.png", b"neither") is PNG
    with pytest.raises(UnreadableFileError, match="no PNG signature"):
        read_image(tmp_path / "c.png")


def test_an_added_format_is_listed_read_and_written(tmp_path: Path, with_plain: None) -> None:
    path = tmp_path / "a_0000.plain"
    write_image(path, PIXELS[0], Geometry((1, 3, 4)))
    assert list(list_images(tmp_path).cases) == ["a_0000"]
    np.testing.assert_array_equal(read_segmentation(path)[0].array, PIXELS[0])
    raw_nifti(tmp_path / "b.nii")
    assert list_images(tmp_path, ".nii").ignored == {path: "PLAIN, where NIfTI is expected"}


def test_the_channels_of_one_file_and_of_several_make_one_case(tmp_path: Path, with_plain: None) -> None:
    paths = [plain(tmp_path / "a_0000.plain"), plain(tmp_path / "a_0001.plain", PIXELS[:1] + 100)]
    headers = read_headers(paths)
    data, _ = read_case(paths, headers, SimpleNamespace(plans={"image_reader_writer": "SimpleITKIO"}))
    np.testing.assert_array_equal(data, np.concatenate([PIXELS, PIXELS[:1] + 100]))
    with pytest.raises(UnreadableFileError, match=r"a_0000.plain: expected one value per voxel, got 3 channels"):
        read_image(paths[0])


def test_an_added_format_is_converted_under_its_ending_and_not_mixed_with_others(tmp_path: Path, with_plain: None) -> None:
    def case(number: int) -> SourceCase:
        image = plain(tmp_path / "images" / f"c{number}_0000.plain", PIXELS[:1])
        return SourceCase(f"c{number}", (image,), plain(tmp_path / "masks" / f"c{number}.plain", PIXELS[:1] % 2))

    cases = tuple(case(number) for number in range(5))
    source = Source(cases=cases, channel_names={"0": "image"}, rows={c.case_id: {} for c in cases})
    convert(source, workspace=workspace(tmp_path / "w"), dataset_id=1, name="Plain")
    written = {path.name for path in (tmp_path / "w" / "raw").rglob("*.plain")}
    assert written == {name for c in range(5) for name in (f"c{c}_0000.plain", f"c{c}.plain")}
    mixed = raw_nifti(tmp_path / "masks" / "c0.nii", np.zeros((4, 3, 1), np.int16), affine=np.diag([-1.0, -1, 1, 1]))
    other = Source(cases=(SourceCase("c0", cases[0].images, mixed), *cases[1:]), channel_names={"0": "image"}, rows=source.rows)
    with pytest.raises(DatasetError, match=r"c0.nii: PLAIN and NIfTI files are mixed"):
        convert(other, workspace=workspace(tmp_path / "w"), dataset_id=2, name="Mixed")
