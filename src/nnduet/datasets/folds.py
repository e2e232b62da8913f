"""Cross-validation folds: patients never on two sides, classes spread evenly.

A list of folds is nnU-Net's: ``[{"train": [case ids], "val": [case ids]}, ...]``.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from nnduet.errors import DatasetError, LeakError
from nnduet.schema import Task

__all__ = ["Folds", "check_folds", "choose_strata", "make_folds", "parse_folds"]

Folds = list[dict[str, list[str]]]
ClassNames = Mapping[str, Mapping[str, Sequence[str]]]


def make_folds(
    case_ids: Sequence[str],
    groups: Mapping[str, str] | None = None,
    strata: Mapping[str, str] | None = None,
    num_folds: int = 5,
    seed: int = 12345,
) -> Folds:
    """Folds whose validation parts divide the cases; the same input gives the same folds, in any order of ``case_ids``.

    ``groups`` names the patient of a case (None: each case is its own), ``strata`` the class to spread. Where the classes are
    too small to be spread, only the number of cases is balanced.

    Raises:
        DatasetError: fewer than two folds, or fewer patients than folds.

    Examples:
        >>> folds = make_folds(["a", "b", "c", "d"], groups={"a": "p1", "b": "p1", "c": "p2", "d": "p2"}, num_folds=2)
        >>> sorted(fold["val"] for fold in folds)  # patients stay together
        [['a', 'b'], ['c', 'd']]
    """
    ordered = sorted(case_ids)
    patients = [groups[case_id] if groups else case_id for case_id in ordered]
    if num_folds < 2 or len(set(patients)) < num_folds:
        raise DatasetError(
            f"{num_folds} folds need at least 2 folds and as many patients; there are {len(set(patients))} patients"
        )
    labels = [strata.get(case_id, "") if strata else "" for case_id in ordered]
    parts = _validation_parts(ordered, patients, labels, num_folds, seed)
    if parts is None:
        parts = _validation_parts(ordered, patients, [""] * len(ordered), num_folds, seed)
    if parts is None:
        raise DatasetError(f"{num_folds} folds cannot be filled from {len(set(patients))} patients; ask for fewer folds")
    return [{"train": [c for c in ordered if c not in part], "val": sorted(part)} for part in parts]


def _validation_parts(
    case_ids: list[str], patients: list[str], labels: list[str], num_folds: int, seed: int
) -> list[set[str]] | None:
    """Validation cases of each fold; None when every class is smaller than ``num_folds`` or a fold stays empty."""
    if max(Counter(labels).values()) < num_folds:
        return None
    splitter = StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "least populated class": check_folds says it better
        parts = [{case_ids[i] for i in held_out} for _, held_out in splitter.split(case_ids, labels, patients)]
    return parts if all(parts) else None


def choose_strata(tasks: Sequence[Task], rows: Mapping[str, Mapping[str, str]], num_folds: int) -> dict[str, str]:
    """The label to spread over the folds: all tasks with classes together if each combination is frequent enough.

    Otherwise, or with one task, the first task with classes; empty text for every case without such tasks.
    """
    columns = [column for column in (_strata(task, rows) for task in tasks) if column is not None]
    joint = {case_id: "|".join(column[case_id] for column in columns) for case_id in rows}
    if len(columns) <= 1 or min(Counter(joint.values()).values(), default=0) >= num_folds:
        return joint
    return columns[0]


def _strata(task: Task, rows: Mapping[str, Mapping[str, str]]) -> dict[str, str] | None:
    """{case: the class to spread}, empty text where it is missing; None where the task has nothing to spread."""
    answers = np.array([task.encode(row[task.name]) for row in rows.values()], dtype=float)
    strata, names = task.kind.strata(task, answers), (*task.classes, "no class")
    if strata is None:
        return None
    return {c: names[int(k)] if math.isfinite(k) else "" for c, k in zip(rows, strata.tolist(), strict=True)}


def parse_folds(value: object, source: str) -> Folds:
    """Check that a decoded ``splits_final.json`` is a list of ``{"train": [...], "val": [...]}`` of texts.

    Raises:
        DatasetError: naming ``source`` and the fold.

    Examples:
        >>> parse_folds([{"train": ["a"], "val": ["b"]}], "splits_final.json")
        [{'train': ['a'], 'val': ['b']}]
    """
    if not isinstance(value, list) or not value:
        raise DatasetError(f"{source}: expected a list of folds, got {type(value).__name__}")
    for index, fold in enumerate(value):
        parts = [fold.get("train"), fold.get("val")] if isinstance(fold, dict) else [None]
        if not all(isinstance(part, list) and part and all(isinstance(case, str) for case in part) for part in parts):
            raise DatasetError(f"{source}: fold {index} needs non-empty lists of case ids under 'train' and 'val'")
    return [{"train": list(fold["train"]), "val": list(fold["val"])} for fold in value]


def check_folds(
    folds: Folds,
    case_ids: Collection[str],
    groups: Mapping[str, str] | None = None,
    class_labels: ClassNames | None = None,
) -> list[str]:
    """Refuse folds that leak or name other cases; return warnings.

    ``class_labels`` maps task → case → names of its classes; a part of a fold without one of the classes is warned about, as is
    a case that a fold leaves out.

    Raises:
        DatasetError: unknown or repeated cases, or cases that no fold holds.
        LeakError: a case or a patient on both sides of a fold.

    Examples:
        >>> check_folds([{"train": ["a"], "val": ["b"]}], ["a", "b"])
        []
        >>> check_folds([{"train": ["a", "b"], "val": ["b"]}], ["a", "b"])
        Traceback (most recent call last):
        nnduet.errors.LeakError: fold 0: 1 cases in train and val: b
    """
    notes: list[str] = []
    for index, fold in enumerate(folds):
        _check_fold(index, fold, set(case_ids), groups)
        left_out = len(set(case_ids) - set(fold["train"]) - set(fold["val"]))
        notes += [f"fold {index} leaves out {left_out} cases"] if left_out else []
        notes += _absent_classes(index, fold, class_labels or {})
    lost = sorted(set(case_ids).difference(*(fold[side] for fold in folds for side in ("train", "val"))))
    if lost:
        raise DatasetError(f"no fold holds {len(lost)} cases: {', '.join(lost[:10])}")
    return notes


def _check_fold(index: int, fold: Mapping[str, list[str]], case_ids: set[str], groups: Mapping[str, str] | None) -> None:
    for side in ("train", "val"):
        unknown = sorted(set(fold[side]) - case_ids)
        if unknown:
            raise DatasetError(f"fold {index} {side}: {len(unknown)} unknown cases: {', '.join(unknown[:10])}")
        if len(set(fold[side])) != len(fold[side]):
            raise DatasetError(f"fold {index} {side}: cases are repeated: {_repeated(fold[side])}")
    both = sorted(set(fold["train"]) & set(fold["val"]))
    if both:
        raise LeakError(f"fold {index}: {len(both)} cases in train and val: {', '.join(both[:10])}")
    if groups:
        shared = sorted({groups[c] for c in fold["train"]} & {groups[c] for c in fold["val"]})
        if shared:
            examples = [c for side in ("train", "val") for c in fold[side] if groups[c] == shared[0]]
            raise LeakError(
                f"fold {index}: patients in train and val: {', '.join(shared[:10])}; e.g. cases {', '.join(examples)}"
            )


def _repeated(case_ids: Sequence[str]) -> str:
    return ", ".join([case_id for case_id, count in Counter(case_ids).items() if count > 1][:10])


def _absent_classes(index: int, fold: Mapping[str, list[str]], class_labels: ClassNames) -> list[str]:
    notes = []
    for task, labels in class_labels.items():
        every = {label for found in labels.values() for label in found}
        for side in ("train", "val"):
            absent = sorted(every - {label for case_id in fold[side] for label in labels.get(case_id, ())})
            if absent:
                notes.append(f"fold {index} {side} has no case of {task} class {', '.join(absent)}")
    return notes
