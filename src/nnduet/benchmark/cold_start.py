"""Whole commands with one case, from the start of the process to its end: stock nnU-Net against nnDuet."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from nnduet.benchmark.children import child_environment, module_command
from nnduet.benchmark.comparison import ColdStart
from nnduet.benchmark.timed_arm import Arm
from nnduet.io.case_files import find_cases
from nnduet.io.claimed_folders import claim_folder, remove_claimed
from nnduet.model_store.folder_files import available_folds
from nnduet.model_store.model_files import FINAL_CHECKPOINT
from nnduet.model_store.plans import check_dataset
from nnduet.records import read_json

__all__ = ["OWN", "STOCK", "cold_start"]

STOCK, OWN = "nnU-Net", "nnDuet"
_STOCK_COMMAND = Path(sys.executable).with_name("nnUNetv2_predict_from_modelfolder")
_PLUGIN = Path(__file__).resolve().parents[1] / "_nnunet_plugin"


def cold_start(model: Path, images: Path, output: Path, rounds: int, own: Arm, maker: str) -> ColdStart:
    """Predict the first case by both programs, round after round.

    Args:
        output: a folder of ``maker``; ``one_case`` in it is made anew and holds what the commands read and write.

    Raises:
        OutputExistsError: ``one_case`` is not of ``maker``.
    """
    if not _STOCK_COMMAND.is_file():
        return ColdStart(reason=f"nnU-Net's command {_STOCK_COMMAND.name} is not installed beside this Python")
    place = output / "one_case"
    remove_claimed(place, maker)
    claim_folder(place, maker)
    _copy_first_case(model, images, place / "images")
    seconds: dict[str, list[float]] = {STOCK: [], OWN: []}
    for turn in range(rounds):
        for name, command in _turned(_commands(model, place, own), turn):
            started = time.perf_counter()
            environment = child_environment({"nnUNet_extTrainer": str(_PLUGIN)})
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
            if done.returncode:
                return ColdStart(reason=f"the command of {name} failed: {_last_line(done.stderr)}")
            seconds[name].append(round(time.perf_counter() - started, 3))
    return ColdStart(seconds, float(np.median(np.array(seconds[STOCK]) / np.array(seconds[OWN]))))


def _copy_first_case(model: Path, images: Path, target: Path) -> None:
    place = model / "dataset.json"
    ending = str(check_dataset(read_json(place), str(place))["file_ending"])
    target.mkdir()
    for path in next(iter(find_cases(images, ending=ending).cases.values())):
        shutil.copy(path, target / path.name)


def _commands(model: Path, place: Path, own: Arm) -> dict[str, list[str]]:
    folds = own.folds or available_folds(model, FINAL_CHECKPOINT)
    places = {
        name: ["-i", str(place / "images"), "-o", str(place / name), "-m", str(model.absolute())] for name in (STOCK, OWN)
    }
    device = ["--device", own.device, "--runtime", own.runtime, "--precision", own.precision]
    return {
        STOCK: [str(_STOCK_COMMAND), *places[STOCK], "-device", own.device, "-f", *folds],
        OWN: module_command("nnduet.cli", "predict", *places[OWN], *device, "--folds", ",".join(folds)),
    }


def _turned(commands: Mapping[str, Sequence[str]], turn: int) -> list[tuple[str, Sequence[str]]]:
    """In this order, or every second time backwards."""
    return list(commands.items())[:: 1 if turn % 2 == 0 else -1]


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][-300:] if lines else "it said nothing"
