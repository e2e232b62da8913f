"""Checks every file of a source before a conversion writes the first one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nnduet.datasets.sources import Source, SourceCase
from nnduet.errors import DatasetError, GeometryError, NNDuetError, SettingsError
from nnduet.io.formats import file_ending, reader_of
from nnduet.io.geometry import Geometry, check_same_geometry, farthest_corner_mm
from nnduet.io.images import MAX_LABEL, Image, inspect_image, read_whole_numbers, voxel_counts
from nnduet.io.readers import ImageHeader

__all__ = ["CheckedCase", "CheckedFile", "check_cases", "read_mask"]

_MAX_ERRORS = 10


@dataclass(frozen=True)
class CheckedFile:
    """A sound file, the grid to write it on, and whether its bytes can be taken as they are.

    Of a mask, ``counts`` are the voxels of each value after mapping and ``num_rounded`` the repaired voxels.
    """

    path: Path
    geometry: Geometry
    copy: bool
    notes: tuple[str, ...] = ()
    counts: Mapping[int, int] = field(default_factory=dict)
    num_rounded: int = 0


@dataclass(frozen=True)
class CheckedCase:
    """A case whose files agree; masks as in :class:`~nnduet.datasets.sources.SourceCase`."""

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
        return frozenset().union(*(mask.counts for mask in self.masks))

    @property
    def num_rounded(self) -> int:
        """Repaired voxels of all masks."""
        return sum(mask.num_rounded for mask in self.masks)


def check_cases(
    source: Source, cases: Sequence[SourceCase], ending: str, *, max_bytes: int, progress: Callable[[str], None]
) -> list[CheckedCase]:
    """Check images and masks of ``cases`` for an output with file ending ``ending``; which labels they hold is only counted.

    Raises:
        NNDuetError: of the class of the first fault; the message lists up to ten faulty cases.
    """
    checked: list[CheckedCase] = []
    faults: list[NNDuetError] = []
    for case in cases:
        try:
            checked.append(_check_case(case, ending, source, max_bytes))
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


def _check_case(case: SourceCase, ending: str, source: Source, max_bytes: int) -> CheckedCase:
    headers = [inspect_image(path, max_bytes=max_bytes) for path in case.images]
    grid = headers[0].geometry
    images = tuple(
        _on_grid(
            _checked(path, header, grid, ending), header.geometry, case.case_id, f"channel {path.name}", source.tolerance_mm
        )
        for path, header in zip(case.images, headers, strict=True)
    )
    masks = []
    for path in case.masks:
        mask, num_rounded, changed = read_mask(path, source.label_map, max_bytes=max_bytes)
        name = path.name if len(case.masks) == 1 else f"{path.parent.name}/{path.name}"
        as_it_is = len(case.masks) == 1 and _is_plain_integer(mask.header) and not changed
        file = _checked(path, mask.header, grid, ending, as_it_is=as_it_is)
        file = replace(file, counts=voxel_counts(mask.array), num_rounded=num_rounded)
        masks.append(_on_grid(file, mask.geometry, case.case_id, f"mask {name}", source.tolerance_mm))
    return CheckedCase(case.case_id, images, masks[0] if masks else None, tuple(masks[1:]))


def _on_grid(file: CheckedFile, geometry: Geometry, case_id: str, what: str, tolerance_mm: float) -> CheckedFile:
    """The file, if it lies on the grid that it will be written on, or, with a note, no farther from it than is tolerated."""
    try:
        check_same_geometry(file.geometry, geometry, case_id, what)
        return file
    except GeometryError as error:
        distance = farthest_corner_mm(file.geometry, geometry)
        if distance <= tolerance_mm:
            note = f"up to {distance:.3g} mm beside the image's grid, put onto it (tolerated: {tolerance_mm:g} mm)"
            return replace(file, copy=False, notes=(*file.notes, note))
        if distance > min(file.geometry.spacing_mm):
            raise
        offer = f"no voxel is more than {distance:.3g} mm off: --tolerate-mm {_rounded_up(distance):g} puts it onto that grid"
        raise GeometryError(f"{error}; {offer}") from error


def _rounded_up(value: float) -> float:
    """The next number of one digit, so that it can be typed."""
    digit: float = 10.0 ** math.floor(math.log10(value))
    return round(math.ceil(value / digit + 1e-9) * digit, 12)


def _checked(path: Path, header: ImageHeader, grid: Geometry, ending: str, *, as_it_is: bool = True) -> CheckedFile:
    formats = {reader_of(path).name, reader_of(Path(ending)).name}
    if len(formats) > 1:
        names = " and ".join(sorted(formats, reverse=True))
        raise DatasetError(f"{path}: {names} files are mixed; convert all to one format")
    same_ending = file_ending(path) == ending
    copy = as_it_is and same_ending and header.is_canonical and _equal_for_nnunet(grid, header.geometry)
    return CheckedFile(path, grid, copy, header.notes)


def _is_plain_integer(header: ImageHeader) -> bool:
    return header.dtype.kind in "iu" and header.is_plain


def _equal_for_nnunet(first: Geometry, second: Geometry) -> bool:
    """The comparison of ``nnunetv2.experiment_planning.verify_dataset_integrity`` (``np.allclose`` as it stands)."""
    return all(np.allclose(getattr(first, name), getattr(second, name)) for name in ("spacing_mm", "origin_mm", "direction"))


def read_mask(path: Path, label_map: Mapping[int, int], *, max_bytes: int) -> tuple[Image, int, bool]:
    """A mask after mapping its values, the number of rounded voxels, and whether mapping changed any voxel.

    The array is of integers, uint8 or uint16 where all values lie from 0 to 65535; whether they are labels stays unchecked.

    Raises:
        LabelError: values that are no whole numbers.
        SettingsError: a value is mapped to one outside 0 to 65535.
    """
    image, num_rounded = read_whole_numbers(path, max_bytes=max_bytes)
    mapped = _mapped(image.array, label_map)
    changed = bool(label_map) and not np.array_equal(mapped, image.array)
    low, high = int(mapped.min()), int(mapped.max())
    if low >= 0 and high <= MAX_LABEL:
        mapped = mapped.astype(np.uint8 if high <= 255 else np.uint16)
    return Image(mapped, image.header, path), num_rounded, changed


def _mapped(array: npt.NDArray[Any], label_map: Mapping[int, int]) -> npt.NDArray[Any]:
    """New values, all taken from the old ones at once: 1=2 and 2=1 swap two labels."""
    wrong = {old: new for old, new in label_map.items() if not 0 <= new <= MAX_LABEL}
    if wrong:
        raise SettingsError(f"label map: new values expected from 0 to {MAX_LABEL}, got {wrong}")
    if not label_map:
        return array
    if int(array.min()) >= 0 and int(array.max()) <= MAX_LABEL:
        table = np.arange(MAX_LABEL + 1, dtype=np.uint16)
        for old, new in label_map.items():
            if 0 <= old <= MAX_LABEL:
                table[old] = new
        return table[array.astype(np.uint16, copy=False)]
    mapped = array.astype(np.int64)
    for old, new in label_map.items():
        mapped[array == old] = new
    return mapped
