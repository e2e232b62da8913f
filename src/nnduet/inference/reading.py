"""Read the image of a case for prediction, by nnU-Net's own reader, after our checks."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnduet.data.images import ImageHeader, check_same_geometry, inspect_image, read_image, write_image
from nnduet.errors import GeometryError, ModelError

__all__ = ["check_array", "inspect_case", "read_case"]

_READERS = ("SimpleITKIO", "NaturalImage2DIO")


def inspect_case(paths: Sequence[Path]) -> list[ImageHeader]:
    """The headers of a case's channels, without reading the voxels.

    Raises:
        GeometryError: channels disagree.
        NNDuetError: a file is unreadable, corrupt or too large.
    """
    headers = [inspect_image(path) for path in paths]
    for path, header in zip(paths, headers, strict=True):
        check_same_geometry(headers[0].geometry, header.geometry, path.name, "channels")
    return headers


def read_case(paths: Sequence[Path], headers: Sequence[ImageHeader], plans: Any) -> tuple[NDArray[Any], dict[str, Any]]:
    """Image (C, Z, Y, X) of inspected files and nnU-Net's properties.

    Args:
        paths, headers: a file per channel, in order; at least one.
        plans: nnU-Net's PlansManager, which names the reader.

    Raises:
        ModelError: the plans name a reader that nnDuet does not know.
        NNDuetError: a file is unreadable, corrupt or too large.
    """
    name = plans.plans["image_reader_writer"]
    if name not in _READERS:
        raise ModelError(f"plans: image_reader_writer expected one of {_READERS}, got {name!r}")
    with tempfile.TemporaryDirectory(prefix="nnduet_") as folder:
        readable = [_canonical(p, h, Path(folder) / f"{i}.nii.gz") for i, (p, h) in enumerate(zip(paths, headers, strict=True))]
        data, properties = plans.image_reader_writer_class().read_images([str(path) for path in readable])
    return data, properties


def check_array(image: NDArray[Any], spacing_mm: Sequence[float] | None) -> tuple[NDArray[Any], dict[str, Any]]:
    """An array (Z, Y, X) or (C, Z, Y, X) and its spacing as nnU-Net's reader would give them.

    Raises:
        GeometryError: another shape, no or an impossible spacing, or values that are not finite.
    """
    data = image[None] if image.ndim == 3 else image
    if data.ndim != 4 or 0 in data.shape[1:]:
        raise GeometryError(f"array: expected (Z, Y, X) or (C, Z, Y, X), got shape {image.shape}")
    if spacing_mm is None or len(spacing_mm) != 3 or not all(0 < s < np.inf for s in spacing_mm):
        raise GeometryError(f"array: expected spacing_mm=(z, y, x), all positive, got {spacing_mm}")
    if not np.isfinite(data).all():
        raise GeometryError("array: expected finite values, got NaN or infinity")
    return data, {"spacing": [float(s) for s in spacing_mm]}


def _canonical(path: Path, header: ImageHeader, target: Path) -> Path:
    """``path``, or a rewritten copy at ``target`` where readers would disagree on the file, as ``nnduet convert`` does."""
    if header.is_canonical:
        return path
    write_image(target, read_image(path).array, header.geometry)
    return target
