"""A dataset as its user has it, read but not yet checked voxel by voxel: what ``layouts`` produce and ``conversion`` takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnduet.datasets.folds import Folds
from nnduet.datasets.mask_codes import check_mask_names
from nnduet.errors import DatasetError, SettingsError
from nnduet.io.case_names import FIRST_CHANNEL
from nnduet.names import check_distinct_names, check_name
from nnduet.schema import Task

__all__ = ["Source", "SourceCase", "check_case_names", "parse_mask_folders"]


@dataclass(frozen=True)
class SourceCase:
    """One case: a file per channel in order, and its mask (None for a test case).

    ``further_labels`` are more masks on the same grid, in the order of ``Source.mask_names[1:]``.
    """

    case_id: str
    images: tuple[Path, ...]
    label: Path | None = None
    further_labels: tuple[Path, ...] = ()

    @property
    def masks(self) -> tuple[Path, ...]:
        """All masks, empty for a test case."""
        return () if self.label is None else (self.label, *self.further_labels)


@dataclass(frozen=True)
class Source:
    """Cases, tasks and folds of a dataset.

    ``labels`` None asks the conversion to find them; ``suggested_labels`` gives the names if exactly these values are found;
    ``label_map`` replaces values of the masks first.
    ``rows`` holds the table cells of the training cases (tasks and covariates), ``groups`` their patients, ``folds`` given
    folds (None: to be made), from ``folds_file``. ``extra`` are further keys of the user's dataset.json, passed on.
    ``mask_names`` are given where cases have several masks, which all have the same labels; see ``mask_codes``.
    ``tolerance_mm`` is how far a channel or a mask may lie beside the grid of the first channel and still be put onto it.
    """

    cases: tuple[SourceCase, ...]
    channel_names: Mapping[str, str]
    test_cases: tuple[SourceCase, ...] = ()
    labels: Mapping[str, Any] | None = None
    suggested_labels: Mapping[str, int] | None = None
    label_map: Mapping[int, int] = field(default_factory=dict)
    tasks: tuple[Task, ...] = ()
    rows: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    groups: Mapping[str, str] | None = None
    covariates: tuple[str, ...] = ()
    folds: Folds | None = None
    folds_file: Path | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    mask_names: tuple[str, ...] = ()
    tolerance_mm: float = 0.0


def parse_mask_folders(values: Sequence[str], folder: Path) -> Path | dict[str, Path]:
    """One plain path as it is, or ``NAME=PATH`` values as {name: path}, in their order.

    A PATH that does not exist is looked up in ``folder``. A single value that exists is a path, whatever signs it holds.

    Raises:
        SettingsError: several values that are not all NAME=PATH, or impossible names.
    """
    if len(values) == 1 and ("=" not in values[0] or Path(values[0]).exists()):
        return Path(values[0])
    if not all("=" in value for value in values):
        raise SettingsError(f"several folders of masks: expected NAME=PATH for each, got {list(values)}")
    names, paths = zip(*(value.split("=", 1) for value in values), strict=True)
    check_mask_names(names)
    return {name: Path(path) if Path(path).exists() else folder / path for name, path in zip(names, paths, strict=True)}


def check_case_names(case_ids: Iterable[str]) -> None:
    """Refuse ids that cannot be file names everywhere; spaces and any script are fine.

    Raises:
        DatasetError: see ``names.check_name``; a left-over ``_0000``; two ids that differ only in case or unicode form.
    """
    seen = list(case_ids)
    for case_id in seen:
        check_name(case_id, "case id", DatasetError)
        if case_id.endswith(FIRST_CHANNEL):
            raise DatasetError(f"case id {case_id[:80]!r}: ends in _0000, which looks like a channel number")
    check_distinct_names(seen, "case ids", DatasetError)
