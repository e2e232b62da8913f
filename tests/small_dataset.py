"""Ten small cases with patients, two tasks and missing answers, in the layout of ``read_folder``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
from PIL import Image

from nnduet.schema import Workspace

CASES = tuple(f"case_{number:02d}" for number in range(10))
FLIPPED, PERMUTED = "case_03", "case_07"
ORIENTATIONS = {FLIPPED: "RAS", PERMUTED: "PLS"}
TABLE_3D = "case_id,patient_id,grade,age"
TABLE_2D = "case_id,patient_id,grade,stage"


def write_volumes(folder: Path) -> Path:
    """NIfTI of about (12, 20, 22) voxels; tasks grade (binary) and age (regression), one answer of each missing.

    An organ (label 1) holds a lesion (label 2), bright where the grade is high. One case is stored flipped, one with its axes
    permuted. Two cases share each of the first three patients. ``test_images`` holds the first four images and the two turned
    ones again under new names.
    """
    lines = [TABLE_3D]
    for number, case_id in enumerate(CASES):
        image, mask = _volume(number)
        spacing = (1.0, 1.1, 2.0 + 0.1 * (number % 3))
        _write_nifti(folder / "images" / f"{case_id}_0000.nii.gz", image, spacing, ORIENTATIONS.get(case_id))
        _write_nifti(folder / "labels" / f"{case_id}.nii.gz", mask, spacing, ORIENTATIONS.get(case_id))
        if case_id in (*CASES[:2], *ORIENTATIONS):
            copy = folder / "test_images" / f"new_{case_id}_0000.nii.gz"
            _write_nifti(copy, image, spacing, ORIENTATIONS.get(case_id))
        lines.append(f"{case_id},{_patient(number)},{_grade(number)},{'' if number == 5 else 40 + 3 * number}")
    (folder / "cases.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def write_pictures(folder: Path) -> Path:
    """Grey PNG of about (40, 44) pixels; tasks grade (binary) and stage (ordinal), one answer of each missing."""
    lines = [TABLE_2D]
    for number, case_id in enumerate(CASES):
        image, mask = _picture(number)
        for path in ((folder / "images" / f"{case_id}_0000.png"), (folder / "test_images" / f"new_{case_id}_0000.png")):
            if path.parent.name == "images" or number < 3:
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(path)
        (folder / "labels").mkdir(exist_ok=True)
        Image.fromarray(mask).save(folder / "labels" / f"{case_id}.png")
        lines.append(f"{case_id},{_patient(number)},{_grade(number)},{'' if number == 5 else 1 + number % 3}")
    (folder / "cases.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def workspace_in(folder: Path) -> Workspace:
    """The three folders below ``folder``."""
    return Workspace.from_environment({}, folder)


def edit_plans(plans_file: str | Path, **training: Any) -> dict[str, Any]:
    """Set entries of ``plans["nnduet"]["training"]`` and write the file back."""
    path = Path(plans_file)
    plans: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    plans["nnduet"]["training"].update(training)
    path.write_text(json.dumps(plans), encoding="utf-8")
    return plans


def _grade(number: int) -> str:
    return "" if number == 6 else ("low", "high")[number % 2]


def _patient(number: int) -> str:
    return f"p{number // 2 if number < 6 else number}"


def _volume(number: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(number)
    shape = (12 + number % 2, 20, 22)
    mask = np.zeros(shape, np.uint8)
    mask[3:9, 5:15, 6:16] = 1
    mask[4:7, 7:11, 8:12] = 2
    levels = np.array([0.0, 100.0, 200.0 if number % 2 else 20.0])
    return np.rint(levels[mask] + rng.normal(0, 5, shape)).astype(np.int16), mask


def _picture(number: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(number)
    mask = np.zeros((40 + number % 2, 44), np.uint8)
    mask[10:30, 12:32] = 1
    mask[14:20, 16:24] = 2
    levels = np.array([40.0, 120.0, 220.0 if number % 2 else 70.0])
    return np.rint(levels[mask] + rng.normal(0, 4, mask.shape)).clip(0, 255).astype(np.uint8), mask


def _write_nifti(path: Path, array: np.ndarray, spacing: tuple[float, float, float], orientation: str | None) -> None:
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin((-11.0, 7.5, 30.0))
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(SimpleITK.DICOMOrient(image, orientation) if orientation else image, str(path))
