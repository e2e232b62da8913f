"""Case heads, outlier models and cross-validated scores, read from a model's JSON without trusting it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnduet.case_head.descriptors import DESCRIPTORS_VERSION, KNOWN_VERSIONS
from nnduet.case_head.head import CaseHead
from nnduet.case_head.outliers import OutlierModel
from nnduet.errors import ModelError
from nnduet.records import convert_json
from nnduet.schema import Task

__all__ = ["StoredHeads", "conformal_scores", "parse_case_heads"]


class StoredHeads(NamedTuple):
    """What a ``case_head.json`` holds: heads by task, the outlier model, and the version of the descriptors that both read."""

    heads: dict[str, CaseHead]
    outliers: OutlierModel | None
    descriptors: int


def parse_case_heads(stored: dict[str, Any] | None, tasks: tuple[Task, ...], place: str) -> StoredHeads:
    """The content of a ``case_head.json``; no heads of None, and descriptors as they are measured today.

    Args:
        stored: what the file holds, or None where there is none.
        place: what messages call it.

    Raises:
        ModelError: a head does not fit its task, or an array is missing, not finite, or of the wrong shape.
    """
    if stored is None:
        return StoredHeads({}, None, DESCRIPTORS_VERSION)
    if not isinstance(stored.get("tasks"), dict):
        raise ModelError(f'{place}: expected an object with "tasks"; fit the heads again with `nnduet fit-head`')
    version = stored.get("descriptors", 1)
    if type(version) is not int or version not in KNOWN_VERSIONS:
        raise ModelError(f"{place}: descriptors: expected a version among {KNOWN_VERSIONS}, got {version!r:.80}; update nnduet")
    try:
        known = [task for task in tasks if task.name in stored["tasks"]]
        heads = {task.name: CaseHead.from_json(task, stored["tasks"][task.name]) for task in known}
        outliers = OutlierModel.from_json(stored["outliers"]) if stored.get("outliers") is not None else None
        return StoredHeads(heads, outliers, version)
    except ModelError as error:
        raise ModelError(f"{place}: {error}") from error


@dataclass(frozen=True)
class _ConformalEntry:
    folds: list[int | str]
    scores: list[float]


def conformal_scores(
    stored: Mapping[str, object] | None, tasks: tuple[Task, ...], folds: Sequence[str], place: str
) -> dict[str, NDArray[np.float64]]:
    """{task: nonconformity (N,) of cross-validated cases} for an ensemble of folds; nothing where nothing is stored.

    The scores speak for several folds together, of which each took part in the cross-validation. For a single fold, or with a
    fold that took no part, there are none, and the folds' own scores hold.

    Args:
        stored: content of a ``conformal.json``, or None.
        place: what messages call it.

    Raises:
        ModelError: a task lacks folds or finite scores.
    """
    if stored is None:
        return {}
    found = {task.name: _conformal_entry(stored[task.name], f"{place}: {task.name}") for task in tasks if task.name in stored}
    return {name: scores for name, (known, scores) in found.items() if len(folds) > 1 and set(folds) <= known}


def _conformal_entry(entry: object, place: str) -> tuple[set[str], NDArray[np.float64]]:
    """The folds and the scores (N,) of one task."""
    found = convert_json(entry, _ConformalEntry, place, error=ModelError)
    known, scores = {str(fold) for fold in found.folds}, np.asarray(found.scores, dtype=float)
    if not scores.size:
        raise ModelError(f"{place}: expected scores, got an empty list")
    return known, scores
