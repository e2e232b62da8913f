"""What the area of a smooth surface, in place of that of voxel faces, changes in heads that read shapes.

    python benchmarks/surface.py --data ../shared/data      # docs/results/surface-lidc.json; some minutes of one core

Every case of LIDC is segmented by the one fold of ``lidc-nodule`` that had not seen it, and the shapes of that mask and of the
reference are described with both versions of the descriptors. Case heads are fitted on these shapes alone, on four of the five
folds, and answer the fifth; all cases' answers by both versions are compared in pairs, with intervals over patients. The folds
are those of ``docs/results/accuracy/lidc``.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from numpy.typing import NDArray

from nnduet.case_head.descriptors import KNOWN_VERSIONS, describe_regions, descriptor_names
from nnduet.case_head.fit import fit_case_head
from nnduet.evaluation.answer_tables import TaskAnswers
from nnduet.inference.case_features import grid_spacing_mm, region_masks
from nnduet.inference.predictor import Predictor
from nnduet.io.files import write_json_atomically
from nnduet.report.compared_tasks import compare_task
from nnduet.schema import Task

REPOSITORY = Path(__file__).parents[1]
RESULTS = REPOSITORY / "docs" / "results"
MASKS = ("predicted", "reference")
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Described:
    """All cases in one order: rows of the case table, the fold that had not seen each, {(mask, version): shapes (N, F)}."""

    rows: list[dict[str, str]]
    folds: Array
    shapes: dict[tuple[str, int], Array]


def describe(data: Path) -> Described:
    """Segment and describe all cases."""
    with (data / "cases.csv").open(newline="", encoding="utf-8") as handle:
        rows = {row["case"]: row for row in csv.DictReader(handle)}
    order: list[dict[str, str]] = []
    folds: list[float] = []
    found: list[dict[tuple[str, int], Array]] = []
    for fold in range(5):
        stored = json.loads((RESULTS / "accuracy" / "lidc" / f"fold_{fold}.json").read_text(encoding="utf-8"))
        predictor = Predictor.load("lidc-nodule", [fold], device="cpu", runtime="torch", precision="float32", tta=False)
        for case_id in stored["rows"]["h"]:
            order.append(rows[case_id])
            folds.append(fold)
            found.append(_describe_case(predictor, data, case_id))
        sys.stderr.write(f"fold {fold}: {len(order)} cases described\n")
    shapes = {key: np.stack([case[key] for case in found]) for key in found[0]}
    return Described(order, np.array(folds), shapes)


def _describe_case(predictor: Predictor, data: Path, case_id: str) -> dict[tuple[str, int], Array]:
    model = predictor.model
    image, reference, properties = DefaultPreprocessor(verbose=False).run_case(
        [str(data / "images" / f"{case_id}_0000.nii.gz")],
        str(data / "labels" / f"{case_id}.nii.gz"),
        model.plans,
        model.configuration,
        model.dataset_json,
    )
    with torch.inference_mode():
        logits, _ = predictor.run_members(torch.from_numpy(np.asarray(image, np.float32)), properties, {})
    masks = {"predicted": region_masks(logits, overlapping=False), "reference": np.asarray(reference) == 1}
    spacing = grid_spacing_mm(properties, model.configuration, model.plans)
    pixels = np.asarray(image, np.float32)
    return {(name, v): describe_regions(pixels, mask, spacing, v) for name, mask in masks.items() for v in KNOWN_VERSIONS}


def answers(task: Task, described: Described, shapes: Array) -> TaskAnswers:
    """Out-of-fold answers of heads on these shapes, of the cases whose truth is known."""
    told = [row[task.name] for row in described.rows]
    truth = np.array([float(task.classes.index(name)) if name in task.classes else np.nan for name in told])
    patients = np.array([row["patient_id"] for row in described.rows])
    probabilities = np.zeros((len(truth), len(task.classes)))
    for fold in range(5):
        held_out = described.folds == fold
        head = fit_case_head(task, shapes[~held_out], truth[~held_out], patients[~held_out].tolist())
        assert head is not None
        probabilities[held_out] = head(shapes[held_out])
    known = np.flatnonzero(np.isfinite(truth))
    return TaskAnswers(
        task,
        tuple(described.rows[index]["case"] for index in known),
        tuple(patients[known].tolist()),
        truth[known],
        probabilities[known].argmax(axis=1).astype(float),
        probabilities[known],
    )


def _ratios(described: Described) -> dict[str, Any]:
    """Quartiles over cases of the new surface by the old one, and of the new sphericity."""
    names = descriptor_names(["nodule"], 1)
    surface, sphericity = names.index("nodule log_surface"), names.index("nodule sphericity")
    out: dict[str, Any] = {}
    for mask in MASKS:
        old, new = (described.shapes[mask, version] for version in KNOWN_VERSIONS)
        areas = np.expm1(new[:, surface]) / np.expm1(old[:, surface])
        out[mask] = {
            "new_by_old_surface": _quartiles(areas),
            "sphericity_of_faces": _quartiles(old[:, sphericity]),
            "sphericity": _quartiles(new[:, sphericity]),
        }
    return out


def _quartiles(values: Array) -> list[float]:
    return [round(float(q), 4) for q in np.nanpercentile(values, (25, 50, 75))]


def _without_cases(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {"num_cases": entry["num_cases"], "metrics": entry["metrics"]}


def main() -> None:
    """Describe, fit, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "data")
    parser.add_argument("--output", type=Path, default=RESULTS / "surface-lidc.json")
    arguments = parser.parse_args()
    started = time.perf_counter()
    described = describe(arguments.data / "lidc")
    tasks = Predictor.load("lidc-nodule", [0], device="cpu", runtime="torch", precision="float32").tasks
    compared: dict[str, Any] = {mask: {} for mask in MASKS}
    for mask in MASKS:
        for task in tasks:
            old, new = (answers(task, described, described.shapes[mask, version]) for version in KNOWN_VERSIONS)
            compared[mask][task.name] = _without_cases(compare_task(old, new, 1000, 0))
            sys.stderr.write(f"{mask} {task.name}: compared\n")
    result = {
        "set": "lidc",
        "num_cases": len(described.rows),
        "a": "heads on shapes with the area of voxel faces",
        "b": "heads on shapes with the area of a smooth surface",
        "shapes": _ratios(described),
        "tasks": compared,
        "command": "python benchmarks/surface.py",
        "seconds": round(time.perf_counter() - started, 1),
    }
    write_json_atomically(arguments.output, result)
    sys.stdout.write(f"{arguments.output}\n")


if __name__ == "__main__":
    main()
