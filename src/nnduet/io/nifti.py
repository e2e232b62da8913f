"""NIfTI files: guarded streaming reads in bounded memory, deterministic encoding.

The voxels are read here rather than by SimpleITK or nibabel because the former accepts truncated files, replaces NaN by 0 and
opens ``A.nii`` when asked for ``A.nii.gz``, and the latter ignores a wrong gzip checksum.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import nibabel
import numpy as np
import numpy.typing as npt
from isal import igzip, isal_zlib

from nnduet.errors import CorruptFileError, GeometryError, NNDuetError, TooLargeError, UnreadableFileError
from nnduet.io.contrast import check_contrast
from nnduet.io.geometry import Geometry
from nnduet.io.nifti_header import HEADER_BYTES, NiftiHeader, header_size, parse_header
from nnduet.io.readers import ImageHeader, Reader, Voxels

__all__ = ["NIFTI", "encode_nifti"]

_CHUNK_VOXELS = 1 << 20
_EXCESS_BYTES = 1 << 20
_DRAIN_BYTES = 1 << 26
_WRITABLE = {"uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"}


_ZIPPED = b"\x1f\x8b"


@dataclass(frozen=True)
class NiftiReader(Reader):
    """NIfTI-1 and NIfTI-2 in one file, plain or gzipped, of one grey value per voxel."""

    def recognises(self, first_bytes: bytes, path: Path) -> bool:
        return header_size(_inflated(first_bytes) if first_bytes.startswith(_ZIPPED) else first_bytes) is not None

    def read_header(self, path: Path, max_bytes: int) -> ImageHeader:
        with _opened(path) as stream:
            return _described(_read_header(stream, path, max_bytes))

    def check(self, path: Path, max_bytes: int) -> ImageHeader:
        """Verify header, length, gzip checksum and finiteness of every voxel, in bounded memory."""
        with _opened(path) as stream:
            header = _read_header(stream, path, max_bytes)
            values = _Extremes()
            bad = sum(_num_non_finite(values.seen(chunk)) for chunk in _chunks(stream, header, path))
        _refuse_non_finite(bad, path)
        check_contrast(values.low, values.high, str(path))
        return _described(header)

    def read(self, path: Path, max_bytes: int) -> tuple[ImageHeader, Voxels]:
        with _opened(path) as stream:
            header = _read_header(stream, path, max_bytes)
            values = _Extremes()
            parts = [values.seen(chunk) for chunk in _chunks(stream, header, path)]
        _refuse_non_finite(sum(map(_num_non_finite, parts)), path)
        check_contrast(values.low, values.high, str(path))
        return _described(header), np.concatenate(parts).reshape(1, *header.geometry.shape)

    def encode(self, path: Path, voxels: Voxels, geometry: Geometry) -> bytes:
        if len(voxels) != 1:
            raise GeometryError(f"{path}: cannot write {len(voxels)} channels as one NIfTI; each has a file of its own")
        return encode_nifti(voxels[0], geometry, compressed=path.name.lower().endswith(".gz"))

    def rivals(self, path: Path) -> tuple[Path, ...]:
        """A.nii beside A.nii.gz: SimpleITK opens the former when asked for the latter."""
        ending = next(ending for ending in self.endings if path.name.lower().endswith(ending))
        stem = path.name[: -len(ending)]
        return tuple(path.with_name(stem + other) for other in self.endings if other != ending)


NIFTI = NiftiReader("NIfTI", (".nii.gz", ".nii"), ".nii.gz")


def _inflated(first_bytes: bytes) -> bytes:
    """The first 4 bytes of a gzip stream; none of a damaged one."""
    try:
        return zlib.decompressobj(wbits=31).decompress(first_bytes, 4)
    except zlib.error:
        return b""


def _described(header: NiftiHeader) -> ImageHeader:
    dtype = header.dtype.newbyteorder("=")
    return ImageHeader(header.geometry, dtype, header.notes, header.is_canonical, not header.is_scaled)


def encode_nifti(array: npt.NDArray[Any], geometry: Geometry, *, compressed: bool) -> bytes:
    """Bytes of a NIfTI-1 file of ``array`` (Z, Y, X), qform = sform (code 1), millimetres; the same input gives the same bytes.

    Raises:
        GeometryError: the array has another shape than the geometry, an axis beyond 32767, or a type NIfTI readers lack.
    """
    if array.shape != geometry.shape or array.dtype.name not in _WRITABLE or max(geometry.shape) > 32767:
        raise GeometryError(f"cannot write {array.dtype} {array.shape} as NIfTI of {geometry}")
    image = nibabel.Nifti1Image(array.transpose(2, 1, 0), geometry.affine_ras())
    image.header.set_xyzt_units("mm")
    image.set_sform(geometry.affine_ras(), code=1)
    image.set_qform(geometry.affine_ras(), code=1)
    content = cast(bytes, image.to_bytes())
    return gzip.compress(content, compresslevel=5, mtime=0) if compressed else content


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """A decompressing stream for .nii.gz, a plain one for .nii; reading errors become named errors."""
    start = _first_bytes(path)
    zipped = _ZIPPED.startswith(start) and len(start) > 0
    if zipped != path.name.lower().endswith(".gz"):
        raise UnreadableFileError(f"{path}: {_mismatch(path, zipped)}")
    try:
        with igzip.IGzipFile(path, "rb") if zipped else path.open("rb") as stream:
            yield cast(IO[bytes], stream)
    except (EOFError, gzip.BadGzipFile, isal_zlib.error) as error:  # type: ignore[misc]  # its stub declares an instance
        raise CorruptFileError(f"{path}: the gzip stream is damaged: {error}") from error


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(2)


def _mismatch(path: Path, zipped: bool) -> str:
    if zipped:
        return "gzip bytes under a .nii name; rename it to .nii.gz"
    with path.open("rb") as stream:
        is_nifti = header_size(stream.read(4)) is not None
    return "uncompressed NIfTI under a .nii.gz name; gzip it or rename it to .nii" if is_nifti else "no gzip file"


def _read_header(stream: IO[bytes], path: Path, max_bytes: int) -> NiftiHeader:
    start = stream.read(4)
    found = header_size(start)
    if found is None:
        _drain(stream)
        raise UnreadableFileError(f"{path}: no NIfTI header (first bytes {start!r})")
    version, order = found
    block = start + stream.read(HEADER_BYTES[version] - 4)
    if len(block) < HEADER_BYTES[version]:
        raise CorruptFileError(f"{path}: the header ends after {len(block)} of {HEADER_BYTES[version]} bytes")
    try:
        header = parse_header(block, version, order, path, max_bytes)
    except TooLargeError:
        raise
    except NNDuetError:
        _drain(stream)  # a damaged stream explains a strange header better than the header does
        raise
    gap = header.data_offset - len(block)
    if len(stream.read(gap)) < gap:
        raise CorruptFileError(f"{path}: the file ends before its voxels at byte {header.data_offset}")
    return header


def _drain(stream: IO[bytes]) -> None:
    """Read on, up to 64 MiB, so that a wrong checksum shows."""
    for _ in range(_DRAIN_BYTES >> 20):
        if not stream.read(1 << 20):
            return


def _chunks(stream: IO[bytes], header: NiftiHeader, path: Path) -> Iterator[npt.NDArray[Any]]:
    """Values in file order (x fastest) in pieces of at most a million, then proof that the file ends there.

    They are as exact as the file: native integers where unscaled, else float32 or float64.
    """
    left = header.num_voxels
    while left:
        count = min(left, _CHUNK_VOXELS)
        block = stream.read(count * header.dtype.itemsize)
        if len(block) < count * header.dtype.itemsize:
            missing = left * header.dtype.itemsize - len(block)
            raise CorruptFileError(f"{path}: truncated, {missing} of {header.data_bytes} voxel bytes are missing")
        yield _real_values(np.frombuffer(block, header.dtype), header)
        left -= count
    excess = len(stream.read(_EXCESS_BYTES))
    if excess == _EXCESS_BYTES:
        raise TooLargeError(f"{path}: expands far beyond the {header.data_bytes} voxel bytes that its header promises")
    if excess:
        raise CorruptFileError(f"{path}: {excess} bytes more than the {header.data_bytes} voxel bytes that the header promises")


def _real_values(stored: npt.NDArray[Any], header: NiftiHeader) -> npt.NDArray[Any]:
    if not header.is_scaled:
        return stored.astype(stored.dtype.newbyteorder("="))
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(stored.astype(np.float64) * header.slope + header.intercept)


class _Extremes:
    """The least and the largest of the values that pass by on their way to float32, which may not tell them apart."""

    low: Any = None
    high: Any = None

    def seen(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Native integers as they are, real numbers as float32."""
        low, high = values.min(), values.max()
        self.low = low if self.low is None or low < self.low else self.low
        self.high = high if self.high is None or high > self.high else self.high
        with np.errstate(over="ignore", invalid="ignore"):
            return values.astype(np.float32, copy=False) if values.dtype.kind == "f" else values


def _num_non_finite(values: npt.NDArray[Any]) -> int:
    return 0 if values.dtype.kind in "iu" else int(values.size - np.count_nonzero(np.isfinite(values)))


def _refuse_non_finite(count: int, path: Path) -> None:
    if count:
        raise CorruptFileError(f"{path}: {count} voxels are NaN or infinite (as 32-bit floats); fill them on purpose first")
