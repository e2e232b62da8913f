"""A new metric: how many lesions were touched at all, with its bootstrap interval over patients.

python examples/new_metric.py

A metric of a sample is written on weights: (R, N) counts of how often each resample drew each case, the sample itself in row 0.
Value and interval then come from one line. To have nnDuet compute it, give it a row of the table of metrics (CONTRIBUTING.md).
"""

from __future__ import annotations

import numpy as np

from nnduet.datasets.phantom import simulate
from nnduet.evaluation.bootstrap import FloatArray, draw_resamples, weighted_mean

LESION = 2


def touched(reference: np.ndarray, prediction: np.ndarray) -> float:
    """1 if any voxel (Z, Y, X) of the lesion was found, 0 if none; NaN where the reference has no lesion."""
    lesion = reference == LESION
    return float((prediction[lesion] == LESION).any()) if lesion.any() else np.nan


def detection_rate(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Share of lesions touched, (R,), from the values (N,) of cases and weights (R, N); NaN without lesions."""
    return weighted_mean(values, weights)


def main() -> None:
    rng = np.random.default_rng(0)
    values, patients = [], []
    for number in range(30):
        reference = simulate(str(number % 3), rng=rng, size=(12, 32, 36)).segmentation
        missed = number % 5 == 0  # a network that misses every fifth lesion
        values.append(touched(reference, np.where(reference == LESION, 0, reference) if missed else reference))
        patients.append(f"patient {number // 2}")
    resamples = draw_resamples(patients, num_resamples=1000, seed=0)
    rates = detection_rate(np.array(values), resamples.weights)
    low, high = np.percentile(rates[1:], (2.5, 97.5))
    print(f"lesions touched: {rates[0]:.2f} ({low:.2f} to {high:.2f}), {len(values)} cases of {resamples.num_units} patients")


if __name__ == "__main__":
    main()
