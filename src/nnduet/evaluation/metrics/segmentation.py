"""How well one segmentation matches another: Dice, normalized surface distance, volume difference.

Undefined values are None with a reason, never 0 or 1:

===============  ==========  =====  =====  =====================  =========  ================
reference        prediction  DSC    NSD    AVD                    AVD ratio  reason
===============  ==========  =====  =====  =====================  =========  ================
empty            empty       None   None   0                      None       both_empty
empty            something   0      0      volume of prediction   None       empty_reference
something        empty       0      0      volume of reference    1          empty_prediction
===============  ==========  =====  =====  =====================  =========  ================

Where all of the reference is the ignore label, nothing can be said: all four are None, ``all_ignored``.

Source of the definitions: Maier-Hein et al., Metrics Reloaded, Nature Methods 21 (2024); Nikolov et al., JMIR 23 (2021) for
the surface distance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nnduet.errors import LabelError, SettingsError
from nnduet.evaluation.metrics.surfaces import share_within, surface_of

__all__ = [
    "ALL_IGNORED",
    "IGNORE_LABEL_NAME",
    "RegionScore",
    "check_tolerance",
    "dice_coefficient",
    "ignore_label",
    "normalized_surface_distance",
    "region_labels",
    "score_segmentation",
    "volume_difference",
]

Mask = npt.NDArray[np.bool_]
Segmentation = npt.NDArray[np.integer[Any]]

ALL_IGNORED = "all_ignored"
"""The reason of a case whose reference is the ignore label everywhere."""

IGNORE_LABEL_NAME = "ignore"
"""nnU-Net's name for voxels that nobody labelled; they are left out of both masks."""

_SLACK_MM = 1e-5
"""Added to the tolerance: NIfTI keeps spacing in float32, so that a distance of exactly 2 mm may read 2.0000001 mm."""


@dataclass(frozen=True)
class RegionScore:
    """Scores of one region in one case; None is undefined, ``reason`` then (or for a plain 0) says why, else it is empty.

    ``reference_ml`` and ``prediction_ml`` are the volumes; the latter is None without a prediction, both where all is ignored.
    """

    dsc: float | None
    nsd: float | None
    avd_ml: float | None
    avd_ratio: float | None
    reason: str = ""
    reference_ml: float | None = 0.0
    prediction_ml: float | None = None


def region_labels(labels: Mapping[str, int | Sequence[int]]) -> dict[str, tuple[int, ...]]:
    """Label values of each region of ``dataset.json["labels"]``, without background and ignore, plus their union.

    The union is called ``foreground``, or ``any_foreground`` if a narrower region already has that name.

    Raises:
        LabelError: no region is left.
    """
    named = {name: (value,) if isinstance(value, int) else tuple(value) for name, value in labels.items()}
    regions = {name: values for name, values in named.items() if name != IGNORE_LABEL_NAME and any(values)}
    if not regions:
        raise LabelError(f"labels: expected at least one foreground region, got {dict(labels)}")
    union = tuple(sorted({value for values in regions.values() for value in values if value > 0}))
    if set(regions.get("foreground", union)) == set(union):
        return {**regions, "foreground": union}
    return {**regions, "any_foreground": union}


def ignore_label(labels: Mapping[str, int | Sequence[int]]) -> int | None:
    """Value of nnU-Net's ignore label, None if the dataset has none."""
    value = labels.get(IGNORE_LABEL_NAME)
    return value if isinstance(value, int) else None


def check_tolerance(tolerance_mm: float) -> None:
    """Refuse a tolerance that is negative or not finite.

    Raises:
        SettingsError: with the number.
    """
    if not (math.isfinite(tolerance_mm) and tolerance_mm >= 0):
        raise SettingsError(f"tolerance_mm: expected a finite number of 0 or more, got {tolerance_mm}")


def dice_coefficient(reference: Mask, prediction: Mask) -> float | None:
    """2 |A∩B| / (|A|+|B|) of two masks of the same shape, in [0, 1]; None if both are empty.

    Source: Dice, Ecology 26 (1945).
    """
    total = int(np.count_nonzero(reference)) + int(np.count_nonzero(prediction))
    return 2 * int(np.count_nonzero(reference & prediction)) / total if total else None


def volume_difference(reference: Mask, prediction: Mask, *, spacing_mm: Sequence[float]) -> tuple[float, float | None]:
    """Absolute volume difference in ml, and divided by the reference volume (None if the reference is empty).

    ``spacing_mm`` is (Z, Y, X); a 2D image (1, Y, X) counts as one slice of that thickness.
    """
    num_reference, num_prediction = int(np.count_nonzero(reference)), int(np.count_nonzero(prediction))
    difference = abs(num_prediction - num_reference)
    return difference * math.prod(spacing_mm) / 1000, difference / num_reference if num_reference else None


