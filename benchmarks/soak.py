"""Predict 300 images of many sizes in one process and watch its memory: it must stay flat.

    python benchmarks/soak.py        # docs/results/soak.json

The model is the shipped ``lidc-nodule`` (five folds, without mirroring, which would only take longer), the images are noise
with a ball of tissue. Exit status 1 where memory grows by more than 5 % from prediction 100 to 300, measured as medians of 20
predictions so that one measurement decides nothing.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import psutil
from road import REPOSITORY, commit, machine

from nnduet import Predictor
from nnduet.io.files import write_json_atomically
from nnduet.io.images import Geometry, write_image

MODEL = "lidc-nodule"
MOST_GROWTH = 0.05
SETTLED = 100
"""Predictions after which the allocator has seen all sizes."""


def write_ball(path: Path, rng: np.random.Generator) -> None:
    """A ball of tissue in lung, int16, of 8 to 24 slices and 40 to 72 pixels."""
    shape = (int(rng.integers(8, 25)), int(rng.integers(40, 73)), int(rng.integers(40, 73)))
    z, y, x = np.ogrid[tuple(slice(n) for n in shape)]
    distance = (2 * (z - shape[0] / 2)) ** 2 + (y - shape[1] / 2) ** 2 + (x - shape[2] / 2) ** 2
    image = np.where(distance < rng.integers(20, 120), 30, -850) + rng.normal(0, 30, shape)
    write_image(path, image.astype(np.int16), Geometry(shape, (1.5, 0.7, 0.7)))


def main() -> int:
    """Predict, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictions", type=int, default=300)
    parser.add_argument("--runs", type=Path, default=REPOSITORY / "runs")
    arguments = parser.parse_args()
    rng, process, folder = np.random.default_rng(0), psutil.Process(), arguments.runs / "soak"
    predictor = Predictor.load(MODEL, device="cpu", tta=False)
    resident, handles, started = [], [], time.perf_counter()
    for index in range(arguments.predictions):
        path = folder / f"ball_{index % 30:02d}_0000.nii.gz"
        if index < 30:
            write_ball(path, rng)
        predictor(path)
        resident.append(process.memory_info().rss)
        handles.append(process.num_fds())
    settled, last = (int(np.median(resident[start : start + 20])) for start in (SETTLED, arguments.predictions - 20))
    result = {
        "model": MODEL,
        "computed_by": f"{predictor.passes.name} {predictor.passes.precision}",
        "predictions": arguments.predictions,
        "seconds": round(time.perf_counter() - started, 1),
        "resident_bytes": {"after_1": resident[0], f"around_{SETTLED}": settled, "at_the_end": last, "most": max(resident)},
        "growth": round(last / settled - 1, 4),
        "open_files": {"after_1": handles[0], "at_the_end": handles[-1]},
        "met": bool(last / settled - 1 <= MOST_GROWTH and handles[-1] <= handles[0]),
        "machine": machine(),
        "commit": commit(),
    }
    write_json_atomically(REPOSITORY / "docs" / "results" / "soak.json", result)
    sys.stdout.write(f"{result['resident_bytes']}, growth {result['growth']:.1%}\n")
    return int(not result["met"])


if __name__ == "__main__":
    sys.exit(main())
