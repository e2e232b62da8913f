"""Reads the folder layouts in which users keep their cases into a :class:`~nnduet.datasets.sources.Source`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnduet.datasets.case_tables import CaseTable, check_case_ids, find_table, read_table
from nnduet.datasets.descriptions import read_description
from nnduet.datasets.folds import Folds
from nnduet.datasets.sources import Source, SourceCase, check_case_names
from nnduet.datasets.task_specs import notes_on_columns, parse_task_specs
from nnduet.datasets.user_folds import read_user_folds
from nnduet.errors import DatasetError, SettingsError, TableError, listed
from nnduet.io.case_files import FoundCases, find_cases, find_masks
from nnduet.names import printable
from nnduet.records import read_json
from nnduet.schema import GROUP_COLUMN, SPLITS_FILE, Task

__all__ = ["name_channels", "read_folder", "read_test_cases"]


def read_folder(
    folder: Path,
    *,
    task_specs: Sequence[str] = (),
    images: Path | None = None,
    labels: Path | Mapping[str, Path] | None = None,
    table: Path | None = None,
    test_images: Path | None = None,
    splits: Path | None = None,
    id_column: str | None = None,
    group_column: str | None = None,
    covariates: Sequence[str] = (),
    label_map: Mapping[int, int] | None = None,
    ignore_extra_rows: bool = False,
    channels: Sequence[str] = (),
    tolerance_mm: float = 0.0,
) -> Source:
    """A folder with ``images/<case>_0000.<ext>``, ``labels/<case>.<ext>``, ``cases.csv``, each replaceable by a path.

    ``dataset.json`` (channel names, labels) and ``splits_final.json`` in the folder are used if present; nnU-Net's names
    ``imagesTr``, ``labelsTr``, ``imagesTs`` are understood as well. ``task_specs`` as in ``task_specs.parse_task_specs``;
    ``label_map`` replaces mask values, e.g. ``{255: 1}``. ``labels`` by name are several masks of every case, e.g.
    ``{"ED": …, "ES": …}``, which share the labels of ``dataset.json``. The table needs a row for every training case and may
    have rows of test cases; rows of other cases are refused, or passed over and counted with ``ignore_extra_rows``.
    ``channels`` names the channels in order, before ``dataset.json``; ``tolerance_mm`` as in
    :class:`~nnduet.datasets.sources.Source`.

    Raises:
        DatasetError, AmbiguousFileError: files that are missing or do not belong together.
        TableError, SettingsError: see ``tables``.
    """
    description = read_description(folder / "dataset.json")
    cases, mask_names, case_notes = _training_cases(folder, images, labels, channels or description.channel_names or ())
    tests, test_notes = read_test_cases(test_images or _existing(folder, "test_images", "imagesTs"), len(cases[0].images))
    wanted = _Wanted(task_specs, id_column, group_column, covariates, ignore_extra_rows)
    details = _read_details(table or find_table(folder), cases, tests, wanted)
    folds, folds_file, fold_notes = _read_folds(splits or _existing(folder, SPLITS_FILE), cases)
    return Source(
        cases=cases,
        test_cases=tests,
        channel_names=name_channels(channels, description.channel_names, len(cases[0].images)),
        labels=description.labels,
        tasks=details.tasks,
        rows=details.rows,
        groups=details.groups,
        covariates=tuple(covariates),
        folds=folds,
        folds_file=folds_file,
        label_map=label_map or {},
        extra=description.extra,
        mask_names=mask_names,
        notes=(*description.notes, *fold_notes, *case_notes, *test_notes, *details.notes),
        tolerance_mm=tolerance_mm,
    )


def _training_cases(
    folder: Path, images: Path | None, labels: Path | Mapping[str, Path] | None, channels: Collection[str]
) -> tuple[tuple[SourceCase, ...], tuple[str, ...], tuple[str, ...]]:
    """Cases with their masks, the names of these where there are several, and what is said of files that are not used; of
    ``channels`` the number is expected, where any are known."""
    found = find_cases(images or _first_folder(folder, "images", "imagesTr"), len(channels) or None)
    check_case_names(found.cases)
    named = labels if isinstance(labels, Mapping) else {}
    folders = list(named.values()) or [labels if isinstance(labels, Path) else _first_folder(folder, "labels", "labelsTr")]
    masks = [_masks_of(found, place) for place in folders]
    return _with_labels(found, masks), tuple(named), tuple(note for part in (found, *masks) for note in part.notes)


@dataclass(frozen=True)
class _Wanted:
    """What is asked for of a case table, see :func:`read_folder`."""

    task_specs: Sequence[str]
    id_column: str | None
    group_column: str | None
    covariates: Sequence[str]
    ignore_extra_rows: bool


@dataclass(frozen=True)
class _Details:
    tasks: tuple[Task, ...] = ()
    rows: Mapping[str, Mapping[str, str]] | Any = None
    groups: Mapping[str, str] | None = None
    notes: tuple[str, ...] = ()


def _read_details(path: Path | None, cases: tuple[SourceCase, ...], tests: tuple[SourceCase, ...], wanted: _Wanted) -> _Details:
    """Tasks, rows of the training cases and their patients from the case table."""
    case_ids = [case.case_id for case in cases]
    if path is None:
        if wanted.task_specs or wanted.covariates or wanted.group_column:
            raise DatasetError("tasks, groups or covariates are asked for, but there is no case table (cases.csv)")
        return _Details(rows={case_id: {} for case_id in case_ids})
    complete = read_table(path, wanted.id_column)
    test_ids = [case.case_id for case in tests]
    extra = check_case_ids(complete, case_ids, test_ids, ignore_extra_rows=wanted.ignore_extra_rows)
    table = complete.restricted_to(case_ids)
    if not wanted.task_specs:
        raise SettingsError(f"name at least one task; the columns of {path} are {', '.join(table.columns)}")
    tasks = parse_task_specs(wanted.task_specs, table)
    columns = {task.name: table.answers(task) for task in tasks}
    columns |= {name: table.numbers(name) for name in wanted.covariates}
    rows = {case_id: {name: cells[case_id] for name, cells in columns.items()} for case_id in case_ids}
    notes = (*extra, *notes_on_columns(table, wanted.task_specs, tasks, wanted.covariates))
    return _Details(tasks, rows, _groups(table, wanted.group_column), notes)


def _groups(table: CaseTable, group_column: str | None) -> dict[str, str] | None:
    """Patients by case; the column ``patient_id`` is used without being asked for."""
    name = group_column or (GROUP_COLUMN if GROUP_COLUMN in table.columns else None)
    if name is None:
        return None
    groups = table.column(name)
    for case_id, group in groups.items():
        if not group:
            raise TableError(f"{table.path} line {table.lines[case_id]}: case {case_id!r} has no {name}")
    return groups


def _with_labels(found: FoundCases, masks: Sequence[FoundCases]) -> tuple[SourceCase, ...]:
    return tuple(
        SourceCase(case_id, images, masks[0].cases[case_id][0], tuple(further.cases[case_id][0] for further in masks[1:]))
        for case_id, images in found.cases.items()
    )


def _masks_of(images: FoundCases, folder: Path) -> FoundCases:
    """The masks of a folder, one for every case and no other."""
    masks = find_masks(folder)
    lonely, spare = sorted(set(images.cases) - set(masks.cases)), sorted(set(masks.cases) - set(images.cases))
    if lonely or spare:
        names = [path.name for case_id in spare[:1] for path in masks.cases[case_id]]
        hint = f"; masks are named like their case, <case>.nii.gz: is {names[0]} one of them?" if lonely and spare else ""
        what = [f"{len(lonely)} training images have no mask: {_listed(lonely)}"] if lonely else []
        what += [f"{len(spare)} masks have no image: {_listed(spare)}"] if spare else []
        what[-1] += hint
        raise DatasetError(f"{folder}:{listed((*what, *images.notes, *masks.notes))}")
    return masks


def _listed(case_ids: Sequence[str]) -> str:
    return printable(", ".join(case_ids[:10]))


def read_test_cases(folder: Path | None, num_channels: int) -> tuple[tuple[SourceCase, ...], tuple[str, ...]]:
    """Cases without masks, and what is said of files that are not used; none without a folder. Raises as ``find_cases``."""
    if folder is None:
        return (), ()
    found = find_cases(folder, num_channels)
    return tuple(SourceCase(case_id, images) for case_id, images in found.cases.items()), found.notes


def _existing(folder: Path, *names: str) -> Path | None:
    return next((folder / name for name in names if (folder / name).exists()), None)


def _first_folder(folder: Path, *names: str) -> Path:
    found = _existing(folder, *names)
    if found is None:
        entries = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        there = f"there are {_listed(entries)}" if entries else "it is missing or empty"
        raise DatasetError(f"{folder}: expected a folder {' or '.join(names)}, {there}; name another one with --{names[0]}")
    return found


def _read_folds(path: Path | None, cases: Sequence[SourceCase]) -> tuple[Folds | None, Path | None, list[str]]:
    if path is None:
        return None, None, []
    folds, notes = read_user_folds(read_json(path), str(path), [case.case_id for case in cases])
    return folds, path, notes


def name_channels(given: Sequence[str], described: Mapping[str, str] | None, num_channels: int) -> dict[str, str]:
    """Names by number: those of the command line, else those of dataset.json, else ``image``."""
    if given and len(given) != num_channels:
        raise SettingsError(f"channels: expected {num_channels} names, one for each channel file of a case, got {list(given)}")
    default = ["image"] if num_channels == 1 else [f"image_{i}" for i in range(num_channels)]
    names = given or (described.values() if described else default)
    return {str(i): name for i, name in enumerate(names)}
