"""From one encoder pass to the features of a case: pooled sums, shapes of the predicted regions, covariates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from nnduet.case_head.descriptors import describe_regions
from nnduet.case_head.feature_layout import FeatureLayout
from nnduet.inference.memory import check_described
from nnduet.network.pooling import PooledSums
from nnduet.nnunet_types import CaseProperties, ConfigurationManager, PlansManager

__all__ = ["CaseFeatures", "extract", "grid_spacing_mm", "region_masks", "slice_thickness_mm"]


@dataclass(frozen=True)
class CaseFeatures:
    """What one fold knows of one case.

    Attributes:
        pooled: (1, F1) features of the mean over mirrored passes, for the network head.
        passes: (M, F1) of each mirrored pass.
        described: (F2,) shapes and covariates, NaN where undefined.
    """

    pooled: torch.Tensor
    passes: torch.Tensor
    described: NDArray[np.float64]

    def values(self) -> NDArray[np.float64]:
        """(1, F), the row of the mean pass."""
        return np.concatenate([self.pooled[0].double().cpu().numpy(), self.described])[None]

    def values_of_passes(self) -> NDArray[np.float64]:
        """(M, F), a row per mirrored pass; what is described is the same in each."""
        passes = self.passes.double().cpu().numpy()
        return np.concatenate([passes, np.repeat(self.described[None], len(passes), axis=0)], axis=1)


def extract(
    image: torch.Tensor,
    logits: torch.Tensor,
    sums: PooledSums,
    *,
    layout: FeatureLayout,
    overlapping: bool,
    spacing_mm: Sequence[float],
    voxel_scale: float,
    covariates: Mapping[str, float],
) -> CaseFeatures:
    """Features of a case from its image (C, Z, Y, X), logits (K, Z, Y, X) and pooled sums (M mirrored passes).

    Raises:
        TooLargeError: a region is too large for the memory to be described.
    """
    described = layout.covariate_values(covariates)
    if "shape" in layout.blocks:
        masks = region_masks(logits, overlapping=overlapping)
        check_described(masks)
        described = np.concatenate([describe_regions(image.cpu().numpy(), masks, spacing_mm, layout.descriptors), described])
    return CaseFeatures(sums.mean().features(voxel_scale), sums.features(voxel_scale), described)


def region_masks(logits: torch.Tensor, *, overlapping: bool) -> NDArray[np.bool_]:
    """Predicted regions (R, Z, Y, X) of logits (K, Z, Y, X): probability over one half, or the likeliest class."""
    if overlapping:
        return np.asarray((logits > 0).cpu().numpy())
    labels = likeliest(logits)
    return np.stack([(labels == k).cpu().numpy() for k in range(1, logits.shape[0])])


def likeliest(logits: torch.Tensor) -> torch.Tensor:
    """The first of the largest logits (K, Z, Y, X), as argmax; comparing in turn is several times faster than torch's."""
    best, labels = logits[0].clone(), torch.zeros(logits.shape[1:], dtype=torch.int32, device=logits.device)
    for label, candidate in enumerate(logits[1:], start=1):
        labels[candidate > best] = label
        torch.maximum(best, candidate, out=best)
    return labels


def grid_spacing_mm(properties: CaseProperties, configuration: ConfigurationManager, plans: PlansManager) -> tuple[float, ...]:
    """(Z, Y, X) of the preprocessed grid; slice-wise configurations keep the slice spacing of the case."""
    spacing = [float(s) for s in configuration.spacing]
    return tuple(spacing) if len(spacing) == 3 else (slice_thickness_mm(properties, plans), *spacing)


def slice_thickness_mm(properties: CaseProperties, plans: PlansManager) -> float:
    """Spacing of the first axis of the preprocessed grid before resampling."""
    return float(properties["spacing"][plans.transpose_forward[0]])