def normalized_surface_distance(
    reference: Mask, prediction: Mask, *, spacing_mm: Sequence[float], tolerance_mm: float
) -> float | None:
    """Share of both surfaces, by area, that lies within ``tolerance_mm`` of the other one; in [0, 1].

    Args:
        reference: (Z, Y, X) bool; with Z = 1 it is a 2D image and contour length takes the place of area.
        prediction: same shape.
        spacing_mm: (Z, Y, X) voxel size.
        tolerance_mm: 0 or more.

    Returns:
        None if both masks are empty, 0 if one is.

    Raises:
        SettingsError: the tolerance is negative or not finite.

    Source: Nikolov et al., JMIR 23 (2021), with marching-cubes surface elements as in DeepMind's surface-distance; the oracle
    of the tests is ``monai.metrics.compute_surface_dice(use_subvoxels=True)``. The border of the image counts as a surface.
    """
    check_tolerance(tolerance_mm)
    if not reference.any() or not prediction.any():
        return None if reference.any() == prediction.any() else 0.0
    flat = reference.shape[0] == 1
    masks = (reference[0], prediction[0]) if flat else (reference, prediction)
    first, second = (surface_of(mask, spacing_mm[1:] if flat else spacing_mm) for mask in masks)
    return share_within(first, second, tolerance_mm + _SLACK_MM)


def _bounding_box(mask: Mask) -> tuple[slice, ...]:
    box = []
    for axis in range(mask.ndim):
        occupied = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        box.append(slice(int(occupied[0]), int(occupied[-1]) + 1) if len(occupied) else slice(0, 0))
    return tuple(box)


def score_segmentation(
    reference: Segmentation,
    prediction: Segmentation | None,
    regions: Mapping[str, tuple[int, ...]],
    *,
    spacing_mm: Sequence[float],
    tolerance_mm: float,
    ignore: int | None = None,
) -> dict[str, RegionScore]:
    """Score every region of one case.

    Args:
        reference: (Z, Y, X) integer label map.
        prediction: same shape, or None for a case without a readable prediction, which gets the worst score: DSC 0, NSD 0
            and the whole reference volume as AVD, also where the reference is empty.
        regions: label values per region, see :func:`region_labels`.
        spacing_mm: (Z, Y, X).
        tolerance_mm: of the surface distance.
        ignore: reference voxels of this label are background in both masks; where all are, every score is undefined.
    """
    if ignore is not None and (reference == ignore).all():
        return dict.fromkeys(regions, RegionScore(None, None, None, None, ALL_IGNORED, None))
    if prediction is None:
        return {name: _worst_score(_mask_of(reference, values), spacing_mm=spacing_mm) for name, values in regions.items()}
    if ignore is not None:
        prediction = np.where(reference == ignore, 0, prediction)
    planes = _bounding_box((reference != 0) | (prediction != 0))  # every region lies inside: crop once
    box = (slice(None), *planes[1:])  # but keep Z, whose length tells 2D from 3D
    reference, prediction = reference[box], prediction[box]
    scores: dict[tuple[int, ...], RegionScore] = {}
    for values in regions.values():
        key = tuple(sorted(set(values)))
        if key not in scores:
            masks = (_mask_of(reference, key), _mask_of(prediction, key))
            scores[key] = _score_masks(*masks, spacing_mm=spacing_mm, tolerance_mm=tolerance_mm)
    return {name: scores[tuple(sorted(set(values)))] for name, values in regions.items()}


def _mask_of(segmentation: Segmentation, values: tuple[int, ...]) -> Mask:
    mask: Mask = segmentation == values[0]
    for value in values[1:]:  # np.isin would make arrays of eight bytes a voxel
        mask |= segmentation == value
    return mask


def _worst_score(reference: Mask, *, spacing_mm: Sequence[float]) -> RegionScore:
    volume, share = volume_difference(reference, np.zeros_like(reference), spacing_mm=spacing_mm)
    return RegionScore(0.0, 0.0, volume, share, "missing_prediction", volume)


def _score_masks(reference: Mask, prediction: Mask, *, spacing_mm: Sequence[float], tolerance_mm: float) -> RegionScore:
    volume, share = volume_difference(reference, prediction, spacing_mm=spacing_mm)
    return RegionScore(
        dice_coefficient(reference, prediction),
        normalized_surface_distance(reference, prediction, spacing_mm=spacing_mm, tolerance_mm=tolerance_mm),
        volume,
        share,
        _reason(bool(reference.any()), bool(prediction.any())),
        _volume_ml(reference, spacing_mm),
        _volume_ml(prediction, spacing_mm),
    )


def _volume_ml(mask: Mask, spacing_mm: Sequence[float]) -> float:
    return int(np.count_nonzero(mask)) * math.prod(spacing_mm) / 1000


def _reason(has_reference: bool, has_prediction: bool) -> str:
    if has_reference and has_prediction:
        return ""
    if has_reference:
        return "empty_prediction"
    return "empty_reference" if has_prediction else "both_empty"
