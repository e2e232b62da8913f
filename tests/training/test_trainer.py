"""What the trainer adds to nnU-Net's loop, on a real small dataset: alarms, sides, ablations, choice of the checkpoint."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from small_dataset import edit_plans
from tiny import DATASET_ID, tiny_workspace

from nnduet.errors import ModelError
from nnduet.inference.predictor import Predictor
from nnduet.model_store.folder_files import load_checkpoint
from nnduet.schema import Workspace
from nnduet.training.planning import plan
from nnduet.training.run import train
from nnduet.training.selection import select_checkpoint
from nnduet.training.trainer import nnUNetTrainerMultitask

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

NUM_CASES = 24
SHORT = {"num_epochs": 2, "iterations_per_epoch": 3, "validation_iterations": 1, "warmup_fraction": 0.0, "save_every": 1}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Workspace, Path]]:
    """A planned 2d dataset of three folds, and its plans file."""
    before = dict(os.environ)
    workspace = tiny_workspace(tmp_path_factory.mktemp("trainer"), 2, NUM_CASES, num_folds=3)
    planned = plan(DATASET_ID, "cpu", workspace=workspace, configurations=("2d",), num_processes=1)
    edit_plans(planned.plans_file, **SHORT)
    os.environ.update(workspace.environment() | {"nnUNet_n_proc_DA": "0"})
    yield workspace, Path(planned.plans_file)
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has its own model folder."""
    monkeypatch.setenv("nnUNet_results", str(tmp_path))


def trainer_of(prepared: tuple[Workspace, Path], *, fixed_axes: tuple[str, ...] = (), **training: Any) -> Any:
    """A trainer with other settings, ready for its first epoch; ``fixed_axes`` are those of the task grade."""
    plans = json.loads(prepared[1].read_text())
    plans["nnduet"]["training"].update(training)
    dataset_json = json.loads((prepared[1].parent / "dataset.json").read_text())
    dataset_json["classification"]["grade"]["fixed_axes"] = list(fixed_axes)
    trainer = nnUNetTrainerMultitask(plans, "2d", 0, dataset_json, torch.device("cpu"))
    trainer.on_train_start()
    return trainer


def save_plans(prepared: tuple[Workspace, Path], results: Path, **training: Any) -> Workspace:
    """Write plans "changed" with other settings; the workspace, with its own folder for results."""
    plans = json.loads(prepared[1].read_text()) | {"plans_name": "changed"}
    plans["nnduet"]["training"].update(training)
    (prepared[1].parent / "changed.json").write_text(json.dumps(plans))
    return replace(prepared[0], results=results)


def train_epoch(trainer: Any) -> dict[str, float]:
    """The train steps of one epoch; the terms that go into ``progress.csv``."""
    trainer.on_train_epoch_start()
    steps = range(trainer.num_iterations_per_epoch)
    trainer.on_train_epoch_end([trainer.train_step(next(trainer.dataloader_train)) for _ in steps])
    terms: dict[str, float] = trainer._terms
    return terms


def test_a_head_that_answers_one_class_raises_the_alarm_in_log_and_history(prepared: tuple[Workspace, Path]) -> None:
    trainer = trainer_of(prepared, head_learning_rate=0.0)
    output = trainer.network.heads.outputs["task_grade"]
    with torch.no_grad():
        output.bias.copy_(torch.tensor([0.0, 50.0]))
    assert train_epoch(trainer)["task_grade_collapsed"] == 1
    log = Path(trainer.log_file).read_text()
    assert f"task grade has collapsed in epoch 0: '{trainer.tasks[0].classes[1]}' was the only answer" in log
    assert "task_grade_collapsed" in trainer.history.columns
    assert "task_age_collapsed" not in trainer.history.columns


