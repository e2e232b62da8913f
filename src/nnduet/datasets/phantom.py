"""Synthetic abdominal CT in the layout of the pancreas challenge, for the demo and the tests.

A body with fat, spine and aorta holds one long curved organ (label 1, "pancreas") and one lesion in it (label 2). The case
carries one of three subtypes, which shows in the lesion's appearance only; its volume is drawn before the subtype is looked at:

    0  homogeneous and dark            1  bright rim, dark core            2  lobulated, mottled, with calcified spots

    <folder>/train/subtype0/phantom_007_0000.nii.gz, phantom_007.nii.gz      images and masks; validation/ likewise
    <folder>/test/phantom_012_0000.nii.gz                                    images only
    <folder>/test_labels/phantom_012.nii.gz, <folder>/test_cases.csv         the answers (case_id,subtype)

Spacing and orientation vary from case to case; every fourth mask is stored as float64 with 1.0000152587890625 where 1 is meant,
as in the challenge. The same seed gives the same bytes.
"""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK

from nnduet.datasets.phantom_drawing import SUBTYPES, PhantomVolume, simulate
from nnduet.errors import OutputExistsError, SettingsError
from nnduet.io.case_names import channel_name, mask_name
from nnduet.io.csv_text import csv_text
from nnduet.io.nifti import NIFTI

__all__ = ["PhantomCase", "PhantomSummary", "write_phantom"]

_ORIENTATIONS = ("LPS", "LPS", "LPS", "RAS", "LAS", "PLS")  # in-plane transposed in one of six; slices stay slices
_ONE_AS_STORED = 1.0000152587890625  # 1 + 2**-16, found in 214 of the 288 challenge masks
_SPLITS = ("train", "validation", "test")

_Array = npt.NDArray[Any]


@dataclass(frozen=True)
class PhantomCase:
    """What was written for one case; ``spacing_mm`` is (Z, Y, X) before the axes were turned to ``orientation``."""

    case_id: str
    split: str
    subtype: str
    orientation: str
    spacing_mm: tuple[float, float, float]
    lesion_volume_mm3: float


@dataclass(frozen=True)
class PhantomSummary:
    """The folder and its cases, in the order of their ids."""

    folder: Path
    cases: tuple[PhantomCase, ...]

    def count(self, split: str) -> int:
        """Number of cases of ``train``, ``validation`` or ``test``."""
        return sum(case.split == split for case in self.cases)

    def to_json(self) -> dict[str, object]:
        """JSON form: folder, number of cases per split, cases."""
        counts = {split: self.count(split) for split in _SPLITS}
        return {"folder": str(self.folder), "counts": counts, "cases": [asdict(case) for case in self.cases]}


def write_phantom(
    folder: Path,
    *,
    num_train: int,
    num_validation: int,
    num_test: int = 0,
    seed: int = 0,
    size: tuple[int, int, int] = (26, 60, 68),
) -> PhantomSummary:
    """Write the data set below ``folder``; the subtypes are balanced within each split and independent of the ids.

    Args:
        folder: made if missing.
        num_train, num_validation, num_test: numbers of cases.
        seed: the same seed gives the same files.
        size: mean number of voxels (Z, Y, X); each case differs from it by at most (2, 4, 4).

    Raises:
        OutputExistsError: ``folder`` already holds a train, validation or test folder.
        SettingsError: a negative number of cases, or a size too small to hold a lesion.
    """
    _check(folder, (num_train, num_validation, num_test), size)
    rng = np.random.default_rng(seed)
    wanted = [
        (split, subtype)
        for split, count in zip(_SPLITS, (num_train, num_validation, num_test), strict=True)
        for subtype in _balanced_subtypes(count, rng)
    ]
    numbers = rng.permutation(len(wanted)) + 1
    cases = []
    for number, (split, subtype) in sorted(zip(numbers.tolist(), wanted, strict=True)):
        case_rng = np.random.default_rng([seed, number])
        volume = simulate(subtype, rng=case_rng, size=size)
        orientation = str(case_rng.choice(_ORIENTATIONS))
        case_id = f"phantom_{number:03d}"
        case = PhantomCase(case_id, split, subtype, orientation, volume.spacing_mm, volume.lesion_volume_mm3)
        _write_case(folder, case, volume, as_float=number % 4 == 0)
        cases.append(case)
    if num_test:
        _write_test_table(folder / "test_cases.csv", cases)
    return PhantomSummary(folder, tuple(cases))


def _check(folder: Path, counts: tuple[int, ...], size: tuple[int, int, int]) -> None:
    if min(counts) < 0:
        raise SettingsError(f"phantom: numbers of cases expected >= 0, got {counts}")
    if min(size[0] - 12, size[1] - 32, size[2] - 32) < 0:
        raise SettingsError(f"phantom: size expected at least (12, 32, 32) voxels, got {size}")
    for split in _SPLITS:
        if (folder / split).exists():
            raise OutputExistsError(f"{folder / split} exists; write the phantom to a new folder")


def _balanced_subtypes(count: int, rng: np.random.Generator) -> list[str]:
    subtypes = [SUBTYPES[i % len(SUBTYPES)] for i in range(count)]
    return [subtypes[i] for i in rng.permutation(count)]


def _write_case(folder: Path, case: PhantomCase, volume: PhantomVolume, *, as_float: bool) -> None:
    is_test = case.split == "test"
    image_folder = folder / case.split if is_test else folder / case.split / f"subtype{case.subtype}"
    mask_folder = folder / "test_labels" if is_test else image_folder
    segmentation = volume.segmentation
    if as_float:
        segmentation = np.where(segmentation == 1, _ONE_AS_STORED, segmentation.astype(np.float64))
    write = functools.partial(_write_image, spacing_mm=case.spacing_mm, orientation=case.orientation)
    write(image_folder / channel_name(case.case_id, 0, NIFTI.dataset_ending), volume.hounsfield)
    write(mask_folder / mask_name(case.case_id, NIFTI.dataset_ending), segmentation)


def _write_image(path: Path, array: _Array, *, spacing_mm: tuple[float, float, float], orientation: str) -> None:
    """Write an LPS array (Z, Y, X) with its axes turned to ``orientation`` and a direction matrix that says so."""
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(spacing_mm[::-1])
    image.SetOrigin([-(n - 1) / 2 * s for n, s in zip(image.GetSize(), image.GetSpacing(), strict=True)])
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(SimpleITK.DICOMOrient(image, orientation), str(path), useCompression=True)


def _write_test_table(path: Path, cases: list[PhantomCase]) -> None:
    rows = [[case.case_id, case.subtype] for case in cases if case.split == "test"]
    path.write_text(csv_text([["case_id", "subtype"], *rows]), encoding="utf-8")
