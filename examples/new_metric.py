"""A new metric: which lesions were found at all, as a row of the table of metrics, with its bootstrap interval over patients.

python examples/new_metric.py

To have every command compute and show it, put the function into src/nnduet/evaluation/metrics/segmentation.py and the row into
REGION_METRICS of src/nnduet/evaluation/metrics/table.py.
"""

from __future__ import annotations

import numpy as np

from nnduet.datasets.phantom_drawing import simulate
from nnduet.evaluation.bootstrap import draw_resamples, weighted_mean
from nnduet.evaluation.metrics.mask_pairs import MaskPair
from nnduet.evaluation.metrics.metric import RegionMetric


def found(pair: MaskPair) -> float | None:
    """1 if any voxel of the reference's region was predicted, 0 if none; None where the reference has no such region."""
    return float((pair.reference & pair.prediction).any()) if pair.num_reference else None


FOUND = RegionMetric(
    key="found",
    label="found at all",
    better="higher",
    definition="share of cases with the region in which any of its voxels was predicted",
    source="examples/new_metric.py",
    function=found,
    reason="empty_reference",
    worst=0.0,
)


def main() -> None:
    rng = np.random.default_rng(0)
    values, patients = [], []
    for number in range(30):
        volume = simulate(str(number % 3), rng=rng, size=(12, 32, 36))
        lesion = volume.segmentation == 2
        prediction = np.zeros_like(lesion) if number % 5 == 0 else lesion  # a network that misses every fifth lesion
        value = FOUND.function(MaskPair(lesion, prediction, volume.spacing_mm))
        values.append(np.nan if value is None else value)
        patients.append(f"patient {number // 2}")
    resamples = draw_resamples(patients, num_resamples=1000, seed=0)
    shares = weighted_mean(np.array(values), resamples.weights)  # of the sample, then of every resample
    low, high = np.percentile(shares[1:], (2.5, 97.5))
    print(f"{FOUND.text}, {FOUND.better} is better: {FOUND.definition}")
    print(f"{shares[0]:.2f} ({low:.2f} to {high:.2f}), {len(values)} cases of {resamples.num_units} patients")


if __name__ == "__main__":
    main()
