"""What a caller gives for a case, a path or an image in memory, opened: its channels and their grid, and how to get voxels."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nnduet.errors import SettingsError
from nnduet.io.case_images import check_array, read_case, read_headers, spacing_for
from nnduet.io.case_images import num_channels as count_channels
from nnduet.io.case_names import without_channel
from nnduet.io.geometry import Geometry, check_same_geometry
from nnduet.io.in_memory import from_nibabel, from_simpleitk, is_nibabel, is_simpleitk
from nnduet.io.readers import ImageHeader, Voxels
from nnduet.nnunet_types import PlansManager

if TYPE_CHECKING:
    import SimpleITK
    from nibabel.spatialimages import SpatialImage

__all__ = ["CaseInput", "ImageInput", "case_name", "open_case", "paths_of"]

ImageInput: TypeAlias = (
    "str | Path | NDArray[Any] | SimpleITK.Image | SpatialImage | Sequence[str | Path | SimpleITK.Image | SpatialImage]"
)
"""An image, or one for each channel, in their order."""

_ACCEPTED = "a path, a numpy array with spacing_mm, a SimpleITK.Image, an image of nibabel, or a list of these by channel"


@dataclass(frozen=True)
class CaseInput:
    """A case whose headers are known and whose voxels may not have been read.

    Attributes:
        name: what messages call it.
        num_channels: of all files together.
        shape, spacing_mm: (Z, Y, X); the spacing as nnU-Net's reader would say it.
        geometry: of the first channel; None for arrays, which have no place in space.
        read: gives voxels (C, Z, Y, X).
    """

    name: str
    num_channels: int
    shape: tuple[int, ...]
    spacing_mm: list[float]
    geometry: Geometry | None
    read: Callable[[], NDArray[Any]]


def open_case(image: Any, spacing_mm: Sequence[float] | None, plans: PlansManager) -> CaseInput:
    """Find out what a caller gave, without reading the voxels of files.

    Args:
        image: see :data:`ImageInput`; an array is (Z, Y, X) or (C, Z, Y, X).
        spacing_mm: (Z, Y, X) of an array, and of nothing else.
        plans: nnU-Net's PlansManager, which names the reader that is stood in for.

    Raises:
        SettingsError: another kind of image; names the kind and those that are accepted.
        GeometryError: channels on different grids, or an array without spacing.
        NNDuetError: a file is unreadable, or an image in memory cannot be used.
    """
    if isinstance(image, np.ndarray):
        data, properties = check_array(image, spacing_mm)
        spacing = properties["spacing"]
        return CaseInput("array", len(data), data.shape[1:], spacing, None, lambda: data)
    if spacing_mm is not None:
        raise SettingsError(f"spacing_mm: is for arrays; {_kind(image)} says its own", remedy="leave spacing_mm out")
    parts = list(image) if isinstance(image, Sequence) and not isinstance(image, str | bytes) else [image]
    _check_kinds(parts)
    if all(isinstance(part, str | os.PathLike) for part in parts):
        return _files([Path(part) for part in parts], plans)
    return _in_memory(parts, plans)


def paths_of(image: object) -> list[Path]:
    """The files among what :func:`open_case` takes; none for images in memory."""
    parts = image if isinstance(image, Sequence) and not isinstance(image, str) else [image]
    return [Path(part) for part in parts if isinstance(part, str | os.PathLike)]


def case_name(image: Any) -> str | None:
    """The case that the first file of :func:`open_case`'s image is named for; None for images that were read from none."""
    parts = image if isinstance(image, Sequence) and not isinstance(image, str) else [image]
    file = Path(parts[0]) if isinstance(parts[0], str | os.PathLike) else _file_of(parts[0])
    return without_channel(file) if file else None


def _files(paths: list[Path], plans: PlansManager) -> CaseInput:
    if not paths:
        return CaseInput("no file", 0, (0, 0, 0), [1.0, 1.0, 1.0], None, lambda: np.empty((0, 0, 0, 0)))
    headers = read_headers(paths)
    geometry = headers[0].geometry
    return CaseInput(
        paths[0].name,
        count_channels(headers),
        geometry.shape,
        spacing_for(geometry, plans),
        geometry,
        lambda: read_case(paths, headers, plans)[0],
    )


def _in_memory(parts: Sequence[Any], plans: PlansManager) -> CaseInput:
    opened = [_opened(part, f"channel {number}" if len(parts) > 1 else "image") for number, part in enumerate(parts)]
    headers, geometry = [header for header, _ in opened], opened[0][0].geometry
    for number, header in enumerate(headers):
        check_same_geometry(geometry, header.geometry, f"channel {number}", "channels")
    file = _file_of(parts[0])
    return CaseInput(
        file.name if file else "image",
        count_channels(headers),
        geometry.shape,
        spacing_for(geometry, plans),
        geometry,
        lambda: np.concatenate([voxels for _, voxels in opened]).astype(np.float32, copy=False),
    )


def _opened(part: Any, what: str) -> tuple[ImageHeader, Voxels]:
    if is_simpleitk(part):
        return from_simpleitk(part, what)
    if is_nibabel(part):
        return from_nibabel(part, what)
    raise SettingsError("image: expected a list of paths or of images in memory, got both", remedy="read the files first")


def _check_kinds(parts: Sequence[object]) -> None:
    for part in parts:
        if isinstance(part, np.ndarray):
            raise SettingsError("image: expected several channels as one array (C, Z, Y, X), got a list of arrays; stack them")
        if not (isinstance(part, str | os.PathLike) or is_simpleitk(part) or is_nibabel(part)):
            raise SettingsError(f"image: expected {_ACCEPTED}; got {_kind(part)}", remedy="turn the image into one of these")


def _kind(part: object) -> str:
    kind = type(part)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__.partition('.')[0]}.{kind.__qualname__}"


def _file_of(part: Any) -> Path | None:
    """The file that nibabel read an image from; None for images that came from none."""
    name = part.get_filename() if is_nibabel(part) else None
    return Path(name) if name else None
