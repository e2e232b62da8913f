"""The volumes of one case as a script that a page opened from disk can load: cropped, 8 bits, on their own grid.

Pages at file:// may neither fetch nor import, so a case is a classic script that puts its volumes into a global:
``window.nnduetVolumes[key] = {labels, focus_mm, strides, cropped, volumes}``. ``volumes`` holds base64 of gzipped NIfTI files.
"""

from __future__ import annotations

import base64
import gzip
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nnduet.errors import GeometryError, LabelError
from nnduet.io.files import write_text_atomically
from nnduet.io.geometry import Geometry
from nnduet.io.nifti import encode_nifti

__all__ = ["CaseVolumes", "write_volumes"]

_PERCENTILES = (0.5, 99.5)
_WEAKEST_EVIDENCE = 0.1  # of the strongest; below it the map is transparent
_Slices = tuple[slice, slice, slice]


@dataclass(frozen=True)
class CaseVolumes:
    """Arrays (Z, Y, X) on one grid.

    ``prediction`` and ``reference`` are integer maps of 0 (background) and the values of ``labels`` (name to value, 1 to 255).
    ``evidence`` is a float map for a class, where positive speaks for it and negative against it; NaN counts as 0.
    """

    image: npt.NDArray[Any]
    geometry: Geometry
    prediction: npt.NDArray[Any] | None
    reference: npt.NDArray[Any] | None
    evidence: npt.NDArray[Any] | None
    labels: Mapping[str, int]


def write_volumes(target: Path, key: str, case: CaseVolumes, *, margin_mm: float = 20.0, most_voxels: int = 2_000_000) -> int:
    """Write a case as ``window.nnduetVolumes[key]`` and return the bytes of the file; the same case gives the same bytes.

    All volumes are cropped to the bounding box of prediction and reference plus ``margin_mm`` (nothing is cropped where both
    are empty or missing) and thinned to every n-th voxel, finest axis first, until ``most_voxels`` remain. Intensities are
    clipped to the 0.5th and 99.5th percentile of the crop. The voxels that remain keep their places in the world.

    Raises:
        GeometryError: an array has another shape than the geometry.
        LabelError: a mask holds a value that ``labels`` lacks, or ``labels`` one outside 1 to 255.
        DiskFullError: the disk is full; ``target`` is untouched.
    """
    _check(case, key)
    structures = _structures(case)
    box = _box(structures, case.geometry, margin_mm)
    strides = _strides(box, case.geometry, most_voxels)
    kept = tuple(slice(part.start, part.stop, stride) for part, stride in zip(box, strides, strict=True))
    payload = {
        "labels": [{"name": name, "value": int(value)} for name, value in case.labels.items()],
        "focus_mm": _focus_mm(structures, case.geometry),
        "strides": strides,
        "cropped": any(part.stop - part.start < size for part, size in zip(box, case.geometry.shape, strict=True)),
        "volumes": _volumes(case, kept, _geometry_of(kept, case.geometry)),
    }
    text = _script(key, payload)
    write_text_atomically(target, text)
    return len(text.encode("utf-8"))


def _check(case: CaseVolumes, key: str) -> None:
    for what in ("image", "prediction", "reference", "evidence"):
        array = getattr(case, what)
        if array is not None and array.shape != case.geometry.shape:
            raise GeometryError(f"{key}: {what} of shape {array.shape} for {case.geometry}")
    wrong = {name: value for name, value in case.labels.items() if not 1 <= value <= 255}
    if wrong:
        raise LabelError(f"{key}: labels of a viewer expected from 1 to 255, got {wrong}")
    for what in ("prediction", "reference"):
        mask = getattr(case, what)
        unknown = [] if mask is None else sorted(set(np.unique(mask).tolist()) - {0, *case.labels.values()})
        if unknown:
            raise LabelError(f"{key}: {what} holds {unknown[:5]}; declared are {sorted(case.labels.values())}")


def _structures(case: CaseVolumes) -> npt.NDArray[np.bool_]:
    """Mask (Z, Y, X) of what prediction or reference outlines."""
    found = np.zeros(case.geometry.shape, dtype=bool)
    for mask in (case.prediction, case.reference):
        if mask is not None:
            found |= mask > 0
    return found


def _box(structures: npt.NDArray[np.bool_], geometry: Geometry, margin_mm: float) -> _Slices:
    """Bounding box plus margin, within the grid; the whole grid where nothing is outlined."""
    if not structures.any():
        depth, height, width = geometry.shape
        return slice(0, depth), slice(0, height), slice(0, width)
    parts = []
    for axis, (size, spacing_mm) in enumerate(zip(geometry.shape, geometry.spacing_mm, strict=True)):
        places = np.flatnonzero(_counts(structures, axis))
        margin = int(np.ceil(margin_mm / spacing_mm))
        parts.append(slice(max(0, int(places[0]) - margin), min(size, int(places[-1]) + margin + 1)))
    return parts[0], parts[1], parts[2]


