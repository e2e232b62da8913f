"""What a NIfTI header promises, and whether that is possible.

Where a file holds two positions in space that disagree, this module chooses as ITK does (the library nnU-Net reads with):
the voxel size is always ``pixdim``; position and direction come from the sform when its code is 1 (scanner) or when there is
no qform, else from the qform, else the identity. Every such choice is written down in ``NiftiHeader.notes``.
Source: https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h and itkNiftiImageIO.cxx (ITK 5.4), checked against SimpleITK.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header

from nnduet.errors import CorruptFileError, GeometryError, TooLargeError, UnreadableFileError
from nnduet.io.geometry import DIRECTION_TOLERANCE, ORIGIN_TOLERANCE_MM, SPACING_TOLERANCE, Geometry

__all__ = ["HEADER_BYTES", "NiftiHeader", "header_geometry", "header_size", "parse_header"]

HEADER_BYTES = {1: 348, 2: 540}
_MAGIC = {1: (344, b"n+1\0"), 2: (4, b"n+2\0\r\n\x1a\n")}
_DTYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
_REFUSED_TYPES = {1: "binary", 32: "complex", 128: "RGB", 1536: "float128", 1792: "complex", 2048: "complex", 2304: "RGBA"}
_MILLIMETRES = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
_UNIT_NAMES = {1: "metre", 3: "micron"}
_SHEAR_REFUSED = 1e-3  # of the cosines between axes
_SHEAR_REPAIRED = 5e-6  # ITK refuses somewhere between 1e-5 and 1e-4
_SPACING_RANGE_MM = (1e-5, 1e4)
_LEAST_SLOPE = 2.3e-16  # ITK takes smaller ones for 1
_MAX_EXTENSION_BYTES = 1 << 24


@dataclass(frozen=True)
class NiftiHeader:
    """A plausible header. ``notes`` are choices worth telling; ``is_canonical`` means that every reader agrees on it."""

    geometry: Geometry
    dtype: np.dtype[Any]
    data_offset: int
    slope: float
    intercept: float
    notes: tuple[str, ...]
    is_canonical: bool

    @property
    def num_voxels(self) -> int:
        """Product of the shape."""
        return math.prod(self.geometry.shape)

    @property
    def data_bytes(self) -> int:
        """Bytes of the voxel block."""
        return self.num_voxels * self.dtype.itemsize

    @property
    def is_scaled(self) -> bool:
        """Whether stored values differ from real values."""
        return (self.slope, self.intercept) != (1.0, 0.0)


def header_size(start: bytes) -> tuple[int, str] | None:
    """(NIfTI version, byte order) from the first 4 bytes, or None for anything that is not NIfTI."""
    for version, size in HEADER_BYTES.items():
        if start[:4] == size.to_bytes(4, "little"):
            return version, "<"
        if start[:4] == size.to_bytes(4, "big"):
            return version, ">"
    return None


@np.errstate(invalid="ignore", over="ignore")  # signalling NaNs in damaged fields are found below
def parse_header(block: bytes, version: int, order: str, path: Path, max_bytes: int) -> NiftiHeader:
    """Read a header block of ``HEADER_BYTES[version]`` bytes; allocates nothing of the promised size.

    Raises:
        UnreadableFileError: no single-file NIfTI, or a data type that is no grey image.
        CorruptFileError: fields that contradict each other.
        GeometryError: impossible dimensions, voxel sizes or axes; more than one time point.
        TooLargeError: the voxels would need more than ``max_bytes``.
    """
    raw = (Nifti1Header if version == 1 else Nifti2Header)(block, endianness=order, check=False)
    place, magic = _MAGIC[version]
    if block[place : place + len(magic)] != magic:
        raise UnreadableFileError(
            f"{path}: expected a single-file NIfTI ({magic!r}), got {block[place : place + len(magic)]!r}"
        )
    dtype = _dtype(raw, order, path)
    shape, _ = _shape(raw, path)
    if math.prod(shape) * dtype.itemsize > max_bytes:
        size = math.prod(shape) * dtype.itemsize
        raise TooLargeError(f"{path}: the header promises {shape} voxels, {size} bytes; allowed are {max_bytes}")
    geometry, notes = header_geometry(raw, path)
    slope, intercept = _scaling(raw, path)
    canonical = version == 1 and not notes and int(raw["dim"][0]) == 3  # ITK reads no NIfTI-2 in one file
    return NiftiHeader(geometry, dtype, _data_offset(raw, version, path), slope, intercept, notes, canonical)


def header_geometry(raw: Nifti1Header, path: Path) -> tuple[Geometry, tuple[str, ...]]:
    """The grid that a header of nibabel says, and the choices worth telling.

    Raises:
        GeometryError: impossible dimensions, voxel sizes or axes; more than one time point.
    """
    shape, shape_notes = _shape(raw, path)
    spacing, direction, origin, position_notes = _position(raw, path)
    geometry = Geometry(shape, _triple(spacing[::-1]), _triple(origin), tuple(float(v) for v in direction.ravel()))
    return geometry, (*shape_notes, *position_notes)


def _triple(values: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])


def _dtype(raw: Nifti1Header, order: str, path: Path) -> np.dtype[Any]:
    code, bits = int(raw["datatype"]), int(raw["bitpix"])
    if code not in _DTYPES:
        kind = _REFUSED_TYPES.get(code, f"code {code}")
        raise UnreadableFileError(f"{path}: expected one grey value per voxel, got data type {kind}")
    dtype = np.dtype(order + _DTYPES[code])
    if bits != 8 * dtype.itemsize:
        raise CorruptFileError(f"{path}: data type {dtype.name} needs bitpix {8 * dtype.itemsize}, got {bits}")
    return dtype


def _shape(raw: Nifti1Header, path: Path) -> tuple[tuple[int, int, int], tuple[str, ...]]:
    """(Z, Y, X) of 2D, 3D, or higher with all further dimensions 1."""
    num_dimensions = int(raw["dim"][0])
    if not 2 <= num_dimensions <= 7:
        raise GeometryError(f"{path}: expected 2 to 4 dimensions, got {num_dimensions}")
    sizes = [int(size) for size in raw["dim"][1 : num_dimensions + 1]]
    if min(sizes) <= 0:
        raise GeometryError(f"{path}: every dimension must be positive, got {sizes}")
    if math.prod(sizes[3:]) != 1:
        raise GeometryError(f"{path}: expected one volume, got dimensions {sizes}; save each time point as a channel file")
    x, y, z = (*sizes[:3], 1)[:3]
    notes = (f"dimensions {sizes} read as {[x, y, z]}",) if num_dimensions > 3 else ()
    return (z, y, x), notes


def _data_offset(raw: Nifti1Header, version: int, path: Path) -> int:
    offset, least = float(raw["vox_offset"]), HEADER_BYTES[version]
    if not least <= offset <= _MAX_EXTENSION_BYTES or offset != int(offset):
        raise CorruptFileError(f"{path}: vox_offset expected {least} to {_MAX_EXTENSION_BYTES}, got {offset}")
    return int(offset)


def _scaling(raw: Nifti1Header, path: Path) -> tuple[float, float]:
    """Slope and intercept; a slope of 0 or NaN means unscaled (NIfTI-1 standard, and nibabel's habit)."""
    slope, intercept = float(raw["scl_slope"]), float(raw["scl_inter"])
    if slope == 0 or math.isnan(slope):
        return 1.0, 0.0
    if not (math.isfinite(slope) and math.isfinite(intercept)) or abs(slope) < _LEAST_SLOPE:
        raise CorruptFileError(f"{path}: scl_slope and scl_inter are implausible: {slope} and {intercept}")
    return slope, intercept


_Vector = npt.NDArray[np.float64]


def _position(raw: Nifti1Header, path: Path) -> tuple[_Vector, _Vector, _Vector, tuple[str, ...]]:
    """Spacing (x, y, z) in mm, LPS direction (3, 3), LPS origin in mm, notes."""
    unit = int(raw["xyzt_units"]) & 7
    if unit not in _MILLIMETRES:
        raise GeometryError(f"{path}: xyzt_units names unit {unit}, which NIfTI does not define")
    notes = [f"unit {_UNIT_NAMES[unit]} converted to mm"] if unit in _UNIT_NAMES else []
    spacing = _spacing(raw, path)
    sform = _sform(raw, path) if int(raw["sform_code"]) > 0 else None
    qform = _qform(raw, path) if int(raw["qform_code"]) > 0 else None
    if sform is not None:
        notes += _sform_notes(sform, spacing, qform)
    chosen = sform if sform is not None and (qform is None or int(raw["sform_code"]) == 1) else qform
    if chosen is None:
        notes.append("no orientation in the header: identity assumed")
        chosen = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    to_lps = np.diag([-1.0, -1.0, 1.0])
    direction, repaired = _rotation(chosen[:3, :3], path)
    if repaired:
        notes.append("axes were not quite orthogonal: nearest orthogonal axes taken")
    scale = _MILLIMETRES[unit]
    if not _SPACING_RANGE_MM[0] <= spacing.min() * scale <= spacing.max() * scale <= _SPACING_RANGE_MM[1]:
        raise GeometryError(f"{path}: spacing {spacing * scale} mm is outside {_SPACING_RANGE_MM} mm")
    return spacing * scale, to_lps @ direction, to_lps @ chosen[:3, 3] * scale, tuple(notes)


def _spacing(raw: Nifti1Header, path: Path) -> _Vector:
    spacing = np.array(raw["pixdim"][1:4], dtype=np.float64)
    if int(raw["dim"][0]) == 2:
        spacing[2] = 1.0
    if not np.isfinite(spacing).all() or (spacing <= 0).any():
        raise GeometryError(f"{path}: pixdim (x, y, z) must be positive, got {spacing.tolist()}; {_affine_hint(raw)}")
    return spacing


def _affine_hint(raw: Nifti1Header) -> str:
    rows = np.array([raw["srow_x"], raw["srow_y"], raw["srow_z"]], dtype=np.float64)
    return f"the sform (code {int(raw['sform_code'])}) says {np.linalg.norm(rows[:, :3], axis=0).round(6).tolist()}"


def _sform(raw: Nifti1Header, path: Path) -> _Vector:
    affine = np.eye(4)
    affine[:3] = [raw["srow_x"], raw["srow_y"], raw["srow_z"]]
    return _valid_affine(affine, "sform", path)


def _qform(raw: Nifti1Header, path: Path) -> _Vector:
    if float(raw["pixdim"][0]) not in (-1.0, 1.0):
        raw["pixdim"][0] = 1.0  # the standard: anything but -1 means 1
    try:
        affine = np.asarray(raw.get_qform(), dtype=np.float64)
    except Exception as error:  # nibabel raises ValueError or its own HeaderDataError for bad quaternions
        raise GeometryError(f"{path}: the qform is no rotation: {error}") from error
    return _valid_affine(affine, "qform", path)


def _valid_affine(affine: _Vector, name: str, path: Path) -> _Vector:
    norms = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or not np.isfinite(norms).all() or (norms < 1e-12).any():
        raise GeometryError(f"{path}: the {name} is no invertible matrix: {affine.tolist()}")
    _rotation(affine[:3, :3], path)
    return affine


def _rotation(columns: _Vector, path: Path) -> tuple[_Vector, bool]:
    """Nearest orthogonal matrix (polar decomposition) of the normalised columns, and whether that changed anything."""
    cosines = columns / np.linalg.norm(columns, axis=0)
    skew = float(np.abs(cosines.T @ cosines - np.eye(3)).max())
    if not skew <= _SHEAR_REFUSED:
        raise GeometryError(f"{path}: the axes are sheared (cosine {skew:.4g}, allowed {_SHEAR_REFUSED}); resample it first")
    if skew <= _SHEAR_REPAIRED:
        return cosines, False
    left, _, right = np.linalg.svd(cosines)
    return left @ right, True


def _sform_notes(sform: _Vector, spacing: _Vector, qform: _Vector | None) -> list[str]:
    """Disagreements of the sform with pixdim and with the qform."""
    notes = []
    sizes = np.linalg.norm(sform[:3, :3], axis=0)
    if not np.allclose(sizes, spacing, rtol=SPACING_TOLERANCE, atol=0.0):
        notes.append(f"voxel size: sform says {sizes.round(6).tolist()}, pixdim {spacing.round(6).tolist()}; pixdim taken")
    if qform is not None:
        turned = not np.allclose(sform[:3, :3] / sizes, qform[:3, :3] / spacing, rtol=0.0, atol=DIRECTION_TOLERANCE)
        if turned or not np.allclose(sform[:3, 3], qform[:3, 3], rtol=0.0, atol=ORIGIN_TOLERANCE_MM):
            notes.append("sform and qform disagree; sform taken if its code is 1 (scanner), else qform")
    return notes
