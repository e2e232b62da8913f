"""Predict an array: a made-up nodule in a crop of lung, by the model that comes with nnDuet.

python examples/predict_array.py
"""

from __future__ import annotations

import numpy as np

from nnduet import Predictor

SPACING_MM = (2.5, 0.7, 0.7)


def nodule(shape: tuple[int, int, int] = (8, 44, 44), radius_mm: float = 6.0) -> np.ndarray:
    """A ball of soft tissue in air and noise, in Hounsfield units, float32 (Z, Y, X)."""
    axes = [(np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(shape, SPACING_MM, strict=True)]
    distance_mm = np.sqrt(sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij")))
    ball = 1 / (1 + np.exp(2 * (distance_mm - radius_mm)))  # with a soft edge
    image: np.ndarray = -850 + 880 * ball + np.random.default_rng(0).normal(0, 30, shape)
    return image.astype(np.float32)


def main() -> None:
    predictor = Predictor.load("lidc-nodule", runtime="torch", tta=False)  # a folder or a bundle goes here as well
    prediction = predictor(nodule(), spacing_mm=SPACING_MM)
    print(prediction)

    volume_ml = float((prediction.segmentation == 1).sum() * np.prod(SPACING_MM) / 1000)
    print(f"nodule: {volume_ml:.2f} ml; a ball of 6 mm has 0.90 ml")
    malignancy = prediction.tasks["malignancy3"]
    print("malignancy:", malignancy.label, {name: round(p, 2) for name, p in malignancy.probabilities.items()})


if __name__ == "__main__":
    main()
