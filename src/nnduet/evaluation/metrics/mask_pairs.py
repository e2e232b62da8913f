"""A region of one case as the reference and the prediction have it: what a metric of regions is a function of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from nnduet.evaluation.metrics.surfaces import Surface, distances_to, surface_of

__all__ = ["Mask", "MaskPair"]

Mask = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class MaskPair:
    """Two masks (Z, Y, X) bool of one shape; with Z = 1 they are a 2D image, of one slice of that thickness.

    ``spacing_mm`` is (Z, Y, X), ``tolerance_mm`` what a surface distance forgives. What several metrics need is computed once.
    """

    reference: Mask
    prediction: Mask
    spacing_mm: Sequence[float]
    tolerance_mm: float = 2.0

    @cached_property
    def num_reference(self) -> int:
        """Voxels of the reference."""
        return int(np.count_nonzero(self.reference))

    @cached_property
    def num_prediction(self) -> int:
        """Voxels of the prediction."""
        return int(np.count_nonzero(self.prediction))

    def volume_ml(self, num_voxels: int) -> float:
        """Volume of so many voxels in millilitres."""
        return num_voxels * math.prod(self.spacing_mm) / 1000

    @cached_property
    def surfaces(self) -> tuple[Surface, Surface]:
        """Of the reference and of the prediction; contours of a 2D image. The border of the image counts as a surface."""
        flat = self.reference.shape[0] == 1
        masks = (self.reference[0], self.prediction[0]) if flat else (self.reference, self.prediction)
        first, second = (surface_of(mask, self.spacing_mm[1:] if flat else self.spacing_mm) for mask in masks)
        return first, second

    @cached_property
    def distances_mm(self) -> tuple[FloatArray, FloatArray]:
        """How far each element of the reference's surface is from the prediction's, and the other way; neither may be empty."""
        reference, prediction = (surface.points_mm for surface in self.surfaces)
        return distances_to(prediction, reference), distances_to(reference, prediction)
