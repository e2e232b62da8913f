"""How unlike the training cases a case is: a distance in feature space, and the share of training cases that are nearer.

Source: Mahalanobis distance for out-of-distribution detection, Lee et al. 2018; as the density of probabilistic PCA (Tipping
and Bishop 1999), so that few cases suffice for many features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from nnduet.case_head.head import Number, moments, standardise
from nnduet.errors import ModelError
from nnduet.records import convert_json

__all__ = ["OutlierModel", "fit_outlier_model"]

Array = NDArray[np.float64]

NUM_COMPONENTS = 16
MIN_CASES = 20
"""Fewer training cases say little about what is usual, and there is no outlier model."""

CLIP = 20.0


@dataclass(frozen=True)
class _Stored:
    """An outlier model in JSON."""

    mean: list[Number]
    scale: list[Number]
    components: list[list[Number]]
    variances: list[Number]
    noise: Annotated[float, Meta(gt=0, le=1e30)]
    distances: list[Number]


@dataclass(frozen=True)
class OutlierModel:
    """Probabilistic PCA of standardised features.

    Attributes:
        mean, scale: (F,).
        components: (P, F) orthonormal directions.
        variances: (P,) along them; ``noise`` is the variance along each other direction.
        distances: (N,) ascending, of training cases under models that did not see their patients.
    """

    mean: Array
    scale: Array
    components: Array
    variances: Array
    noise: float
    distances: Array

    def distance(self, features: Array) -> Array:
        """Features (N, F), NaN counting as the mean, to root mean squared Mahalanobis distances (N,); about 1 is usual."""
        z = standardise(features, self.mean, self.scale, CLIP)
        along = z @ self.components.T
        rest = np.maximum((z**2).sum(axis=1) - (along**2).sum(axis=1), 0) / self.noise
        return np.asarray(np.sqrt(((along**2 / self.variances).sum(axis=1) + rest) / z.shape[1]))

    def score(self, features: Array) -> Array:
        """Features (N, F) to the share (N,) in [0, 1] of training cases that are more usual; 1 is further than all of them."""
        return np.asarray(np.searchsorted(self.distances, self.distance(features)) / len(self.distances))

    def to_json(self) -> dict[str, object]:
        """Plain numbers."""
        arrays = ("mean", "scale", "components", "variances", "distances")
        return {"noise": self.noise, **{name: getattr(self, name).tolist() for name in arrays}}

    @classmethod
    def from_json(cls, json_object: Mapping[str, Any]) -> OutlierModel:
        """Inverse of :meth:`to_json`.

        Raises:
            ModelError: an array is missing, not finite, or of the wrong shape.
        """
        stored = convert_json(json_object, _Stored, "outlier model", error=ModelError)
        arrays = (stored.mean, stored.scale, stored.components, stored.variances, stored.noise, stored.distances)
        try:
            mean, scale, components, variances, noise, distances = (np.array(array, dtype=float) for array in arrays)
        except ValueError as error:  # rows of different lengths
            raise ModelError(f"outlier model: components: {error}") from error
        shapes = (mean.shape, scale.shape, components.shape, variances.shape, noise.shape, distances.shape[1:])
        expected = ((mean.size,), (mean.size,), (variances.size, mean.size), (variances.size,), (), ())
        if shapes != expected or distances.size == 0:
            raise ModelError(f"outlier model: expected arrays of shapes {expected}, got {shapes}")
        if (scale <= 0).any() or (variances <= 0).any() or (np.diff(distances) < 0).any():
            raise ModelError("outlier model: expected scale and variances above 0, and distances that ascend")
        return cls(mean, scale, components, variances, float(noise), distances)


def fit_outlier_model(features: Array, patients: list[str]) -> OutlierModel | None:
    """Fit on training features (N, F), with the distances of each fifth of the patients under a model of the others.

    Returns:
        None for fewer than 20 cases or fewer than five patients.
    """
    if len(features) < MIN_CASES or len(set(patients)) < 5:
        return None
    from sklearn.model_selection import GroupKFold  # prediction starts sooner without it

    distances = np.zeros(len(features))
    for train, test in GroupKFold(5).split(features, groups=patients):
        distances[test] = _fit(features[train]).distance(features[test])
    model = _fit(features)
    return OutlierModel(model.mean, model.scale, model.components, model.variances, model.noise, np.sort(distances))


def _fit(features: Array) -> OutlierModel:
    mean, scale = moments(features)
    z = standardise(features, mean, scale, CLIP)
    _, singular, directions = np.linalg.svd(z, full_matrices=False)
    variances = singular**2 / len(z)
    kept = min(NUM_COMPONENTS, len(z) // 5)
    noise = float(variances[kept:].sum() / max(z.shape[1] - kept, 1)) + 1e-3
    return OutlierModel(mean, scale, directions[:kept], np.maximum(variances[:kept], noise), noise, np.zeros(0))
