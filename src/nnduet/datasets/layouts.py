"""Reads the folder layouts in which users keep their cases into a :class:`~nnduet.datasets.sources.Source`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnduet.datasets.case_tables import CaseTable, check_case_ids, find_table, read_table
from nnduet.datasets.class_order import natural_order
from nnduet.datasets.descriptions import read_description
from nnduet.datasets.folds import Folds, make_folds
from nnduet.datasets.hounsfield import CT
from nnduet.datasets.sources import Source, SourceCase, check_case_names
from nnduet.datasets.task_specs import notes_on_columns, parse_task_specs
from nnduet.datasets.user_folds import read_user_folds
from nnduet.errors import DatasetError, SettingsError, TableError, listed
from nnduet.io.case_files import FoundCases, find_cases, find_masks
from nnduet.io.case_names import channel_name, split_channel
from nnduet.names import printable
from nnduet.records import read_json
from nnduet.schema import GROUP_COLUMN, RESULT_NAMES_KEY, SPLITS_FILE, Task
from nnduet.tasks import type_of_classes

__all__ = ["CHALLENGE_LABELS", "read_folder", "read_subtype_folders"]

CHALLENGE_LABELS = {"background": 0, "pancreas": 1, "lesion": 2}


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
    num_channels = len(channels or description.channel_names or ()) or None
    found = find_cases(images or _first_folder(folder, "images", "imagesTr"), num_channels)
    check_case_names(found.cases)
    named = labels if isinstance(labels, Mapping) else {}
    folders = list(named.values()) or [labels if isinstance(labels, Path) else _first_folder(folder, "labels", "labelsTr")]
    masks = [_masks_of(found, folder) for folder in folders]
    cases = _with_labels(found, masks)
    num_channels = len(cases[0].images)
    found_tests = _find_tests(test_images or _existing(folder, "test_images", "imagesTs"), num_channels)
    tests = _test_cases(found_tests)
    details = _read_details(
        table or find_table(folder), cases, tests, task_specs, id_column, group_column, covariates, ignore_extra_rows
    )
    folds_file = splits or _existing(folder, SPLITS_FILE)
    folds, fold_notes = _read_folds(folds_file, cases)
    listings = (note for part in (found, *masks, found_tests) for note in part.notes)
    return Source(
        cases=cases,
        test_cases=tests,
        channel_names=_channel_names(channels, description.channel_names, num_channels),
        labels=description.labels,
        tasks=details.tasks,
        rows=details.rows,
        groups=details.groups,
        covariates=tuple(covariates),
        folds=folds,
        folds_file=folds_file,
        label_map=label_map or {},
        extra=description.extra,
        mask_names=tuple(named),
        notes=(*description.notes, *fold_notes, *listings, *details.notes),
        tolerance_mm=tolerance_mm,
    )


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
    tests = _find_tests(_existing(folder, "test"), num_channels)
    return Source(
        cases=cases,
        test_cases=_test_cases(tests),
        channel_names=_channel_names(channels or (CT,) * num_channels, None, num_channels),
        tolerance_mm=tolerance_mm,
        labels=labels,
        label_map=label_map or {},
        suggested_labels=CHALLENGE_LABELS,
        tasks=(Task(task_name, type_of_classes(len(classes)), classes),),
        rows=rows,
        folds=_challenge_folds(sorted(train), sorted(validation), strata, num_folds, seed),
        notes=(*notes, *more, *tests.notes),
        extra={RESULT_NAMES_KEY: "files"},
    )


@dataclass(frozen=True)
class _Details:
    tasks: tuple[Task, ...] = ()
    rows: Mapping[str, Mapping[str, str]] | Any = None
    groups: Mapping[str, str] | None = None
    notes: tuple[str, ...] = ()


def _read_details(
    path: Path | None,
    cases: tuple[SourceCase, ...],
    tests: tuple[SourceCase, ...],
    task_specs: Sequence[str],
    id_column: str | None,
    group_column: str | None,
    covariates: Sequence[str],
    ignore_extra_rows: bool,
) -> _Details:
    """Tasks, rows of the training cases and their patients from the case table."""
    case_ids = [case.case_id for case in cases]
    if path is None:
        if task_specs or covariates or group_column:
            raise DatasetError("tasks, groups or covariates are asked for, but there is no case table (cases.csv)")
        return _Details(rows={case_id: {} for case_id in case_ids})
    complete = read_table(path, id_column)
    extra = check_case_ids(complete, case_ids, [case.case_id for case in tests], ignore_extra_rows=ignore_extra_rows)
    table = complete.restricted_to(case_ids)
    if not task_specs:
        raise SettingsError(f"name at least one task; the columns of {path} are {', '.join(table.columns)}")
    tasks = parse_task_specs(task_specs, table)
    columns = {task.name: table.answers(task) for task in tasks}
    columns |= {name: table.numbers(name) for name in covariates}
    rows = {case_id: {name: cells[case_id] for name, cells in columns.items()} for case_id in case_ids}
    notes = (*extra, *notes_on_columns(table, task_specs, tasks, covariates))
    return _Details(tasks, rows, _groups(table, group_column), notes)


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


def _find_tests(folder: Path | None, num_channels: int) -> FoundCases:
    return FoundCases(Path(), {}) if folder is None else find_cases(folder, num_channels)


def _test_cases(found: FoundCases) -> tuple[SourceCase, ...]:
    return tuple(SourceCase(case_id, images) for case_id, images in found.cases.items())


def _existing(folder: Path, *names: str) -> Path | None:
    return next((folder / name for name in names if (folder / name).exists()), None)


def _first_folder(folder: Path, *names: str) -> Path:
    found = _existing(folder, *names)
    if found is None:
        entries = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        there = f"there are {_listed(entries)}" if entries else "it is missing or empty"
        raise DatasetError(f"{folder}: expected a folder {' or '.join(names)}, {there}; name another one with --{names[0]}")
    return found


def _read_folds(path: Path | None, cases: Sequence[SourceCase]) -> tuple[Folds | None, list[str]]:
    if path is None:
        return None, []
    return read_user_folds(read_json(path), str(path), [case.case_id for case in cases])


def _channel_names(given: Sequence[str], described: Mapping[str, str] | None, num_channels: int) -> dict[str, str]:
    """Names by number: those of the command line, else those of dataset.json, else ``image``."""
    if given and len(given) != num_channels:
        raise SettingsError(f"channels: expected {num_channels} names, one for each channel file of a case, got {list(given)}")
    default = ["image"] if num_channels == 1 else [f"image_{i}" for i in range(num_channels)]
    names = given or (described.values() if described else default)
    return {str(i): name for i, name in enumerate(names)}


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
