"""What is fed with hostile bytes, by Hypothesis in test_fuzz.py and for hours by benchmarks/fuzz.py.

Each target takes the bytes of a file and a path to write them to, and returns whether they were accepted. Only errors that
nnDuet names are allowed, and they must name the file.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from nnduet.datasets.case_tables import read_table
from nnduet.errors import NNDuetError
from nnduet.io.images import read_image
from nnduet.model_store.bundles import BundleFiles
from nnduet.records import read_json as read_record

__all__ = ["MOST_BYTES", "TARGETS", "read_bundle", "read_cases", "read_json", "read_png", "read_volume"]

MOST_BYTES = 1 << 20
"""The limit for the small files of the fuzzers, so that a lie of a header shows as TOO_LARGE and not as a slow example."""


def _accepts(path: Path, content: bytes, read: Callable[[], None]) -> bool:
    path.write_bytes(content)
    try:
        read()
    except NNDuetError as error:
        assert path.name in str(error), f"the file is not named in: {error}"
        assert "\n" not in error.remedy
        return False
    return True


def read_volume(content: bytes, path: Path) -> bool:
    """A .nii or .nii.gz: finite voxels of the shape that its geometry says."""

    def read() -> None:
        image = read_image(path, max_bytes=MOST_BYTES)
        assert image.array.shape == image.geometry.shape and image.array.nbytes <= 8 * MOST_BYTES
        assert np.isfinite(image.array).all() and np.isfinite(image.geometry.spacing_mm).all()

    return _accepts(path, content, read)


def read_png(content: bytes, path: Path) -> bool:
    """A .png: one slice."""

    def read() -> None:
        assert read_image(path, max_bytes=MOST_BYTES).array.shape[0] == 1

    return _accepts(path, content, read)


def read_cases(content: bytes, path: Path) -> bool:
    """A case table: rows by case ids that are not empty."""

    def read() -> None:
        assert all(isinstance(case_id, str) and case_id for case_id in read_table(path).rows)

    return _accepts(path, content, read)


def read_json(content: bytes, path: Path) -> bool:
    """A JSON file of a model."""
    return _accepts(path, content, lambda: read_record(path) and None)


def read_bundle(content: bytes, path: Path) -> bool:
    """A bundle: its manifest, entries, JSON and weights."""

    def read() -> None:
        files = BundleFiles(path)
        for name in ("plans.json", "dataset.json"):
            files.json(name)
        for fold in files.folds():
            files.fold(fold)

    return _accepts(path, content, read)


TARGETS: dict[str, tuple[Callable[[bytes, Path], bool], str]] = {
    "nii": (read_volume, "a.nii"),
    "nii-gz": (read_volume, "a.nii.gz"),
    "png": (read_png, "a.png"),
    "table": (read_cases, "cases.csv"),
    "json": (read_json, "a.json"),
    "bundle": (read_bundle, "a.nnduet"),
}
"""{name: the target, the name of its file}."""
