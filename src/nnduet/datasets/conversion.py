"""Turns a source into an nnU-Net raw dataset with class labels and folds.

First every file and table is checked, then all is written, see ``dataset_writing``. After a kill, the same call finishes the
work; on a finished dataset it changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from nnduet.datasets.checking import check_cases
from nnduet.datasets.conversion_summary import ConversionSummary, collect_notes, count_classes
from nnduet.datasets.dataset_writing import (
    DATASET_FILE,
    DatasetPlan,
    check_existing,
    check_places,
    locked_dataset,
    write_dataset,
)
from nnduet.datasets.descriptions import REGIONS_KEY, check_labels, check_regions
from nnduet.datasets.folds import Folds, check_folds, choose_strata, make_folds
from nnduet.datasets.hounsfield import hounsfield_notes
from nnduet.datasets.label_values import settle_labels
from nnduet.datasets.mask_codes import MaskCodes
from nnduet.datasets.sources import Source, check_case_names
from nnduet.errors import DatasetError, LeakError, OutputExistsError, SettingsError
from nnduet.io.csv_text import records_text
from nnduet.io.files import json_text
from nnduet.io.formats import reader_of
from nnduet.io.images import MAX_IMAGE_BYTES
from nnduet.names import check_name
from nnduet.nnunet_types import DatasetJson
from nnduet.progress import Progress
from nnduet.schema import CASE_COLUMN, GROUP_COLUMN, LABELS_FILE, SPLITS_FILE, Task, Workspace
from nnduet.task_list import check_new_tasks, tasks_to_json

__all__ = ["ConversionSummary", "convert"]


def convert(
    source: Source,
    *,
    workspace: Workspace,
    dataset_id: int,
    name: str,
    num_folds: int = 5,
    seed: int = 12345,
    replace: bool = False,
    dry_run: bool = False,
    max_image_bytes: int = MAX_IMAGE_BYTES,
    progress: Progress | None = None,
) -> ConversionSummary:
    """Write ``Dataset<id>_<name>`` below the workspace's raw folder, and its tables below the preprocessed folder too.

    Each format is written under its ``dataset_ending``, bytes copied where all readers agree on them. ``replace`` allows other
    labels, tasks or folds to replace those of a finished dataset; ``dry_run`` checks everything and writes nothing.
    ``progress`` gets (done, total, case id) for each case checked and each case written.

    Raises:
        NNDuetError: nothing was written unless the disk failed; see the modules of this room for the classes.
    """
    folder = _check_target_name(workspace, dataset_id, name)
    raw, preprocessed = workspace.raw / folder, workspace.preprocessed / folder
    check_places(source, raw, preprocessed)
    report = _Counter(progress, (1 if dry_run else 2) * (len(source.cases) + len(source.test_cases)))
    ending = _check_source(source)
    folds = source.folds or _default_folds(source, num_folds, seed)
    fold_notes = _check_folds(source, folds)
    cases = check_cases(source, source.cases, ending, max_bytes=max_image_bytes, progress=report)
    tests = check_cases(source, source.test_cases, ending, max_bytes=max_image_bytes, progress=report)
    labels, label_notes = settle_labels(cases, source.labels, source.suggested_labels)
    codes = MaskCodes.of(source.mask_names, labels) if source.mask_names else None
    description = _description(source, labels, ending, codes)
    texts = _texts(source, folds, description)
    channels = list(source.channel_names.values())
    notes = [*source.notes, *fold_notes, *label_notes, *hounsfield_notes(cases, channels, max_bytes=max_image_bytes)]
    plan = DatasetPlan(source, codes, cases, tests, texts, raw, preprocessed, ending, max_image_bytes)
    if dry_run:
        check_existing(plan, replace)
    else:
        with locked_dataset(workspace, dataset_id):
            _check_target_name(workspace, dataset_id, name)  # again: others had time to write
            check_existing(plan, replace)
            write_dataset(plan, report)
    return _summary(plan, folder, description["labels"], len(folds), notes, dry_run=dry_run)


def _summary(
    plan: DatasetPlan, folder: str, labels: Mapping[str, Any], num_folds: int, notes: Sequence[str], *, dry_run: bool
) -> ConversionSummary:
    files = [file for case in (*plan.cases, *plan.tests) for file in case.files]
    return ConversionSummary(
        dataset=folder,
        raw=str(plan.raw),
        preprocessed=str(plan.preprocessed),
        num_cases=len(plan.cases),
        num_test_cases=len(plan.tests),
        labels=dict(labels),
        tasks=count_classes(plan.source),
        num_folds=num_folds,
        rounded_masks=sum(mask.num_rounded > 0 for case in plan.cases for mask in case.masks),
        rounded_voxels=sum(case.num_rounded for case in plan.cases),
        num_rewritten=sum(not file.copy for file in files),
        dry_run=dry_run,
        notes=(*notes, *collect_notes(files)),
    )


class _Counter:
    """Counts cases for the caller's progress function."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def __call__(self, case_id: str) -> None:
        self._done += 1
        if self._progress:
            self._progress(self._done, self._total, case_id)


