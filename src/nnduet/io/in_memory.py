"""Images of SimpleITK and nibabel that are in memory, as a file that holds the same would be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK
from nibabel.spatialimages import SpatialImage

from nnduet.errors import GeometryError, UnreadableFileError, ValuesError
from nnduet.io.contrast import check_contrast
from nnduet.io.geometry import Geometry
from nnduet.io.nifti_header import header_geometry
from nnduet.io.readers import ImageHeader, Voxels

__all__ = ["from_nibabel", "from_simpleitk", "is_nibabel", "is_simpleitk"]


def is_simpleitk(image: object) -> bool:
    """Whether an object is a ``SimpleITK.Image``."""
    return isinstance(image, SimpleITK.Image)


def is_nibabel(image: object) -> bool:
    """Whether an object is an image of nibabel that has a place in space, of whatever format."""
    return isinstance(image, SpatialImage)


def from_simpleitk(image: Any, what: str) -> tuple[ImageHeader, Voxels]:
    """Header and voxels (C, Z, Y, X) of a ``SimpleITK.Image`` of 2 or 3 dimensions; components of a vector are channels.

    Raises:
        GeometryError: more dimensions.
        UnreadableFileError, ValuesError: values that are no finite real numbers. Messages begin with ``what``.
    """
    dim = image.GetDimension()
    if dim not in (2, 3):
        raise GeometryError(f"{what}: expected 2 or 3 dimensions, got {dim}; give a list of images, one for each channel")
    array = SimpleITK.GetArrayFromImage(image)
    array = array[None] if image.GetNumberOfComponentsPerPixel() == 1 else np.moveaxis(array, -1, 0)
    voxels = _native(array if dim == 3 else array[:, None], what)
    direction = np.eye(3)
    direction[:dim, :dim] = np.reshape(image.GetDirection(), (dim, dim))
    x, y, z = (*image.GetSpacing(), 1.0)[:3]
    origin = (*image.GetOrigin(), 0.0)[:3]
    geometry = Geometry(voxels.shape[1:], (z, y, x), origin, tuple(direction.ravel().tolist()))
    return ImageHeader(geometry, voxels.dtype, num_channels=len(voxels)), voxels


def from_nibabel(image: Any, what: str) -> tuple[ImageHeader, Voxels]:
    """Header and voxels (1, Z, Y, X) of one volume; of NIfTI with the choices of ``nifti_header``, of others by their affine.

    Raises:
        GeometryError: impossible axes, or more than one volume.
        UnreadableFileError, ValuesError: values that are no finite real numbers. Messages begin with ``what``.
    """
    nifti = image if isinstance(image, nibabel.Nifti1Pair) else nibabel.Nifti1Image.from_image(image)
    header = nifti.header.copy()
    if nifti.affine is not None and not np.allclose(nifti.affine, header.get_best_affine()):
        header.set_sform(nifti.affine, code="aligned")  # as nibabel does where it writes the image
        header.set_qform(nifti.affine, code="unknown")
    geometry, notes = header_geometry(header, Path(what))
    array = _native(np.asanyarray(nifti.dataobj), what)
    voxels = array.reshape(geometry.shape[::-1]).transpose(2, 1, 0)[None]
    return ImageHeader(geometry, voxels.dtype, notes, is_canonical=not notes), voxels


def _native(array: Any, what: str) -> Voxels:
    """Integers as they are, real numbers as float32, both in the machine's byte order."""
    if array.dtype.kind not in "biuf":
        raise UnreadableFileError(f"{what}: expected one grey value per voxel, got data type {array.dtype}")
    if 0 in array.shape:
        raise GeometryError(f"{what}: every dimension must be positive, got {array.shape}")
    if not np.isfinite(array).all():
        raise ValuesError(f"{what}: expected finite values, got NaN or infinity")
    check_contrast(array.min(), array.max(), what)
    kinds: dict[str, np.dtype[Any]] = {"f": np.dtype(np.float32), "b": np.dtype(np.uint8)}
    native: np.dtype[Any] = array.dtype.newbyteorder("=")
    found: Voxels = np.asarray(array, dtype=kinds.get(array.dtype.kind, native))
    return found
