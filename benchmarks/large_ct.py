"""Send a CT of 512 x 512 x 300 voxels through the ResEnc-M network of speed.py and say how much memory that took.

    python benchmarks/speed.py --prepare && python benchmarks/large_ct.py

Writes ``docs/results/large-ct.json``. Half-patch steps, no mirroring: mirrored passes take time and no memory.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from road import REPOSITORY, commit, machine
from speed import prepare

from nnduet.inference.folder_runs import predict_folder
from nnduet.inference.memory import peak_bytes
from nnduet.inference.predictor import Predictor
from nnduet.io.files import write_json_atomically
from nnduet.io.images import Geometry, write_image

GEOMETRY = Geometry((300, 512, 512), (1.0, 0.8, 0.8))
TARGET_BYTES = 24 * 2**30


def write_ct(path: Path) -> None:
    """A body of soft tissue with noise, in air, int16."""
    rng = np.random.default_rng(0)
    _, y, x = np.ogrid[:1, :512, :512]
    body = ((y - 256) / 170) ** 2 + ((x - 256) / 230) ** 2 < 1
    image = np.stack([np.where(body[0], 40, -1000) + rng.normal(0, 20, (512, 512)) for _ in range(300)])
    write_image(path, image.astype(np.int16), GEOMETRY)


def main() -> None:
    """Write the CT, predict it, write what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=REPOSITORY / "runs")
    folder = parser.parse_args().runs / "speed"
    model, _ = prepare(folder)
    images = folder / "large"
    write_ct(images / "large_0000.nii.gz")
    before = peak_bytes()
    predictor = Predictor.load(model, device="cpu", tta=False)
    started = time.perf_counter()
    predict_folder(predictor, images, folder / "large_predicted")
    peak = peak_bytes()
    result = {
        "shape": GEOMETRY.shape,
        "spacing_mm": GEOMETRY.spacing_mm,
        "computed_by": f"{predictor.passes.name} {predictor.passes.precision}",
        "seconds": round(time.perf_counter() - started, 1),
        "peak_bytes": peak,
        "peak_bytes_before_the_model": before,
        "target_bytes": TARGET_BYTES,
        "met": peak <= TARGET_BYTES,
        "machine": machine(),
        "commit": commit(),
    }
    write_json_atomically(REPOSITORY / "docs" / "results" / "large-ct.json", result)
    sys.stdout.write(f"{result['seconds']:.0f} s, {peak / 2**30:.1f} GiB at most\n")


if __name__ == "__main__":
    main()
