"""What cross-validation refuses before anything is trained, and which folds it trains; the training itself is stood in for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import DATASET, DATASET_ID, tiny_dataset_json, tiny_plans

from nnduet.errors import DatasetError, NNDuetError, OutputExistsError, SettingsError
from nnduet.io.images import Geometry, write_segmentation
from nnduet.schema import Workspace
from nnduet.training import cross_validation
from nnduet.training.cross_validation import CrossValidationSummary, cross_validate

SPLITS = [{"train": ["b", "c"], "val": ["a"]}, {"train": ["a", "c"], "val": ["b"]}, {"train": ["a"], "val": ["b", "c"]}]


def write_mask(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_segmentation(path, np.ones((1, 8, 8), np.uint8), Geometry((1, 8, 8), (1.0, 1.0, 1.0)))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A prepared 2d dataset without tasks; folds 1 and 2 both validate b."""
    workspace = Workspace(tmp_path / "raw", tmp_path / "preprocessed", tmp_path / "results")
    folder = workspace.preprocessed / DATASET
    (workspace.raw / DATASET).mkdir(parents=True)
    for case_id in "abc":
        write_mask(folder / "gt_segmentations" / f"{case_id}.png")
    dataset_json = {key: value for key, value in tiny_dataset_json(2).items() if key != "classification"}
    for name, content in {"tinyPlans": tiny_plans(2), "dataset": dataset_json, "splits_final": SPLITS}.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return workspace


class Trainings:
    """Stands in for ``train``: notes what it is asked for, and leaves a validated fold."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.calls: list[tuple[int, bool]] = []

    def __call__(self, dataset_id: int, configuration: str, fold: int, **options: Any) -> None:
        assert (dataset_id, configuration, options["plans_name"]) == (DATASET_ID, "2d", "tinyPlans")
        self.calls.append((fold, options["resume"]))
        if options["progress"]:
            options["progress"](1, 2, "train epoch 1")
        for case_id in SPLITS[fold]["val"]:
            write_mask(fold_folder(self.workspace, fold) / "validation" / f"{case_id}.png")
        (fold_folder(self.workspace, fold) / "final_metrics.json").write_text("{}")
        (fold_folder(self.workspace, fold) / "checkpoint_final.pth").touch()


@pytest.fixture
def trainings(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trainings:
    stand_in = Trainings(workspace)
    monkeypatch.setattr(cross_validation, "train", stand_in)
    return stand_in


def fold_folder(workspace: Workspace, fold: int) -> Path:
    folder = workspace.results / DATASET / "nnUNetTrainerMultitask__tinyPlans__2d" / f"fold_{fold}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def run(workspace: Workspace, **options: Any) -> CrossValidationSummary:
    return cross_validate(DATASET_ID, "2d", workspace=workspace, **{"folds": [0, 2], "device": "cpu", **options})


def refuse(workspace: Workspace, trainings: Trainings, error: type[NNDuetError], match: str, **options: Any) -> None:
    with pytest.raises(error, match=match):
        run(workspace, **options)
    assert trainings.calls == []


def test_the_folds_are_trained_one_after_the_other_and_measured_together(workspace: Workspace, trainings: Trainings) -> None:
    told: list[str] = []
    summary = run(workspace, progress=lambda done, total, text: told.append(f"{done} of {total} {text}"))
    assert trainings.calls == [(0, False), (2, False)]
    assert told == ["1 of 2 fold 0: train epoch 1", "1 of 2 fold 2: train epoch 1"]
    assert (summary.folds, summary.metrics.num_cases) == ([0, 2], 3)
    assert summary.to_json()["metrics"] == json.loads(Path(summary.metrics_file).read_text())
    assert Path(summary.model) == fold_folder(workspace, 0).parent


def test_cases_that_no_fold_validates_are_listed(workspace: Workspace, trainings: Trainings) -> None:
    part = run(workspace, folds=[0, 1]).metrics.cross_validation
    assert part and part.not_validated == ("c",)


def test_all_folds_are_taken_where_none_is_named(workspace: Workspace, trainings: Trainings) -> None:
    (workspace.preprocessed / DATASET / "splits_final.json").write_text(json.dumps(SPLITS[:2]))
    assert run(workspace, folds=None).folds == [0, 1]


def test_overlapping_validation_parts_are_refused_by_name(workspace: Workspace, trainings: Trainings) -> None:
    refuse(workspace, trainings, DatasetError, r"parts of folds \[1, 2\] share 1 cases: b; .* --folds", folds=None)


@pytest.mark.parametrize("folds", [[], [0, 0], [3], [-1], ["all"]])
def test_impossible_folds_are_refused(workspace: Workspace, trainings: Trainings, folds: list[Any]) -> None:
    refuse(workspace, trainings, SettingsError, "expected different ones of 0 to 2", folds=folds)


def test_a_dataset_without_folds_is_refused(workspace: Workspace, trainings: Trainings) -> None:
    (workspace.preprocessed / DATASET / "splits_final.json").unlink()
    refuse(workspace, trainings, DatasetError, r"splits_final\.json: expected the folds, found none")


def test_a_start_by_torchrun_is_refused(workspace: Workspace, trainings: Trainings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_torchelastic_launched", lambda: True)
    refuse(workspace, trainings, SettingsError, "one by one")


def test_a_task_that_is_called_like_the_column_of_folds_is_refused(workspace: Workspace, trainings: Trainings) -> None:
    tasks = {"classification": {"fold": {"type": "regression"}}}
    (workspace.preprocessed / DATASET / "dataset.json").write_text(json.dumps({**tiny_dataset_json(2), **tasks}))
    (workspace.preprocessed / DATASET / "classification_labels.csv").write_text("case_id,fold\n")
    refuse(
        workspace,
        trainings,
        DatasetError,
        "nnDuet's own column and task 'fold': both would be column 'fold' of classification.csv",
    )


@pytest.mark.parametrize("name", ["checkpoint_latest.pth", "checkpoint_final.pth", "final_metrics.json"])
def test_a_training_that_is_there_is_not_overwritten(workspace: Workspace, trainings: Trainings, name: str) -> None:
    (fold_folder(workspace, 2) / name).touch()
    refuse(workspace, trainings, OutputExistsError, r"already in \S+fold_2; add --resume")


def test_an_interrupted_fold_is_resumed_and_the_others_are_begun(workspace: Workspace, trainings: Trainings) -> None:
    (fold_folder(workspace, 0) / "checkpoint_latest.pth").touch()
    run(workspace, resume=True)
    assert trainings.calls == [(0, True), (2, False)]


def test_of_a_finished_fold_whose_weights_are_gone_the_answers_are_taken(workspace: Workspace, trainings: Trainings) -> None:
    run(workspace)
    (fold_folder(workspace, 0) / "checkpoint_final.pth").unlink()
    run(workspace, resume=True)
    assert trainings.calls[2:] == [(2, True)]


@pytest.mark.parametrize(("finished", "left"), [(True, ["conformal.json", "metrics.json"]), (False, [])])
def test_results_go_when_a_fold_is_trained_anew(
    workspace: Workspace, trainings: Trainings, monkeypatch: pytest.MonkeyPatch, finished: bool, left: list[str]
) -> None:
    results = Path(run(workspace).metrics_file).parent
    (results / "conformal.json").write_text("{}")
    if not finished:
        (fold_folder(workspace, 0) / "final_metrics.json").unlink()

    def fail(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cross_validation, "train", fail)
    with pytest.raises(KeyboardInterrupt):
        run(workspace, resume=True)
    assert [path.name for path in sorted(results.glob("*.json"))] == left
