"""The fingerprint of a dataset, which nnU-Net plans by: shapes, spacings and intensities, analysed in this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nnduet.io.files import naming_disk_errors, write_json_atomically
from nnduet.nnunet_types import CaseEntry, DatasetJson
from nnduet.progress import Progress
from nnduet.training.planners import reader_of

__all__ = ["write_fingerprint"]

FINGERPRINT_SAMPLES_PER_CASE = 20_000
"""Same percentiles as nnU-Net's 1e8 / cases at a fifth of the time (docs/explanation-evidence.md)."""

_Analysis = tuple[Sequence[int], Sequence[float], Sequence[NDArray[np.floating]], object, float]
"""Shape after cropping, spacing, intensities per channel, statistics per channel, size after cropping by that before."""


class FingerprintExtractor(Protocol):
    """nnU-Net's DatasetFingerprintExtractor."""

    dataset_json: DatasetJson
    dataset: Mapping[str, CaseEntry]

    def analyze_case(self, image_files: list[str], segmentation_file: str, reader: type, num_samples: int) -> _Analysis:
        """What a case adds to the fingerprint."""


def write_fingerprint(target: Path, extractor: FingerprintExtractor, progress: Progress | None) -> None:
    """Write ``dataset_fingerprint.json`` as nnU-Net's extractor does, in this process.

    nnU-Net's own ``run`` spawns workers, each importing everything, and dies in scripts without a ``__main__`` guard. Cases
    are analysed by its ``analyze_case``; the summary repeats nnunetv2 fingerprint_extractor.py, lines 169-200.
    """
    reader = reader_of(extractor.dataset_json)
    results = []
    for index, (case_id, entry) in enumerate(extractor.dataset.items()):
        with naming_disk_errors(target, str(case_id)):
            results.append(extractor.analyze_case(entry["images"], entry["label"], reader, FINGERPRINT_SAMPLES_PER_CASE))
        if progress:
            progress(index + 1, len(extractor.dataset), f"fingerprint {case_id}")
    channels = range(len(extractor.dataset_json["channel_names"]))
    target.mkdir(parents=True, exist_ok=True)
    write_json_atomically(
        target / "dataset_fingerprint.json",
        {
            "spacings": [[float(s) for s in result[1]] for result in results],
            "shapes_after_crop": [[int(n) for n in result[0]] for result in results],
            "foreground_intensity_properties_per_channel": {
                str(c): _intensity_properties(np.concatenate([result[2][c] for result in results])) for c in channels
            },
            "median_relative_size_after_cropping": float(np.median([result[4] for result in results])),
        },
    )


def _intensity_properties(values: NDArray[np.floating]) -> dict[str, float]:
    low, median, high = np.percentile(values, (0.5, 50.0, 99.5))
    return {
        "mean": float(np.mean(values)),
        "median": float(median),
        "std": float(np.std(values)),
        "min": float(np.min(values)),
        "max": float(np.max(values)),
        "percentile_99_5": float(high),
        "percentile_00_5": float(low),
    }
