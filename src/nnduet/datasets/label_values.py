"""Which labels a dataset has: the values that stand in its masks against those that are declared, judged over all cases."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nnduet.datasets.checking import CheckedCase
from nnduet.datasets.descriptions import check_labels
from nnduet.errors import LabelError
from nnduet.io.images import MAX_LABEL

__all__ = ["name_labels", "settle_labels"]

_MANY_MASKS = 5
"""From here on, a value that stands in a single mask is told, as a slip of the pen may be one."""
_MAX_PLACES = 3


@dataclass(frozen=True)
class _Found:
    """A value of the masks: its voxels by mask."""

    value: int
    places: Mapping[str, int]
    num_masks: int

    @property
    def is_stray(self) -> bool:
        return len(self.places) == 1 and self.num_masks >= _MANY_MASKS

    def __str__(self) -> str:
        named = ", ".join(f"{name}: {voxels} voxels" for name, voxels in list(self.places.items())[:_MAX_PLACES])
        more = ", …" if len(self.places) > _MAX_PLACES else ""
        return f"{self.value} in {len(self.places)} of {self.num_masks} masks ({named}{more})"


def settle_labels(
    cases: Sequence[CheckedCase], declared: Mapping[str, Any] | None, suggested: Mapping[str, int] | None
) -> tuple[dict[str, Any], list[str]]:
    """The ``labels`` object of the dataset, and what a user should know of the masks.

    Args:
        declared: labels of the user, see :func:`~nnduet.datasets.descriptions.check_labels`; None names what is found.
        suggested: as in :func:`name_labels`.

    Raises:
        DatasetError: the declared labels are impossible.
        LabelError: the masks hold other values; names them, their masks and what to type.
    """
    found = _found(cases)
    outside = [entry for value, entry in found.items() if not 0 <= value <= MAX_LABEL]
    if declared is not None:
        allowed = check_labels(declared)
        undeclared = [entry for value, entry in found.items() if value not in allowed]
        if undeclared:
            raise LabelError(
                f"masks hold undeclared labels, {_listed(undeclared)}; declared are {sorted(allowed)}; "
                f"{_advice(_onto_declared(found, allowed))} or declare them in dataset.json"
            )
        return dict(declared), []
    if outside:
        raise LabelError(f"labels expected from 0 to {MAX_LABEL}, got {_listed(outside)}; {_advice(_without_gaps(found))}")
    try:
        labels = name_labels(found, suggested)
    except LabelError as error:
        strays = [entry for entry in found.values() if entry.is_stray]
        raise LabelError(f"{error}{f'; rare are {_listed(strays)}' if strays else ''}") from error
    rare = [entry for value, entry in found.items() if value and entry.is_stray]
    return labels, [f"label {entry}; if that is a slip: --map-label {entry.value}=0" for entry in rare]


def name_labels(found: Collection[int], suggested: Mapping[str, int] | None) -> dict[str, int]:
    """A ``labels`` object for the values found in all masks: the suggested names if they fit, else ``label_1``, ….

    Raises:
        LabelError: no foreground, or values with gaps.

    Examples:
        >>> name_labels([0, 1, 2], None)
        {'background': 0, 'label_1': 1, 'label_2': 2}
        >>> name_labels([0, 1], {"background": 0, "nodule": 1})
        {'background': 0, 'nodule': 1}
    """
    values = set(found) | {0}
    if suggested and values == set(suggested.values()):
        return dict(suggested)
    if len(values) < 2:
        raise LabelError("no mask holds a foreground label")
    if values != set(range(len(values))):
        options = _advice({old: new for new, old in enumerate(sorted(values)) if old != new})
        raise LabelError(f"mask values {sorted(values)} have gaps; {options} or declare labels in dataset.json")
    return {"background": 0} | {f"label_{value}": value for value in sorted(values) if value}


def _found(cases: Sequence[CheckedCase]) -> dict[int, _Found]:
    """{value: where it stands}, ascending; masks by file name, with their folder where cases have several."""
    masks = [(mask, len(case.masks) > 1) for case in cases for mask in case.masks]
    places: dict[int, dict[str, int]] = {}
    for mask, several in masks:
        name = f"{mask.path.parent.name}/{mask.path.name}" if several else mask.path.name
        for value, voxels in mask.counts.items():
            places.setdefault(value, {})[name] = voxels
    return {value: _Found(value, places[value], len(masks)) for value in sorted(places)}


def _without_gaps(found: Mapping[int, _Found]) -> dict[int, int]:
    """Impossible values become background, the others 1, 2, … in their order."""
    kept = [value for value in found if 0 < value <= MAX_LABEL]
    return {value: kept.index(value) + 1 if value in kept else 0 for value in found if value}


def _onto_declared(found: Mapping[int, _Found], allowed: Collection[int]) -> dict[int, int]:
    """As many values as there are labels are these in their order; otherwise what is not declared is background."""
    kept = [value for value, entry in found.items() if value > 0 and (value in allowed or not entry.is_stray)]
    wanted = sorted(set(allowed) - {0})
    pairs = dict(zip(kept, wanted, strict=True)) if len(kept) == len(wanted) else {}
    return {value: pairs.get(value, 0) for value in found if value not in allowed or pairs.get(value, value) != value}


def _advice(label_map: Mapping[int, int]) -> str:
    options = " ".join(f"--map-label {old}={new}" for old, new in label_map.items() if old != new)
    return f"correct the masks, store the values as others with {options}"


def _listed(entries: Sequence[_Found]) -> str:
    return "; ".join(str(entry) for entry in entries[:10]) + ("; …" if len(entries) > 10 else "")