def _strides(box: _Slices, geometry: Geometry, most_voxels: int) -> list[int]:
    """Whole strides (Z, Y, X) with which at most ``most_voxels`` of the box remain; the finest axis is thinned first."""
    sizes = [part.stop - part.start for part in box]
    strides = [1, 1, 1]
    while np.prod([-(-size // stride) for size, stride in zip(sizes, strides, strict=True)]) > max(1, most_voxels):
        thinnable = [axis for axis in range(3) if strides[axis] < sizes[axis]]
        strides[min(thinnable, key=lambda axis: strides[axis] * geometry.spacing_mm[axis])] += 1
    return strides


def _geometry_of(kept: tuple[slice, ...], geometry: Geometry) -> Geometry:
    """The grid of ``array[kept]``."""
    shape = [len(range(part.start, part.stop, part.step)) for part in kept]
    spacing_mm = [spacing * part.step for spacing, part in zip(geometry.spacing_mm, kept, strict=True)]
    offset_mm = np.array([part.start for part in kept][::-1]) * geometry.spacing_mm[::-1]
    origin_mm = np.asarray(geometry.origin_mm) + np.reshape(geometry.direction, (3, 3)) @ offset_mm
    return Geometry(
        (shape[0], shape[1], shape[2]),
        (spacing_mm[0], spacing_mm[1], spacing_mm[2]),
        (float(origin_mm[0]), float(origin_mm[1]), float(origin_mm[2])),
        geometry.direction,
    )


def _focus_mm(structures: npt.NDArray[np.bool_], geometry: Geometry) -> list[float]:
    """Where a viewer should look first, in RAS: per axis the plane with most outlined voxels; without any, the middle."""
    counts = [_counts(structures, axis) for axis in range(3)]
    voxel = [int(np.argmax(count)) if count.any() else count.size // 2 for count in counts]
    place: list[float] = (geometry.affine_ras() @ [*voxel[::-1], 1])[:3].tolist()
    return [round(value, 3) for value in place]


def _counts(structures: npt.NDArray[np.bool_], axis: int) -> npt.NDArray[np.int64]:
    """Outlined voxels in each plane across an axis."""
    others = tuple(other for other in range(3) if other != axis)
    return np.asarray(np.count_nonzero(structures, axis=others), dtype=np.int64)


def _volumes(case: CaseVolumes, kept: tuple[slice, ...], geometry: Geometry) -> dict[str, str]:
    """Base64 of one gzipped NIfTI per volume that the case has."""
    volumes = {"image": _image_nifti(case.image[kept], geometry)}
    for what, mask in (("prediction", case.prediction), ("reference", case.reference)):
        if mask is not None:
            volumes[what] = _encoded(mask[kept].astype(np.uint8), geometry)
    if case.evidence is not None:
        volumes["evidence"] = _evidence_nifti(case.evidence[kept], geometry)
    return volumes


def _image_nifti(image: npt.NDArray[Any], geometry: Geometry) -> str:
    low, high = (float(value) for value in np.percentile(image, _PERCENTILES))
    slope = (high - low) / 255 if high > low else 1.0
    levels = np.rint((np.clip(image, low, high) - low) / slope).astype(np.uint8)
    return _encoded(levels, geometry, scaling=(slope, low), window=(low, high))


def _evidence_nifti(evidence: npt.NDArray[Any], geometry: Geometry) -> str:
    """Levels around an exact zero, so that what speaks neither way stays transparent."""
    values = np.nan_to_num(np.asarray(evidence, dtype=np.float64), posinf=0.0, neginf=0.0)
    strongest = float(np.abs(values).max(initial=0.0)) or 1.0
    slope = strongest / 127
    levels = (np.rint(values / slope) + 128).astype(np.uint8)
    window = (_WEAKEST_EVIDENCE * strongest, strongest)
    return _encoded(levels, geometry, scaling=(slope, -128 * slope), window=window)


def _encoded(
    array: npt.NDArray[np.uint8],
    geometry: Geometry,
    *,
    scaling: tuple[float, float] = (1.0, 0.0),
    window: tuple[float, float] = (0.0, 0.0),
) -> str:
    """Base64 of a gzipped NIfTI with slope and intercept, and the (low, high) values between which to show it."""
    content = bytearray(encode_nifti(array, geometry, compressed=False))
    struct.pack_into("<2f", content, 112, *scaling)  # scl_slope, scl_inter: nifti1.h
    struct.pack_into("<2f", content, 124, window[1], window[0])  # cal_max, cal_min: nifti1.h
    return base64.b64encode(gzip.compress(bytes(content), compresslevel=9, mtime=0)).decode("ascii")


def _script(key: str, payload: Mapping[str, object]) -> str:
    """JSON is JavaScript; ``<`` is escaped so that the text is harmless within a page, too."""
    name, value = (json.dumps(part, allow_nan=False).replace("<", "\\u003c") for part in (key, payload))
    return f"window.nnduetVolumes = window.nnduetVolumes || {{}};\nwindow.nnduetVolumes[{name}] = {value};\n"
