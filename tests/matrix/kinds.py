"""Kinds of data set that people have, so combined that every pair of their properties occurs in some row."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from allpairspy import AllPairs

from nnduet.io.images import Geometry, write_image, write_segmentation

__all__ = ["NUM_CASES", "Kind", "covering_rows", "write_user_folder"]

NUM_CASES = 10
SHAPES = {2: (1, 36, 40), 3: (10, 20, 22)}
SPACING_MM = {2: (1.0, 1.0, 1.0), 3: (2.0, 1.0, 1.1)}
ENDINGS = {2: ".png", 3: ".nii.gz"}

TASKS: dict[str, tuple[str, ...]] = {
    "none": (),
    "binary": ("grade",),
    "multiclass": ("kind",),
    "ordinal": ("stage:ordinal",),
    "regression": ("age:regression",),
    "two": ("grade:binary", "age:regression"),
    "multilabel": ("findings:multilabel",),
}
PROPERTIES: dict[str, tuple[Any, ...]] = {
    "dim": (3, 2),
    "num_channels": (1, 2, 3),
    "tasks": tuple(TASKS),
    "masks": ("labels", "regions", "ignore", "several"),
    "covariates": (False, True),
    "missing": (False, True),
    "patients": (False, True),
    "cross_validation": (False, True),
    "runtime": ("torch", "openvino", "onnx"),
}


@dataclass(frozen=True)
class Kind:
    """One row: what a user's folder holds, and how it is used."""

    dim: int
    num_channels: int
    tasks: str
    masks: str
    covariates: bool
    missing: bool
    patients: bool
    cross_validation: bool
    runtime: str

    @property
    def name(self) -> str:
        flags = [field.name for field in fields(self) if getattr(self, field.name) is True]
        return "-".join([f"{self.dim}d", f"{self.num_channels}ch", self.tasks, self.masks, *flags, self.runtime])

    @property
    def task_names(self) -> tuple[str, ...]:
        return tuple(spec.partition(":")[0] for spec in TASKS[self.tasks])

    @property
    def convert_options(self) -> list[str]:
        """What the user types for this folder, beside its name."""
        options = [part for spec in TASKS[self.tasks] for part in ("--task", spec)]
        options += ["--covariate", "weight"] if self.covariates else []
        return options + (["--labels", "ED=labels", "--labels", "ES=late"] if self.masks == "several" else [])


def covering_rows() -> list[Kind]:
    """Rows of which some have any pair of properties that can occur together; always the same ones.

    Without tasks there is no table, and so nothing that stands in one: such rows are put beside the others, one per mask, in
    which each other property occurs.
    """
    with_tasks = PROPERTIES | {"tasks": tuple(name for name in TASKS if name != "none")}
    rows = [Kind(*row) for row in AllPairs(list(with_tasks.values()))]
    for number, masks in enumerate(PROPERTIES["masks"]):
        turns = {name: values[number % len(values)] for name, values in PROPERTIES.items()}
        nothing = dict.fromkeys(("covariates", "missing", "patients"), False)
        rows.append(Kind(**turns | nothing | {"masks": masks, "tasks": "none"}))
    return rows


def write_user_folder(folder: Path, kind: Kind) -> Path:
    """``images``, ``labels``, ``test_images`` with their ``test_masks``, and what else the kind has; returns ``folder``.

    Test cases are the first three again under new names. An organ (1) holds a lesion (2); its brightness in channel 0 says the
    grade, its size the stage. The last case has an empty mask.
    """
    for index in range(NUM_CASES):
        _write_case(folder, kind, index, f"case_{index:02d}", "images", "labels", "late")
        if index < 3:
            _write_case(folder, kind, index, f"new_{index:02d}", "test_images", "test_masks", "test_masks_late")
    if kind.tasks != "none":
        (folder / "cases.csv").write_text(_table(kind), encoding="utf-8")
    description = _description(kind)
    if description:
        (folder / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    return folder


def _write_case(folder: Path, kind: Kind, index: int, case_id: str, images: str, masks: str, late: str) -> None:
    ending, geometry = ENDINGS[kind.dim], Geometry(SHAPES[kind.dim], SPACING_MM[kind.dim])
    mask = _mask(kind, index)
    rng = np.random.default_rng(index)
    for channel in range(kind.num_channels):
        levels = np.array([40.0, 110.0, 200.0 if index % 2 else 70.0, 60.0]) + 10 * channel
        image = np.rint(levels[mask] + rng.normal(0, 5, mask.shape)).clip(0, 255).astype(np.uint8)
        write_image(folder / images / f"{case_id}_{channel:04d}{ending}", image, geometry)
    write_segmentation(folder / masks / f"{case_id}{ending}", mask, geometry)
    if kind.masks == "several":
        write_segmentation(folder / late / f"{case_id}{ending}", np.roll(mask, 2, axis=-1), geometry)


def _mask(kind: Kind, index: int) -> np.ndarray:
    mask = np.zeros(SHAPES[kind.dim], np.uint8)
    if index == NUM_CASES - 1:
        return mask
    depth = slice(None) if kind.dim == 2 else slice(2, 8)
    size = 3 + index % 3
    mask[depth, 4:16, 5:17] = 1
    mask[depth, 6 : 6 + size, 8 : 8 + size] = 2
    if kind.masks == "ignore":
        mask[depth, 16:18, 5:17] = 3
    return mask


def _description(kind: Kind) -> dict[str, Any]:
    """The ``dataset.json`` that nnU-Net's users write; a first user with plain labels has none."""
    if kind.masks == "regions":
        return {"labels": {"background": 0, "whole": [1, 2], "lesion": 2}, "regions_class_order": [1, 2]}
    if kind.masks == "ignore":
        return {"labels": {"background": 0, "organ": 1, "lesion": 2, "ignore": 3}}
    return {"labels": {"background": 0, "organ": 1, "lesion": 2}} if kind.masks == "several" else {}


def _table(kind: Kind) -> str:
    own = ["grade", "kind", "stage", "age", "weight", "findings"]
    columns = ["case_id", *own, *(["patient_id"] if kind.patients else [])]
    lines = [",".join(columns)]
    for index in range(NUM_CASES):
        cells = [("low", "high")[index % 2], "abc"[index % 3], str(1 + index % 3), str(40 + 3 * index), str(60 + index)]
        cells.append(("none", "oedema", "effusion|oedema", "effusion")[index % 4])
        if kind.missing and index in (2, 5):
            cells = ["", "NA", "", "", "" if index == 5 else cells[4], ""]
        lines.append(",".join([f"case_{index:02d}", *cells, *([f"p{index // 2}"] if kind.patients else [])]))
    return "\n".join(lines) + "\n"
