"""The one place where images and masks are read and written, whatever their format: see ``formats`` for those there are.

Arrays are (Z, Y, X); a picture or a 2D NIfTI is one slice, (1, Y, X). Files of several channels are read by
:func:`read_channels`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nnduet.errors import AmbiguousFileError, GeometryError, LabelError, UnreadableFileError
from nnduet.io.files import write_bytes_atomically
from nnduet.io.formats import file_ending, reader_of
from nnduet.io.geometry import Geometry, check_same_geometry, geometries_match
from nnduet.io.readers import FIRST_BYTES, ImageHeader, Reader, Voxels
from nnduet.records import check_regular_file

__all__ = [
    "MAX_IMAGE_BYTES",
    "MAX_LABEL",
    "Geometry",
    "Image",
    "ImageHeader",
    "check_declared",
    "check_image",
    "check_same_geometry",
    "encode_image",
    "encode_segmentation",
    "geometries_match",
    "inspect_image",
    "read_channels",
    "read_header",
    "read_image",
    "read_segmentation",
    "read_whole_numbers",
    "voxel_counts",
    "write_image",
    "write_segmentation",
]

MAX_IMAGE_BYTES = 2**31
_ROUNDING = 1e-3
MAX_LABEL = 65535


@dataclass(frozen=True)
class Image:
    """Voxels (Z, Y, X), native integers or float32, with their header and the file they came from."""

    array: npt.NDArray[Any]
    header: ImageHeader
    path: Path

    @property
    def geometry(self) -> Geometry:
        """Grid of the image."""
        return self.header.geometry

    @property
    def notes(self) -> tuple[str, ...]:
        """Choices made while reading, empty for a sound file."""
        return self.header.notes


def read_header(path: Path, *, max_bytes: int = MAX_IMAGE_BYTES) -> ImageHeader:
    """What the header promises; the voxels are neither read nor checked. Raises as :func:`inspect_image`."""
    return _reader_for(path).read_header(path, max_bytes)


def inspect_image(path: Path, *, max_bytes: int = MAX_IMAGE_BYTES) -> ImageHeader:
    """Check a file from first to last byte in bounded memory and describe it.

    Raises:
        UnreadableFileError, CorruptFileError, AmbiguousFileError, TooLargeError, GeometryError: by name what is wrong.
    """
    return _reader_for(path).check(path, max_bytes)


def check_image(path: Path, *, max_bytes: int = MAX_IMAGE_BYTES) -> Geometry:
    """The grid of a file that passed :func:`inspect_image`."""
    return inspect_image(path, max_bytes=max_bytes).geometry


def read_channels(path: Path, *, max_bytes: int = MAX_IMAGE_BYTES) -> tuple[ImageHeader, Voxels]:
    """Header and voxels (C, Z, Y, X) after all checks, which raise as :func:`inspect_image`; integers or float32."""
    return _reader_for(path).read(path, max_bytes)


def read_image(path: Path, *, max_bytes: int = MAX_IMAGE_BYTES) -> Image:
    """Voxels (Z, Y, X) of a file of one channel, as :func:`read_channels`.

    Raises:
        UnreadableFileError: the file has several channels; others as :func:`inspect_image`.
    """
    return _single(read_channels(path, max_bytes=max_bytes), path)


def _single(read: tuple[ImageHeader, Voxels], path: Path) -> Image:
    header, voxels = read
    if len(voxels) != 1:
        raise UnreadableFileError(f"{path}: expected one value per voxel, got {len(voxels)} channels")
    return Image(voxels[0], header, path)


def read_segmentation(
    path: Path, allowed_labels: Collection[int] | None = None, *, max_bytes: int = MAX_IMAGE_BYTES
) -> tuple[Image, int]:
    """A segmentation as uint8 (uint16 where a label exceeds 255) and the number of voxels that had to be rounded.

    Values within 0.001 of a whole number are rounded, because interpolating tools leave such traces.

    Raises:
        LabelError: other fractions, negative labels, labels beyond 65535 or not in ``allowed_labels`` (None allows all).
    """
    image, num_rounded = read_whole_numbers(path, max_bytes=max_bytes)
    labels = image.array
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high > MAX_LABEL:
        raise LabelError(f"{path}: labels expected from 0 to {MAX_LABEL}, got {low} to {high}")
    segmentation = labels.astype(np.uint8 if high <= 255 else np.uint16)
    if allowed_labels is not None:
        check_declared(segmentation, allowed_labels, path)
    return Image(segmentation, image.header, path), num_rounded


def read_whole_numbers(path: Path, *, max_bytes: int = MAX_IMAGE_BYTES) -> tuple[Image, int]:
    """A mask with its values as they stand in the file, of any size, and the number of voxels that had to be rounded.

    Raises:
        LabelError: values farther than 0.001 from a whole number.
    """
    image = _single(_reader_for(path).read_values(path, max_bytes), path)
    labels, num_rounded = _whole_numbers(image.array, path)
    return Image(labels, image.header, path), num_rounded


def write_image(path: Path, array: npt.NDArray[Any], geometry: Geometry) -> None:
    """Write ``array`` (Z, Y, X) atomically; the same input gives the same bytes.

    Raises:
        DiskFullError: the disk is full; ``path`` is untouched.
        GeometryError: array and geometry differ in shape, or the format cannot hold the array.
    """
    write_bytes_atomically(path, encode_image(path, array, geometry))


def encode_image(path: Path, array: npt.NDArray[Any], geometry: Geometry) -> bytes:
    """The bytes that :func:`write_image` writes. Raises as there, without the disk."""
    if array.shape != geometry.shape:
        raise GeometryError(f"{path}: array of shape {array.shape} for {geometry}")
    return reader_of(path).encode(path, array[None], geometry)


def write_segmentation(path: Path, array: npt.NDArray[Any], geometry: Geometry) -> None:
    """Write an integer segmentation (Z, Y, X) atomically as uint8, or uint16 where a label exceeds 255.

    Raises:
        LabelError: the array is not of integers from 0 to 65535.
        DiskFullError, GeometryError: as :func:`write_image`.
    """
    write_bytes_atomically(path, encode_segmentation(path, array, geometry))


def encode_segmentation(path: Path, array: npt.NDArray[Any], geometry: Geometry) -> bytes:
    """The bytes that :func:`write_segmentation` writes. Raises as there, without the disk."""
    if array.dtype.kind not in "iub" or (array.size and not 0 <= int(array.min()) <= int(array.max()) <= MAX_LABEL):
        raise LabelError(f"{path}: a segmentation holds integers from 0 to {MAX_LABEL}, got {array.dtype}")
    wide = array.size > 0 and int(array.max()) > 255
    return encode_image(path, array.astype(np.uint16 if wide else np.uint8), geometry)


def _reader_for(path: Path) -> Reader:
    """The reader of a file, after the checks that need no format: presence, emptiness, pointers, rivals."""
    file_ending(path)
    check_regular_file(path, "an image", error=UnreadableFileError)
    _refuse_rival(path)
    try:
        with path.open("rb") as stream:
            start = stream.read(FIRST_BYTES)
    except OSError as error:
        raise UnreadableFileError(f"{path}: {error.strerror}") from error
    if not start:
        raise UnreadableFileError(f"{path}: the file is empty")
    if start.startswith(b"version https://git-lfs"):
        raise UnreadableFileError(f"{path}: looks like a Git LFS pointer: run git lfs pull")
    return reader_of(path, start)


def _refuse_rival(path: Path) -> None:
    for rival in reader_of(path).rivals(path):
        if rival.exists():
            raise AmbiguousFileError(f"{path}: {rival.name} stands beside it and some readers open that instead; remove one")


def voxel_counts(values: npt.NDArray[Any]) -> dict[int, int]:
    """Voxels of each whole number that occurs, negative ones and those beyond 65535 included; ascending."""
    if values.dtype.kind in "iub" and values.size and int(values.min()) >= 0 and int(values.max()) <= MAX_LABEL:
        numbers = np.bincount(values.ravel())
        return {int(value): int(numbers[value]) for value in np.flatnonzero(numbers)}
    found, counts = np.unique(values, return_counts=True)
    return {int(value): int(count) for value, count in zip(found, counts, strict=True)}


def _whole_numbers(values: npt.NDArray[Any], path: Path) -> tuple[npt.NDArray[Any], int]:
    if values.dtype.kind in "iu":
        return values, 0
    rounded = np.rint(values)
    distance = np.abs(values - rounded)
    fractional = distance > _ROUNDING
    if fractional.any():
        examples = np.unique(values[fractional])[:5].tolist()
        raise LabelError(f"{path}: {int(fractional.sum())} voxels are no whole numbers, e.g. {examples}")
    return rounded, int(np.count_nonzero(distance))


def check_declared(segmentation: npt.NDArray[Any], allowed: Collection[int], path: Path) -> None:
    """Refuse a mask with other values than those; ``path`` begins the message.

    Raises:
        LabelError: naming the values, with the mapping where it is plain.
    """
    unknown = sorted(set(voxel_counts(segmentation)) - set(allowed))
    if unknown:
        hint = "; map 255 to 1 (label_map, --map-label 255=1)" if unknown == [255] and 1 in allowed else ""
        raise LabelError(f"{path}: undeclared labels {unknown}; declared are {sorted(allowed)}{hint}")
