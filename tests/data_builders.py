"""Small real files for the tests of the data room."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image as PillowImage

from nnduet.io.geometry import Geometry
from nnduet.io.images import write_image, write_segmentation
from nnduet.schema import Workspace

SHAPE = (4, 5, 6)
GRID = Geometry(SHAPE, (4.0, 3.0, 2.0), (-10.0, -20.0, 30.0), (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0))
AFFINE = np.array([[2.0, 0, 0, 10], [0, 3, 0, 20], [0, 0, 4, 30], [0, 0, 0, 1]])
SHARED_DATA = Path(os.environ.get("NNDUET_DATA", Path(__file__).parents[1] / ".." / "shared" / "data"))


def shared(name: str) -> Path:
    """A folder of the shared data, or a skip."""
    folder = SHARED_DATA / name
    if not folder.exists():
        pytest.skip(f"shared data not found at {folder}; set NNDUET_DATA")
    return folder


def raw_nifti(
    path: Path,
    array: np.ndarray | None = None,
    *,
    affine: np.ndarray = AFFINE,
    edit: Callable[[Any], None] = lambda header: None,
    extra: bytes = b"",
) -> Path:
    """A NIfTI file of an array in file order (X, Y, Z, ...), header fields edited at will, no checks on the way."""
    voxels = np.arange(120, dtype=np.int16).reshape(6, 5, 4) if array is None else array
    image = nib.Nifti1Image(voxels, affine, dtype=voxels.dtype)
    header = image.header
    header.set_sform(affine, 1)
    header.set_qform(affine, 1, strip_shears=True)
    header.set_xyzt_units("mm")
    header["vox_offset"], header["magic"] = 352, b"n+1"
    header["scl_slope"], header["scl_inter"] = 1, 0
    edit(header)
    content = header.binaryblock + bytes(4) + voxels.tobytes(order="F") + extra
    path.write_bytes(gzip.compress(content, mtime=0) if path.name.endswith(".gz") else content)
    return path


def png(path: Path, array: np.ndarray) -> Path:
    PillowImage.fromarray(array).save(path)
    return path


def dataset(
    folder: Path,
    classes: Mapping[str, str],
    *,
    ending: str = ".nii.gz",
    header: str = "case_id,grade",
    extra_columns: Mapping[str, str] | None = None,
) -> Path:
    """``images/``, ``labels/`` and ``cases.csv`` with one channel, mask label 1 and a class per case."""
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    grid = Geometry((1, 5, 6)) if ending == ".png" else GRID
    mask = np.zeros(grid.shape, np.uint8)
    mask[0, 1:3, 1:3] = 1
    lines = [header]
    for number, (case_id, label) in enumerate(classes.items()):
        write_image(folder / "images" / f"{case_id}_0000{ending}", np.full(grid.shape, number, np.uint8), grid)
        write_segmentation(folder / "labels" / f"{case_id}{ending}", mask, grid)
        lines.append(f"{case_id},{label}" + ("," + extra_columns[case_id] if extra_columns else ""))
    (folder / "cases.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def ten_cases() -> dict[str, str]:
    """c0 … c9, the even ones of class a."""
    return {f"c{i}": "ab"[i % 2] for i in range(10)}


def workspace(folder: Path) -> Workspace:
    return Workspace(folder / "raw", folder / "preprocessed", folder / "results")


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