def _check_target_name(workspace: Workspace, dataset_id: int, name: str) -> str:
    if not 1 <= dataset_id <= 999:
        raise SettingsError(f"expected a dataset id from 1 to 999, got {dataset_id}")
    check_name(name, "name of the dataset")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):  # nnU-Net passes it through shells and environment variables
        raise SettingsError(f"name of the dataset: expected letters, digits, _ and -, got {name!r}")
    folder = f"Dataset{dataset_id:03d}_{name}"
    for root in (workspace.raw, workspace.preprocessed, workspace.results):
        others = sorted(path.name for path in root.glob(f"Dataset{dataset_id:03d}_*") if path.name != folder)
        if others:
            raise OutputExistsError(f"{root}: id {dataset_id} is taken by {', '.join(others)}; choose another id or remove it")
    return folder


def _check_described_labels(labels: Mapping[str, object], source: Source) -> None:
    """Refuse labels that nnU-Net would not take, naming the file that declares them."""
    try:
        check_labels(labels)
        check_regions(labels, source.extra.get(REGIONS_KEY))
        if source.mask_names and labels:
            MaskCodes.of(source.mask_names, labels)
    except DatasetError as error:
        raise DatasetError(f"{DATASET_FILE}: {error}", remedy=error.remedy) from error


def _check_source(source: Source) -> str:
    """The output's file ending, after checks that need no voxels."""
    if not source.cases:
        raise DatasetError("the source has no training case")
    check_new_tasks(source.tasks, source.covariates)
    case_ids = [case.case_id for case in source.cases]
    check_case_names([*case_ids, *(case.case_id for case in source.test_cases)])
    unlabelled = [case.case_id for case in source.cases if case.label is None]
    if unlabelled:
        raise DatasetError(f"{len(unlabelled)} training cases have no mask: {', '.join(unlabelled[:10])}")
    if source.labels is not None:
        _check_described_labels(source.labels, source)
    for case in source.cases:
        if len(case.masks) != max(len(source.mask_names), 1):
            raise DatasetError(f"{case.case_id}: expected {len(source.mask_names) or 1} masks, got {len(case.masks)}")
    for case in (*source.cases, *source.test_cases):
        if len(case.images) != len(source.channel_names):
            raise DatasetError(f"{case.case_id}: expected {len(source.channel_names)} channels, got {len(case.images)}")
    for case_id in case_ids:
        if source.tasks and case_id not in source.rows:
            raise DatasetError(f"{case_id}: no row in the case table")
        for task in source.tasks:
            task.encode(source.rows[case_id][task.name])
    return reader_of(source.cases[0].images[0]).dataset_ending


def _default_folds(source: Source, num_folds: int, seed: int) -> Folds:
    case_ids = [case.case_id for case in source.cases]
    strata = choose_strata(source.tasks, {c: source.rows[c] for c in case_ids}, num_folds) if source.tasks else None
    return make_folds(case_ids, source.groups, strata, num_folds, seed)


def _check_folds(source: Source, folds: Folds) -> list[str]:
    case_ids = [case.case_id for case in source.cases]
    classes = {
        task.name: {case_id: _named_classes(task, source.rows[case_id][task.name]) for case_id in case_ids}
        for task in source.tasks
        if task.is_classification
    }
    try:
        return check_folds(folds, case_ids, source.groups, classes)
    except (DatasetError, LeakError) as error:
        raise type(error)(f"{source.folds_file}: {error}" if source.folds_file else str(error)) from error


def _named_classes(task: Task, cell: str) -> tuple[str, ...]:
    return task.kind.split(cell) if cell else ()


def _labels_table(source: Source) -> str:
    """``classification_labels.csv``: case_id, tasks, patient_id if grouped, covariates."""
    groups = source.groups or {}
    columns = [CASE_COLUMN, *(t.name for t in source.tasks), *([GROUP_COLUMN] if groups else []), *source.covariates]
    case_ids = sorted(case.case_id for case in source.cases)
    rows = [{**source.rows.get(c, {}), CASE_COLUMN: c, GROUP_COLUMN: groups.get(c)} for c in case_ids]
    return records_text(rows, columns)


def _texts(source: Source, folds: Folds, description: DatasetJson) -> dict[str, str]:
    """The three text files by name."""
    return {SPLITS_FILE: json_text(folds), LABELS_FILE: _labels_table(source), DATASET_FILE: json_text(description)}


def _description(source: Source, labels: dict[str, Any], ending: str, codes: MaskCodes | None) -> DatasetJson:
    """What ``dataset.json`` says, which the user's own keys may change.

    Raises:
        DatasetError: a "masks" or "regions_class_order" of the user's own that would stop the prediction after the training.
    """
    description: DatasetJson = {
        "channel_names": dict(source.channel_names),
        "labels": labels,
        "numTraining": len(source.cases),
        "file_ending": ending,
        "classification": tasks_to_json(source.tasks),
        "covariates": list(source.covariates),
        **source.extra,
    }
    description |= codes.to_json() if codes else {}
    MaskCodes.from_json(description)
    check_regions(description["labels"], description.get(REGIONS_KEY))
    return description
