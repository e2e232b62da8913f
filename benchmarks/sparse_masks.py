"""Time and memory of what is measured on a mask of 512 x 512 x 300 voxels with an organ and 200 specks far from it.

    python benchmarks/sparse_masks.py

Prints seconds and the rise of the process's peak memory for the scores of one case, and for the descriptors of its regions.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt

from nnduet.case_head.descriptors import describe_regions
from nnduet.evaluation.region_scores import region_labels, score_segmentation

SHAPE, SPACING_MM, NUM_SPECKS = (300, 512, 512), (1.0, 0.8, 0.8), 200


def mask_with_specks(shape: tuple[int, int, int] = SHAPE, *, specks: bool = True) -> npt.NDArray[np.uint8]:
    """An ellipsoid of label 1 in the middle, and single voxels of it all over the array."""
    z, y, x = (axis.astype(np.float16) for axis in np.ogrid[tuple(slice(-1, 1, size * 1j) for size in shape)])
    mask = (z**2 + y**2 + x**2 < 0.06).astype(np.uint8)
    rng = np.random.default_rng(0)
    if specks:
        mask[tuple(rng.integers(0, size, NUM_SPECKS) for size in shape)] = 1
    return mask


def measured(what: str, work: Callable[[], object]) -> None:
    """Print how long it took and by how much the peak memory rose."""
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    work()
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sys.stdout.write(f"{what}: {seconds:.2f} s, peak {after / 2**20:.2f} GiB, {(after - before) / 2**20:.2f} GiB more\n")


def main() -> None:
    """Measure with and without specks."""
    small = mask_with_specks((8, 32, 32))
    score_segmentation(small, small, {"a": (1,)}, spacing_mm=SPACING_MM, tolerance_mm=2.0)  # imports
    regions = region_labels({"background": 0, "organ": 1})
    for specks in (False, True):
        prediction, reference = mask_with_specks(specks=specks), mask_with_specks(specks=False)
        kind = "with specks" if specks else "without specks"
        measured(
            f"scores {kind}",
            partial(score_segmentation, reference, prediction, regions, spacing_mm=SPACING_MM, tolerance_mm=2.0),
        )
        half = prediction[::2, ::2, ::2] > 0
        image = np.random.default_rng(0).normal(size=(1, *half.shape)).astype(np.float32)
        measured(
            f"descriptors {kind}, half the size",
            partial(describe_regions, image, half[None], [2 * s for s in SPACING_MM]),
        )


if __name__ == "__main__":
    main()
