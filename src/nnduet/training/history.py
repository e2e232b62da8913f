"""Per-epoch terms and metrics of a fold: a CSV always, TensorBoard where it is installed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnduet.cells import format_number
from nnduet.io.csv_text import records_text
from nnduet.io.delimited import read_records
from nnduet.io.files import write_text_atomically
from nnduet.schema import Task
from nnduet.training.trainer_protocol import EpochLog, Trainer

__all__ = ["HISTORY_FILE", "SELECTION_COLUMNS", "History", "SparsePlots", "epoch_row", "mean_of_finite"]

HISTORY_FILE = "progress.csv"

SELECTION_COLUMNS = ("selection_dice", "selection_macro_f1")
"""Whole-case scores of the withheld cases; NaN in epochs without an evaluation."""


class History:
    """Appends one row per epoch; a resumed run first drops the rows of epochs that it will repeat."""

    def __init__(self, folder: Path, tasks: tuple[Task, ...]) -> None:
        self.path = folder / HISTORY_FILE
        self.columns = [
            *("epoch", "train_loss", "val_loss", "pseudo_dice", "learning_rate", "class_weight", "seconds"),
            *("segmentation_loss", "class_loss", *(f"task_{task.name}_loss" for task in tasks)),
            *(f"task_{task.name}_collapsed" for task in tasks if task.is_classification),
            *SELECTION_COLUMNS,
        ]
        self._writer: Any = None

    def append(self, row: dict[str, float]) -> None:
        """Add the row of one epoch, replacing rows of this epoch and later ones."""
        rows = [r for r in self.rows() if float(r["epoch"]) < row["epoch"]]
        new = {name: format_number(row.get(name)) for name in self.columns}
        write_text_atomically(self.path, records_text([*rows, new], self.columns))
        self._tensorboard(row)

    def rows(self) -> list[dict[str, str]]:
        """The rows written so far, as text; empty where there are none or the columns changed."""
        if not self.path.is_file():
            return []
        header, rows = read_records(self.path)
        return rows if header == self.columns else []

    def _tensorboard(self, row: dict[str, float]) -> None:
        if self._writer is None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                self._writer = False
                return
            self._writer = SummaryWriter(str(self.path.parent / "tensorboard"))
        if self._writer:
            for name, value in row.items():
                if name != "epoch" and value == value:
                    self._writer.add_scalar(name, value, int(row["epoch"]))
            self._writer.flush()


def epoch_row(trainer: Trainer, epoch: int) -> dict[str, float]:
    """What nnU-Net's log and the schedule say of the epoch that has just ended."""
    value = trainer.logger.get_value
    return {
        "epoch": float(epoch),
        "train_loss": float(value("train_losses", step=-1)),
        "val_loss": float(value("val_losses", step=-1)),
        "pseudo_dice": float(value("mean_fg_dice", step=-1)),
        "learning_rate": float(trainer.optimizer.param_groups[0]["lr"]),
        "class_weight": trainer.settings.class_weight_at(epoch),
        "seconds": float(value("epoch_end_timestamps", step=-1) - value("epoch_start_timestamps", step=-1)),
    }


def mean_of_finite(values: Sequence[float | np.float32]) -> float:
    """The mean over the steps of an epoch that were no NaN; NaN where all were."""
    finite = [float(v) for v in values if np.isfinite(v)]
    return float(np.mean(finite)) if finite else float("nan")


class SparsePlots:
    """nnU-Net's logger with its plot drawn only every tenth epoch: it costs 2.7 CPU-seconds."""

    EVERY = 10

    def __init__(self, logger: EpochLog) -> None:
        self._logger = logger

    def __getattr__(self, name: str) -> object:
        return getattr(self._logger, name)

    def plot_progress_png(self, output_folder: str) -> None:
        """Draw ``progress.png`` after epochs 10, 20, ..."""
        if len(self._logger.get_value("epoch_end_timestamps", step=None)) % self.EVERY == 0:
            self._logger.plot_progress_png(output_folder)