def test_an_inner_head_learns_nothing_from_its_own_part_of_the_patients(
    prepared: tuple[Workspace, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nnduet.training.joint_loss.inner_fold", lambda patient: 1)  # all patients are in part 1
    trainer = trainer_of(prepared, class_loss_weight=1.0)
    trainer._joint_loss(next(trainer.dataloader_train))[0].backward()
    reached = [
        any(float(p.grad.abs().sum()) > 0 for p in heads.parameters() if p.grad is not None)
        for heads in trainer.network.inner_heads
    ]
    assert reached == [True, False, True]


@pytest.mark.parametrize("quiet", [{"warmup_fraction": 0.5}, {"class_loss_weight": 0.0}])
def test_no_alarm_is_raised_while_the_class_loss_is_not_at_its_full_weight(
    prepared: tuple[Workspace, Path], quiet: dict[str, Any]
) -> None:
    assert str(train_epoch(trainer_of(prepared, **quiet))["task_grade_collapsed"]) == "nan"


@pytest.mark.parametrize(("fixed_axes", "expected"), [((), (0, 1)), (("x",), (0,)), (("x", "y"), ())])
def test_prediction_with_a_lateral_model_mirrors_only_the_other_axes(
    prepared: tuple[Workspace, Path], fixed_axes: tuple[str, ...], expected: tuple[int, ...]
) -> None:
    trainer = trainer_of(prepared, fixed_axes=fixed_axes)
    mirrors = [t for t in trainer.dataloader_train.data_loader.transforms.transforms if isinstance(t, MirrorTransform)]
    assert [tuple(mirror.allowed_axes) for mirror in mirrors] == ([expected] if expected else [])
    trainer.save_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
    predictor = Predictor.load(trainer.output_folder_base, device="cpu")
    assert predictor.mirror_axes == expected
    assert predictor.tasks[0].fixed_axes == fixed_axes


@pytest.mark.parametrize("ablation", [{"pooling": "average", "stages": [-1]}, {"head_optimizer": "shared"}])
def test_an_ablation_trains_its_heads_and_is_predicted_with(prepared: tuple[Workspace, Path], ablation: dict[str, Any]) -> None:
    trainer = trainer_of(prepared, **ablation)
    before = trainer.network.heads.outputs["task_grade"].weight.detach().clone()
    assert math.isfinite(train_epoch(trainer)["class_loss"])
    assert not torch.equal(before, trainer.network.heads.outputs["task_grade"].weight)
    trainer.save_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
    predictor = Predictor.load(trainer.output_folder_base, device="cpu")
    assert predictor.network.feature_blocks == trainer.network.feature_blocks
    prediction = predictor(np.zeros((1, 32, 32)), spacing_mm=(1, 1, 1))
    assert sum(prediction.tasks["grade"].probabilities.values()) == pytest.approx(1)


def test_all_ablations_together_are_validated_with_a_case_head_on_plain_averages(
    prepared: tuple[Workspace, Path], tmp_path: Path
) -> None:
    workspace = save_plans(prepared, tmp_path, pooling="average", stages=[-1], head_optimizer="shared")
    fold = Path(train(DATASET_ID, "2d", 0, workspace=workspace, plans_name="changed", device="cpu").model) / "fold_0"
    heads = load_checkpoint(fold / "checkpoint_final.pth")["network_weights"]["heads.norm.mean"]
    case_head = json.loads((fold / "case_head.json").read_text())["tasks"]["grade"]
    assert len(heads) == 64  # the bottleneck of the cpu preset for pictures of this size
    assert {model["features"] for model in case_head["choice"]["models"]} == {"stage 3"}


def test_withheld_training_cases_are_neither_drawn_nor_validated_on(prepared: tuple[Workspace, Path]) -> None:
    trainer = trainer_of(prepared, selection_share=0.1)
    training, validation = trainer.do_split()
    drawn = set(trainer.dataloader_train.data_loader.indices)
    assert len(trainer.withheld) == 8
    assert drawn | set(trainer.withheld) == set(training)
    assert drawn.isdisjoint(trainer.withheld)
    assert set(trainer.withheld).isdisjoint(validation)
    assert "8 of 16 training cases are withheld" in Path(trainer.log_file).read_text()


def test_nothing_is_withheld_by_default(prepared: tuple[Workspace, Path]) -> None:
    trainer = trainer_of(prepared)
    assert trainer.withheld == []
    assert select_checkpoint(trainer) == {}


def test_whole_case_scores_are_measured_and_training_goes_on(prepared: tuple[Workspace, Path]) -> None:
    trainer = trainer_of(prepared, selection_share=0.1, num_epochs=1)
    train_epoch(trainer)
    scores = select_checkpoint(trainer)
    assert all(0 <= scores[name] <= 1 for name in ("selection_dice", "selection_macro_f1"))
    assert (Path(trainer.output_folder) / "checkpoint_selected.pth").is_file()
    assert math.isfinite(train_epoch(trainer)["class_loss"])


def train_and_select(prepared: tuple[Workspace, Path], results: Path, stop_at: str | None = None) -> Path:
    """The fold of a training, interrupted and resumed where ``stop_at`` says so.

    Of four epochs the last two are scored; the scores are made up so that the earlier one wins. Every task is in alarm.
    """

    def stop(done: int, total: int, text: str) -> None:
        if text == stop_at:
            raise KeyboardInterrupt

    made_up = iter([1.0] * 8 + [0.0] * 8)
    workspace = save_plans(prepared, results, num_epochs=4, selection_share=0.1, selection_every=1)
    options: dict[str, Any] = {"workspace": workspace, "plans_name": "changed", "device": "cpu"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nnduet.training.selection.foreground_dice", lambda *_: next(made_up))
        patch.setattr("nnduet.training.selection.mean_macro_f1", lambda *_: math.nan)
        patch.setattr("nnduet.training.collapse.MIN_SAMPLES", 1)
        patch.setattr("nnduet.training.collapse.LOSS_SHARE", 0.0)
        if stop_at is not None:
            with pytest.raises(KeyboardInterrupt):
                train(DATASET_ID, "2d", 0, progress=stop, **options)
        done = train(DATASET_ID, "2d", 0, resume=stop_at is not None, **options)
    return Path(done.model) / "fold_0"


def test_the_selected_epoch_becomes_the_final_checkpoint(prepared: tuple[Workspace, Path], tmp_path: Path) -> None:
    fold = train_and_select(prepared, tmp_path)
    selected, final = (load_checkpoint(fold / f"checkpoint_{name}.pth") for name in ("selected", "final"))
    assert (selected["current_epoch"], final["current_epoch"]) == (3, 4)
    assert all(torch.equal(value, final["network_weights"][name]) for name, value in selected["network_weights"].items())
    assert "The weights of epoch 2 are kept as checkpoint_final.pth" in logs_of(fold)
    assert [row["selection_dice"] for row in history_of(fold)] == ["", "", "1", "0"]
    assert [row["selection_macro_f1"] for row in history_of(fold)] == ["", "", "", ""]


def test_an_interruption_does_not_change_what_is_selected(prepared: tuple[Workspace, Path], tmp_path: Path) -> None:
    whole = train_and_select(prepared, tmp_path / "whole")
    resumed = train_and_select(prepared, tmp_path / "resumed", stop_at="train epoch 4")
    for name in ("selected", "final"):
        first, second = (load_checkpoint(fold / f"checkpoint_{name}.pth") for fold in (whole, resumed))
        assert first["current_epoch"] == second["current_epoch"]
        assert all(torch.equal(value, second["network_weights"][key]) for key, value in first["network_weights"].items())
    assert [{**row, "seconds": ""} for row in history_of(resumed)] == [{**row, "seconds": ""} for row in history_of(whole)]


def test_a_task_that_collapsed_on_whole_cases_is_listed_with_the_metrics_and_logged(
    prepared: tuple[Workspace, Path], tmp_path: Path
) -> None:
    fold = train_and_select(prepared, tmp_path)
    alarms = json.loads((fold / "final_metrics.json").read_text())["alarms"]
    (alarm,) = [alarm for alarm in alarms if alarm["kind"] == "uninformed_loss"]
    assert (alarm["task"], alarm["num_cases"]) == ("grade", len(answers_of(fold)))
    assert f"WARNING: {alarm['sentence']}" in logs_of(fold)


def logs_of(fold: Path) -> str:
    return "".join(path.read_text() for path in sorted(fold.glob("training_log_*.txt")))


def history_of(fold: Path) -> list[dict[str, str]]:
    with (fold / "progress.csv").open(newline="") as handle:
        return list(csv.DictReader(handle))


def answers_of(fold: Path) -> list[dict[str, str]]:
    """Rows of the validation cases whose true grade is known; the last case has none."""
    with (fold / "validation" / "classification.csv").open(newline="") as handle:
        return [row for row in csv.DictReader(handle) if row["case_id"] != f"case_{NUM_CASES - 1:02d}"]


def test_row_67_stock_plans_of_a_reader_that_turns_images_are_not_trained(prepared: tuple[Workspace, Path]) -> None:
    plans = json.loads(prepared[1].read_text()) | {"image_reader_writer": "NibabelIOWithReorient"}
    dataset_json = json.loads((prepared[1].parent / "dataset.json").read_text())
    with pytest.raises(ModelError, match="which nnDuet reads alike, got 'NibabelIOWithReorient'"):
        nnUNetTrainerMultitask(plans, "2d", 0, dataset_json, torch.device("cpu"))
