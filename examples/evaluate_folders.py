"""Evaluate two folders: masks that were predicted against reference masks, case by case and with intervals.

python examples/evaluate_folders.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from nnduet.datasets.phantom_drawing import simulate
from nnduet.evaluation.evaluate import evaluate
from nnduet.evaluation.summary import format_summary
from nnduet.io.geometry import Geometry
from nnduet.io.images import write_segmentation

LABELS = {"background": 0, "organ": 1, "lesion": 2}


def write_masks(folder: Path, num_cases: int = 6) -> None:
    """Masks of synthetic cases in ``references``; the same, shifted by a voxel along x, in ``predictions``."""
    for name in ("references", "predictions"):
        (folder / name).mkdir()
    for number in range(num_cases):
        volume = simulate("1", rng=np.random.default_rng(number), size=(14, 40, 44))
        geometry = Geometry(volume.segmentation.shape, volume.spacing_mm)
        write_segmentation(folder / "references" / f"case_{number}.nii.gz", volume.segmentation, geometry)
        shifted = np.roll(volume.segmentation, 1, axis=2)
        write_segmentation(folder / "predictions" / f"case_{number}.nii.gz", shifted, geometry)


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_masks(folder)
        metrics = evaluate(folder / "predictions", folder / "references", labels=LABELS, output=folder / "metrics")
        for row in format_summary(metrics):
            print(f"{row.name:24} {row.value:>8}  {row.interval}")
        print("\nmetrics/per_case.csv begins with")
        print("\n".join((folder / "metrics" / "per_case.csv").read_text().splitlines()[:3]))


if __name__ == "__main__":
    main()
