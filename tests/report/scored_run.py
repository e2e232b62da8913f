"""A small run with images, masks, tables and scores, and names that want to be markup."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from nnduet.evaluation.evaluate import evaluate
from nnduet.io.geometry import Geometry
from nnduet.io.images import write_image, write_segmentation
from nnduet.schema import Task

NASTY = "a <script>alert(1)</script> & 'b'"
NASTY_CASE = "<script>alert(2)<img src=x onerror=alert(3)>"
CLASSES = ("low <b>", "high")
TASKS = (Task("grade", "binary", CLASSES), Task("age", "regression", unit="y"))
GRID = Geometry((10, 24, 26), (2.0, 1.0, 1.0), (-5.0, 3.0, 11.0))
NUM_CASES = 12


def write_scored_run(folder: Path, *, ending: str = ".nii.gz") -> Path:
    """``images``, ``references``, ``predictions`` and what ``evaluate`` says of them in ``evaluation``, which is returned.

    Twelve cases; every fourth answer to ``grade`` is wrong; the masks are shifted by up to three voxels, the lesion of one case
    is missed. One slice for ``.png``.
    """
    shape = (1, 24, 26) if ending == ".png" else GRID.shape
    grid = GRID if ending != ".png" else Geometry(shape)
    rng = np.random.default_rng(0)
    answers, truth = ["case_id,grade,grade_p_low <b>,grade_p_high,age"], ["case_id,grade,age"]
    for index in range(NUM_CASES):
        case = f"case_{index:02d}" if index else NASTY_CASE
        mask = np.zeros(shape, np.uint8)
        mask[:, 6:16, 6:16] = 1
        mask[shape[0] // 2, 9:12, 9:12] = 2
        image = (60 * (mask > 0) + rng.normal(50, 8, shape)).clip(0, 255).astype(np.uint8)
        predicted = np.roll(mask, index % 4, axis=2)
        predicted[predicted == 2] = 1 if index == 5 else 2
        write_image(folder / "images" / f"{case}_0000{ending}", image, grid)
        write_segmentation(folder / "references" / f"{case}{ending}", mask, grid)
        write_segmentation(folder / "predictions" / f"{case}{ending}", predicted, grid)
        true = index % 2
        answer = 1 - true if index % 4 == 3 else true
        sure = 0.6 + 0.03 * index
        truth.append(f"{case},{CLASSES[true]},{40 + index}")
        answers.append(
            f"{case},{CLASSES[answer]},{sure if answer == 0 else 1 - sure},{sure if answer else 1 - sure},{41 + index}"
        )
    (folder / "table.csv").write_text("\n".join(truth) + "\n", encoding="utf-8")
    (folder / "predictions" / "classification.csv").write_text("\n".join(answers) + "\n", encoding="utf-8")
    evaluate(
        folder / "predictions",
        folder / "references",
        labels={"background": 0, "organ": 1, NASTY: 2},
        tasks=TASKS,
        table=folder / "table.csv",
        output=folder / "evaluation",
        num_bootstrap=50,
    )
    return folder / "evaluation"


def write_answered_run(folder: Path, num_cases: int = 30) -> Path:
    """``images`` and what ``predict`` writes without references in ``out``, which is returned.

    Three classes with prediction sets, a value with intervals, outlier scores; case_03 is left to a person, case_05 has an
    empty mask, case_07 is the strangest; two labels of different volumes.
    """
    rng = np.random.default_rng(1)
    header = "case_id,grade,grade_p_G1,grade_p_G2,grade_p_G10,grade_set,grade_spread,grade_abstain,"
    lines = [f"{header}age,age_low,age_high,age_spread,outlier_score"]
    for index in range(num_cases):
        case = f"case_{index:02d}"
        mask = np.zeros(GRID.shape, np.uint8)
        if index != 5:
            mask[:, 6:16, 6 : 16 - index % 4] = 1
            mask[4:6, 9:12, 9:12] = 2
        image = (60 * (mask > 0) + rng.normal(50, 8, GRID.shape)).clip(0, 255).astype(np.uint8)
        write_image(folder / "images" / f"{case}_0000.nii.gz", image, GRID)
        write_segmentation(folder / "out" / f"{case}.nii.gz", mask, GRID)
        shares = rng.dirichlet((3, 2, 1))
        names = np.array(["G1", "G2", "G10"])
        kept = "|".join(names[np.argsort(-shares)][: 1 + index % 3])
        answer = f"{names[shares.argmax()]},{','.join(f'{share:.6f}' for share in shares)},{kept},0.01"
        outlier = 0.999 if index == 7 else 0.9 * rng.random()
        lines.append(
            f"{case},{answer},{'set 2 > 1' if index == 3 else ''},{40 + index},{35 - index},{50 + index},1,{outlier:.3f}"
        )
    (folder / "out" / "classification.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    run = {"cases": [f"case_{index:02d}" for index in range(num_cases)], "images": str(folder / "images"), "failed": {}}
    (folder / "out" / "run.json").write_text(json.dumps(run), encoding="utf-8")
    return folder / "out"
