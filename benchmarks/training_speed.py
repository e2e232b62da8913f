"""Time an iteration of stock nnU-Net's trainer against nnDuet's: same plans, same optimiser, same processor.

    python benchmarks/training_speed.py --configuration 3d_fullres     # or 2d; some minutes

Writes ``docs/results/training-speed-<configuration>.json``. Both train the network of the cpu preset on synthetic CT with
nnU-Net's own optimiser and augmentation, in fresh processes and in ABBA order; nnDuet learns the case labels too, and computes
in bfloat16 where the processor multiplies it. An iteration is the time of an epoch's training by its number of iterations, data
loading included, validation and logging not. Every round has other seeds; the segmentation losses at the end are compared by
Welch's interval.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from road import REPOSITORY, commit, machine
from scipy.stats import ttest_ind

from nnduet.console import progress_bar
from nnduet.datasets.conversion import convert
from nnduet.datasets.phantom import write_phantom
from nnduet.datasets.subtype_folders import read_subtype_folders
from nnduet.io.files import write_json_atomically
from nnduet.network.hardware import select_precision
from nnduet.network.network import PLANS_KEY
from nnduet.process import thread_variables
from nnduet.schema import Workspace
from nnduet.training.nnunet_environment import host_environment
from nnduet.training.planners import plans_name_of
from nnduet.training.planning import plan
from nnduet.training.settings import TrainingSettings
from nnduet.training.trainer import nnUNetTrainerMultitask

ITERATIONS, EPOCHS = 25, 8
SETTINGS = TrainingSettings(num_epochs=EPOCHS, iterations_per_epoch=ITERATIONS, validation_iterations=1)
"""nnU-Net's optimiser and rates; only the numbers of epochs and iterations differ from its defaults."""
TARGET = 2.0


class _Watched:
    """Seconds of the training part of each epoch."""

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()  # type: ignore[misc]
        self.started = time.perf_counter()

    def on_train_epoch_end(self, train_outputs: list[dict[str, Any]]) -> None:
        seconds.append(time.perf_counter() - self.started)
        losses.append(float(np.mean([o.get("segmentation_loss", o["loss"]) for o in train_outputs])))
        super().on_train_epoch_end(train_outputs)  # type: ignore[misc]


seconds: list[float] = []
losses: list[float] = []


class Stock(_Watched, nnUNetTrainer):  # type: ignore[misc]
    """nnU-Net's trainer with fewer iterations."""

    def initialize(self) -> None:
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = EPOCHS, ITERATIONS, 1
        super().initialize()


class Own(_Watched, nnUNetTrainerMultitask):
    """nnDuet's trainer."""


def train(folder: Path, arm: str, configuration: str, seed: int, result: Path) -> None:
    """Train once, in this process; without the validation of whole cases. nnU-Net's trainer has no seed."""
    workspace = Workspace.from_environment({}, folder / "nnduet_data")
    prepared = workspace.preprocessed / workspace.dataset_name(1)
    plans = json.loads((prepared / f"{plans_name_of('cpu')}.json").read_text())
    plans |= {PLANS_KEY: {"training": replace(SETTINGS, seed=seed).to_json()}, "continue_training": False}
    variables = workspace.environment() | {"nnUNet_results": str(folder / arm)}
    if arm == "nnDuet":
        variables["nnUNet_n_proc_DA"] = "0"
    with host_environment(variables):
        kind = Own if arm == "nnDuet" else Stock
        trainer = kind(plans, configuration, 0, json.loads((prepared / "dataset.json").read_text()), torch.device("cpu"))
        trainer.run_training()
    write_json_atomically(result, {"seconds": seconds, "losses": losses})


def main() -> None:
    """Prepare, train in turns, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=REPOSITORY / "runs")
    parser.add_argument("--configuration", choices=("2d", "3d_fullres"), default="3d_fullres")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--arm", choices=("nnU-Net", "nnDuet"), help="train once and write --result; used by the above")
    parser.add_argument("--seed", type=int, default=SETTINGS.seed)
    parser.add_argument("--result", type=Path)
    arguments = parser.parse_args()
    folder = (arguments.runs / "training-speed").absolute()
    if arguments.arm:
        train(folder, arguments.arm, arguments.configuration, arguments.seed, arguments.result)
        return
    workspace, data = Workspace.from_environment({}, folder / "nnduet_data"), folder / "images"
    if not data.is_dir():
        write_phantom(data, num_train=24, num_validation=6, seed=0, size=(20, 48, 56))
        convert(read_subtype_folders(data), workspace=workspace, dataset_id=1, name="Phantom")
        plan(1, "cpu", workspace=workspace)
    arms, runs = ["nnU-Net", "nnDuet"], {"nnU-Net": [], "nnDuet": []}  # type: ignore[var-annotated]
    with progress_bar("measure") as progress:
        for turn in range(arguments.rounds):
            for place, arm in enumerate(arms if turn % 2 == 0 else arms[::-1]):
                command = [sys.executable, __file__, "--runs", str(arguments.runs), "--arm", arm]
                command += [
                    "--configuration",
                    arguments.configuration,
                    "--seed",
                    str(turn),
                    "--result",
                    str(folder / "result.json"),
                ]
                own = thread_variables(os.environ) if arm == "nnDuet" else {}  # as its command sets them
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | own)
                runs[arm].append(json.loads((folder / "result.json").read_text()))
                progress(2 * turn + place + 1, 2 * arguments.rounds, arm)
    step = {arm: [float(np.median(run["seconds"][1:])) / ITERATIONS for run in of] for arm, of in runs.items()}
    final = {arm: [float(np.mean(run["losses"][-2:])) for run in of] for arm, of in runs.items()}
    difference = ttest_ind(final["nnDuet"], final["nnU-Net"], equal_var=False).confidence_interval(0.95)
    ratio = float(np.exp(np.mean(np.log(np.array(step["nnU-Net"]) / np.array(step["nnDuet"])))))
    plans = json.loads((workspace.preprocessed / workspace.dataset_name(1) / f"{plans_name_of('cpu')}.json").read_text())
    write_json_atomically(
        REPOSITORY / "docs" / "results" / f"training-speed-{arguments.configuration}.json",
        {
            "configuration": arguments.configuration,
            "patch_size": plans["configurations"][arguments.configuration]["patch_size"],
            "batch_size": plans["configurations"][arguments.configuration]["batch_size"],
            "seconds_per_iteration": step,
            "precision": select_precision("auto", torch.device("cpu")),
            "times_faster": ratio,
            "target": {"times_faster": TARGET, "met": ratio >= TARGET},
            "losses": {arm: [run["losses"] for run in of] for arm, of in runs.items()},
            "mean_loss_of_last_two_epochs": final,
            "loss_of_nnduet_less_that_of_nnunet": {"ci95": [float(difference.low), float(difference.high)]},
            "machine": {**machine(), "torch_threads": torch.get_num_threads()},
            "commit": commit(),
        },
    )
    sys.stdout.write(
        f"{arguments.configuration}: {step}, {ratio:.2f} times faster (target {TARGET}); "
        f"loss at the end {final}, difference {difference}\n"
    )


if __name__ == "__main__":
    main()
