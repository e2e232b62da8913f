"""How alike the outputs of two programs are that predicted the same cases: masks by voxels, answers by probabilities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnduet.benchmark.comparison import Agreement
from nnduet.evaluation.answer_tables import read_rows
from nnduet.inference.result_tables import CLASSIFICATION_FILE
from nnduet.io.case_files import list_images
from nnduet.io.images import read_segmentation

__all__ = ["agreement"]


def agreement(stock: Path, other: Path, reference: Path) -> Agreement:
    """How alike the outputs of two arms are.

    Args:
        stock, other: folders with a mask per case.
        reference: folder with the classification.csv that ``other``'s is compared with.
    """
    equal, total = 0, 0
    both: dict[int, NDArray[np.int64]] = {}
    for name in [paths[0].name for paths in list_images(stock).cases.values()]:
        a, b = (read_segmentation(folder / name)[0].array for folder in (stock, other))
        equal, total = equal + int((a == b).sum()), total + a.size
        for label in np.union1d(np.unique(a), np.unique(b)).tolist():
            first, second = a == label, b == label
            counts = np.array([(first & second).sum(), first.sum() + second.sum()], dtype=np.int64)
            both[label] = both.get(label, np.zeros(2, dtype=np.int64)) + counts
    dice = {str(label): 2 * int(overlap) / int(size) for label, (overlap, size) in sorted(both.items()) if label}
    if not (other / CLASSIFICATION_FILE).is_file():
        return Agreement(equal / total, dice)
    return Agreement(equal / total, dice, *_answers(other, reference))


def _answers(other: Path, reference: Path) -> tuple[float, float]:
    """The largest difference of a probability, and the share of equal classes."""
    ours, theirs = (read_rows(folder / CLASSIFICATION_FILE, []) for folder in (other, reference))
    columns = list(next(iter(theirs.values())).cells)
    shares = [column for column in columns if "_p_" in column]
    classes = [column for column in columns if any(share.startswith(f"{column}_p_") for share in shares)]
    pairs = [(row.cells, theirs[case_id].cells) for case_id, row in ours.items()]
    largest = max((abs(float(a[c]) - float(b[c])) for a, b in pairs for c in shares), default=0.0)
    return largest, float(np.mean([a[c] == b[c] for a, b in pairs for c in classes])) if classes else 1.0
