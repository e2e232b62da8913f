"""Scoring folders of masks, case by case, and the means over cases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from nnduet.datasets.checking import read_mask
from nnduet.errors import (
    AmbiguousFileError,
    CorruptFileError,
    DatasetError,
    GeometryError,
    LabelError,
    TooLargeError,
    UnreadableFileError,
)
from nnduet.evaluation.bootstrap import Estimate, Resamples, weighted_mean
from nnduet.evaluation.metrics.metric import RegionMetric
from nnduet.evaluation.metrics.segmentation import check_tolerance
from nnduet.evaluation.metrics.table import REGION_METRICS
from nnduet.evaluation.region_scores import ALL_IGNORED, RegionScore, ignore_label, region_labels, score_segmentation
from nnduet.evaluation.stored_metrics import RegionMetrics
from nnduet.io.case_files import list_images
from nnduet.io.images import MAX_IMAGE_BYTES, Image, check_declared, check_same_geometry
from nnduet.progress import Progress

__all__ = ["CaseScore", "MaskScoring", "case_ids_of", "score_cases", "summarise_regions"]

_READING_ERRORS = (AmbiguousFileError, CorruptFileError, GeometryError, LabelError, TooLargeError, UnreadableFileError)


@dataclass(frozen=True)
class MaskScoring:
    """Where the masks lie and how they are scored; ``labels`` is ``dataset.json["labels"]``.

    ``label_map`` gives values of the references new ones before they are compared, as ``convert`` does.

    Raises:
        SettingsError: the tolerance is negative or not finite.
        LabelError: the labels hold no foreground.
    """

    references: Path
    predictions: Path
    labels: Mapping[str, int | Sequence[int]]
    tolerance_mm: float
    label_map: Mapping[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_tolerance(self.tolerance_mm)
        region_labels(self.labels)


@dataclass(frozen=True)
class CaseScore:
    """Scores of one case by region; ``error`` is None for a sound prediction, else why it counts as the worst one."""

    case_id: str
    regions: Mapping[str, RegionScore]
    error: str | None


def case_ids_of(folder: Path) -> tuple[str, ...]:
    """Cases that have a mask in the folder, sorted.

    Raises:
        DatasetError: no such folder.
    """
    return tuple(list_images(folder).cases)


def score_cases(case_ids: Sequence[str], scoring: MaskScoring, progress: Progress | None = None) -> list[CaseScore]:
    """Score each case; a prediction that is missing, unreadable or on another grid gets the worst score and an ``error``.

    Raises:
        DatasetError: a case has no reference, or a folder is missing.
        UnreadableFileError, CorruptFileError, AmbiguousFileError, LabelError, TooLargeError: a reference is unusable.
    """
    references, predictions = list_images(scoring.references).cases, list_images(scoring.predictions).cases
    without = [case_id for case_id in case_ids if case_id not in references]
    if without:
        raise DatasetError(f"{scoring.references}: expected a reference mask for every case, got none for {without}")
    scores = []
    for number, case_id in enumerate(case_ids, start=1):
        scores.append(_score_case(case_id, references[case_id], predictions.get(case_id, ()), scoring))
        if progress:
            progress(number, len(case_ids), "")
    return scores


def _score_case(case_id: str, references: Sequence[Path], predictions: Sequence[Path], scoring: MaskScoring) -> CaseScore:
    reference = _read_only_one(references, scoring, scoring.label_map)
    prediction, error = _read_prediction(case_id, predictions, reference, scoring)
    regions = score_segmentation(
        reference.array,
        None if prediction is None else prediction.array,
        region_labels(scoring.labels),
        spacing_mm=reference.geometry.spacing_mm,
        tolerance_mm=scoring.tolerance_mm,
        ignore=ignore_label(scoring.labels),
    )
    return CaseScore(case_id, regions, error)


def _read_prediction(
    case_id: str, paths: Sequence[Path], reference: Image, scoring: MaskScoring
) -> tuple[Image | None, str | None]:
    if not paths:
        return None, f"no mask in {scoring.predictions}"
    try:
        prediction = _read_only_one(paths, scoring, {})
        check_same_geometry(reference.geometry, prediction.geometry, case_id, "prediction")
        return prediction, None
    except _READING_ERRORS as error:
        return None, f"{error.code}: {error}"


def _read_only_one(paths: Sequence[Path], scoring: MaskScoring, label_map: Mapping[int, int]) -> Image:
    if len(paths) > 1:
        raise AmbiguousFileError(f"{paths[0].parent}: expected one file, got {[path.name for path in paths]}")
    values = (value if isinstance(value, int) else tuple(value) for value in scoring.labels.values())
    allowed = {0}.union(*((value,) if isinstance(value, int) else value for value in values))
    image = read_mask(paths[0], label_map, max_bytes=MAX_IMAGE_BYTES)[0]
    check_declared(image.array, allowed, paths[0])
    return image


def summarise_regions(scores: Sequence[CaseScore], scoring: MaskScoring, resamples: Resamples) -> dict[str, RegionMetrics]:
    """Mean over cases of every metric of every region, with interval; cases in the order of the resamples."""
    return {
        name: _summarise_region([score.regions[name] for score in scores], values, scoring.tolerance_mm, resamples)
        for name, values in region_labels(scoring.labels).items()
    }


def _summarise_region(
    scores: Sequence[RegionScore], labels: tuple[int, ...], tolerance_mm: float, resamples: Resamples
) -> RegionMetrics:
    reasons = Counter(score.reason for score in scores if score.reason)
    all_ignored = reasons[ALL_IGNORED] == len(scores)
    means = {metric.key: _mean(metric, scores, resamples, all_ignored) for metric in REGION_METRICS}
    for metric in REGION_METRICS:
        if metric.beside == "tolerance_mm":
            means[metric.key] = replace(means[metric.key], tolerance_mm=tolerance_mm)
    return RegionMetrics.of(means, labels=labels, case_reasons=dict(reasons))


def _mean(metric: RegionMetric, scores: Sequence[RegionScore], resamples: Resamples, all_ignored: bool) -> Estimate:
    values = [score.values[metric.key] for score in scores]
    numbers = np.array([np.nan if value is None else value for value in values])
    mean = weighted_mean(numbers, resamples.weights)
    reason = ALL_IGNORED if all_ignored else metric.reason
    return resamples.estimate(mean, n_defined=int(np.isfinite(numbers).sum()), reason=reason)
