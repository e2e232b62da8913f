"""Whether preprocessed cases and trained folds are still those of the raw data; if not, what changed and what mends it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from nnduet.errors import ResumeError, StaleError
from nnduet.io.files import file_digest
from nnduet.nnunet_types import DatasetJson, Plans
from nnduet.progress import Progress
from nnduet.records import read_json
from nnduet.schema import SPLITS_FILE, Workspace
from nnduet.training.ingredients import (
    INGREDIENTS_FILE,
    CaseFiles,
    Ingredients,
    changed_cases,
    changed_settings,
    mark_cases,
    raw_entries,
    read_ingredients,
    settings_of,
)
from nnduet.training.planners import preset_of
from nnduet.training.prepared import read_prepared
from nnduet.training.preprocessed import check_listed

__all__ = ["check_copies", "check_fold_cases", "check_fresh", "check_same_ingredients", "ingredients_file", "plan_command"]


_FROM_DATASET = ("channel_names", "labels", "regions_class_order", "file_ending", "overwrite_image_reader_writer")


def ingredients_file(folder: Path) -> Path:
    """Where it stands what a folder of preprocessed cases was made of: beside it, for nnU-Net wants nothing else in it."""
    return folder.with_name(f"{folder.name}_{INGREDIENTS_FILE}")


def plan_command(dataset: str, plans_name: str, configuration: str, *, keep: bool) -> str:
    """The command that preprocesses a configuration again, with the plans as they are or with new ones."""
    preset = preset_of(plans_name)
    words = ["nnduet plan", str(int(dataset[len("Dataset") :].split("_")[0]))]
    words += [f"--preset {preset}"] if preset else [f"--plans {plans_name}"]
    words += ["--keep"] if keep or not preset else []
    words += [] if configuration in ("2d", "3d_fullres") else [f"--configuration {configuration}"]
    return " ".join(words)


def check_copies(workspace: Workspace, dataset: str, names: Sequence[str] = ("dataset.json", SPLITS_FILE)) -> None:
    """Refuse files of ``convert`` whose copies in the raw and in the preprocessed folder say different things.

    Raises:
        StaleError: naming both. Only one of them can be meant, and the commands would not agree which.
        DatasetError: one is damaged.
    """
    for name in names:
        first, second = (folder / name for folder in workspace.folders_of(dataset))
        if first.is_file() and second.is_file() and read_json(first) != read_json(second):
            raise StaleError(
                f"{second}: differs from {first}; copy the right one over the other, or let `nnduet plan --replace` take the "
                "raw folder's"
            )


def check_fresh(
    workspace: Workspace, dataset: str, plans: Plans, configuration: str, cases: Path, progress: Progress | None = None
) -> Ingredients | None:
    """Refuse preprocessed cases that were made of other raw files or plans than are there now.

    Where the raw data are not there, the plans are compared alone.

    Args:
        cases: folder of the preprocessed cases.

    Returns:
        What they were made of; None where nothing tells, because another program made them.

    Raises:
        StaleError: what changed, and the command that mends it.
        DatasetError: files among the cases that nobody listed.
    """
    check_copies(workspace, dataset)
    check_listed(cases)
    stored = read_ingredients(ingredients_file(cases))
    if stored is None:
        return None
    raw, prepared = workspace.folders_of(dataset)
    is_there = (raw / "dataset.json").is_file()
    dataset_json = read_prepared((raw if is_there else prepared) / "dataset.json")
    settings = changed_settings(stored.settings, settings_of(plans, configuration, dataset_json))
    found = mark_cases(raw_entries(raw, dataset_json), stored.cases, progress) if is_there else stored.cases
    changes = settings + changed_cases(stored.cases, found) + _changed_references(prepared, dataset_json, stored.cases)
    if changes:
        keep = len(settings) == len(changes) and not any(change.startswith(_FROM_DATASET) for change in settings)
        command = plan_command(dataset, str(plans["plans_name"]), configuration, keep=keep)
        raise StaleError(f"{cases}: was made before this changed: {'; '.join(changes)}. Make it again: `{command}`")
    return stored


def _changed_references(prepared: Path, dataset_json: DatasetJson, cases: Mapping[str, CaseFiles]) -> list[str]:
    """A phrase if the masks that validation measures against are not those of which the cases were made."""
    folder, ending = prepared / "gt_segmentations", dataset_json.get("file_ending", "")
    other = [name for name, files in cases.items() if _digest(folder / f"{name}{ending}") != files.mask.sha256]
    return [f"{len(other)} masks in {folder.name} changed, first {min(other)}"] if other else []


def _digest(path: Path) -> str:
    return file_digest(path) if path.is_file() else ""


def check_same_ingredients(fold: Path, now: Ingredients) -> None:
    """Refuse to go on with a fold that began with other data than are there now.

    Raises:
        ResumeError: what changed.
    """
    before = read_ingredients(fold / INGREDIENTS_FILE)
    if before is None:
        return
    changes = []
    if before.cases and now.cases:
        changes = changed_settings(before.settings, now.settings) + changed_cases(before.cases, now.cases)
    if before.labels != now.labels:
        changes.append("the case labels changed")
    if changes:
        helps = "train it anew in an empty folder"
        helps += (
            "; `nnduet fit-head` fits a finished model's case heads to corrected labels" if before.labels != now.labels else ""
        )
        raise ResumeError(f"{fold}: began before this changed: {'; '.join(changes)}; move the folder away and {helps}")


def check_fold_cases(fold: Path, workspace: Workspace, dataset: str, progress: Progress | None = None) -> None:
    """Refuse a trained fold whose images or masks have changed since: its features are those of the old ones.

    Nothing is compared where the fold does not say what it was made of, and only what is still there.

    Raises:
        StaleError: what changed.
    """
    before, (raw, prepared) = read_ingredients(fold / INGREDIENTS_FILE), workspace.folders_of(dataset)
    if before is None or not before.cases:
        return
    changes = []
    if (raw / "dataset.json").is_file():
        entries = raw_entries(raw, read_prepared(raw / "dataset.json"))
        changes = changed_cases(before.cases, mark_cases(entries, before.cases, progress))
    if (prepared / "dataset.json").is_file() and (prepared / "gt_segmentations").is_dir():
        changes += _changed_references(prepared, read_prepared(prepared / "dataset.json"), before.cases)
    if changes:
        raise StaleError(
            f"{fold}: was trained before this changed: {'; '.join(changes)}. Preprocess and train again: `nnduet plan`, then "
            "`nnduet train`, with the old folder moved away"
        )
