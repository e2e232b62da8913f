"""One CSV row per epoch, also across a resumed run."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from nnduet.schema import Task
from nnduet.training.history import HISTORY_FILE, History, SparsePlots
from nnduet.training.trainer_protocol import EpochLog

GRADE = Task("grade", "binary", ("a", "b"))


@pytest.fixture(autouse=True)
def no_tensorboard(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without tensorboard, whose import alone takes seconds."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)


def read(folder: Path) -> list[dict[str, str]]:
    with (folder / HISTORY_FILE).open(newline="") as handle:
        return list(csv.DictReader(handle))


def test_an_epoch_is_a_row(tmp_path: Path) -> None:
    History(tmp_path, (GRADE,)).append({"epoch": 0.0, "train_loss": -0.5, "task_grade_loss": 0.693147})
    (row,) = read(tmp_path)
    assert (row["epoch"], row["train_loss"], row["task_grade_loss"]) == ("0", "-0.5", "0.693147")


def test_what_was_not_measured_is_empty(tmp_path: Path) -> None:
    History(tmp_path, (GRADE,)).append({"epoch": 0.0, "task_grade_loss": float("nan")})
    (row,) = read(tmp_path)
    assert (row["task_grade_loss"], row["val_loss"]) == ("", "")


def test_a_repeated_epoch_replaces_itself_and_later_ones(tmp_path: Path) -> None:
    history = History(tmp_path, ())
    for epoch in range(4):
        history.append({"epoch": epoch, "train_loss": 1.0})
    History(tmp_path, ()).append({"epoch": 2, "train_loss": 2.0})
    assert [(row["epoch"], row["train_loss"]) for row in read(tmp_path)] == [("0", "1"), ("1", "1"), ("2", "2")]


def test_rows_of_other_tasks_are_not_mixed(tmp_path: Path) -> None:
    History(tmp_path, ()).append({"epoch": 0})
    assert History(tmp_path, (GRADE,)).rows() == []


class Logger:
    """What SparsePlots needs of nnU-Net's logger."""

    def __init__(self, epochs: int) -> None:
        self.epochs, self.drawn = epochs, 0

    def get_value(self, name: str, step: Any) -> list[float]:
        return [0.0] * self.epochs

    def plot_progress_png(self, folder: str) -> None:
        self.drawn += 1


@pytest.mark.parametrize(("epochs", "drawn"), [(1, 0), (9, 0), (10, 1), (20, 1)])
def test_the_plot_is_drawn_after_every_tenth_epoch(epochs: int, drawn: int) -> None:
    logger = Logger(epochs)
    SparsePlots(cast(EpochLog, logger)).plot_progress_png("")
    assert logger.drawn == drawn


def test_the_rest_of_the_logger_is_nnunets() -> None:
    plots: Any = SparsePlots(cast(EpochLog, Logger(3)))
    assert plots.get_value("x", step=None) == [0.0] * 3
