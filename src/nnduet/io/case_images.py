"""Read the image of a case for prediction: each file once, with all checks, as nnU-Net's readers would give it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnduet.errors import GeometryError, ModelError
from nnduet.io.contrast import check_contrast
from nnduet.io.formats import image_endings
from nnduet.io.geometry import Geometry
from nnduet.io.images import check_same_geometry, read_channels, read_header
from nnduet.io.readers import ImageHeader
from nnduet.nnunet_types import CaseProperties, DatasetJson, Plans, PlansManager

__all__ = ["NNUNET_READERS", "check_array", "check_readable", "num_channels", "read_case", "read_headers", "spacing_for"]

_NATURAL = "NaturalImage2DIO"
NNUNET_READERS = ("SimpleITKIO", _NATURAL)
"""Those of nnU-Net's readers whose arrays nnDuet's own reading gives."""
_NATURAL_SPACING = (999.0, 1.0, 1.0)
"""What nnU-Net's reader of pictures says (nnunetv2 imageio/natural_image_reader_writer.py)."""


_COLOURS = frozenset({"r", "g", "b", "a", "rgb", "rgba", "red", "green", "blue", "alpha"})


def check_readable(plans: Plans, dataset_json: DatasetJson, place: str) -> None:
    """Refuse a model whose images nnDuet does not read as nnU-Net does.

    Args:
        plans, dataset_json: of the model, checked by ``model_store.plans``.

    Raises:
        ModelError: another reader, another file ending, or pictures in colour; the message begins with ``place``.
    """
    _check_reader(plans["image_reader_writer"], place)
    ending = str(dataset_json["file_ending"]).lower()
    if ending not in image_endings():
        raise ModelError(f"{place}: its images end in {ending}; nnDuet reads {', '.join(image_endings())}")
    names = [str(name) for name in dataset_json["channel_names"].values()]
    if len(names) > 1 and all(name.strip().lower() in _COLOURS for name in names):
        raise ModelError(f"{place}: its channels are {names}, pictures in colour; nnDuet reads one grey PNG per channel")


def _check_reader(name: str, place: str) -> None:
    if name not in NNUNET_READERS:
        raise ModelError(
            f"{place}: image_reader_writer expected one of {NNUNET_READERS}, which nnDuet reads alike, got {name!r}"
        )


def read_headers(paths: Sequence[Path]) -> list[ImageHeader]:
    """The headers of a case's channels, without reading the voxels.

    Raises:
        GeometryError: channels disagree.
        NNDuetError: a file is unreadable, or its header promises too much.
    """
    headers = [read_header(path) for path in paths]
    for path, header in zip(paths, headers, strict=True):
        check_same_geometry(headers[0].geometry, header.geometry, path.name, "channels")
    return headers


def num_channels(headers: Sequence[ImageHeader]) -> int:
    """Of all files of a case together."""
    return sum(header.num_channels for header in headers)


def read_case(
    paths: Sequence[Path], headers: Sequence[ImageHeader], plans: PlansManager
) -> tuple[NDArray[np.float32], CaseProperties]:
    """Image (C, Z, Y, X) float32 and nnU-Net's properties.

    Args:
        paths, headers: the files of the channels, in order, and what :func:`read_headers` said of them; at least one.
        plans: nnU-Net's PlansManager, which names the reader.

    Raises:
        ModelError: the plans name a reader that nnDuet does not know.
        NNDuetError: a file is corrupt.
    """
    name = plans.plans["image_reader_writer"]
    _check_reader(name, "plans")
    geometry = headers[0].geometry
    data = np.empty((num_channels(headers), *geometry.shape), dtype=np.float32)
    first = 0
    for path, header in zip(paths, headers, strict=True):
        data[first : first + header.num_channels] = read_channels(path)[1]
        first += header.num_channels
    return data, {"spacing": spacing_for(geometry, plans)}


def spacing_for(geometry: Geometry, plans: PlansManager) -> list[float]:
    """Spacing (Z, Y, X) in mm that the reader which the plans name would say of an image on that grid."""
    return list(_NATURAL_SPACING if plans.plans["image_reader_writer"] == _NATURAL else geometry.spacing_mm)


def check_array(image: NDArray[Any], spacing_mm: Sequence[float] | None) -> tuple[NDArray[Any], CaseProperties]:
    """An array (Z, Y, X) or (C, Z, Y, X) and its spacing as nnU-Net's reader would give them.

    Raises:
        GeometryError: another shape, no or an impossible spacing, or values that are not finite.
        ValuesError: float32 cannot hold the values or their contrast.
    """
    data = image[None] if image.ndim == 3 else image
    if data.ndim != 4 or 0 in data.shape[1:]:
        raise GeometryError(f"array: expected (Z, Y, X) or (C, Z, Y, X), got shape {image.shape}")
    if spacing_mm is None or len(spacing_mm) != 3 or not all(0 < s < np.inf for s in spacing_mm):
        raise GeometryError(f"array: expected spacing_mm=(z, y, x), all positive, got {spacing_mm}")
    if not np.isfinite(data).all():
        raise GeometryError("array: expected finite values, got NaN or infinity")
    for index, channel in enumerate(data):
        check_contrast(channel.min(), channel.max(), f"array: channel {index}")
    return data, {"spacing": [float(s) for s in spacing_mm]}
