"""What training refuses, before anything is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import DATASET, DATASET_ID, tiny_dataset_json, tiny_plans

from nnduet.errors import DatasetError, NNDuetError, OutputExistsError, ResumeError, SettingsError
from nnduet.schema import Workspace
from nnduet.training.prepared import find_plans
from nnduet.training.run import train
from nnduet.training.settings import TrainingSettings
from nnduet.training.trainer import nnUNetTrainerMultitask


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A prepared 2d dataset, but for the cases themselves."""
    workspace = Workspace(tmp_path / "raw", tmp_path / "preprocessed", tmp_path / "results")
    folder = workspace.preprocessed / DATASET
    (folder / "tiny").mkdir(parents=True)
    (workspace.raw / DATASET).mkdir(parents=True)
    plans = {**tiny_plans(2), "nnduet": {"training": {"num_epochs": 2}}}
    splits = [{"train": ["a"], "val": ["b"]}, {"train": ["b"], "val": ["a"]}]
    for name, content in {"tinyPlans": plans, "dataset": tiny_dataset_json(2), "splits_final": splits}.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return workspace


def refuse(workspace: Workspace, error: type[NNDuetError], match: str, **changes: Any) -> None:
    options: dict[str, Any] = {"configuration": "2d", "fold": 0, "device": "cpu", **changes}
    with pytest.raises(error, match=match):
        train(DATASET_ID, workspace=workspace, **options)


def fold_folder(workspace: Workspace) -> Path:
    folder = workspace.results / DATASET / "nnUNetTrainerMultitask__tinyPlans__2d" / "fold_0"
    folder.mkdir(parents=True)
    return folder


def test_a_dataset_that_is_not_there_is_refused(tmp_path: Path) -> None:
    refuse(Workspace(tmp_path, tmp_path, tmp_path), DatasetError, "dataset 1")


def test_the_only_plans_are_found(workspace: Workspace) -> None:
    assert find_plans(workspace, DATASET, None) == "tinyPlans"


def test_plans_that_another_training_is_writing_are_not_read(workspace: Workspace) -> None:
    (workspace.preprocessed / DATASET / ".nnduet-tmp-0123456789ab.json").write_text('{"configurations": {"2d')
    assert find_plans(workspace, DATASET, None) == "tinyPlans"


def test_a_dataset_without_plans_is_refused(workspace: Workspace) -> None:
    (workspace.preprocessed / DATASET / "tinyPlans.json").unlink()
    refuse(workspace, DatasetError, r"expected one plans file, found \[\]; run `nnduet plan`")


def test_two_plans_must_be_told_apart(workspace: Workspace) -> None:
    folder = workspace.preprocessed / DATASET
    (folder / "otherPlans.json").write_text((folder / "tinyPlans.json").read_text())
    refuse(workspace, DatasetError, "--plans")
    assert find_plans(workspace, DATASET, "otherPlans") == "otherPlans"


def test_plans_of_another_name_are_refused(workspace: Workspace) -> None:
    refuse(workspace, DatasetError, r"expected plans nnDuetCpuPlans\.json", plans_name="nnDuetCpuPlans")


def test_an_unknown_configuration_is_refused(workspace: Workspace) -> None:
    refuse(workspace, SettingsError, r"configuration: expected one of \['2d'\], got '3d_fullres'", configuration="3d_fullres")


def test_a_configuration_without_preprocessed_cases_is_refused(workspace: Workspace) -> None:
    (workspace.preprocessed / DATASET / "tiny").rmdir()
    refuse(workspace, DatasetError, "expected preprocessed cases")


@pytest.mark.parametrize("fold", [2, -1, "first"])
def test_a_fold_that_is_not_in_the_splits_is_refused(workspace: Workspace, fold: int | str) -> None:
    refuse(workspace, SettingsError, "fold: expected 0 to 1 or 'all'", fold=fold)


def test_a_dataset_without_folds_is_refused(workspace: Workspace) -> None:
    (workspace.preprocessed / DATASET / "splits_final.json").unlink()
    refuse(workspace, DatasetError, "splits_final.json")


def test_zero_epochs_are_refused(workspace: Workspace) -> None:
    refuse(workspace, SettingsError, "num_epochs", epochs=0)


def test_a_training_that_is_there_is_not_overwritten(workspace: Workspace) -> None:
    checkpoint = fold_folder(workspace) / "checkpoint_latest.pth"
    checkpoint.write_bytes(b"kept")
    refuse(workspace, OutputExistsError, "add --resume")
    assert checkpoint.read_bytes() == b"kept"


def test_row_112_what_helps_beside_a_training_that_is_there_is_what_train_can_do(workspace: Workspace) -> None:
    folder = fold_folder(workspace)
    (folder / "checkpoint_latest.pth").write_bytes(b"kept")
    with pytest.raises(OutputExistsError) as caught:
        train(DATASET_ID, "2d", 0, workspace=workspace)
    assert caught.value.remedy == f"add --resume to go on, or move {folder} away"


def test_a_checkpoint_of_other_plans_is_not_resumed(workspace: Workspace) -> None:
    plans = {**tiny_plans(2), "configurations": {}}
    torch.save(
        {"network_weights": {}, "init_args": {"plans": plans, "configuration": "2d"}},
        fold_folder(workspace) / "checkpoint_latest.pth",
    )
    refuse(workspace, ResumeError, "other 'configurations'", resume=True)


@pytest.mark.parametrize(("hidden", "refused"), [(64, False), (32, True)])
def test_a_checkpoint_from_before_a_setting_existed_is_resumed_with_the_default(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, hidden: int, refused: bool
) -> None:
    settings = {**TrainingSettings(num_epochs=2, hidden=hidden).to_json()}
    for newer in ("stages", "pooling", "head_optimizer"):
        del settings[newer]
    ours = {"training": settings, "tasks": tiny_dataset_json(2)["classification"], "head": {"hidden": 64}, "overlapping": False}
    plans = {**tiny_plans(2), "nnduet": ours}
    torch.save(
        {"network_weights": {}, "init_args": {"plans": plans, "configuration": "2d"}},
        fold_folder(workspace) / "checkpoint_latest.pth",
    )

    class LoadedError(NNDuetError):
        """Raised in place of loading the weights."""

    def load_checkpoint(trainer: Any, path: str) -> None:
        raise LoadedError(path)

    monkeypatch.setattr(nnUNetTrainerMultitask, "load_checkpoint", load_checkpoint)
    refuse(workspace, ResumeError if refused else LoadedError, "hidden 32 -> 64" if refused else "latest", resume=True)
