"""Turns a source into an nnU-Net raw dataset with class labels and folds.

First every file and table is checked, then files are written atomically, ``dataset.json`` last: a raw dataset with a
``dataset.json`` is complete. After a kill, the same call finishes the work; on a finished dataset it changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnduet.data.checking import CheckedCase, CheckedFile, Progress, check_cases, name_labels, read_mask
from nnduet.data.conversion_summary import ConversionSummary, collect_notes, count_classes
from nnduet.data.csv_text import records_text
from nnduet.data.files import copy_atomically, is_temporary, json_text, remove_temporaries, write_text_atomically
from nnduet.data.folds import Folds, check_folds, choose_strata, make_folds
from nnduet.data.images import MAX_IMAGE_BYTES, file_ending, read_image, write_image, write_segmentation
from nnduet.data.mask_codes import MaskCodes
from nnduet.data.sources import Source, check_case_names
from nnduet.errors import DatasetError, LeakError, OutputExistsError, SettingsError
from nnduet.names import check_name
from nnduet.records import parse_json, read_json
from nnduet.schema import CASE_COLUMN, GROUP_COLUMN, LABELS_FILE, SPLITS_FILE, Workspace, check_new_tasks, tasks_to_json

__all__ = ["ConversionSummary", "convert"]

_FOLDERS = ("imagesTr", "labelsTr", "imagesTs")
_DATASET_FILE = "dataset.json"


@dataclass(frozen=True)
class _Plan:
    """Everything that is to be written, after all checks. ``texts`` are the tables by file name, dataset.json last."""

    source: Source
    codes: MaskCodes | None
    cases: Sequence[CheckedCase]
    tests: Sequence[CheckedCase]
    texts: dict[str, str]
    raw: Path
    preprocessed: Path
    ending: str
    max_bytes: int


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

    NIfTI is written as ``.nii.gz`` (bytes copied where every reader agrees on them), PNG as PNG. ``replace`` allows other
    labels, tasks or folds to replace those of a finished dataset; ``dry_run`` checks everything and writes nothing.
    ``progress`` gets (done, total, case id) for each case checked and each case written.

    Raises:
        NNDuetError: nothing was written unless the disk failed; see the modules of this room for the classes.
    """
    folder = _check_target_name(workspace, dataset_id, name)
    report = _Counter(progress, (1 if dry_run else 2) * (len(source.cases) + len(source.test_cases)))
    ending = _check_source(source)
    folds = source.folds or _default_folds(source, num_folds, seed)
    fold_notes = _check_folds(source, folds)
    cases = check_cases(source, source.cases, ending, max_bytes=max_image_bytes, progress=report)
    tests = check_cases(source, source.test_cases, ending, max_bytes=max_image_bytes, progress=report)
    labels = dict(source.labels or name_labels(set().union(*(case.found for case in cases)), source.suggested_labels))
    codes = MaskCodes.of(source.mask_names, labels) if source.mask_names else None
    description = _description(source, labels, ending) | (codes.to_json() if codes else {})
    MaskCodes.from_json(description)  # a "masks" of the user's own would stop the prediction after the training
    texts = {
        SPLITS_FILE: json_text(folds),
        LABELS_FILE: _labels_table(source),
        _DATASET_FILE: json_text(description),
    }
    raw, preprocessed = workspace.raw / folder, workspace.preprocessed / folder
    plan = _Plan(source, codes, cases, tests, texts, raw, preprocessed, ending, max_image_bytes)
    _check_existing(plan, replace)
    if not dry_run:
        _write(plan, report)
    files = [file for case in (*cases, *tests) for file in case.files]
    return ConversionSummary(
        dataset=folder,
        raw=str(raw),
        preprocessed=str(preprocessed),
        num_cases=len(cases),
        num_test_cases=len(tests),
        labels=description["labels"],
        tasks=count_classes(source),
        num_folds=len(folds),
        rounded_masks=sum(mask.num_rounded > 0 for case in cases for mask in case.masks),
        rounded_voxels=sum(case.num_rounded for case in cases),
        num_rewritten=sum(not file.copy for file in files),
        dry_run=dry_run,
        notes=(*source.notes, *fold_notes, *collect_notes(files)),
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
    if not 1 <= dataset_id <= 999 or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise SettingsError(
            f"expected a dataset id from 1 to 999 and a name of letters and digits, got {dataset_id} {name[:80]!a}"
        )
    folder = check_name(f"Dataset{dataset_id:03d}_{name}", "dataset")
    for root in (workspace.raw, workspace.preprocessed, workspace.results):
        others = sorted(path.name for path in root.glob(f"Dataset{dataset_id:03d}_*") if path.name != folder)
        if others:
            raise OutputExistsError(f"{root}: id {dataset_id} is taken by {', '.join(others)}; choose another id or remove it")
    return folder


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
    if source.mask_names and source.labels:
        MaskCodes.of(source.mask_names, source.labels)
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
    return ".png" if file_ending(source.cases[0].images[0]) == ".png" else ".nii.gz"


def _default_folds(source: Source, num_folds: int, seed: int) -> Folds:
    case_ids = [case.case_id for case in source.cases]
    strata = choose_strata(source.tasks, {c: source.rows[c] for c in case_ids}, num_folds) if source.tasks else None
    return make_folds(case_ids, source.groups, strata, num_folds, seed)


def _check_folds(source: Source, folds: Folds) -> list[str]:
    case_ids = [case.case_id for case in source.cases]
    classes = {
        task.name: {case_id: source.rows[case_id][task.name] for case_id in case_ids}
        for task in source.tasks
        if task.is_classification
    }
    try:
        return check_folds(folds, case_ids, source.groups, classes)
    except (DatasetError, LeakError) as error:
        raise type(error)(f"{source.folds_file}: {error}" if source.folds_file else str(error)) from error


def _labels_table(source: Source) -> str:
    """``classification_labels.csv``: case_id, tasks, patient_id if grouped, covariates."""
    groups = source.groups or {}
    columns = [CASE_COLUMN, *(t.name for t in source.tasks), *([GROUP_COLUMN] if groups else []), *source.covariates]
    case_ids = sorted(case.case_id for case in source.cases)
    rows = [{**source.rows.get(c, {}), CASE_COLUMN: c, GROUP_COLUMN: groups.get(c)} for c in case_ids]
    return records_text(rows, columns)


def _description(source: Source, labels: dict[str, Any], ending: str) -> dict[str, Any]:
    return {
        "channel_names": dict(source.channel_names),
        "labels": labels,
        "numTraining": len(source.cases),
        "file_ending": ending,
        "classification": tasks_to_json(source.tasks),
        "covariates": list(source.covariates),
        **source.extra,
    }


def _file_names(plan: _Plan) -> set[str]:
    """Names relative to the raw folder of all images and masks."""
    names = {f"labelsTr/{case.case_id}{plan.ending}" for case in plan.cases}
    for folder, cases in (("imagesTr", plan.cases), ("imagesTs", plan.tests)):
        names |= {f"{folder}/{case.case_id}_{i:04d}{plan.ending}" for case in cases for i in range(len(case.images))}
    return names


def _check_existing(plan: _Plan, replace: bool) -> None:
    """Refuse to mix with what is not this dataset.

    Raises:
        OutputExistsError: files of other cases, or a finished dataset with other labels, tasks or folds and no ``replace``.
    """
    raw, expected = plan.raw, _file_names(plan)
    present = [path for name in _FOLDERS if (raw / name).is_dir() for path in (raw / name).iterdir() if not is_temporary(path)]
    strange = sorted({path.relative_to(raw).as_posix() for path in present} - expected)
    if strange:
        listed = ", ".join(strange[:10])
        raise OutputExistsError(
            f"{raw}: holds {len(strange)} files of other cases ({listed}); remove the folder or use another id"
        )
    if replace or not (raw / _DATASET_FILE).exists():
        return
    roots = (raw, plan.preprocessed)
    differing = [root / name for root in roots for name, text in plan.texts.items() if _differs(root / name, text)]
    if differing:
        listed = ", ".join(map(str, differing))
        raise OutputExistsError(f"a finished dataset differs in {listed}; replace it on purpose (replace=True, --replace)")


def _differs(path: Path, text: str) -> bool:
    if not path.exists():
        return False
    present = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix != ".json" or present == text:
        return present != text
    try:
        return bool(read_json(path) != parse_json(text.encode(), path.name))
    except DatasetError:
        return True


def _write(plan: _Plan, report: _Counter) -> None:
    raw = plan.raw
    for place in (raw, plan.preprocessed, *(raw / name for name in _FOLDERS)):
        remove_temporaries(place)
    if any(_differs(raw / name, text) for name, text in plan.texts.items()):
        (raw / _DATASET_FILE).unlink(missing_ok=True)  # while tables change, the dataset is not complete
    for folder, cases in (("imagesTr", plan.cases), ("imagesTs", plan.tests)):
        for case in cases:
            for channel, file in enumerate(case.images):
                _write_image(file, raw / folder / f"{case.case_id}_{channel:04d}{plan.ending}", plan)
            if case.label:
                _write_masks(case, raw / "labelsTr" / f"{case.case_id}{plan.ending}", plan)
            report(case.case_id)
    for root in (plan.preprocessed, raw):
        for path, text in ((root / table, text) for table, text in plan.texts.items()):
            if not path.exists() or _differs(path, text):
                write_text_atomically(path, text)


def _write_image(file: CheckedFile, target: Path, plan: _Plan) -> None:
    if file.copy:
        copy_atomically(file.path, target)
        return
    array = read_image(file.path, max_bytes=plan.max_bytes).array
    write_image(target, array if array.dtype.itemsize <= 4 else array.astype(np.float32), file.geometry)


def _write_masks(case: CheckedCase, target: Path, plan: _Plan) -> None:
    """The mask of a case, or the codes of its masks."""
    first = case.masks[0]
    if first.copy:
        copy_atomically(first.path, target)
        return
    arrays = [read_mask(m.path, plan.source.label_map, None, max_bytes=plan.max_bytes)[0].array for m in case.masks]
    write_segmentation(target, plan.codes.encode(arrays) if plan.codes else arrays[0], first.geometry)
