"""Checks every file of a source before a conversion writes the first one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nnduet.data.images import (
    Geometry,
    Image,
    ImageHeader,
    check_same_geometry,
    file_ending,
    inspect_image,
    read_segmentation,
)
from nnduet.data.sources import Source, SourceCase
from nnduet.errors import DatasetError, LabelError, NNDuetError, SettingsError

__all__ = ["CheckedCase", "CheckedFile", "Progress", "check_cases", "check_labels", "name_labels", "read_mask"]

Progress = Callable[[int, int, str], None]

_MAX_ERRORS = 10


@dataclass(frozen=True)
class CheckedFile:
    """A sound file, the grid to write it on, and whether its bytes can be taken as they are.

    Of a mask, ``found`` are the labels after mapping and ``num_rounded`` the repaired voxels.
    """

    path: Path
    geometry: Geometry
    copy: bool
    notes: tuple[str, ...] = ()
    found: frozenset[int] = frozenset()
    num_rounded: int = 0


@dataclass(frozen=True)
class CheckedCase:
    """A case whose files agree; masks as in :class:`~nnduet.data.sources.SourceCase`."""

    case_id: str
    images: tuple[CheckedFile, ...]
    label: CheckedFile | None = None
    further_labels: tuple[CheckedFile, ...] = ()

    @property
    def masks(self) -> tuple[CheckedFile, ...]:
        """All masks, empty for a test case."""
        return () if self.label is None else (self.label, *self.further_labels)

    @property
    def files(self) -> tuple[CheckedFile, ...]:
        """Images, then masks."""
        return (*self.images, *self.masks)

    @property
    def found(self) -> frozenset[int]:
        """Labels of all masks after mapping."""
        return frozenset().union(*(mask.found for mask in self.masks))

    @property
    def num_rounded(self) -> int:
        """Repaired voxels of all masks."""
        return sum(mask.num_rounded for mask in self.masks)


def check_cases(
    source: Source, cases: Sequence[SourceCase], ending: str, *, max_bytes: int, progress: Callable[[str], None]
) -> list[CheckedCase]:
    """Check images and masks of ``cases`` for an output with file ending ``ending``.

    Raises:
        NNDuetError: of the class of the first fault; the message lists up to ten faulty cases.
    """
    allowed = None if source.labels is None else check_labels(source.labels)
    checked: list[CheckedCase] = []
    faults: list[NNDuetError] = []
    for case in cases:
        try:
            checked.append(_check_case(case, ending, allowed, source.label_map, max_bytes))
        except NNDuetError as error:
            faults.append(error)
        if len(faults) == _MAX_ERRORS:
            break
        progress(case.case_id)
    if faults:
        _raise_together(faults)
    return checked


def _raise_together(faults: Sequence[NNDuetError]) -> None:
    if len(faults) == 1:
        raise faults[0]
    lines = "\n".join(f"- {fault.code}: {fault}" for fault in faults)
    more = " (stopped there)" if len(faults) == _MAX_ERRORS else ""
    raise type(faults[0])(f"{len(faults)} cases cannot be converted{more}:\n{lines}") from faults[0]


def _check_case(
    case: SourceCase, ending: str, allowed: Collection[int] | None, label_map: Mapping[int, int], max_bytes: int
) -> CheckedCase:
    headers = [inspect_image(path, max_bytes=max_bytes) for path in case.images]
    grid = headers[0].geometry
    for path, header in zip(case.images, headers, strict=True):
        check_same_geometry(grid, header.geometry, case.case_id, f"channel {path.name}")
    images = tuple(_checked(path, header, grid, ending) for path, header in zip(case.images, headers, strict=True))
    if case.label is None:
        return CheckedCase(case.case_id, images)
    masks = []
    for path in case.masks:
        mask, num_rounded, changed = read_mask(path, label_map, allowed, max_bytes=max_bytes)
        name = path.name if len(case.masks) == 1 else f"{path.parent.name}/{path.name}"
        check_same_geometry(grid, mask.geometry, case.case_id, f"mask {name}")
        as_it_is = len(case.masks) == 1 and _is_plain_integer(mask.header) and not changed
        found = frozenset(np.flatnonzero(np.bincount(mask.array.ravel())).tolist())
        file = _checked(path, mask.header, grid, ending, as_it_is=as_it_is)
        masks.append(replace(file, found=found, num_rounded=num_rounded))
    return CheckedCase(case.case_id, images, masks[0], tuple(masks[1:]))


def _checked(path: Path, header: ImageHeader, grid: Geometry, ending: str, *, as_it_is: bool = True) -> CheckedFile:
    if (file_ending(path) == ".png") != (ending == ".png"):
        raise DatasetError(f"{path}: PNG and NIfTI files are mixed; convert all to one format")
    same_ending = file_ending(path) == ending
    copy = as_it_is and same_ending and header.is_canonical and _equal_for_nnunet(grid, header.geometry)
    return CheckedFile(path, grid, copy, header.notes)


def _is_plain_integer(header: ImageHeader) -> bool:
    return header.dtype.kind in "iu" and header.is_plain


def _equal_for_nnunet(first: Geometry, second: Geometry) -> bool:
    """The comparison of ``nnunetv2.experiment_planning.verify_dataset_integrity`` (``np.allclose`` as it stands)."""
    return all(np.allclose(getattr(first, name), getattr(second, name)) for name in ("spacing_mm", "origin_mm", "direction"))


def read_mask(
    path: Path, label_map: Mapping[int, int], allowed: Collection[int] | None, *, max_bytes: int
) -> tuple[Image, int, bool]:
    """A mask after mapping its values, the number of rounded voxels, and whether mapping changed any voxel.

    Raises:
        LabelError: as ``images.read_segmentation``, for the mapped values.
    """
    if not label_map:
        return *read_segmentation(path, allowed, max_bytes=max_bytes), False
    image, num_rounded = read_segmentation(path, max_bytes=max_bytes)
    mapped = _label_table(label_map)[image.array]
    found = np.flatnonzero(np.bincount(mapped.ravel())).tolist()
    unknown = sorted(set(found) - set(allowed)) if allowed is not None else []
    if unknown:
        raise LabelError(f"{path}: undeclared labels {unknown} after mapping; declared are {sorted(allowed or ())}")
    narrow = mapped.astype(np.uint8 if found[-1] <= 255 else np.uint16)
    return Image(narrow, image.header, path), num_rounded, not np.array_equal(mapped, image.array)


def _label_table(label_map: Mapping[int, int]) -> npt.NDArray[np.uint16]:
    """New value of every possible label.

    Raises:
        SettingsError: a value outside 0 to 65535.
    """
    table = np.arange(65536, dtype=np.uint16)
    for old, new in label_map.items():
        if not (0 <= old <= 65535 and 0 <= new <= 65535):
            raise SettingsError(f"label map: values expected from 0 to 65535, got {old} to {new}")
        table[old] = new
    return table


def check_labels(labels: Mapping[str, Any]) -> frozenset[int]:
    """Values that a ``labels`` object declares (lists of values are regions).

    Raises:
        DatasetError: values that are no integers, no background 0, or gaps, which nnU-Net does not take.
    """
    values: set[int] = set()
    for name, value in labels.items():
        for item in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(item, bool) or not isinstance(item, int):
                raise DatasetError(f"labels of dataset.json: {name!r} expected an integer or a list of integers, got {item!r}")
            values.add(item)
    if values != set(range(len(values))) or len(values) < 2:
        raise DatasetError(
            f"labels of dataset.json must be 0 (background), 1, 2, … without gaps, got {sorted(values)}; {_MAPPING_HINT}"
        )
    return frozenset(values)


_MAPPING_HINT = "map mask values with label_map (--map-label OLD=NEW)"


def name_labels(found: Collection[int], suggested: Mapping[str, int] | None) -> dict[str, int]:
    """A ``labels`` object for the values found in all masks: the suggested names if they fit, else ``label_1``, ….

    Raises:
        LabelError: no foreground, or values with gaps.
    """
    values = set(found) | {0}
    if suggested and values == set(suggested.values()):
        return dict(suggested)
    if len(values) < 2:
        raise LabelError("no mask holds a foreground label")
    if values != set(range(len(values))):
        raise LabelError(f"mask values {sorted(values)} have gaps; {_MAPPING_HINT}, or declare labels in dataset.json")
    return {"background": 0} | {f"label_{value}": value for value in sorted(values) if value}
