"""The scores of every region of one case, and what regions are.

Where all of the reference is the ignore label, nothing can be said: all scores are None, ``all_ignored``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nnduet.errors import LabelError
from nnduet.evaluation.metrics.mask_pairs import Mask, MaskPair
from nnduet.evaluation.metrics.table import REGION_METRICS

__all__ = [
    "ALL_IGNORED",
    "IGNORE_LABEL_NAME",
    "RegionScore",
    "ignore_label",
    "region_labels",
    "score_segmentation",
]

Segmentation = npt.NDArray[np.integer[Any]]

ALL_IGNORED = "all_ignored"
"""The reason of a case whose reference is the ignore label everywhere."""

IGNORE_LABEL_NAME = "ignore"
"""nnU-Net's name for voxels that nobody labelled; they are left out of both masks."""

_KEYS = [metric.key for metric in REGION_METRICS]


@dataclass(frozen=True)
class RegionScore:
    """One region in one case: ``values`` by metric, None is undefined; ``reason`` then (or for a plain 0) says why, else empty.

    ``reference_ml`` and ``prediction_ml`` are the volumes; the latter is None without a prediction, both where all is ignored.
    """

    values: Mapping[str, float | None]
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
        prediction: same shape, or None for a case without a readable prediction, which gets the worst score of each metric,
            see :class:`~nnduet.evaluation.metrics.table.RegionMetric`, also where the reference is empty.
        regions: label values per region, see :func:`region_labels`.
        spacing_mm: (Z, Y, X).
        tolerance_mm: of the surface distance.
        ignore: reference voxels of this label are background in both masks; where all are, every score is undefined.
    """
    if ignore is not None and (reference == ignore).all():
        return dict.fromkeys(regions, RegionScore(dict.fromkeys(_KEYS), ALL_IGNORED, None))
    if prediction is None:
        return {name: _worst_score(_mask_of(reference, values), spacing_mm) for name, values in regions.items()}
    if ignore is not None:
        prediction = np.where(reference == ignore, 0, prediction)
    planes = _bounding_box((reference != 0) | (prediction != 0))  # every region lies inside: crop once
    box = (slice(None), *planes[1:])  # but keep Z, whose length tells 2D from 3D
    reference, prediction = reference[box], prediction[box]
    scores: dict[tuple[int, ...], RegionScore] = {}
    for values in regions.values():
        key = tuple(sorted(set(values)))
        if key not in scores:
            scores[key] = _score(MaskPair(_mask_of(reference, key), _mask_of(prediction, key), spacing_mm, tolerance_mm))
    return {name: scores[tuple(sorted(set(values)))] for name, values in regions.items()}


def _mask_of(segmentation: Segmentation, values: tuple[int, ...]) -> Mask:
    mask: Mask = segmentation == values[0]
    for value in values[1:]:  # np.isin would make arrays of eight bytes a voxel
        mask |= segmentation == value
    return mask


def _worst_score(reference: Mask, spacing_mm: Sequence[float]) -> RegionScore:
    """The score without a prediction; where a metric has no worst value, that of an empty one."""
    pair = MaskPair(reference, np.zeros_like(reference), spacing_mm)
    values = {metric.key: metric.function(pair) if metric.worst is None else metric.worst for metric in REGION_METRICS}
    return RegionScore(values, "missing_prediction", pair.volume_ml(pair.num_reference))


def _score(pair: MaskPair) -> RegionScore:
    volumes = (pair.volume_ml(number) for number in (pair.num_reference, pair.num_prediction))
    values = {metric.key: metric.function(pair) for metric in REGION_METRICS}
    return RegionScore(values, _reason(bool(pair.num_reference), bool(pair.num_prediction)), *volumes)


def _reason(has_reference: bool, has_prediction: bool) -> str:
    if has_reference and has_prediction:
        return ""
    if has_reference:
        return "empty_prediction"
    return "empty_reference" if has_prediction else "both_empty"
