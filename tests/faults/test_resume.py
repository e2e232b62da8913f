"""Rows 91 and 97 of the list of faults: what a resumed training may change, and a training too short for the class loss."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from planned import copy_of, edit_json, model_of, plan_pictures, plans_file
from small_dataset import edit_plans
from tiny import DATASET, DATASET_ID

from nnduet.errors import ResumeError
from nnduet.evaluation.stored_metrics import Metrics
from nnduet.model_store.folder_files import load_checkpoint
from nnduet.records import read_json
from nnduet.schema import LABELS_FILE, Workspace
from nnduet.training.checkpoints import FINAL, LATEST, PREVIOUS
from nnduet.training.run import TrainingSummary, train

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

RATE = 1e-3


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Workspace, TrainingSummary]]:
    """Two epochs, begun by --resume although nothing was there. Read only."""
    before = dict(os.environ)
    workspace = plan_pictures(tmp_path_factory.mktemp("resume"))
    edit_plans(plans_file(workspace), learning_rate=RATE)
    yield workspace, train_fold(workspace, resume=True)
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def workspace(finished: tuple[Workspace, TrainingSummary], tmp_path: Path) -> Workspace:
    """A copy with the finished fold."""
    copied = copy_of(finished[0], tmp_path)
    shutil.copytree(finished[0].results, copied.results)
    return copied


def train_fold(workspace: Workspace, **options: Any) -> TrainingSummary:
    return train(DATASET_ID, "2d", 0, workspace=workspace, device="cpu", **options)


def fold_of(workspace: Workspace) -> Path:
    return model_of(workspace) / "fold_0"


def log_of(workspace: Workspace) -> str:
    return "".join(path.read_text() for path in sorted(fold_of(workspace).glob("training_log*")))


def history_of(workspace: Workspace) -> list[dict[str, str]]:
    with (fold_of(workspace) / "progress.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def rate(epoch: int, epochs: int) -> float:
    """nnU-Net's polynomial schedule."""
    return float(RATE * (1 - epoch / epochs) ** 0.9)


def test_row_91_resume_with_nothing_there_begins_and_says_so(finished: tuple[Workspace, TrainingSummary]) -> None:
    workspace, summary = finished
    assert summary.epochs == 2 and len(history_of(workspace)) == 2
    (note,) = summary.notes
    assert "nothing to resume is there; the training begins at its first epoch" in note
    assert f"NOTE: {note}" in log_of(workspace)


def test_row_91_more_epochs_extend_a_finished_training_by_a_new_schedule(workspace: Workspace) -> None:
    before = load_checkpoint(fold_of(workspace) / FINAL)["network_weights"]
    (model_of(workspace) / "cross_validation").mkdir()
    (model_of(workspace) / "cross_validation" / "conformal.json").write_text("{}")
    summary = train_fold(workspace, resume=True, epochs=4)
    assert summary.epochs == 4
    assert "from epoch 3 on, num_epochs 2 -> 4" in summary.notes and "from epoch 3 on, num_epochs 2 -> 4" in log_of(workspace)
    rates = [float(row["learning_rate"]) for row in history_of(workspace)]
    assert rates == pytest.approx([rate(0, 2), rate(1, 2), rate(2, 4), rate(3, 4)], rel=1e-4)
    final = load_checkpoint(fold_of(workspace) / FINAL)
    assert final["current_epoch"] == 4
    assert final["init_args"]["plans"]["nnduet"]["training"]["num_epochs"] == 4
    assert any(not torch.equal(value, final["network_weights"][name]) for name, value in before.items())
    assert not (fold_of(workspace) / LATEST).exists() and not (fold_of(workspace) / PREVIOUS).exists()
    assert not (model_of(workspace) / "cross_validation" / "conformal.json").exists()
    assert summary.metrics == read_json(fold_of(workspace) / "final_metrics.json", Metrics)


def test_row_91_an_extension_that_was_interrupted_goes_on_to_its_own_number_of_epochs(workspace: Workspace) -> None:
    def stop(done: int, total: int, text: str) -> None:
        if text == "train epoch 4":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_fold(workspace, resume=True, epochs=4, progress=stop)
    assert not (fold_of(workspace) / FINAL).exists() and not (fold_of(workspace) / "final_metrics.json").exists()
    assert load_checkpoint(fold_of(workspace) / LATEST)["current_epoch"] == 3
    summary = train_fold(workspace, resume=True)
    assert summary.epochs == 4 and "goes on to the 4 epochs that it began with, not to the 2 of the plans" in summary.notes[0]
    assert [row["epoch"] for row in history_of(workspace)] == ["0", "1", "2", "3"]


def test_row_91_fewer_epochs_than_are_done_are_refused_by_name(workspace: Workspace) -> None:
    with pytest.raises(ResumeError, match="2 of 2 epochs are done; --epochs expected more, got 1"):
        train_fold(workspace, resume=True, epochs=1)


def test_row_91_changed_labels_are_refused_by_name(workspace: Workspace) -> None:
    table = workspace.raw / DATASET / LABELS_FILE
    table.write_text(table.read_text().replace("low", "high", 1))
    with pytest.raises(ResumeError, match=r"fold_0: began before this changed: the case labels changed; .*fit-head"):
        train_fold(workspace, resume=True)


def test_row_91_other_settings_are_refused_by_their_names_and_values(workspace: Workspace) -> None:
    edit_plans(plans_file(workspace), hidden=32, dropout=0.5)
    with pytest.raises(ResumeError, match=r"other settings: hidden 64 -> 32; dropout 0\.25 -> 0\.5"):
        train_fold(workspace, resume=True)


def test_row_91_other_networks_are_refused_by_what_differs(workspace: Workspace) -> None:
    edit_json(plans_file(workspace), lambda plans: plans["configurations"]["2d"].update(batch_size=2))
    with pytest.raises(ResumeError, match=r"other 'configurations' in its plans: batch_size \d+ -> 2"):
        train_fold(workspace, resume=True)


def test_row_91_another_learning_rate_which_divergence_asks_for_is_taken_up(workspace: Workspace) -> None:
    edit_plans(plans_file(workspace), learning_rate=RATE / 10)
    summary = train_fold(workspace, resume=True, epochs=3)
    assert f"from epoch 3 on, learning_rate {RATE} -> {RATE / 10}" in summary.notes
    assert float(history_of(workspace)[2]["learning_rate"]) == pytest.approx(rate(2, 3) / 10, rel=1e-4)


def test_row_97_a_training_without_class_loss_says_so_before_and_after(workspace: Workspace) -> None:
    shutil.rmtree(workspace.results)
    told: list[str] = []
    summary = train_fold(workspace, epochs=1, progress=lambda done, total, text: told.append(text))
    (note,) = summary.notes
    assert "the class loss has weight 0 in all 1 epochs" in note
    assert told.index(note) < told.index("train epoch 1")
    assert f"NOTE: {note}" in log_of(workspace)
    alarms = [a for a in summary.metrics.alarms or () if a.kind == "never_armed"]
    assert [alarm.task for alarm in alarms] == ["grade", "age"]
    assert all("the network's own heads learn nothing" in alarm.sentence for alarm in alarms)


def test_row_97_a_training_with_class_loss_says_nothing(finished: tuple[Workspace, TrainingSummary]) -> None:
    assert "never_armed" not in [alarm.kind for alarm in finished[1].metrics.alarms or ()]
