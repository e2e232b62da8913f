"""nnU-Net's own commands train and predict with nnDuet's trainer by ``nnUNet_extTrainer``; nothing installed is changed."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
import torch
from small_dataset import PERMUTED, edit_plans, workspace_in, write_volumes

from nnduet.datasets.conversion import convert
from nnduet.datasets.layouts import read_folder
from nnduet.errors import SettingsError
from nnduet.inference.predictor import Predictor
from nnduet.model_store.folder_files import load_checkpoint
from nnduet.network.heads import JointNetwork
from nnduet.schema import Workspace
from nnduet.training.planners import plans_name_of
from nnduet.training.planning import plan
from nnduet.training.settings import TrainingSettings
from nnduet.training.trainer import nnUNetTrainerMultitask

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

BIN = Path(sys.executable).parent
NAMES = ("nnUNetTrainerMultitask", "nnUNetTrainer_multitask")
PLANS = plans_name_of("resenc-m")
SMALL = {"patch_size": [8, 16, 16], "batch_size": 2}
SMALL_NETWORK = {  # with two stages nnU-Net's deep supervision divides 0 by 0
    "n_stages": 3,
    "features_per_stage": [4, 8, 8],
    "kernel_sizes": [[3, 3, 3]] * 3,
    "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]],
    "n_blocks_per_stage": [1, 1, 1],
    "n_conv_per_stage_decoder": [1, 1],
}


@dataclass(frozen=True)
class Stock:
    """The workspace, the plans, and what ``nnUNetv2_train`` printed under each name of the trainer."""

    workspace: Workspace
    dataset: str
    plans: dict[str, Any]
    variables: Mapping[str, str]
    printed: Mapping[str, str]

    def model(self, name: str) -> Path:
        return self.workspace.results / self.dataset / f"{name}__{PLANS}__3d_fullres"


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory, torchvision_environment: dict[str, str]) -> Iterator[Stock]:
    folder = tmp_path_factory.mktemp("stock")
    before = dict(os.environ)
    workspace = workspace_in(folder / "workspace")
    source = read_folder(write_volumes(folder / "cases"), task_specs=["grade:binary", "age:regression"])
    convert(source, workspace=workspace, dataset_id=1, name="Small", num_folds=3)
    planned = plan(1, "resenc-m", workspace=workspace, configurations=("3d_fullres",), num_processes=1)
    plans = _shrink(Path(planned.plans_file))
    os.environ.clear()
    os.environ.update(before)
    variables = {**torchvision_environment, **workspace.environment(), **_variables()}
    arguments = ("1", "3d_fullres", "0", "-p", PLANS, "-device", "cpu", "-tr")
    printed = _run_together({name: ("nnUNetv2_train", *arguments, name) for name in NAMES}, variables)
    yield Stock(workspace, planned.dataset, plans, variables, printed)


def test_both_names_train_and_measure_the_same_model(stock: Stock) -> None:
    checkpoints = [load_checkpoint(stock.model(name) / "fold_0" / "checkpoint_final.pth") for name in NAMES]
    assert [checkpoint["trainer_name"] for checkpoint in checkpoints] == list(NAMES)
    first, second = (checkpoint["network_weights"] for checkpoint in checkpoints)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []

    metrics = [json.loads((stock.model(name) / "fold_0" / "final_metrics.json").read_text()) for name in NAMES]
    assert metrics[0] == metrics[1]
    assert metrics[0]["num_validation_cases"] >= 3
    assert set(metrics[0]["tasks"]) == {"grade", "age"}
    assert (stock.model(NAMES[0]) / "fold_0" / "validation" / "classification.csv").is_file()


def test_the_stock_look_up_finds_the_trainer_in_the_plugin_folder(stock: Stock) -> None:
    for name in NAMES:
        assert f"Using trainer '{name}' from: {stock.variables['nnUNet_extTrainer']}" in stock.printed[name]


def test_the_stock_command_segments_with_the_joint_model(stock: Stock, tmp_path: Path) -> None:
    images = stock.workspace.raw / stock.dataset / "imagesTs"
    options = ("-d", "1", "-c", "3d_fullres", "-f", "0", "-tr", NAMES[0], "-p", PLANS, "-device", "cpu", "--disable_tta")
    in_one_process = ("-npp", "0", "-nps", "0")
    command = ("nnUNetv2_predict", "-i", str(images), "-o", str(tmp_path), *options, *in_one_process)
    _run_together({"predict": command}, stock.variables)
    predictor = Predictor.load(stock.model(NAMES[0]), device="cpu", tta=False)
    cases = [path.name.removesuffix("_0000.nii.gz") for path in sorted(images.iterdir())]
    assert f"new_{PERMUTED}" in cases
    for case_id in cases:
        image, mask = (SimpleITK.ReadImage(str(p)) for p in (images / f"{case_id}_0000.nii.gz", tmp_path / f"{case_id}.nii.gz"))
        assert mask.GetSize() == image.GetSize()
        assert mask.GetDirection() == pytest.approx(image.GetDirection(), abs=1e-5)
        ours = predictor(images / f"{case_id}_0000.nii.gz").segmentation
        assert np.mean(SimpleITK.GetArrayFromImage(mask) == ours) > 0.99  # stock nnU-Net adds its tiles up in half precision


def test_stock_plans_without_our_key_train_with_the_defaults(
    stock: Stock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in {**stock.variables, "nnUNet_results": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    trainer = _trainer(stock, {key: value for key, value in stock.plans.items() if key != "nnduet"})
    trainer.initialize()
    assert trainer.settings == TrainingSettings()
    assert (trainer.num_epochs, trainer.num_iterations_per_epoch) == (1000, 250)
    assert isinstance(trainer.network, JointNetwork)
    assert set(trainer.network.heads.names) == {"grade", "age"}
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    assert np.isfinite(trainer.train_step(next(trainer.dataloader_train))["loss"])


def test_plans_too_shallow_for_deep_supervision_are_refused(
    stock: Stock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in {**stock.variables, "nnUNet_results": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    plans = copy.deepcopy(stock.plans)
    network = plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    network.update({key: value[:2] for key, value in SMALL_NETWORK.items() if isinstance(value, list)}, n_stages=2)
    with pytest.raises(SettingsError, match="at least 3 stages, got 2"):
        _trainer(stock, plans).initialize()


def _trainer(stock: Stock, plans: dict[str, Any]) -> nnUNetTrainerMultitask:
    dataset_json = json.loads((stock.workspace.preprocessed / stock.dataset / "dataset.json").read_text())
    return nnUNetTrainerMultitask(plans, "3d_fullres", 0, dataset_json, torch.device("cpu"))


def _shrink(plans_file: Path) -> dict[str, Any]:
    """Edit the stock plans to a network and patch that take milliseconds."""
    plans: dict[str, Any] = json.loads(plans_file.read_text(encoding="utf-8"))
    configuration = plans["configurations"]["3d_fullres"]
    configuration.update(SMALL)
    configuration["architecture"]["arch_kwargs"].update(SMALL_NETWORK)
    plans_file.write_text(json.dumps(plans), encoding="utf-8")
    return edit_plans(plans_file, num_epochs=1, iterations_per_epoch=2, validation_iterations=1)


def _variables() -> dict[str, str]:
    """What the README tells users to set, and what keeps a small machine quick."""
    plugin = subprocess.run([BIN / "nnduet", "plugin-path"], capture_output=True, text=True, check=True).stdout.strip()
    variables = {"nnUNet_extTrainer": plugin, "nnUNet_n_proc_DA": "0", "nnUNet_def_n_proc": "1", "nnUNet_compile": "f"}
    variables |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}  # two commands share the cores
    return variables


def _run_together(commands: Mapping[str, tuple[str, ...]], variables: Mapping[str, str]) -> dict[str, str]:
    """Run stock commands side by side; what each printed."""
    environment = {**os.environ, **variables}
    processes = {
        key: subprocess.Popen(
            [BIN / command, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for key, (command, *arguments) in commands.items()
    }
    printed = {key: process.communicate(timeout=300)[0] for key, process in processes.items()}
    for key, process in processes.items():
        assert process.returncode == 0, f"{commands[key]}:\n{printed[key]}"
    return printed
