"""What ``convert`` and ``plan`` left for a training: plans, configuration, folds, and where the model goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nnduet.datasets.folds import Folds, parse_folds
from nnduet.errors import DatasetError, SettingsError
from nnduet.names import check_name
from nnduet.nnunet_types import DatasetJson, Plans
from nnduet.records import read_json
from nnduet.schema import SPLITS_FILE, Workspace
from nnduet.training.plan_checks import check_configuration

__all__ = ["check_prepared", "find_plans", "model_folder", "read_plans", "read_prepared", "read_splits"]

_TRAINER = "nnUNetTrainerMultitask"


def find_plans(workspace: Workspace, dataset: str, plans_name: str | None) -> str:
    """The plans identifier to train with: the given one, or the only one that is there.

    Raises:
        DatasetError: no plans, or several and none was named, or a damaged file among them.
    """
    folder = workspace.preprocessed / dataset
    visible = folder.glob("[!.]*.json")  # a file that begins with a point is one that is being written
    found = sorted(path.stem for path in visible if _is_plans(read_json(path)))
    if plans_name is not None:
        if plans_name not in found:
            raise DatasetError(f"{folder}: expected plans {plans_name}.json, found {found}; run `nnduet plan` first")
        return plans_name
    if len(found) != 1:
        raise DatasetError(f"{folder}: expected one plans file, found {found}; run `nnduet plan` or name one with --plans")
    return found[0]


def _is_plans(content: object) -> bool:
    return isinstance(content, dict) and "configurations" in content


def read_plans(workspace: Workspace, dataset: str, plans_name: str) -> Plans:
    """The plans of that name.

    Raises:
        DatasetError: they call themselves otherwise, or are those of another dataset: their model would mix with another's.
    """
    path = workspace.preprocessed / dataset / f"{plans_name}.json"
    plans: Plans = read_prepared(path)
    for key, expected in (("plans_name", plans_name), ("dataset_name", dataset)):
        if plans.get(key) != expected:
            raise DatasetError(f"{path}: expected {key} {expected!r}, as file and folder are called, got {plans.get(key)!r}")
    if not isinstance(plans.get("configurations"), dict):
        raise DatasetError(f"{path}: expected an object under 'configurations'")
    check_name(plans_name, "plans", DatasetError)
    return plans


def read_prepared(path: Path) -> DatasetJson:
    """A JSON object that ``plan`` wrote.

    Raises:
        DatasetError: it is missing or damaged.
    """
    if not path.exists():
        raise DatasetError(f"{path}: expected a file, found none; run `nnduet plan` first")
    content: DatasetJson = read_json(path, dict[str, Any])
    return content


def read_splits(path: Path) -> Folds:
    """The folds of a dataset.

    Raises:
        DatasetError: there are none, or the file is damaged.
    """
    if not path.is_file():
        raise DatasetError(f"{path}: expected the folds, found none; run `nnduet convert` again")
    return parse_folds(read_json(path), str(path))


def check_prepared(folder: Path, plans: Plans, configuration: str, fold: int | str) -> Path:
    """The folder of preprocessed cases of a configuration that can be trained, with the fold.

    Args:
        folder: the dataset's preprocessed folder.

    Raises:
        SettingsError: a configuration that is not there or cannot be trained, or an impossible fold.
        DatasetError: no preprocessed cases, or no folds.
    """
    identifier = check_configuration(plans, configuration)["data_identifier"]
    cases = folder / check_name(str(identifier), "data_identifier", DatasetError)
    if not cases.is_dir():
        raise DatasetError(f"{cases}: expected preprocessed cases, found no folder; run `nnduet plan` for {configuration}")
    if fold != "all":
        splits = read_splits(folder / SPLITS_FILE)
        if not isinstance(fold, int) or not 0 <= fold < len(splits):
            raise SettingsError(f"fold: expected 0 to {len(splits) - 1} or 'all', got {fold!r}")
    return cases


def model_folder(workspace: Workspace, dataset: str, plans_name: str, configuration: str) -> Path:
    """Where nnU-Net's trainer puts the folds: named after trainer, plans and configuration."""
    return workspace.results / dataset / f"{_TRAINER}__{plans_name}__{check_name(configuration, 'configuration')}"
