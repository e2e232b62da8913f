"""Reads the folders of the pancreas challenge, where the class is the name of a folder, into a ``Source``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from nnduet.datasets.class_order import natural_order
from nnduet.datasets.folds import Folds, make_folds
from nnduet.datasets.hounsfield import CT
from nnduet.datasets.layouts import name_channels, read_test_cases
from nnduet.datasets.sources import Source, SourceCase
from nnduet.errors import DatasetError
from nnduet.io.case_files import find_masks
from nnduet.io.case_names import channel_name, split_channel
from nnduet.schema import RESULT_NAMES_KEY, Task
from nnduet.tasks import type_of_classes

__all__ = ["CHALLENGE_LABELS", "read_subtype_folders"]

CHALLENGE_LABELS = {"background": 0, "pancreas": 1, "lesion": 2}


def read_subtype_folders(
    folder: Path,
    *,
    task_name: str = "subtype",
    labels: Mapping[str, int] | None = None,
    label_map: Mapping[int, int] | None = None,
    channels: Sequence[str] = (),
    tolerance_mm: float = 0.0,
    num_folds: int = 5,
    seed: int = 12345,
) -> Source:
    """The challenge layout: ``train/subtypeN/<id>_0000.nii.gz`` with ``<id>.nii.gz``, ``validation/subtypeN``, ``test``.

    The challenge's table of results names files, so ``<task>_results.csv`` of models of this dataset does.
    Fold 0 trains on ``train`` and validates on ``validation``. Folds 1 and up are cross-validation folds inside ``train``, so
    that asking for them never trains on ``validation`` (nnU-Net would split all cases at random). Without a ``validation``
    folder there are ``num_folds`` cross-validation folds. The N are the classes, however many there are. ``labels`` None names
    the masks' values pancreas and lesion if they are exactly 0, 1 and 2. ``channels`` names them; the
    challenge's are CT.

    Raises:
        DatasetError: missing folders, images or masks, or an id that occurs twice.
    """
    train, notes = _read_part(folder / "train")
    validation, more = _read_part(folder / "validation") if (folder / "validation").is_dir() else ({}, [])
    twice = sorted(set(train) & set(validation))
    if twice:
        raise DatasetError(f"{folder}: cases in train and validation: {', '.join(twice[:10])}")
    entries = {**train, **validation}
    rows = {case_id: {task_name: entry[1]} for case_id, entry in entries.items()}
    cases = tuple(entries[case_id][0] for case_id in sorted(entries))
    num_channels = _common_channels(cases)
    classes = _ordered_subtypes({entry[1] for entry in entries.values()}, folder)
    strata = {case_id: row[task_name] for case_id, row in rows.items()}
    test_folder = folder / "test"
    tests, test_notes = read_test_cases(test_folder if test_folder.exists() else None, num_channels)
    return Source(
        cases=cases,
        test_cases=tests,
        channel_names=name_channels(channels or (CT,) * num_channels, None, num_channels),
        tolerance_mm=tolerance_mm,
        labels=labels,
        label_map=label_map or {},
        suggested_labels=CHALLENGE_LABELS,
        tasks=(Task(task_name, type_of_classes(len(classes)), classes),),
        rows=rows,
        folds=_challenge_folds(sorted(train), sorted(validation), strata, num_folds, seed),
        notes=(*notes, *more, *test_notes),
        extra={RESULT_NAMES_KEY: "files"},
    )


def _read_part(folder: Path) -> tuple[dict[str, tuple[SourceCase, str]], list[str]]:
    """Cases of ``train`` or ``validation`` with their subtype, and what is said of files that are not used."""
    found: dict[str, tuple[SourceCase, str]] = {}
    notes: list[str] = []
    subfolders = sorted(path for path in folder.glob("subtype*") if path.is_dir())
    if not subfolders:
        raise DatasetError(f"{folder}: expected folders subtype0, subtype1, …")
    for subfolder in subfolders:
        files = find_masks(subfolder)
        notes += files.notes
        for case in _paired_cases(subfolder, {stem: paths[0] for stem, paths in files.cases.items()}):
            if case.case_id in found:
                raise DatasetError(f"{subfolder}: case {case.case_id!r} is also in subtype {found[case.case_id][1]}")
            found[case.case_id] = (case, subfolder.name.removeprefix("subtype").strip("_- "))
    return found, notes


def _paired_cases(folder: Path, files: Mapping[str, Path]) -> list[SourceCase]:
    """Cases of a folder that holds images ``<id>_0000`` and masks ``<id>`` side by side."""
    parts = {stem: split_channel(stem) for stem in files}
    owners = {stem: case for stem, (case, channel) in parts.items() if channel == 0 or (channel and case in files)}
    masks = set(files) - set(owners)
    for case_id in sorted(set(owners.values()) ^ masks):
        raise DatasetError(
            f"{folder}: case {case_id!r} has no {'image ' + channel_name(case_id, 0) if case_id in masks else 'mask'}"
        )
    return [SourceCase(case_id, _channels_of(case_id, owners, files), files[case_id]) for case_id in sorted(masks)]


def _channels_of(case_id: str, owners: Mapping[str, str], files: Mapping[str, Path]) -> tuple[Path, ...]:
    stems = sorted(stem for stem, owner in owners.items() if owner == case_id)
    if stems != [channel_name(case_id, i) for i in range(len(stems))]:
        raise DatasetError(f"case {case_id!r}: expected channels from 0000 on, got {stems}")
    return tuple(files[stem] for stem in stems)


def _common_channels(cases: tuple[SourceCase, ...]) -> int:
    expected = len(cases[0].images)
    for case in cases:
        if len(case.images) != expected:
            raise DatasetError(f"case {case.case_id!r}: expected {expected} channels, got {len(case.images)}")
    return expected


def _ordered_subtypes(found: set[str], folder: Path) -> tuple[str, ...]:
    if len(found) < 2:
        raise DatasetError(f"{folder}: expected at least two subtypes, got {sorted(found)}")
    return natural_order(found)


def _challenge_folds(
    train: list[str], validation: list[str], strata: Mapping[str, str], num_folds: int, seed: int
) -> Folds | None:
    if not validation:
        return None
    given: Folds = [{"train": train, "val": validation}]
    if len(train) < num_folds - 1 or num_folds < 3:
        return given
    return given + make_folds(train, None, strata, num_folds - 1, seed)
