"""How well one segmentation matches another: Dice, surface distances, volume difference.

Each is a function of a :class:`~nnduet.evaluation.metrics.mask_pairs.MaskPair`. Undefined values are None, never 0 or 1:

===============  ==========  =====  =====  =====  =====================  =========  ================
reference        prediction  DSC    NSD    HD95   AVD                    AVD ratio  reason
===============  ==========  =====  =====  =====  =====================  =========  ================
empty            empty       None   None   None   0                      None       both_empty
empty            something   0      0      None   volume of prediction   None       empty_reference
something        empty       0      0      None   volume of reference    1          empty_prediction
===============  ==========  =====  =====  =====  =====================  =========  ================

Source of the definitions: Maier-Hein et al., Metrics Reloaded, Nature Methods 21 (2024); Nikolov et al., JMIR 23 (2021) for
the surface distance.
"""

from __future__ import annotations

import math

import numpy as np

from nnduet.errors import SettingsError
from nnduet.evaluation.metrics.mask_pairs import MaskPair

__all__ = [
    "check_tolerance",
    "dice_coefficient",
    "hausdorff_distance_95",
    "normalized_surface_distance",
    "relative_volume_difference",
    "volume_difference_ml",
]

_SLACK_MM = 1e-5
"""Added to the tolerance: NIfTI keeps spacing in float32, so that a distance of exactly 2 mm may read 2.0000001 mm."""

_ROUNDING = 1e-12
"""How far a sum of areas may be from what it should be, so that 19 of 20 equal elements are 95 %."""


def check_tolerance(tolerance_mm: float) -> None:
    """Refuse a tolerance that is negative or not finite.

    Raises:
        SettingsError: with the number.
    """
    if not (math.isfinite(tolerance_mm) and tolerance_mm >= 0):
        raise SettingsError(f"tolerance_mm: expected a finite number of 0 or more, got {tolerance_mm}")


def dice_coefficient(pair: MaskPair) -> float | None:
    """2 |A∩B| / (|A|+|B|), in [0, 1]; None if both masks are empty.

    Source: Dice, Ecology 26 (1945).
    """
    total = pair.num_reference + pair.num_prediction
    return 2 * int(np.count_nonzero(pair.reference & pair.prediction)) / total if total else None


def volume_difference_ml(pair: MaskPair) -> float:
    """Absolute difference of the volumes in millilitres."""
    return pair.volume_ml(abs(pair.num_prediction - pair.num_reference))


def relative_volume_difference(pair: MaskPair) -> float | None:
    """Absolute difference of the volumes divided by the reference volume; None if the reference is empty."""
    return abs(pair.num_prediction - pair.num_reference) / pair.num_reference if pair.num_reference else None


def normalized_surface_distance(pair: MaskPair) -> float | None:
    """Share of both surfaces, by area (contours of a 2D image: by length), within the tolerance of the other one; in [0, 1].

    Returns:
        None if both masks are empty, 0 if one is.

    Raises:
        SettingsError: the tolerance is negative or not finite.

    Source: Nikolov et al., JMIR 23 (2021), with marching-cubes surface elements as in DeepMind's surface-distance; the oracle
    of the tests is ``monai.metrics.compute_surface_dice(use_subvoxels=True)``. The border of the image counts as a surface.
    """
    check_tolerance(pair.tolerance_mm)
    if not pair.num_reference or not pair.num_prediction:
        return None if pair.num_reference == pair.num_prediction else 0.0
    both = list(zip(pair.surfaces, pair.distances_mm, strict=True))
    within = sum(float(surface.areas[distances <= pair.tolerance_mm + _SLACK_MM].sum()) for surface, distances in both)
    return within / float(pair.surfaces[0].areas.sum() + pair.surfaces[1].areas.sum())


def hausdorff_distance_95(pair: MaskPair) -> float | None:
    """The larger of the two directed 95th percentiles of the surface distances in mm; None if a mask is empty.

    A directed percentile is the least distance within which at least 95 % of one surface, by area (contours of a 2D image: by
    length), lie from the other one. So 95 % of both surfaces, or more, are within a tolerance that is no less than HD95.

    Source: Maier-Hein et al., Metrics Reloaded, Nature Methods 21 (2024), the larger of both directions; weighted by area as
    ``compute_robust_hausdorff`` of DeepMind's surface-distance, Nikolov et al., JMIR 23 (2021).
    """
    if not pair.num_reference or not pair.num_prediction:
        return None
    directed = []
    for surface, distances in zip(pair.surfaces, pair.distances_mm, strict=True):
        order = np.argsort(distances, kind="stable")
        share = np.cumsum(surface.areas[order]) / surface.areas.sum()
        directed.append(float(distances[order][np.searchsorted(share, 0.95 - _ROUNDING)]))
    return max(directed)
